"""COCO's panoptic format (https://cocodataset.org/#format-data): a PNG of segment ids an image, and a JSON that says what each segment is.

    annotations/panoptic_train.json, annotations/panoptic_train/1.png, train/1.jpg

A pixel's id is R + 256 G + 65536 B, 0 is void; ids are an image's own.
"""

import posixpath
from pathlib import Path
from typing import Any

import numpy as np

from vitral.data.annotated import AnnotatedData, ClassTable, Fault, Segment
from vitral.data.formats.coco import categories, class_table, is_panoptic, listed_images, merged, root_of
from vitral.data.formats.draft import Draft, Drafted
from vitral.data.formats.files import Tree, read_json, rows_of, whole
from vitral.data.formats.maps import read_ids, save_ids, values_of
from vitral.data.formats.write import Writing, dump_json
from vitral.data.progress import OnProgress
from vitral.data.scan import in_threads
from vitral.errors import VitralError, some

HOLDS = frozenset({"values", "segments", "crowd", "ids", "classes", "splits", "groups"})


def read(data: Path, progress: OnProgress | None = None) -> Drafted:
    """A folder, or one JSON file of it; every map is read and compared with the list of its segments."""
    tree = Tree(root_of(data))
    names = [data.absolute().relative_to(tree.root).as_posix()] if data.is_file() else tree.files(".json")
    loaded = [(name, found) for name in names if is_panoptic(found := read_json(tree.root / name, name))]
    if not loaded:
        raise VitralError(f"{data}: holds no COCO JSON of panoptic segments (segments_info)")
    drafted = Drafted(tree.root, "panoptic", ClassTable((), ()), [], [])
    tables = [
        (name, *class_table(found | {"annotations": _segments(found)}, name, drafted.understood))
        for name, found in loaded
    ]
    drafted.classes = merged([(name, table) for name, table, _ in tables], drafted)
    for (name, found), (_, table, known) in zip(loaded, tables, strict=True):
        place = [drafted.classes.by_name[each] for each in table.names]
        _read_one(
            tree, name, found, {each: place[index] for each, index in known.items()}, drafted, alone=len(loaded) == 1
        )
    without = [draft for draft in drafted.drafts if draft.map is None]
    drafted.faults += [Fault("map", draft.where, "has no map") for draft in without]
    drafted.drafts = [draft for draft in drafted.drafts if draft.map]
    _compare(tree, drafted, progress)
    return drafted


def _segments(found: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [each for row in found["annotations"] if isinstance(row, dict) for each in row.get("segments_info") or ()]
    return [each for each in rows if isinstance(each, dict)]


def _read_one(
    tree: Tree, name: str, found: dict[str, Any], classes: dict[int, int], drafted: Drafted, *, alone: bool
) -> None:
    maps = {each for each in tree.images if each.lower().endswith(".png")}
    by_id = listed_images(tree, name, found, drafted, alone=alone)
    by_key = {str(key): draft for key, draft in by_id.items()}
    folder, stem = posixpath.dirname(name), posixpath.splitext(posixpath.basename(name))[0]
    for row in rows_of(found["annotations"], name, "annotations"):
        where = f"{name}: annotation of image {row.get('image_id')!r:.40}"
        if str(row.get("image_id")) not in by_key:
            drafted.faults.append(Fault("unknown_image", where))
            continue
        draft = by_key[str(row["image_id"])]
        if draft is None:
            continue
        file = str(row.get("file_name")).replace("\\", "/")
        tried = [
            posixpath.normpath(posixpath.join(folder, base, file))
            for base in (stem, ".", "panoptic", "..", f"../{stem}")
        ]
        draft.map = next((each for each in tried if each in maps), None)
        if draft.map is None:
            drafted.faults.append(Fault("map", where, f"{file[:80]} is not there"))
            draft.map = ""
            continue
        _add_segments(row, where, classes, draft, drafted)
    drawn = {draft.map for draft in drafted.drafts}
    drafted.drafts = [draft for draft in drafted.drafts if draft.name not in drawn]


def _add_segments(row: dict[str, Any], where: str, classes: dict[int, int], draft: Draft, drafted: Drafted) -> None:
    taken: set[int] = set()
    for each in rows_of(row.get("segments_info"), where, "segments_info"):
        key, category = whole(each.get("id")), whole(each.get("category_id"))
        at = f"{where}, segment {each.get('id')!r:.20}"
        if key is None or not 0 < key < 2**24 or key in taken:
            drafted.faults.append(
                Fault(
                    "same_id" if key in taken else "segments",
                    at,
                    "an id is a whole number from 1 to 16,777,215, once an image",
                )
            )
        elif category not in classes:
            drafted.faults.append(Fault("unknown_class", at, f"category_id {each.get('category_id')!r:.40}"))
        else:
            taken.add(key)
            draft.segments.append(Segment(key, classes[category], bool(whole(each.get("iscrowd")))))


def _compare(tree: Tree, drafted: Drafted, progress: OnProgress | None) -> None:
    """Ids of the maps with those of the lists."""
    drafts = drafted.drafts

    def ids(i: int) -> set[int] | VitralError:
        try:
            return set(np.unique(read_ids(tree.root / str(drafts[i].map), str(drafts[i].map))).tolist()) - {0}
        except VitralError as error:
            return error

    usable = []
    for draft, there in zip(drafts, in_threads(ids, len(drafts), progress), strict=True):
        if isinstance(there, VitralError):
            drafted.faults.append(Fault("map", str(draft.map), str(there).removeprefix(f"{draft.map}: ")))
            continue
        usable.append(draft)
        listed = {segment.id for segment in draft.segments}
        if there - listed:
            said = some(list(map(str, sorted(there - listed))), 3)
            drafted.faults.append(Fault("segments", str(draft.map), f"id {said} of the map is not in the list"))
        if listed - there:
            drafted.faults.append(
                Fault(
                    "segments",
                    draft.where,
                    f"id {some(list(map(str, sorted(listed - there))), 3)} of the list is not in {draft.map}",
                )
            )
            draft.segments = [segment for segment in draft.segments if segment.id in there]
    drafted.drafts = usable


def write(data: AnnotatedData, out: Path) -> None:
    """annotations/panoptic_SPLIT.json, annotations/panoptic_SPLIT/NAME.png and SPLIT/NAME."""
    writing = Writing(data, out)
    for split, rows in writing.splits():
        images, annotations = [], []
        base = f"panoptic{'_' + split if split else ''}"
        for i in rows:
            one = data.annotated[i]
            images.append(
                {"id": i + 1, "file_name": writing.copy(i, split or "images"), "width": one.width, "height": one.height}
            )
            ids = values_of(data, i)
            listed = {segment.id for segment in one.segments}
            ids = np.where(np.isin(ids, list(listed)), ids, 0)
            save_ids(out / f"annotations/{base}/{writing.stem(i)}.png", ids)
            annotations.append({"image_id": i + 1, "file_name": f"{writing.stem(i)}.png", "segments_info": [
                {"id": segment.id, "category_id": data.classes.ids[segment.index], "iscrowd": int(segment.crowd)} | extent(ids == segment.id)
                for segment in one.segments
            ]})  # fmt: skip
        rows_of_classes = [{"isthing": 1} | each for each in categories(data.classes)]
        dump_json(
            out / f"annotations/{base}.json",
            {"images": images, "annotations": annotations, "categories": rows_of_classes},
        )


def extent(mask: np.ndarray) -> dict[str, Any]:
    """The area of a mask [h, w] and the box around it, as the JSON has them."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return {"area": 0, "bbox": [0, 0, 0, 0]}
    x, y = int(columns[0]), int(rows[0])
    return {"area": int(mask.sum()), "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]}
