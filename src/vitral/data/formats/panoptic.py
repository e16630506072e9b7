"""COCO's panoptic format (https://cocodataset.org/#format-data): a PNG of segment ids an image, and a JSON that says what each segment is.

    annotations/panoptic_train.json, annotations/panoptic_train/1.png, train/1.jpg

A pixel's id is R + 256 G + 65536 B, 0 is void; ids are an image's own.
"""

import posixpath
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitral.data.annotated import AnnotatedData, ClassTable, Fault, Segment
from vitral.data.files import StoredFile
from vitral.data.formats.coco import categories, class_table, is_panoptic, listed_images, merged, root_of
from vitral.data.formats.draft import Draft, Drafted
from vitral.data.formats.files import Tree, read_json, rows_of, whole
from vitral.data.formats.maps import Counted, count_values, decode_ids, save_ids, values_of
from vitral.data.formats.write import Writing, dump_json
from vitral.data.progress import OnProgress
from vitral.data.ranges import NoRangesError
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
        (name, *class_table(found | {"annotations": segments_in(found["annotations"])}, name, drafted.understood))
        for name, found in loaded
    ]
    drafted.classes = merged([(name, table) for name, table, _ in tables], drafted)
    lost: set[str] = set()
    for (name, found), (_, table, known) in zip(loaded, tables, strict=True):
        place = [drafted.classes.by_name[each] for each in table.names]
        lost |= _read_one(
            tree, name, found, {each: place[index] for each, index in known.items()}, drafted, alone=len(loaded) == 1
        )
    bare = [draft for draft in drafted.drafts if draft.map is None and draft.name not in lost]
    drafted.faults += [Fault("map", draft.where, "has no map") for draft in bare]
    compare(drafted, progress)
    return drafted


def segments_in(rows: list[Any]) -> list[dict[str, Any]]:
    """The segments that the rows list, one row for each image."""
    found = [row.get("segments_info") for row in rows if isinstance(row, dict)]
    return [each for listed in found if isinstance(listed, list) for each in listed if isinstance(each, dict)]


def _read_one(
    tree: Tree, name: str, found: dict[str, Any], classes: dict[int, int], drafted: Drafted, *, alone: bool
) -> set[str]:
    """Add the drafts of a JSON; returns the images whose map is named and not there."""
    lost: set[str] = set()
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
        there = next((each for each in tried if each in maps), None)
        if there is None:
            drafted.faults.append(Fault("map", where, f"{file[:80]} is not there"))
            lost.add(draft.name)
            continue
        draft.map = StoredFile(there, tree.root / there)
        add_segments(row, where, classes, draft, drafted)
    drawn = {draft.map.name for draft in drafted.drafts if draft.map is not None}
    drafted.drafts = [draft for draft in drafted.drafts if draft.name not in drawn]
    return lost


def add_segments(row: dict[str, Any], where: str, classes: dict[int, int], draft: Draft, drafted: Drafted) -> None:
    """Add the `segments_info` of an image to its draft. classes: the index of each category's id."""
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


def compare(drafted: Drafted, progress: OnProgress | None) -> None:
    """Compare the ids of every draft's map, which is read unless what it holds is known, with the draft's segments; images without a map that can be
    used are left out."""
    drafts = drafted.drafts

    def look(i: int) -> Counted | VitralError | None:
        stored = drafts[i].map
        try:
            return None if stored is None else drafts[i].counted or count_values(decode_ids(stored.read(), stored.name))
        except NoRangesError:
            raise
        except VitralError as error:
            return error

    kept = []
    for i, found in enumerate(in_threads(look, len(drafts), progress)):
        draft = drafts[i]
        if found is None or draft.map is None:
            continue
        name = draft.map.name
        if isinstance(found, VitralError):
            drafted.faults.append(Fault("map", name, str(found).removeprefix(f"{name}: ")))
            continue
        there, size = set(found.values) - {0}, found.size
        draft.size = draft.size or size
        if size != draft.size:
            said = f"has {size[1]} x {size[0]} pixels, and {draft.name} {draft.size[1]} x {draft.size[0]}"
            drafted.faults.append(Fault("map", name, said))
            continue
        kept.append(i)
        listed = {segment.id for segment in draft.segments}
        if there - listed:
            said = some(list(map(str, sorted(there - listed))), 3)
            drafted.faults.append(Fault("segments", name, f"id {said} of the map is not in the list"))
        if listed - there:
            said = some(list(map(str, sorted(listed - there))), 3)
            drafted.faults.append(Fault("segments", draft.where, f"id {said} of the list is not in {name}"))
            draft.segments = [segment for segment in draft.segments if segment.id in there]
    drafted.keep(kept)


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
            ids, segments = segments_of(data, i)
            save_ids(out / f"annotations/{base}/{writing.stem(i)}.png", ids)
            annotations.append({"image_id": i + 1, "file_name": f"{writing.stem(i)}.png", "segments_info": segments})
        dump_json(
            out / f"annotations/{base}.json", {"images": images, "annotations": annotations, "categories": table(data)}
        )


def table(data: AnnotatedData) -> list[dict[str, Any]]:
    """The classes as the JSON lists them."""
    return [{"isthing": 1} | each for each in categories(data.classes)]


def segments_of(data: AnnotatedData, i: int) -> tuple[NDArray[np.int32], list[dict[str, Any]]]:
    """The map [h, w] of image i with the ids of its segments, 0 elsewhere, and the segments as the JSON lists them."""
    ids, segments = values_of(data, i), data.annotated[i].segments
    ids = np.where(np.isin(ids, [segment.id for segment in segments]), ids, 0)
    rows = [
        {"id": segment.id, "category_id": data.classes.ids[segment.index], "iscrowd": int(segment.crowd)} | extent(ids == segment.id)
        for segment in segments
    ]  # fmt: skip
    return ids, rows


def extent(mask: np.ndarray) -> dict[str, Any]:
    """The area of a mask [h, w] and the box around it, as the JSON has them."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return {"area": 0, "bbox": [0, 0, 0, 0]}
    x, y = int(columns[0]), int(rows[0])
    return {"area": int(mask.sum()), "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]}
