"""COCO's JSON of instances (https://cocodataset.org/#format-data), as COCO, Roboflow, CVAT, Label Studio and labelme2coco write it.

    annotations/instances_train.json, train/1.jpg     or     train/_annotations.coco.json, train/1.jpg     or one JSON beside its images

A box is x, y, width and height; an outline is polygons, run lengths as a list or packed, or nothing.
"""

import posixpath
from pathlib import Path
from typing import Any

import numpy as np

from vitral.data.annotated import AnnotatedData, ClassTable, Fault, Polygons, Runs, Shape
from vitral.data.formats.draft import Draft, Drafted, Found
from vitral.data.formats.files import Tree, lost, numbers, read_json, rows_of, size_of, split_in, whole
from vitral.data.formats.write import Writing, dump_json
from vitral.data.shapes import area_and_box, unpacked
from vitral.errors import VitralError, counted, some

HOLDS = frozenset(
    {"boxes", "outlines", "parts", "holes", "crowd", "hard", "ids", "classes", "splits", "area", "groups"}
)
_NO_CLASSES = ("_background_", "__background__", "__ignore__")
_OTHER = ("captions", "person_keypoints", "panoptic", "stuff_")


def is_coco(found: object) -> bool:
    """Whether a JSON is one of these."""
    if not isinstance(found, dict) or not isinstance(found.get("images"), list):
        return False
    return "categories" in found and not is_panoptic(found)


def is_panoptic(found: object) -> bool:
    """Whether a JSON is COCO's of panoptic segments."""
    rows = found.get("annotations") if isinstance(found, dict) else None
    return isinstance(rows, list) and bool(rows) and isinstance(rows[0], dict) and "segments_info" in rows[0]


def jsons(tree: Tree, data: Path) -> list[str]:
    """The JSON files that may be annotations: the one given, else all, but only COCO's instances if there are any."""
    if data.is_file():
        return [data.relative_to(tree.root).as_posix()]
    names = tree.files(".json")
    instances = [name for name in names if posixpath.basename(name).startswith("instances")]
    return instances or [name for name in names if not posixpath.basename(name).startswith(_OTHER)]


def read(data: Path) -> Drafted:
    """A folder, or one JSON file of it."""
    tree = Tree(root_of(data))
    tables: list[tuple[str, ClassTable, dict[int, int]]] = []
    drafted = Drafted(tree.root, "objects", ClassTable((), ()), [], [])
    loaded = [(name, found) for name in jsons(tree, data) if is_coco(found := read_json(tree.root / name, name))]
    if not loaded:
        raise VitralError(f"{data}: holds no COCO JSON with images, annotations and categories")
    for name, found in loaded:
        tables.append((name, *class_table(found, name, drafted.understood)))
    drafted.classes = merged([(name, table) for name, table, _ in tables], drafted)
    for (name, found), (_, table, known) in zip(loaded, tables, strict=True):
        place = [drafted.classes.by_name[each] for each in table.names]
        _read_one(
            tree, name, found, {each: place[index] for each, index in known.items()}, drafted, alone=len(loaded) == 1
        )
    return drafted


def root_of(data: Path) -> Path:
    """The folder with the images of the given data."""
    data = data.absolute()
    if not data.is_file():
        return data
    return data.parent.parent if data.parent.name.lower() in ("annotations", "annotation") else data.parent


def class_table(found: dict[str, Any], name: str, understood: list[str]) -> tuple[ClassTable, dict[int, int]]:
    """The classes, and the index of each id. Not classes, which is added to what was `understood`: Roboflow's super-class, the supercategory of the
    others without objects, and labelme's _background_.
    """
    rows = rows_of(found.get("categories"), name, "categories")
    used = {whole(each.get("category_id")) for each in rows_of(found.get("annotations") or [], name, "annotations")}
    groups = {str(each.get("supercategory")) for each in rows}
    classes: dict[int, tuple[str, bool, str]] = {}
    for each in rows:
        key, label = whole(each.get("id")), str(each.get("name", "")).strip()
        if key is None or not label:
            raise VitralError(f"{name}: the category {each!r:.80} has no whole number as id, or no name; mend it")
        if key in classes:
            raise VitralError(
                f"{name}: category id {key} is there twice ({classes[key][0]} and {label}); give each its own"
            )
        above = label in groups and str(each.get("supercategory")) in ("none", "None", "")
        if key not in used and (above or label in _NO_CLASSES):
            said = f"category {key} {label} is no class: {'the group of the others' if above else 'a background'}, without an object"
            understood += [] if said in understood else [said]
            continue
        classes[key] = (label, each.get("isthing", 1) == 0, str(each.get("supercategory") or ""))
    ids = sorted(classes)
    names = [classes[key][0] for key in ids]
    if double := sorted({label for label in names if names.count(label) > 1}):
        raise VitralError(f"{name}: categories of one name: {some(double)}; rename all but one, or join them")
    stuff = frozenset(k for k, key in enumerate(ids) if classes[key][1])
    groups_of = tuple(classes[key][2] for key in ids)
    table = ClassTable(tuple(ids), tuple(names), stuff, groups=groups_of if any(groups_of) else ())
    return table, table.by_id


def merged(tables: list[tuple[str, ClassTable]], drafted: Drafted) -> ClassTable:
    """One table for all files, matched by name: the first file's classes, then those that only others have."""
    first_name, first = tables[0]
    entries = {label: (key, k in first.stuff, first.groups[k] if first.groups else "")
               for k, (key, label) in enumerate(zip(first.ids, first.names, strict=True))}  # fmt: skip
    for name, table in tables[1:]:
        for k, (key, label) in enumerate(zip(table.ids, table.names, strict=True)):
            if label not in entries:
                taken = {each for each, _, _ in entries.values()}
                free = key if key not in taken else max(taken) + 1
                entries[label] = (free, k in table.stuff, table.groups[k] if table.groups else "")
                drafted.faults.append(Fault("tables", name, f"{label} is not in {first_name}"))
        for label in first.names:
            if label not in table.names:
                drafted.faults.append(Fault("tables", first_name, f"{label} is not in {name}"))
        moved = [
            label
            for label in table.names
            if label in first.names and table.ids[table.by_name[label]] != first.ids[first.by_name[label]]
        ]
        if moved:
            drafted.understood.append(
                f"{name} numbers {counted(len(moved), 'class', 'classes')} otherwise than {first_name}; matched by name"
            )
    ordered = sorted(entries.items(), key=lambda entry: entry[1][0])
    groups = tuple(group for _, (_, _, group) in ordered)
    return ClassTable(
        tuple(key for _, (key, _, _) in ordered), tuple(label for label, _ in ordered),
        frozenset(k for k, (_, (_, is_stuff, _)) in enumerate(ordered) if is_stuff), groups=groups if any(groups) else (),
    )  # fmt: skip


def bases(name: str) -> list[str]:
    """The folders that the images of a JSON may be relative to."""
    folder, stem = posixpath.dirname(name), posixpath.splitext(posixpath.basename(name))[0]
    above = posixpath.dirname(folder)
    tail = stem.split("_", 1)[-1]  # train2017 of instances_train2017
    split = split_in(stem) or ""
    names = [tail, split, {"val": "valid"}.get(split, split)]
    inner = [each for base in (folder, above) for each in (base, posixpath.join(base, "images"))]
    return [*inner, *(posixpath.join(base, each) for base in inner for each in names if each)]


def _key(value: object) -> int | str | None:
    """An id: 3, 3.0 and "3" are equal; other texts are ids too."""
    found = whole(value)
    return found if found is not None else value if isinstance(value, str) and value else None


def listed_images(
    tree: Tree, name: str, found: dict[str, Any], drafted: Drafted, *, alone: bool
) -> dict[Any, Draft | None]:
    """The images of a JSON by their id, None for missing ones; their drafts are added."""
    where_from = bases(name)
    by_name = {draft.name: draft for draft in drafted.drafts}
    by_id: dict[Any, Draft | None] = {}
    own_split = split_in(posixpath.splitext(posixpath.basename(name))[0]) or split_in(
        posixpath.basename(posixpath.dirname(name))
    )
    for row in rows_of(found["images"], name, "images"):
        key, where = _key(row.get("id")), f"{name}: image {row.get('id')!r:.40}"
        if key is None:
            raise VitralError(f"{where}: has no id; give each image a number")
        file = tree.image(row.get("file_name"), where_from)
        if key in by_id:
            drafted.faults.append(Fault("same_id", where, f"{row.get('file_name')!r:.80}"))
            continue
        by_id[key] = None
        if file is None:
            drafted.faults.append(Fault("missing_image", where, lost(row.get("file_name"), where_from)))
            continue
        if file in by_name:
            drafted.faults.append(Fault("same_image", where, file))
            by_id[key] = by_name[file]
            continue
        split = own_split or (split_in(*reversed(file.split("/")[:-1])) if alone else None)
        by_id[key] = by_name[file] = Draft(file, where, split, size_of(row.get("height"), row.get("width")))
        drafted.drafts.append(by_name[file])
    return by_id


def _read_one(
    tree: Tree, name: str, found: dict[str, Any], classes: dict[int, int], drafted: Drafted, *, alone: bool
) -> None:
    by_id = listed_images(tree, name, found, drafted, alone=alone)
    seen: set[Any] = set()
    others = 0
    for row in rows_of(found.get("annotations") or [], name, "annotations"):
        where = f"{name}: annotation {row.get('id')!r:.40}"
        key, image = _key(row.get("id")), _key(row.get("image_id"))
        if key in seen:
            drafted.faults.append(Fault("same_id", where))
        if key is not None:
            seen.add(key)
        if image not in by_id:
            drafted.faults.append(Fault("unknown_image", where, f"image_id {row.get('image_id')!r:.40}"))
            continue
        if "bbox" not in row and "segmentation" not in row:
            others += 1
            continue
        draft = by_id[image]
        if draft is not None and (one := _object(row, where, classes, draft, drafted.faults)) is not None:
            draft.found.append(one)
    if others:
        drafted.understood.append(
            f"{name}: {counted(others, 'annotation')} without box and outline not read (captions, keypoints)"
        )


def _object(
    row: dict[str, Any], where: str, classes: dict[int, int], draft: Draft, faults: list[Fault]
) -> Found | None:
    category = whole(row.get("category_id"))
    if category not in classes:
        faults.append(Fault("unknown_class", where, f"category_id {row.get('category_id')!r:.40}"))
        return None
    shape = shape_of(row.get("segmentation"), where, draft.size, faults)
    box = None
    if row.get("bbox") not in (None, []):
        stated = numbers(row["bbox"])
        if stated is None or len(stated) != 4:
            faults.append(Fault("number", where, f"bbox {row['bbox']!r:.60}"))
            return None
        x, y, w, h = stated
        box = (x, y, x + w, y + h)
    elif shape is None:
        faults.append(Fault("empty", where, "neither box nor outline"))
        return None
    area = numbers([row.get("area")])
    return Found(
        classes[category], where, box, shape, crowd=bool(whole(row.get("iscrowd"))), hard=bool(whole(row.get("ignore"))),
        id=whole(row.get("id")), area=area[0] if area else None,
    )  # fmt: skip


def shape_of(value: Any, where: str, size: tuple[int, int] | None, faults: list[Fault]) -> Shape | None:
    """A segmentation; None if there is none, or an unusable one, which is noted."""
    if value in (None, [], {}, ""):
        return None
    try:
        if isinstance(value, dict):
            return _runs(value, size)
        if not isinstance(value, list):
            raise ValueError(f"{value!r:.60}")
        listed = [value] if not any(isinstance(part, list) for part in value) else value  # a flat list is one polygon
        parts = [points_of(part) for part in listed]
        return Polygons(tuple(parts))
    except ValueError as error:
        faults.append(Fault("outline", where, str(error)))
        return None


def points_of(part: Any) -> np.ndarray:
    """x, y, x, y, ... as points [n, 2]. Raises ValueError."""
    found = numbers(part)
    if found is None:
        raise ValueError("its coordinates are no numbers")
    if len(found) < 6 or len(found) % 2:
        raise ValueError(f"a polygon of {len(found)} numbers, not of 6, 8, 10 or more")
    return np.array(found).reshape(-1, 2)


def _runs(value: dict[str, Any], size: tuple[int, int] | None) -> Runs:
    h, w = (
        size_of(*value["size"]) or (0, 0)
        if isinstance(value.get("size"), list) and len(value["size"]) == 2
        else size or (0, 0)
    )
    if not h:
        raise ValueError("run lengths without the size of their mask")
    if size is not None and (h, w) != size:
        raise ValueError(f"run lengths of {w} x {h} pixels in an image of {size[1]} x {size[0]}")
    counts = value.get("counts")
    if isinstance(counts, list):
        listed = [whole(count) for count in counts]
        if None in listed:
            raise ValueError("its run lengths are no whole numbers")
        return unpacked(h, w, [count for count in listed if count is not None])
    if not isinstance(counts, str) or not counts.isascii():
        raise ValueError("its run lengths are no list and no text")
    runs = Runs(h, w, counts.encode())
    area_and_box(runs, h, w)
    return runs


def segmentation(shape: Shape | None) -> Any:
    """A shape as JSON."""
    if isinstance(shape, Runs):
        return {"size": [shape.height, shape.width], "counts": shape.counts.decode()}
    return [] if shape is None else [part.ravel().tolist() for part in shape.parts]


def categories(classes: ClassTable) -> list[dict[str, Any]]:
    """The classes as a JSON lists them."""
    return [
        {"id": key, "name": label, "supercategory": classes.groups[k] if classes.groups else ""}
        | ({"isthing": 0} if k in classes.stuff else {})
        for k, (key, label) in enumerate(zip(classes.ids, classes.names, strict=True))
    ]


def write(data: AnnotatedData, out: Path) -> None:
    """annotations/instances_SPLIT.json and SPLIT/NAME, or annotations/instances.json and images/NAME."""
    writing = Writing(data, out)
    number = 0
    for split, rows in writing.splits():
        images, annotations = [], []
        for i in rows:
            one = data.annotated[i]
            images.append(
                {"id": i + 1, "file_name": writing.copy(i, split or "images"), "width": one.width, "height": one.height}
            )
            for each in one.objects:
                number += 1
                x0, y0, x1, y1 = each.box
                area = each.area
                if area is None:
                    area = (
                        float((x1 - x0) * (y1 - y0))
                        if each.shape is None
                        else area_and_box(each.shape, one.height, one.width)[0]
                    )
                annotations.append(
                    {
                        "id": number, "image_id": i + 1, "category_id": data.classes.ids[each.index], "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "area": area, "iscrowd": int(each.crowd), "segmentation": segmentation(each.shape),
                    }
                    | ({"ignore": 1} if each.hard else {})
                )  # fmt: skip
        name = f"annotations/instances{'_' + split if split else ''}.json"
        dump_json(out / name, {"images": images, "annotations": annotations, "categories": categories(data.classes)})
