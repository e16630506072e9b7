"""Tar shards in the WebDataset layout, with an index by which any image is read alone, in any order, here or behind a URL.

    train-000000.tar: cat-17.jpg, cat-17.cls, dog-3.jpg, dog-3.cls, ...     https://github.com/webdataset/webdataset

A sample is the members of one name up to its first dot: an image, and beside it `.cls` (a class: its name, or its number in classnames.txt), or
`.json` (`label`, or `labels` for several; `objects` as in Parquet with boxes and masks), or `.txt` (a caption; a class where `label_column` says
txt), or `.mask.png` (also seg, label, gt: a map of class values), or `.panoptic.png` (a map of segments' ids) with `segments_info` in the .json as
COCO has them. img2dataset's and ImageNet's shards are so. Splits are told by the words in a shard's name and its folders'.

The index is made once, by reading every image and map to its end: `vitral data index SHARDS`, or `vitral data pack` with the shards. It lies beside
them, or in a folder of its own; `vitral.data.shards` says of which files.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vitral.data.files import cache_folder
from vitral.data.formats.looks import Look, look
from vitral.data.formats.maps import Colours
from vitral.data.formats.masks import TABLE, colours_in
from vitral.data.formats.samples import Met, Sample, opened, samples
from vitral.data.images import content_hash
from vitral.data.progress import OnProgress
from vitral.data.ranges import fetch, fetch_if_there, file_system, is_url
from vitral.data.scan import in_threads
from vitral.data.shards import (
    ANNOTATED,
    BESIDE,
    BESIDES,
    INDEX,
    LAYOUT,
    NAMES,
    ROW,
    ROWS,
    VALUE,
    VALUES,
    Index,
    OldIndexError,
    read_index,
    refuse_older,
)
from vitral.data.walk import compressed_tars
from vitral.errors import VitralError, counted, some

CLASSES = "classnames.txt"
FEW = 8  # folders that may be splits with shards; more are classes
AT_ONCE = 64  # images that are decoded side by side


def shards_in(data: str) -> list[str]:
    """The tar files of a folder (to any depth), a tar file, or a URL with {000000..000031}, sorted; [] where there are none."""
    if found := re.search(r"\{(\d+)\.\.(\d+)\}", data):
        first, last = found.groups()
        if int(last) - int(first) > 10**6:
            raise VitralError(f"{data}: names over a million shards; give fewer, larger ones")
        numbers = [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
        return [data[: found.start()] + number + data[found.end() :] for number in numbers]
    if is_url(data):
        if data.endswith(".tar"):
            return [data]
        kind = data.partition("://")[0]
        if kind in ("http", "https"):
            return []
        return [f"{kind}://{path}" for path in sorted(file_system(data).glob(f"{data.rstrip('/')}/**/*.tar"))]
    path = Path(data)
    if path.is_file():
        return [path.name] if path.suffix == ".tar" else []
    return sorted(each.relative_to(path).as_posix() for each in path.rglob("*.tar") if each.is_file())


def recognised(data: str) -> bool:
    """Whether the data are shards, or an index of some."""
    if is_url(data):
        return True
    path = Path(data)
    if path.is_dir():
        splits = [each for each in path.iterdir() if each.is_dir()]
        inside = any(any(each.glob("*.tar")) for each in splits) if len(splits) <= FEW else False
        return (path / INDEX).is_file() or any(path.glob("*.tar")) or inside
    return path.suffix == ".tar" or re.search(r"\{\d+\.\.\d+\}\.tar$", data) is not None


def place_of(data: str) -> Path:
    """Where the index of local shards is looked for, and written if it can be."""
    path = Path(os.path.abspath(data))
    return path if path.is_dir() else path.parent / f"{path.name}-index"


def open_index(data: str, room: int, progress: OnProgress | None = None, label: str | None = None) -> Index:
    """The index of the data; made on the way where there is none of this version yet, or its shards changed. label: as in `write_index`;
    None takes an index made for any."""
    here = cache_folder() / "indices" / re.sub(r"\W+", "-", data)
    if is_url(data) and not shards_in(data):
        return read_index(_copied(data.rstrip("/"), here), room)
    own = here if is_url(data) else place_of(data)
    other = cache_folder() / "indices" / re.sub(r"\W+", "-", str(own))
    for place in (own, other):
        if (place / INDEX).is_file():
            try:
                index = read_index(str(place), room)
                if label in (None, index.label) and _unchanged(index):
                    return index
            except OldIndexError:
                if not shards_in(data):
                    raise
    place = own if is_url(data) or os.access(own if own.exists() else own.parent, os.W_OK) else other
    write_index(data, place, progress, label)
    return read_index(str(place), room)


def _copied(url: str, here: Path) -> str:
    """A copy here of the index behind a URL, which says where its shards are."""
    if (told := fetch_if_there(f"{url}/{INDEX}")) is None:
        raise VitralError(
            f"{url}/{INDEX}: is not there, or may not be read; check the address, put an index there by vitral data index, or name the shards: "
            f"{url}/train-{{000000..000031}}.tar"
        )
    try:
        index = json.loads(told)
        whole = json.dumps(index | {"root": index["root"] or url})
        refuse_older(index, index["root"] or url)
        files = (ROWS, NAMES, BESIDES, VALUES) if index["kind"] in ANNOTATED else (ROWS, NAMES)
    except OldIndexError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise VitralError(f"{url}/{INDEX}: is no index of shards ({error}); make it with vitral data index") from error
    if not (here / INDEX).is_file() or (here / INDEX).read_text() != whole:
        for name in files:
            write_whole(here / name, fetch(f"{url}/{name}"))
        write_whole(here / INDEX, whole.encode())
    return str(here)


def tables_here(tables: str, names: Sequence[str]) -> Path:
    """The folder with the tables of classes; from a URL the first of these names that is there is fetched."""
    if not is_url(tables):
        return Path(tables)
    here = cache_folder() / "indices" / re.sub(r"\W+", "-", f"{tables}-tables")
    for name in names:
        if (table := fetch_if_there(f"{tables}/{name}")) is not None:
            write_whole(here / name, table)
            break
        (here / name).unlink(missing_ok=True)
    return here


def _unchanged(index: Index) -> bool:
    """Whether the shards here have the sizes and times that the index knows."""
    ranges = index.ranges
    for file, size, time in zip(range(len(ranges.files)), ranges.sizes, ranges.times, strict=True):
        if is_url(place := ranges.place(file)):
            continue
        try:
            status = os.stat(place)
        except OSError as error:
            raise VitralError(
                f"{place}: a shard is gone ({error.strerror}); restore it, or make the index again"
            ) from error
        if (status.st_size, status.st_mtime_ns) != (size, time):
            return False
    return True


class Written(NamedTuple):
    """An index that was written."""

    images: int
    skipped: list[tuple[str, str]]
    """(name, reason) of the images that were left out."""
    bare: list[str]
    """Samples that were left out for want of an image."""


def write_index(
    data: str,
    out: Path,
    progress: OnProgress | None = None,
    label: str | None = None,
    skipped: Sequence[tuple[str, str]] = (),
) -> Written:
    """Read all shards once and write their index to a folder. label: the field of a .json, or txt, that is the class. skipped: names and reasons of
    images that should be in the shards and could not be read.

    Raises VitralError for a tar that is damaged, compressed, or holds no image; images that cannot be read are left out and listed.
    """
    shards = shards_in(data)
    if not shards:
        there = [path.name for path in Path(data).rglob("*")] if Path(data).is_dir() else [data]
        if (said := compressed_tars(there)) is not None:
            raise VitralError(f"{data}: {said}")
        raise VitralError(
            f"{data}: holds no .tar; give a folder of shards, or a URL such as https://host/train-{{000000..000031}}.tar"
        )
    base = Path(os.path.abspath(data))
    root = "" if is_url(data) else str(base if base.is_dir() else base.parent)
    tables = root or _above(data)
    out.mkdir(parents=True, exist_ok=True)
    temporary = [out / f"{name}.tmp" for name in (ROWS, NAMES, BESIDES, VALUES)]
    try:
        told, bare = _write_rows(data, tables, shards, temporary, progress, label, skipped)
        for path in temporary[: None if told["kind"] in ANNOTATED else 2]:
            os.replace(path, path.with_suffix(""))
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)
    about = {
        "layout": LAYOUT,
        "root": "" if os.path.abspath(out) == root else root,
        "tables": "" if root else tables,
        "classes": _classes(tables),
        "label": label,
    }
    write_whole(out / INDEX, json.dumps(about | told).encode())
    return Written(told["images"], told["skipped"], bare)


def _write_rows(
    data: str,
    tables: str,
    shards: list[str],
    files: list[Path],
    progress: OnProgress | None,
    label: str | None,
    lost: Sequence[tuple[str, str]],
) -> tuple[dict[str, Any], list[str]]:
    """Write the rows, the names and what lies beside the images of all shards to these four files; returns what index.json says of them, and the
    samples without an image."""
    known: list[dict[str, Any]] = []
    texts: dict[str, int] = {}
    skipped = [*lost]
    kinds: dict[str, tuple[int, str]] = {}  # of each how many there are, and the first
    met = Met()
    count = length = 0
    colours: Colours | None = None
    with contextlib.ExitStack() as open_files:
        rows, names, besides, values = (open_files.enter_context(open(path, "wb")) for path in files)
        for number, shard in enumerate(shards):
            place = shard if is_url(shard) else str(Path(tables, shard))
            with opened(place) as (file, size, time):
                known.append({"name": shard, "size": size, "time": time})
                for group in _in_groups(samples(file, place, shard, label, met)):
                    if colours is None and any(sample.kind == "maps" for sample in group):
                        colours = colours_in(tables_here(tables, (TABLE,)))
                    for sample, one in zip(group, _looked(group, colours or ()), strict=True):
                        if isinstance(one, VitralError):
                            skipped.append((sample.name, str(one).removeprefix(f"{sample.name}: ")))
                            continue
                        info, beside, held = one
                        so_far, first = kinds.get(sample.kind, (0, sample.name))
                        kinds[sample.kind] = so_far + 1, first
                        target = -1 if sample.target is None else texts.setdefault(sample.target, len(texts))
                        called = sample.name.encode(errors="surrogateescape")
                        length += len(called)
                        count += 1
                        row = (number, sample.offset, sample.size, length, target, info.height, info.width, info.channels, info.bit_depth,
                               sample.split, content_hash(sample.data))  # fmt: skip
                        rows.write(np.array([row], ROW).tobytes())
                        names.write(called)
                        if beside is not None:
                            besides.write(np.array([beside], BESIDE).tobytes())
                            values.write(np.array(list(held.items()), VALUE).tobytes())
            if progress is not None:
                progress(number + 1, len(shards))
        for each in (rows, names, besides, values):
            each.flush()
            os.fsync(each.fileno())
    if not count:
        why = f"; {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise VitralError(f"{data}: no image in its {counted(len(shards), 'shard')} can be read{why}")
    if label is not None and label not in met.fields:
        there = some(sorted(met.fields)) or "none"
        raise VitralError(f"{data}: no sample has the field {label!r}; fields that can be a class: {there}")
    return {
        "images": count, "names": length, "kind": _only(kinds, data), "bare": len(met.bare), "texts": list(texts), "skipped": skipped,
        "shards": known, "colours": colours or (),
    }, met.bare  # fmt: skip


def _only(kinds: dict[str, tuple[int, str]], data: str) -> str:
    """The one kind that all samples have. kinds: of each how many there are, and the first."""
    if len(kinds) > 1:
        fewest = min(kinds, key=lambda kind: kinds[kind])
        (few, first), total = kinds[fewest], sum(so_far for so_far, _ in kinds.values())
        raise VitralError(
            f"{data}: some samples have {' and some '.join(sorted(kinds))}; give every one the same kind of target: "
            f"{few:,} of {total:,} with {fewest}, the first {first}"
        )
    return next(iter(kinds))


def write_whole(path: Path, content: bytes) -> None:
    """A file that is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise VitralError(
            f"{path}: could not be written ({error.strerror}); free some space, or check the folder"
        ) from error


def _above(url: str) -> str:
    """Where the tables of classes lie: in the folder of shards, or in that of the shards that are named."""
    plain = url.partition("{")[0]
    return plain.rpartition("/")[0] if plain != url or url.endswith(".tar") else url.rstrip("/")


def _classes(tables: str) -> list[str]:
    """The lines of classnames.txt."""
    place = tables_here(tables, (CLASSES,)) / CLASSES
    return place.read_text(encoding="utf-8").splitlines() if place.is_file() else []


def _looked(group: list[Sample], colours: Colours) -> list[Look | VitralError]:
    return in_threads(lambda i: look(group[i], colours), len(group), None)


def _in_groups(found: Iterator[Sample]) -> Iterator[list[Sample]]:
    group: list[Sample] = []
    for sample in found:
        group.append(sample)
        if len(group) == AT_ONCE:
            yield group
            group = []
    if group:
        yield group
