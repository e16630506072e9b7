"""The samples of a tar in the WebDataset layout: the members of one name up to its first dot, an image and what lies beside it.

`vitral.data.formats.shards` says what may lie there. Nothing in a tar is written to disk, and links in it are not followed.
"""

import io
import json
import os
import re
import tarfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vitral.data.far import far_file
from vitral.data.files import MAX_FILE_BYTES, ImageError
from vitral.data.filetypes import EXTENSIONS
from vitral.data.formats.files import MAP_ENDINGS
from vitral.data.ranges import is_url
from vitral.data.splits import SPLITS, split_of
from vitral.errors import VitralError

LABELS = (
    "label",
    "labels",
    "class",
    "cls",
    "category",
    "categories",
    "class_name",
    "classname",
    "target",
    "tags",
)  # of a .json
IDS = "panoptic"
"""Of a map of segments' ids; maps of class values end as those beside images in a folder do."""
PLACES = {"segments_info": "panoptic", "objects": "objects"}
"""Of a .json the fields that say what is where, and the kind of sample that they make."""
MOST_BESIDE = 2**24  # bytes of a .cls, .json or .txt


class Beside(NamedTuple):
    """A file beside an image in a shard."""

    offset: int
    size: int
    data: bytes


@dataclass
class Sample:
    """An image in a shard, and its target as texts or places."""

    name: str
    offset: int
    size: int
    data: bytes
    split: int
    """Which of SPLITS; -1 for none."""
    target: str | None = None
    kind: str = "none"
    """As `vitral.data.shards.Index.kind`."""
    told: Beside | None = None
    """A .json with objects or segments."""
    map: Beside | None = None
    """That of classes or segments."""


@dataclass
class Met:
    """What was met on the way through shards beside their samples."""

    bare: list[str] = field(default_factory=list)
    """Samples without an image, with what they have."""
    fields: set[str] = field(default_factory=set)
    """Of a .json those that can be a class, and txt for a text."""


def write_samples(
    out: Path, split: str, rows: Sequence[int], members: Callable[[int], Iterable[tuple[str, bytes]]], shard_bytes: int
) -> int:
    """Write samples to SPLIT-000000.tar, ... of about so many bytes each; returns how many these are. members: of a sample, by suffix."""
    left, shards = deque(rows), 0
    while left:
        with tarfile.open(out / f"{split}-{shards:06d}.tar", "w") as tar:
            while left and tar.offset < shard_bytes:
                i = left.popleft()
                for suffix, data in members(i):
                    member = tarfile.TarInfo(f"{i:09d}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        shards += 1
    return shards


def number_of(name: str) -> int:
    """Which sample `write_samples` gave this name, below that of its shard."""
    return int(name.rpartition("/")[2].partition(".")[0])


class opened:
    """A shard as a file, its size and time."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __enter__(self) -> tuple[Any, int, int]:
        if is_url(self.place):
            self.file, size = far_file(self.place)
            return self.file, size, 0
        try:
            self.file = open(self.place, "rb")
            status = os.fstat(self.file.fileno())
            return self.file, status.st_size, status.st_mtime_ns
        except OSError as error:
            raise VitralError(f"{self.place}: cannot be read ({error.strerror}); check the path") from error

    def __exit__(self, *how: object) -> None:
        self.file.close()


def samples(file: Any, place: str, shard: str, label: str | None, met: Met) -> Iterator[Sample]:
    """The samples of a tar, in order. met: is added to."""
    split, size = _split(shard), _size(file)
    try:
        with tarfile.open(fileobj=file, mode="r:", errorlevel=2) as tar:
            group: dict[str, tarfile.TarInfo] = {}
            key = last = ""
            for member in tar:
                last = member.name
                if member.islnk() or member.issym():
                    met.bare.append(f"{shard}/{member.name} (a link, which is not followed)")
                if not member.isreg():
                    continue
                if member.issparse():
                    raise VitralError(f"{place}: {member.name!r} is stored with holes; write the tar without --sparse")
                if member.offset_data + member.size > size:
                    raise VitralError(f"{place}: is cut short in {member.name!r}; copy or download it again")
                folder, _, base = member.name.rpartition("/")
                stem, _, kind = base.partition(".")
                if f"{folder}/{stem}" != key and group:
                    yield from _sample(tar, group, shard, split, label, met)
                    group = {}
                key = f"{folder}/{stem}"
                if kind.lower() in group:
                    raise VitralError(f"{place}: has {member.name!r} twice; give every sample a name of its own")
                group[kind.lower()] = member
            if group:
                yield from _sample(tar, group, shard, split, label, met)
            file.seek(tar.offset)  # where tarfile stopped, by zeros as a tar ends, or by anything that is no header
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise VitralError(f"{place}: is cut short or damaged after {last!r}; copy or download it again")
    except (tarfile.TarError, EOFError, UnicodeError, ValueError, OverflowError) as error:
        if isinstance(error, VitralError):
            raise
        raise VitralError(
            f"{place}: is no readable tar ({error}); shards are not compressed, and whole: write it again"
        ) from error


def _size(file: Any) -> int:
    size = int(file.seek(0, io.SEEK_END))
    file.seek(0)
    return size


def _split(shard: str) -> int:
    """Which of SPLITS the words in a shard's name or its folders' mean; -1 for none."""
    for part in reversed(shard.split("/")[3 if is_url(shard) else 0 :]):  # without a URL's host
        for word in re.split(r"[-_.\s]+", part.removesuffix(".tar")):
            if (found := split_of(word)) is not None:
                return SPLITS.index(found)
    return -1


def _sample(
    tar: tarfile.TarFile, group: dict[str, tarfile.TarInfo], shard: str, split: int, label: str | None, met: Met
) -> Iterator[Sample]:
    """The sample of these members, by their suffixes; none where no image is among them."""
    images = [group[kind] for kind in group if f".{kind}" in EXTENSIONS]
    if not images:
        first = next(iter(group.values())).name
        met.bare.append(f"{shard}/{first}" + (f" and {len(group) - 1} beside it" if len(group) > 1 else ""))
        return
    if len(images) > 1:
        raise VitralError(
            f"{shard}: {images[0].name!r} and {images[1].name!r} are images of one sample; keep one, or name a map as docs/scale.md says"
        )
    image = images[0]
    name = f"{shard}/{image.name}"
    _check_size(image, name)
    made = Sample(name, image.offset_data, image.size, _bytes(tar, image), split)
    if "json" in group and label != "txt":
        _told(made, group["json"], _small(tar, group["json"], name), label, met)
    if "txt" in group:
        met.fields.add("txt")
    if "cls" in group and label is None and made.told is None:
        _classed(made, tar, group["cls"])
    if "txt" in group and label == "txt":
        _classed(made, tar, group["txt"])
    guessed = label is None and "cls" not in group and made.kind in ("classes", "sets")
    if (there := _map_in(group)) is not None:
        ending, member = there
        _check_size(member, name)
        if made.kind == "none" or guessed:
            made.target, made.kind = None, "panoptic" if ending == IDS else "maps"
        if made.kind in ("panoptic", "maps"):
            made.map = Beside(member.offset_data, member.size, _bytes(tar, member))
    yield made


def _map_in(group: dict[str, tarfile.TarInfo]) -> tuple[str, tarfile.TarInfo] | None:
    """The map of a sample, with the word in its suffix."""
    for ending in (IDS, *MAP_ENDINGS):
        for kind, member in group.items():
            if kind.startswith(f"{ending}.") and kind.removeprefix(ending) in EXTENSIONS:
                return ending, member
    return None


def _check_size(member: tarfile.TarInfo, name: str) -> None:
    if member.size > MAX_FILE_BYTES:
        raise ImageError(f"{name}: {member.name!r} has {member.size:,} bytes, too many for one image", "too_large")


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None, "a regular member"
    return file.read()


def _small(tar: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> bytes:
    if member.size > MOST_BESIDE:
        raise VitralError(f"{name}: {member.name!r} has {member.size:,} bytes, too many for a label")
    return _bytes(tar, member)


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> str:
    return _decoded(_small(tar, member, name), member, name)


def _classed(sample: Sample, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    """The class that a text beside an image names; none where it is empty."""
    sample.target = _text(tar, member, sample.name).strip() or None
    sample.kind = "none" if sample.target is None else "classes"


def _decoded(data: bytes, member: tarfile.TarInfo, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise VitralError(f"{name}: {member.name!r} is not UTF-8 text; write the shard again") from error


def _told(sample: Sample, member: tarfile.TarInfo, data: bytes, label: str | None, met: Met) -> None:
    """What a .json says of its image."""
    try:
        told = json.loads(_decoded(data, member, sample.name))
    except (ValueError, RecursionError) as error:
        raise VitralError(f"{sample.name}: {member.name!r} is no JSON ({error}); write the shard again") from error
    if not isinstance(told, dict):
        return
    met.fields |= {key for key, value in told.items() if value is not None and not isinstance(value, dict)}
    for place, kind in PLACES.items():
        if isinstance(told.get(place), dict | list):
            sample.kind, sample.told = kind, Beside(member.offset_data, member.size, data)
            return
    keys = [label] if label is not None else [key for key in LABELS if key in told]
    value = next((told[key] for key in keys if key in told), None)
    if isinstance(value, list):
        sample.target, sample.kind = json.dumps(sorted({str(each) for each in value})), "sets"
    elif value not in (None, "") and not isinstance(value, dict):
        sample.target, sample.kind = str(value), "classes"
