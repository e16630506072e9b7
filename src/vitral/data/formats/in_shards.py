"""Annotations in tar shards: what lies beside each image, and the table of classes beside the shards.

- objects: 1.jpg and 1.json, with `objects` as the column of that name in Parquet; classnames.txt
- maps: 1.jpg and 1.mask.png, of class values; classes.json, or a list of names, as beside a folder of maps
- segments: 1.jpg, 1.panoptic.png, of ids, and 1.json, with COCO's `segments_info`; classes.json, with COCO's `categories`
"""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from vitral.data.annotated import AnnotatedData, ClassTable, Fault, Kind
from vitral.data.formats import masks, panoptic, parquet
from vitral.data.formats.coco import class_table
from vitral.data.formats.draft import Draft, Drafted
from vitral.data.formats.files import parse_json, read_json
from vitral.data.formats.indexing import write_index
from vitral.data.formats.maps import Counted, ids_picture, values_of
from vitral.data.formats.samples import write_samples
from vitral.data.formats.shard_places import CLASSES, recognised, tables_here
from vitral.data.formats.shards import open_index
from vitral.data.formats.write import Writing, dump_json, map_picture, write_text
from vitral.data.progress import OnProgress
from vitral.data.ranges import ROOM, StoredRange, digest_of, is_url
from vitral.data.scan import in_threads
from vitral.data.shards import VALUE, VALUES, Index, ShardImages
from vitral.data.splits import SPLITS
from vitral.errors import VitralError

SHARD = 256 * 10**6  # bytes, about
_CATEGORIES = '{"categories": [{"id": 1, "name": "sky", "isthing": 0}, {"id": 2, "name": "person", "isthing": 1}]}'


def holds_annotations(data: str | Path) -> bool:
    """Whether the data are shards with objects, maps or segments."""
    return recognised(str(data)) and open_index(str(data), 0).kind in _HELD


def read(data: str | Path, progress: OnProgress | None = None, room: int = ROOM) -> Drafted:
    """A folder of shards, one, or some behind a URL. room: bytes of these that are kept here."""
    index = open_index(str(data), room)
    if index.kind not in _HELD:
        raise VitralError(
            f"{data}: its shards hold no objects, maps or segments ({index.kind}); see docs/annotations.md"
        )
    held, images = _HELD[index.kind], ShardImages(index)
    root = data if is_url(data) else Path(index.ranges.root)
    drafted = Drafted(root, held.kind, ClassTable((), ()), [], [], images=images)
    drafted.faults += [Fault("unreadable_image", name, why) for name, why in index.skipped]
    for name, split in zip(images.names, index.rows["split"].tolist(), strict=True):
        drafted.drafts.append(Draft(name, name, SPLITS[split] if split >= 0 else None))
    try:
        held.read(index, drafted, progress)
    except VitralError as error:
        if is_url(data) and str(data).rstrip("/") not in str(error):
            error.args = (f"{data}: {error}",)
        raise
    return drafted


def write(data: AnnotatedData, out: Path) -> None:
    """SPLIT-000000.tar, ..., the table of classes, and the index; images without a split are in train."""
    writing, held, numbers = Writing(data, out), _BY_KIND[data.kind], count(1)
    out.mkdir(parents=True, exist_ok=True)

    def members(i: int) -> Iterator[tuple[str, bytes]]:
        name, one = writing.names[i], data.annotated[i]
        yield name.rpartition(".")[2], data.images.encoded(i)
        told, maps = held.beside(data, i, numbers)
        yield from maps.items()
        yield "json", json.dumps({"name": name, "height": one.height, "width": one.width} | told).encode()

    for split, rows in writing.splits("train"):
        write_samples(out, str(split), rows, members, SHARD)
    held.write_table(data, out)
    write_index(str(out), out)


def _told(index: Index, drafts: list[Draft], progress: OnProgress | None) -> list[dict[str, Any]]:
    """The .json beside each image, from the index, or of an old one from the shards; empty where there is none."""
    ends = np.cumsum(index.beside["told_size"], dtype=np.int64)

    def read(i: int, stored: StoredRange) -> bytes:
        if index.told is None:
            return stored.read()
        data = index.told[ends[i] - stored.size : ends[i]].tobytes()
        if digest_of(data) != stored.known:
            raise VitralError(f"{stored.name}: the index has its .json damaged; make it again: vitral data index")
        return data

    def told(i: int) -> dict[str, Any]:
        stored = _beside(index, i, "told", drafts[i].name)
        if stored is None:
            return {}
        found = parse_json(read(i, stored).decode(errors="replace"), stored.name)
        if not isinstance(found, dict):
            raise VitralError(f"{stored.name}: the .json beside it is no mapping; write the shard again")
        return found

    return in_threads(told, len(drafts), progress, waiting=is_url(index.ranges.place(0)))


def _beside(index: Index, i: int, what: Literal["told", "map"], name: str) -> StoredRange | None:
    row = index.beside[i]
    if not row[what]:
        return None
    start, size, digest = int(row[what]), int(row[f"{what}_size"]), row[f"{what}_digest"].tobytes()
    return StoredRange(name, index.ranges, int(index.rows["shard"][i]), start, size, digest)


def _set_maps(index: Index, drafts: list[Draft]) -> None:
    """The map of each draft, and what it holds as far as the index knows."""
    values, end = np.fromfile(Path(index.root, VALUES), VALUE), 0
    for i, (draft, row) in enumerate(zip(drafts, index.beside, strict=True)):
        draft.map = _beside(index, i, "map", f"map of {draft.name}")
        start, end = end, end + int(row["values"])
        if end > start:
            there = dict(zip(values["value"][start:end].tolist(), values["pixels"][start:end].tolist(), strict=True))
            draft.counted = Counted(there, (int(row["height"]), int(row["width"])))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _read_objects(index: Index, drafted: Drafted, progress: OnProgress | None) -> None:
    rows, drafts, drafted.drafts = [], drafted.drafts, []
    for draft, told in zip(drafts, _told(index, drafts, progress), strict=True):
        rows.append({
            "image": True, "where": draft.name, "called": draft.name, "height": told.get("height"), "width": told.get("width"),
            "objects": parquet.listed(told.get("objects"), draft.name),
        })  # fmt: skip
    found = parquet.drafts(str(drafted.root), [("shards", rows, index.classes or None)], drafted)
    for plain, (draft, _) in zip(drafts, found, strict=True):
        draft.name, draft.split = plain.name, plain.split


def _objects(data: AnnotatedData, i: int, numbers: Iterator[int]) -> tuple[dict[str, Any], dict[str, bytes]]:
    return {"objects": [parquet.told(each, next(numbers)) for each in data.annotated[i].objects]}, {}


def _write_names(data: AnnotatedData, out: Path) -> None:
    write_text(out / CLASSES, "".join(f"{name}\n" for name in data.classes.names))


def _read_maps(index: Index, drafted: Drafted, progress: OnProgress | None) -> None:
    tables = tables_here(index.tables, masks.NAMES)
    _set_maps(index, drafted.drafts)
    as_counted = masks.colours_in(tables) == index.colours
    for draft in drafted.drafts:
        if draft.map is not None:
            draft.where = draft.map.name
        draft.counted = draft.counted if as_counted else None
    masks.understand(drafted, tables, progress)


def _maps(data: AnnotatedData, i: int, numbers: Iterator[int]) -> tuple[dict[str, Any], dict[str, bytes]]:
    return {}, {"mask.png": _png(map_picture(values_of(data, i)))}


def _read_panoptic(index: Index, drafted: Drafted, progress: OnProgress | None) -> None:
    rows = _told(index, drafted.drafts, progress)
    table = tables_here(index.tables, (masks.TABLE,)) / masks.TABLE
    found = read_json(table, masks.TABLE) if table.is_file() else None
    if not isinstance(found, dict) or "categories" not in found:
        raise VitralError(
            f"{index.tables}/{masks.TABLE}: write the classes of the segments' category_id there: {_CATEGORIES}"
        )
    listed = {"categories": found["categories"], "annotations": panoptic.segments_in(rows)}
    drafted.classes, known = class_table(listed, masks.TABLE, drafted.understood)
    _set_maps(index, drafted.drafts)
    for draft, row in zip(drafted.drafts, rows, strict=True):
        if draft.map is None:
            drafted.faults.append(Fault("map", draft.name, "has no map"))
        else:
            panoptic.add_segments(row, draft.name, known, draft, drafted)
    panoptic.compare(drafted, progress)


def _segments(data: AnnotatedData, i: int, numbers: Iterator[int]) -> tuple[dict[str, Any], dict[str, bytes]]:
    ids, segments = panoptic.segments_of(data, i)
    return {"segments_info": segments}, {"panoptic.png": _png(ids_picture(ids))}


def _write_categories(data: AnnotatedData, out: Path) -> None:
    dump_json(out / masks.TABLE, {"categories": panoptic.table(data)})


@dataclass(frozen=True)
class _Held:
    """One kind of annotations in shards."""

    kind: Kind
    holds: frozenset[str]
    """As `vitral.data.formats.AnnotatedFormat.holds`."""
    read: Callable[[Index, Drafted, OnProgress | None], None]
    """Completes the drafts, one for each image, and sets the classes."""
    beside: Callable[[AnnotatedData, int, Iterator[int]], tuple[dict[str, Any], dict[str, bytes]]]
    """What the .json of image i says, and its maps by suffix; with numbers for the objects of all images."""
    write_table: Callable[[AnnotatedData, Path], None]
    """Writes the table of classes into the folder of the shards."""


_HELD = {
    "objects": _Held("objects", parquet.HOLDS, _read_objects, _objects, _write_names),
    "maps": _Held("semantic", masks.HOLDS, _read_maps, _maps, masks.write_table),
    "panoptic": _Held("panoptic", panoptic.HOLDS, _read_panoptic, _segments, _write_categories),
}
"""By the index's kind."""
_BY_KIND = {held.kind: held for held in _HELD.values()}
HOLDS = {kind: held.holds for kind, held in _BY_KIND.items()}
