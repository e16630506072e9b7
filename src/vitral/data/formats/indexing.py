"""The index of tar shards is written: every image and map is read to its end once, `AT_ONCE` side by side, at constant memory.

`vitral.data.formats.shards` says what shards and their index hold, and finds an index that is there.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from vitral.data.files import write_whole
from vitral.data.formats.looks import Look, look
from vitral.data.formats.maps import Colours
from vitral.data.formats.masks import TABLE, colours_in
from vitral.data.formats.samples import Met, Sample, opened, samples
from vitral.data.formats.shard_places import listed_classes, path_of, root_of, shards_in, tables_here
from vitral.data.images import content_hash
from vitral.data.progress import OnProgress
from vitral.data.ranges import is_url
from vitral.data.scan import in_threads
from vitral.data.shards import BESIDE, BESIDES, INDEX, LAYOUT, NAMES, ROW, ROWS, TOLD, VALUE, VALUES, files_of
from vitral.data.walk import compressed_tars
from vitral.errors import VitralError, counted, some

AT_ONCE = 64  # images that are decoded side by side


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
    tables = root_of(data)
    root = "" if is_url(data) else tables
    # Others may make it, too.
    temporary = [out / f"{name}.tmp{os.getpid()}" for name in (ROWS, NAMES, BESIDES, VALUES, TOLD)]
    try:
        out.mkdir(parents=True, exist_ok=True)
        told, bare = _write_rows(data, tables, shards, temporary, progress, label, skipped)
        for path in temporary:
            if path.stem in files_of(told):
                os.replace(path, path.with_suffix(""))
    except OSError as error:
        raise VitralError(
            f"{out}: its index could not be made ({error}); free some space, or check the folder"
        ) from error
    finally:
        for path in temporary:
            with contextlib.suppress(OSError):
                path.unlink()
    about = {
        "layout": LAYOUT,
        "root": "" if os.path.abspath(out) == root else root,
        "tables": "" if root else tables,
        "classes": listed_classes(tables),
        "label": label,
    }
    write_whole(out / INDEX, json.dumps(about | told).encode())
    return Written(told["images"], told["skipped"], bare)


class _Rows:
    """The rows, the names and what lies beside the images, in files, written as the images are met; of each image nothing is kept here."""

    def __init__(self, files: Sequence[BinaryIO]) -> None:
        self.files = files
        self.rows, self.names, self.besides, self.values, self.told = files
        self.kinds: dict[str, tuple[int, str]] = {}  # of each how many there are, and the first
        self.texts: dict[str, int] = {}  # the number of each class
        self.count = self.length = 0  # images; bytes of their names

    def add(self, shard: int, sample: Sample, look: Look) -> None:
        info, beside, values = look
        so_far, first = self.kinds.get(sample.kind, (0, sample.name))
        self.kinds[sample.kind] = so_far + 1, first
        target = -1 if sample.target is None else self.texts.setdefault(sample.target, len(self.texts))
        name = sample.name.encode(errors="surrogateescape")
        self.length += len(name)
        self.count += 1
        row = (shard, sample.offset, sample.size, self.length, target, info.height, info.width, info.channels, info.bit_depth, sample.split,
               content_hash(sample.data))  # fmt: skip
        self.rows.write(np.array([row], ROW).tobytes())
        self.names.write(name)
        if beside is not None:
            self.besides.write(np.array([beside], BESIDE).tobytes())
            self.values.write(np.array(list(values.items()), VALUE).tobytes())
        if sample.told is not None:
            self.told.write(sample.told.data)

    def sync(self) -> None:
        """Until all of it is on the disk."""
        for file in self.files:
            file.flush()
            os.fsync(file.fileno())


def _write_rows(
    data: str,
    tables: str,
    shards: list[str],
    files: list[Path],
    progress: OnProgress | None,
    label: str | None,
    lost: Sequence[tuple[str, str]],
) -> tuple[dict[str, Any], list[str]]:
    """Write `_Rows` of all shards to these files; returns what index.json says of them, and the samples without an image."""
    known: list[dict[str, Any]] = []
    skipped = [*lost]
    met = Met()
    colours = cache(lambda: colours_in(tables_here(tables, (TABLE,))))
    with contextlib.ExitStack() as open_files:
        written = _Rows([open_files.enter_context(open(path, "wb")) for path in files])
        for number, shard in enumerate(shards):
            place = shard if is_url(shard) else str(Path(tables, shard))
            with opened(place) as (file, size, time):
                known.append({"name": shard, "size": size, "time": time})
                for sample, found in _looked(samples(file, place, path_of(shard), label, met), colours):
                    if isinstance(found, VitralError):
                        skipped.append((sample.name, str(found).removeprefix(f"{sample.name}: ")))
                    else:
                        written.add(number, sample, found)
            if progress is not None:
                progress(number + 1, len(shards))
        written.sync()
        told = written.told.tell()
    if not written.count:
        why = f"; {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        if met.bare:
            why += f"; {met.bare[0]}: no image, for a sample is the members of one name up to its first dot, next to each other"
        raise VitralError(f"{data}: no image in its {counted(len(shards), 'shard')} can be read{why}")
    if label is not None and label not in met.fields:
        there = some(sorted(met.fields)) or "none"
        raise VitralError(f"{data}: no sample has the field {label!r}; fields that can be a class: {there}")
    kind = _only(written.kinds, data)
    return {
        "images": written.count, "names": written.length, "kind": kind, "bare": len(met.bare), "texts": list(written.texts), "skipped": skipped,
        "shards": known, "told": told, "colours": colours() if kind == "maps" else (),
    }, met.bare  # fmt: skip


def _looked(found: Iterator[Sample], colours: Callable[[], Colours]) -> Iterator[tuple[Sample, Look | VitralError]]:
    """Each sample, and what is seen of it: `AT_ONCE` of them side by side. colours: of the maps, called where there are some."""
    while group := list(islice(found, AT_ONCE)):
        known = colours() if any(sample.kind == "maps" for sample in group) else ()
        yield from zip(group, in_threads(partial(_nth, group, known), len(group), None), strict=True)


def _nth(group: Sequence[Sample], colours: Colours, i: int) -> Look | VitralError:
    return look(group[i], colours)


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
