"""Formats of annotated data, a file each: how a folder is recognised, read and written.

`read_annotated` recognises and reads the data; errors in them are among their `faults`, which `faults.refuse` raises.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vitral.data.annotated import AnnotatedData, Kind
from vitral.data.formats import coco, in_shards, labelme, masks, panoptic, parquet, voc, yolo
from vitral.data.formats.draft import Drafted, assemble
from vitral.data.formats.files import Tree, largest_json, read_json
from vitral.data.given import SEVERAL, look_at
from vitral.data.progress import OnProgress
from vitral.data.ranges import ROOM, is_url
from vitral.errors import VitralError


@dataclass(frozen=True)
class AnnotatedFormat:
    """One format."""

    about: str
    """What its files are, in words."""
    holds: Mapping[Kind, frozenset[str]]
    """The kinds of annotations that it can hold, and what of each: boxes, outlines, crowd, ids, groups, ..."""
    read: Callable[[Path, OnProgress | None], Drafted]
    write: Callable[[AnnotatedData, Path], None]


FORMATS = {
    "coco": AnnotatedFormat("COCO JSON", {"objects": coco.HOLDS}, lambda data, _: coco.read(data), coco.write),
    "yolo": AnnotatedFormat("YOLO texts", {"objects": yolo.HOLDS}, lambda data, _: yolo.read(data), yolo.write),
    "voc": AnnotatedFormat("Pascal VOC XML", {"objects": voc.HOLDS}, lambda data, _: voc.read(data), voc.write),
    "labelme": AnnotatedFormat(
        "labelme JSON", {"objects": labelme.HOLDS}, lambda data, _: labelme.read(data), labelme.write
    ),
    "parquet": AnnotatedFormat(
        "Parquet with objects", {"objects": parquet.HOLDS}, lambda data, _: parquet.read(data), parquet.write
    ),
    "shards": AnnotatedFormat("annotated tar shards", in_shards.HOLDS, in_shards.read, in_shards.write),
    "panoptic": AnnotatedFormat(
        "COCO panoptic PNG and JSON", {"panoptic": panoptic.HOLDS}, panoptic.read, panoptic.write
    ),
    "masks": AnnotatedFormat("PNG maps of class values", {"semantic": masks.HOLDS}, masks.read, masks.write),
}


def recognise(data: str | Path, tree: Tree | None = None) -> str | None:
    """The format of a folder, a file or a URL, by what lies in it; None if it is none of them. tree: of the folder, if it was looked at already."""
    try:
        return _recognised(data, tree)
    except VitralError:
        return None  # whoever wants annotations is told why by `read_annotated`


def _recognised(data: str | Path, tree: Tree | None = None) -> str | None:
    if is_url(data) or SEVERAL.search(str(data)):
        return "shards" if in_shards.holds_annotations(data) else None
    data = Path(data)
    if data.is_file():
        return _of_file(data)
    return _of_tree(tree or Tree(data.absolute())) if data.is_dir() else None


def _of_file(data: Path) -> str | None:
    if data.suffix.lower() in (".yaml", ".yml"):
        return "yolo"
    if data.suffix.lower() == ".tar":
        return "shards" if in_shards.holds_annotations(data) else None
    if data.suffix.lower() == ".parquet":
        return "parquet" if parquet.shards(Tree(data.absolute().parent), data.absolute()) else None
    return _of_json(read_json(data, str(data))) if data.suffix.lower() == ".json" else None


def _of_tree(tree: Tree) -> str | None:
    name = largest_json(tree)
    try:
        if name is not None and (format := _of_json(read_json(tree.root / name, name))) is not None:
            return format
    except VitralError:
        pass  # another of its files may tell
    if voc.recognised(tree):
        return "voc"
    if yolo.recognised(tree, tree.root):
        return "yolo"
    if tree.files(".tar") and in_shards.holds_annotations(tree.root):
        return "shards"
    if tree.files(".parquet") and not tree.images and parquet.shards(tree, tree.root):
        return "parquet"
    return "masks" if masks.recognised(tree) else None


def _of_json(found: object) -> str | None:
    tests = {"panoptic": coco.is_panoptic, "coco": coco.is_coco, "labelme": labelme.is_labelme}
    return next((name for name, is_one in tests.items() if is_one(found)), None)


def read_annotated(
    data: str | Path, format: str | None = None, progress: OnProgress | None = None, room: int = ROOM
) -> AnnotatedData:
    """Annotated data as they stand, with what is wrong in them among their `faults`.

    data: a folder, its JSON, data.yaml or Parquet file, or shards behind a URL. format: a name of `FORMATS`, default as it is recognised. room:
    bytes of shards behind URLs that are kept here. Raises VitralError where there are no such data, and for files that are broken as a whole.
    """
    path = Path(data)
    look_at(data)
    if format is not None and format not in FORMATS:
        raise VitralError(f"format {format!r}: choose one of {', '.join(FORMATS)}")
    found = format or _recognised(data)
    if found is None:
        if path.is_dir() and (name := largest_json(tree := Tree(path.absolute()))) is not None:
            read_json(tree.root / name, name)  # raises an error if it is broken
        known = ", ".join(f"{each.about} ({name})" for name, each in FORMATS.items())
        raise VitralError(
            f"{data}: holds no annotations of boxes or masks that are known: {known}; see docs/annotations.md"
        )
    drafted = FORMATS[found].read(path, progress) if found != "shards" else in_shards.read(data, progress, room)
    of_folder = path.suffix.lower() in (".yaml", ".yml")  # data.yaml says no more than that it is one
    result = assemble(drafted, (path.absolute().parent if of_folder else path.absolute()).name, found, progress)
    if not len(result.images.names):
        refuse_empty(result)
    return result


def refuse_empty(data: AnnotatedData) -> None:
    """Raise VitralError, with the reason, if no image is left."""
    from vitral.data.formats.faults import refuse

    refuse(str(data.root), data.faults)
    raise VitralError(f"{data.root}: lists no image; restore the list, or the images")
