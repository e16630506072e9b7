"""Parquet as Hugging Face's `datasets` writes object detection: a row an image, with the picture itself and a column `objects`.

    data/train-00000-of-00001.parquet: image {bytes, path}, objects {bbox [[x, y, w, h]], category [3], ...}

`objects` is a struct of lists, or a list of structs; `bbox` is x, y, width and height in pixels; `category` (`categories`, `label`) a number, whose
name the schema's metadata have (ClassLabel), or the name itself. `segmentation` holds an object's polygons, `rle` run lengths as COCO packs them.
"""

import json
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vitral.data.annotated import AnnotatedData, ClassTable, Fault, Object, Runs
from vitral.data.formats.coco import shape_of
from vitral.data.formats.draft import Draft, Drafted, Found
from vitral.data.formats.files import Tree, numbers, size_of, split_in, whole
from vitral.data.formats.write import Writing
from vitral.data.images import PackedImages
from vitral.data.rows import class_names
from vitral.errors import VitralError

HOLDS = frozenset({"boxes", "outlines", "parts", "holes", "crowd", "hard", "classes", "splits", "area"})
_CATEGORY = ("category", "categories", "category_id", "label", "labels", "class")


def _arrow(path: Path) -> Any:
    try:
        from pyarrow import parquet
    except ImportError:
        raise VitralError(f"{path}: Parquet needs pyarrow; run pip install 'vitral[parquet]'") from None
    return parquet


def shards(tree: Tree, data: Path) -> list[str]:
    """The Parquet files that have a column objects."""
    names = [data.name] if data.is_file() else tree.files(".parquet")
    found = []
    for name in names:
        try:
            schema = _arrow(data).read_schema(tree.root / name)
        except VitralError:
            raise
        except Exception as error:  # whatever the library raises on a damaged file
            raise VitralError(f"{name}: is not a readable Parquet file ({error}); write it again") from error
        if "objects" in schema.names and "image" in schema.names:
            found.append(name)
    return found


def read(data: Path) -> Drafted:
    """A folder of Parquet files, or one."""
    data = data.absolute()
    tree = Tree(data.parent if data.is_file() else data)
    names = shards(tree, data)
    if not names:
        raise VitralError(f"{data}: holds no Parquet with the columns image and objects")
    drafted = Drafted(tree.root, "objects", ClassTable((), ()), [], [])
    loaded = [(name, *_table(tree.root / name, name)) for name in names]
    blobs: list[bytes] = []
    files: list[str] = []
    for draft, row in drafts(data, loaded, drafted):
        blobs.append(row["image"])
        files.append(draft.name)
    ends = np.cumsum([0, *map(len, blobs)])
    drafted.images = PackedImages(np.frombuffer(b"".join(blobs), np.uint8), ends, files)
    return drafted


def drafts(
    data: str | Path, loaded: list[tuple[str, list[dict[str, Any]], list[str] | None]], drafted: Drafted
) -> Iterator[tuple[Draft, dict[str, Any]]]:
    """Each row's draft, which is added to `drafted`, with the row, for files with rows as `_table` gives them; the classes are set first."""
    category = next(
        (
            each
            for each in _CATEGORY
            if any(each in row for _, rows, _ in loaded for one in rows for row in one["objects"])
        ),
        None,
    )
    if category is None and any(one["objects"] for _, rows, _ in loaded for one in rows):
        raise VitralError(f"{data}: objects has no field {', '.join(_CATEGORY)}; name it as one of them")
    named = next((known for _, _, known in loaded if known), None)
    if any(known and known != named for _, _, known in loaded):
        raise VitralError(f"{data}: the Parquet files name their classes differently; write them alike")
    drafted.classes, place = _classes(loaded, category or "", named)
    for name, rows, _ in loaded:
        split = split_in(posixpath.basename(name).partition("-")[0], *reversed(name.split("/")[:-1]))
        for number, row in enumerate(rows):
            where = row.get("where", f"{name} row {number}")
            called = row["called"]
            if row["image"] is None:
                drafted.faults.append(Fault("missing_image", where, "no bytes in the column image"))
                continue
            draft = Draft(
                f"{posixpath.splitext(name)[0]}/{called or number}", where, split, size_of(row["height"], row["width"])
            )
            draft.found = [one for k, each in enumerate(row["objects"], 1)
                           if (one := _object(each, f"{where} object {k}", category or "", place, draft, drafted.faults)) is not None]  # fmt: skip
            drafted.drafts.append(draft)
            yield draft, row


def _table(path: Path, name: str) -> tuple[list[dict[str, Any]], list[str] | None]:
    """The rows, each with image (bytes), called, height, width and objects (a list of dicts); and the names of the classes."""
    try:
        table = _arrow(path).read_table(path)
        rows = table.to_pylist()
        metadata = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    except VitralError:
        raise
    except Exception as error:  # whatever the library raises on a damaged file
        raise VitralError(f"{name}: is not a readable Parquet file ({error}); write it again") from error
    features = (metadata.get("info") or {}).get("features") or {} if isinstance(metadata, dict) else {}
    objects = features.get("objects")
    while isinstance(objects, list) or (isinstance(objects, dict) and "feature" in objects):
        objects = objects[0] if isinstance(objects, list) else objects["feature"]
    fields = objects if isinstance(objects, dict) else {}
    named = next((names for each in _CATEGORY if (names := class_names(fields.get(each)))), None)
    found = []
    for row in rows:
        image = row["image"] if isinstance(row["image"], dict) else {"bytes": row["image"]}
        blob = image.get("bytes")
        found.append({
            "image": blob if isinstance(blob, bytes) and blob else None, "called": image.get("path"),
            "height": row.get("height"), "width": row.get("width"), "objects": listed(row["objects"], name),
        })  # fmt: skip
    return found, named


def listed(objects: Any, name: str) -> list[dict[str, Any]]:
    """A struct of lists, or a list of structs, as a list of an object each."""
    if objects is None:
        return []
    if isinstance(objects, dict):
        lists = {key: value for key, value in objects.items() if isinstance(value, list)}
        if len({len(value) for value in lists.values()}) > 1:
            raise VitralError(f"{name}: the lists in objects differ in length; write one entry an object in each")
        objects = [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
    if isinstance(objects, list) and all(isinstance(each, dict) for each in objects):
        if any(isinstance(each.get(key), list | dict) for each in objects for key in _CATEGORY):
            raise VitralError(f"{name}: an object has several classes; write one entry an object and class")
        return objects
    raise VitralError(f"{name}: objects is neither a struct of lists nor a list of structs; write it as one")


def _classes(
    loaded: list[tuple[str, list[dict[str, Any]], list[str] | None]], category: str, listed: list[str] | None
) -> tuple[ClassTable, dict[Any, int]]:
    """The table, and the index of what an object says."""
    seen = {each.get(category) for _, rows, _ in loaded for row in rows for each in row["objects"]} - {None}
    if listed is not None:
        if len(set(listed)) < len(listed):
            raise VitralError(f"{loaded[0][0]}: names a class twice in its metadata; rename one")
        table = ClassTable(tuple(range(len(listed))), tuple(listed))
        return table, {**table.by_id, **table.by_name}
    if any(isinstance(each, str) for each in seen):
        names = sorted(map(str, seen))
        table = ClassTable(tuple(range(len(names))), tuple(names))
        return table, dict(table.by_name)
    ids = tuple(sorted(key for each in seen if (key := whole(each)) is not None))
    return ClassTable(ids, tuple(map(str, ids))), {key: k for k, key in enumerate(ids)}


def _object(
    each: dict[str, Any], where: str, category: str, place: dict[Any, int], draft: Draft, faults: list[Fault]
) -> Found | None:
    key = each.get(category)
    if key not in place:
        faults.append(Fault("unknown_class", where, f"{category} {key!r:.40}"))
        return None
    stated = numbers(each.get("bbox"))
    if stated is None or len(stated) != 4:
        faults.append(Fault("number", where, f"bbox {each.get('bbox')!r:.60}"))
        return None
    x, y, w, h = stated
    value = each.get("segmentation")
    if each.get("rle") and draft.size:
        value = {"size": list(draft.size), "counts": each["rle"]}
    area = numbers([each.get("area")])
    return Found(
        place[key], where, (x, y, x + w, y + h), shape_of(value, where, draft.size, faults), crowd=bool(each.get("iscrowd")),
        hard=bool(each.get("ignore")), id=whole(each.get("id")), area=area[0] if area else None,
    )  # fmt: skip


def told(each: Object, number: int) -> dict[str, Any]:
    """What is written of an object."""
    x0, y0, x1, y1 = each.box
    shape = each.shape
    return {
        "id": number, "bbox": [x0, y0, x1 - x0, y1 - y0], "category": each.index, "area": each.area,
        "iscrowd": each.crowd, "ignore": each.hard,
        "segmentation": None if shape is None or isinstance(shape, Runs) else [part.ravel().tolist() for part in shape.parts],
        "rle": shape.counts.decode() if isinstance(shape, Runs) else None,
    }  # fmt: skip


def _features(classes: ClassTable) -> dict[str, Any]:
    """What `datasets` calls the columns' types."""

    def value(dtype: str) -> dict[str, Any]:
        return {"dtype": dtype, "_type": "Value"}

    def several(feature: Any) -> dict[str, Any]:
        return {"feature": feature, "_type": "Sequence"}

    objects = {
        "id": value("int64"), "bbox": several(value("float64")), "category": {"names": list(classes.names), "_type": "ClassLabel"},
        "area": value("float64"), "iscrowd": value("bool"), "ignore": value("bool"), "segmentation": several(several(value("float64"))),
        "rle": value("string"),
    }  # fmt: skip
    sizes = {name: value("int64") for name in ("image_id", "width", "height")}
    return {"image": {"_type": "Image"}, **sizes, "objects": several(objects)}


def write(data: AnnotatedData, out: Path) -> None:
    """data/SPLIT-00000-of-00001.parquet, with the pictures in it; images without a split are in train."""
    import pyarrow

    writing = Writing(data, out)
    kinds = {
        "id": pyarrow.int64(), "bbox": pyarrow.list_(pyarrow.float64()), "category": pyarrow.int64(), "area": pyarrow.float64(),
        "iscrowd": pyarrow.bool_(), "ignore": pyarrow.bool_(), "segmentation": pyarrow.list_(pyarrow.list_(pyarrow.float64())),
        "rle": pyarrow.string(),
    }  # fmt: skip
    schema = pyarrow.schema(
        [
            ("image", pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])),
            ("image_id", pyarrow.int64()), ("width", pyarrow.int64()), ("height", pyarrow.int64()),
            ("objects", pyarrow.struct([(name, pyarrow.list_(kind)) for name, kind in kinds.items()])),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": _features(data.classes)}})},
    )  # fmt: skip
    number = 0
    for split, rows in writing.splits("train"):
        found = []
        for i in rows:
            one = data.annotated[i]
            objects: dict[str, list[Any]] = {name: [] for name in kinds}
            for each in one.objects:
                number += 1
                for name, value in told(each, number).items():
                    objects[name].append(value)
            found.append({"image": {"bytes": data.images.encoded(i), "path": writing.names[i]}, "image_id": i + 1, "width": one.width,
                           "height": one.height, "objects": objects})  # fmt: skip
        path = out / f"data/{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        _arrow(path).write_table(pyarrow.Table.from_pylist(found, schema), path)
