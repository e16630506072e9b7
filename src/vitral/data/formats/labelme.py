"""Labelme's JSON (https://github.com/wkentaro/labelme), one beside each image.

Shapes with the same label and group_id are one object. Rectangles have two opposite corners in any order; a mask is a base64 PNG at its first point.
Lines and points enclose nothing: they are left out and reported. A picture inside a JSON (imageData) is not read; the file beside it is.
"""

import base64
import io
import math
import posixpath
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitral.data.annotated import AnnotatedData, ClassTable, Fault, Object, Polygons, Runs
from vitral.data.formats.draft import Draft, Drafted, Found, Patch, add_bare
from vitral.data.formats.files import Tree, lost, numbers, read_json, read_text, size_of, split_in, whole
from vitral.data.formats.write import Writing, dump_json, write_text
from vitral.data.raster import named, quiet
from vitral.data.shapes import mask_of, outlines
from vitral.errors import VitralError

HOLDS = frozenset({"boxes", "outlines", "parts", "holes", "crowd", "hard", "classes", "splits"})
NO_CLASSES = ("__ignore__", "_background_")
_NO_AREA = ("line", "linestrip", "point", "points")
_CIRCLE = 64  # corners of the polygon that a circle becomes


def is_labelme(found: object) -> bool:
    """Whether a JSON is one of these."""
    return isinstance(found, dict) and isinstance(found.get("shapes"), list) and "imagePath" in found


def read(data: Path) -> Drafted:
    """A folder, to any depth, or one JSON."""
    data = data.absolute()
    tree = Tree(data.parent if data.is_file() else data)
    names = [data.name] if data.is_file() else tree.files(".json")
    files = {name: found for name in names if is_labelme(found := read_json(tree.root / name, name))}
    if not files:
        raise VitralError(f"{data}: holds no JSON of labelme's (shapes, imagePath)")
    faults: list[Fault] = []
    drafted = Drafted(tree.root, "objects", _classes(tree, files, faults), [], faults)
    taken: set[str] = set()
    for name, found in files.items():
        folder, stem = posixpath.dirname(name), posixpath.splitext(posixpath.basename(name))[0]
        above = posixpath.dirname(folder)
        bases = [folder, above, posixpath.join(above, "images"), posixpath.join(folder, "images")]
        beside = tree.of_stem(posixpath.join(folder, stem))
        image = beside[0] if beside else tree.image(found["imagePath"], bases)
        if image is None or image in taken:
            kind = "missing_image" if image is None else "same_image"
            drafted.faults.append(Fault(kind, name, lost(found["imagePath"], bases) if image is None else image))
            continue
        taken.add(image)
        draft = Draft(
            image,
            name,
            split_in(*reversed(image.split("/")[:-1])),
            size_of(found.get("imageHeight"), found.get("imageWidth")),
        )
        draft.found = _objects(found["shapes"], name, drafted)
        drafted.drafts.append(draft)
    if not data.is_file():
        add_bare(tree, taken, drafted)
    return drafted


def _classes(tree: Tree, files: dict[str, dict[str, Any]], faults: list[Fault]) -> ClassTable:
    seen = {
        str(shape["label"])
        for found in files.values()
        for shape in found["shapes"]
        if isinstance(shape, dict) and shape.get("label") is not None
    }
    names = sorted(seen - set(NO_CLASSES))
    if (tree.root / "labels.txt").is_file():
        listed = dict.fromkeys(line.strip() for line in read_text(tree.root / "labels.txt", "labels.txt").splitlines())
        known = [name for name in listed if name and name not in NO_CLASSES]
        faults += [Fault("unknown_class", "labels.txt", f"{name} is not in it") for name in names if name not in known]
        names = known
    return ClassTable(tuple(range(len(names))), tuple(names))


def _objects(shapes: list[Any], name: str, drafted: Drafted) -> list[Found]:
    found: list[Found] = []
    grouped: dict[tuple[str, int], Found] = {}
    for number, shape in enumerate(shapes, 1):
        where = f"{name} shape {number}"
        if not isinstance(shape, dict):
            drafted.faults.append(Fault("line", where, f"{shape!r:.60}"))
            continue
        label, group = str(shape.get("label")), whole(shape.get("group_id"))
        if label in NO_CLASSES or label not in drafted.classes.by_name:
            kind = "left_out" if label in NO_CLASSES else "unknown_class"
            drafted.faults.append(Fault(kind, where, label))
            continue
        one = _shape(shape, where, drafted.classes.by_name[label], drafted.faults)
        if one is None:
            continue
        before = None if group is None else grouped.get((label, group))
        if before is not None and isinstance(before.shape, Polygons) and isinstance(one.shape, Polygons):
            before.shape = Polygons(before.shape.parts + one.shape.parts)
            continue
        if group is not None and before is None:
            grouped[label, group] = one
        found.append(one)
    return found


def _shape(shape: dict[str, Any], where: str, index: int, faults: list[Fault]) -> Found | None:
    kind = str(shape.get("shape_type") or "polygon")
    told = shape.get("flags")
    flags = told if isinstance(told, dict) else {}
    one = Found(index, where, crowd=bool(flags.get("crowd")), hard=bool(flags.get("difficult")))
    if kind in _NO_AREA:
        faults.append(Fault("left_out", where, f"a {kind} encloses nothing"))
        return None
    rows = shape.get("points")
    points = [numbers(row) for row in rows] if isinstance(rows, list) else [None]
    if not points or any(point is None or len(point) != 2 for point in points):
        faults.append(Fault("number", where, f"points {rows!r:.60}"))
        return None
    at = np.array(points, np.float64)
    if kind == "polygon" and len(at) >= 3:
        one.shape = Polygons((at,))
    elif kind == "rectangle" and len(at) in (2, 4):
        (x0, y0), (x1, y1) = at.min(0).tolist(), at.max(0).tolist()
        one.box = (x0, y0, x1, y1)
    elif kind == "circle" and len(at) == 2:
        angles = np.arange(_CIRCLE) * (2 * math.pi / _CIRCLE)
        one.shape = Polygons((at[0] + math.dist(*at.tolist()) * np.stack([np.cos(angles), np.sin(angles)], 1),))
    elif kind == "mask" and len(at) == 2:
        try:
            one.shape = Patch(int(at[0, 0]), int(at[0, 1]), _mask(shape.get("mask"), where))
        except VitralError as error:
            faults.append(Fault("outline", where, str(error).removeprefix(f"{where}: ")))
            return None
    else:
        faults.append(Fault("outline", where, f"{kind} of {len(at)} points"))
        return None
    return one


def _mask(text: object, where: str) -> np.ndarray:
    with named(where), quiet():
        image = Image.open(io.BytesIO(base64.b64decode(str(text), validate=True)), formats=("PNG",))
        return np.asarray(image.convert("L")) > 0


def write(data: AnnotatedData, out: Path) -> None:
    """SPLIT/NAME with SPLIT/NAME.json, and labels.txt."""
    writing = Writing(data, out)
    for split, rows in writing.splits():
        folder = split or ""
        for i in rows:
            name, one = writing.copy(i, folder), data.annotated[i]
            if one.unlabelled:
                continue
            shapes = [
                shape
                for k, each in enumerate(one.objects)
                for shape in _shapes(each, k, data.classes.names[each.index], one.height, one.width)
            ]
            told: dict[str, Any] = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": name, "imageData": None,
                    "imageHeight": one.height, "imageWidth": one.width}  # fmt: skip
            dump_json(out / folder / f"{writing.stem(i)}.json", told)
    write_text(out / "labels.txt", "".join(f"{label}\n" for label in data.classes.names))


def _shapes(each: Object, k: int, label: str, height: int, width: int) -> list[dict[str, Any]]:
    flags = ({"crowd": True} if each.crowd else {}) | ({"difficult": True} if each.hard else {})
    told: dict[str, Any] = {"label": label, "group_id": None, "description": "", "flags": flags, "mask": None}
    shape = each.shape
    if shape is None:
        x0, y0, x1, y1 = each.box
        return [told | {"shape_type": "rectangle", "points": [[x0, y0], [x1, y1]]}]
    if isinstance(shape, Runs):
        mask = mask_of(shape, height, width)
        traced = outlines(mask)
        if traced is None:
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            packed = io.BytesIO()
            Image.fromarray(cut).save(packed, "PNG")
            corners = [[int(columns[0]), int(rows[0])], [int(columns[-1]), int(rows[-1])]]
            return [
                told | {"shape_type": "mask", "points": corners, "mask": base64.b64encode(packed.getvalue()).decode()}
            ]
        shape = traced
    group = k if len(shape.parts) > 1 else None
    return [told | {"shape_type": "polygon", "group_id": group, "points": part.tolist()} for part in shape.parts]
