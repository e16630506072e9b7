"""Pascal VOC's XML (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/), as VOC, labelImg, CVAT, Roboflow and labelme write it.

    Annotations/1.xml, JPEGImages/1.jpg, ImageSets/Main/train.txt, SegmentationObject/1.png     or     train/1.xml beside train/1.jpg

VOC counts pixels from 1 and its corners are inside: (xmin, ymin, xmax, ymax) is our (xmin - 1, ymin - 1, xmax, ymax). All others write edges from 0.
Value k of a map in SegmentationObject is the k-th object of the XML, 255 is void.
"""

import posixpath
import xml.etree.ElementTree as ET
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from vitral.data.annotated import Annotated, AnnotatedData, ClassTable, Fault
from vitral.data.formats.draft import Draft, Drafted, Found, add_bare
from vitral.data.formats.files import Tree, numbers, read_text, size_of, split_in, stems
from vitral.data.formats.maps import painted, read_map
from vitral.data.formats.write import Writing, save_map, write_text
from vitral.data.shapes import runs_of
from vitral.errors import VitralError, counted, some

HOLDS = frozenset({"boxes", "outlines", "parts", "holes", "hard", "splits"})
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse", "motorbike", "person",
    "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
MOST_OBJECTS = 254  # that a map of 8 bits can tell apart


def recognised(tree: Tree) -> bool:
    """Whether there is such an XML."""
    return any("<annotation" in read_text(tree.root / name, name)[:2000] for name in tree.files(".xml")[:5])


def read(data: Path) -> Drafted:
    """A folder with such a layout."""
    data = data.absolute()
    tree = Tree(data)
    files = {name: root for name in tree.files(".xml") if (root := _parsed(tree, name)) is not None}
    if not files:
        raise VitralError(f"{data}: holds no XML of Pascal VOC's kind (<annotation>)")
    drafted = Drafted(tree.root, "objects", _classes(tree, files), [], [])
    splits, unlisted = _splits(tree, files), []
    from_one = _from_one(files)
    drafted.understood.append(
        "coordinates count pixels from 1, as VOC's do" if from_one else
        "coordinates are edges from 0, as labelImg, CVAT and Roboflow write them, not VOC's from 1"
    )  # fmt: skip
    parts = 0
    for name, root in files.items():
        stem = posixpath.splitext(posixpath.basename(name))[0]
        if splits and stem not in splits:
            unlisted.append(name)
            continue
        image = _image(tree, name, root)
        if image is None:
            drafted.faults.append(
                Fault("missing_image", name, f"no image {stem}.*, nor {root.findtext('filename') or ''!r:.80}")
            )
            continue
        size = size_of(root.findtext("size/height"), root.findtext("size/width"))
        draft = Draft(image, name, splits.get(stem) or split_in(*reversed(name.split("/")[:-1])), size)
        parts += len(root.findall("object/part"))
        _objects(root, name, from_one, draft, drafted)
        _masks(tree, name, draft, drafted)
        drafted.drafts.append(draft)
    if parts:
        drafted.understood.append(f"{counted(parts, 'part')} of objects (head, hand, foot) not read")
    if unlisted:
        drafted.understood.append(
            f"{counted(len(unlisted), 'file is', 'files are')} in no list of ImageSets/Main, not read: {some(unlisted, 2)}"
        )
    labelled = {draft.name for draft in drafted.drafts}
    if not splits:
        add_bare(tree, labelled, drafted)
    return drafted


def _parsed(tree: Tree, name: str) -> ET.Element | None:
    """The XML, without a document type, whose entities can stand for a billion characters; None if it is of another kind."""
    text = read_text(tree.root / name, name)
    if "<!DOCTYPE" in text.upper() or "<!ENTITY" in text.upper():
        raise VitralError(f"{name}: has a document type or entities, which are not read; remove these lines")
    try:
        root = ET.fromstring(text)
    except (ET.ParseError, RecursionError, ValueError) as error:
        raise VitralError(f"{name}: is not XML ({error}); restore it from its source") from None
    return root if root.tag == "annotation" else None


def _label(each: ET.Element) -> str:
    return " ".join((each.findtext("name") or "").split())


def _classes(tree: Tree, files: dict[str, ET.Element]) -> ClassTable:
    seen = {_label(each) for root in files.values() for each in root.findall("object")} - {""}
    listed = next(
        (name for name in ("classes.txt", "labels.txt", "class_names.txt") if (tree.root / name).is_file()), None
    )
    if listed is not None:
        names = [line.strip() for line in read_text(tree.root / listed, listed).splitlines()]
        names = list(
            dict.fromkeys(name for name in names if name and name not in ("__ignore__", "_background_", "background"))
        )
        if seen <= set(names):
            return ClassTable(tuple(range(1, len(names) + 1)), tuple(names))
    names = list(VOC_CLASSES) if seen <= set(VOC_CLASSES) and len(seen) > 1 else sorted(seen)
    return ClassTable(tuple(range(1, len(names) + 1)), tuple(names))


def _splits(tree: Tree, files: dict[str, ET.Element]) -> dict[str, str]:
    """Stem -> split, by ImageSets/Main; empty if there are no such lists."""
    lists = {
        name: split
        for name in tree.files(".txt")
        if "ImageSets/" in name and (split := split_in(posixpath.splitext(posixpath.basename(name))[0]))
    }
    main = {name: split for name, split in lists.items() if "ImageSets/Main/" in name} or lists
    return stems(tree, main)


def _from_one(files: dict[str, ET.Element]) -> bool:
    """Whether coordinates count from 1: VOC's own, whole numbers of which none is 0."""
    if not all("VOC" in (root.findtext("source/database") or "").upper() for root in files.values()):
        return False
    edges = [
        box.findtext(tag) or ""
        for root in files.values()
        for box in root.findall("object/bndbox")
        for tag in ("xmin", "ymin", "xmax", "ymax")
    ]
    return bool(edges) and all(edge.strip().isdigit() and int(edge) > 0 for edge in edges)


def _image(tree: Tree, name: str, root: ET.Element) -> str | None:
    """By the XML's own name: <filename> is often wrong."""
    folder, file = posixpath.split(name)
    stem = posixpath.splitext(file)[0]
    above = posixpath.dirname(folder)
    for base in (folder, *(posixpath.join(above, each) for each in ("JPEGImages", "images", "Images", "."))):
        if found := tree.of_stem(posixpath.normpath(posixpath.join(base, stem))):
            return found[0]
    return tree.image((root.findtext("filename") or "").strip(), [folder, above, posixpath.join(above, "JPEGImages")])


def _objects(root: ET.Element, name: str, from_one: bool, draft: Draft, drafted: Drafted) -> None:
    for number, each in enumerate(root.findall("object"), 1):
        where, label = f"{name} object {number}", _label(each)
        if label not in drafted.classes.by_name:
            drafted.faults.append(Fault("unknown_class", where, repr(label)))
            continue
        texts = [(each.findtext(f"bndbox/{tag}") or "").strip() for tag in ("xmin", "ymin", "xmax", "ymax")]
        edges = numbers(texts)
        if edges is None:
            drafted.faults.append(Fault("number", where, ", ".join(texts)[:60]))
            continue
        x0, y0, x1, y1 = edges
        box = (x0 - 1, y0 - 1, x1, y1) if from_one else (x0, y0, x1, y1)
        hard = (each.findtext("difficult") or "").strip() in ("1", "true", "True")
        draft.found.append(Found(drafted.classes.by_name[label], where, box, hard=hard, id=number))


def _masks(tree: Tree, name: str, draft: Draft, drafted: Drafted) -> None:
    """The masks of the objects, by a map of them."""
    stem = posixpath.splitext(posixpath.basename(name))[0]
    above = posixpath.dirname(posixpath.dirname(name))
    file = posixpath.join(above, "SegmentationObject", f"{stem}.png")
    if file not in tree.of_stem(posixpath.splitext(file)[0]):
        return
    values = read_map(tree.root / file, file)
    there = set(np.unique(values).tolist()) - {0, 255}
    numbered = {found.id: found for found in draft.found}
    if stray := sorted(there - set(numbered)):
        drafted.faults.append(
            Fault("segments", file, f"value {stray[0]}, and {name} has {counted(len(numbered), 'object')}")
        )
    for k in there & set(numbered):
        numbered[k].shape = runs_of(values == k)


def write(data: AnnotatedData, out: Path) -> None:
    """Annotations, JPEGImages and ImageSets/Main; where objects have outlines SegmentationObject and SegmentationClass, too. Edges count from 0."""
    writing = Writing(data, out)
    for split, rows in writing.splits():
        if split:
            write_text(out / f"ImageSets/Main/{split}.txt", "".join(f"{writing.stem(i)}\n" for i in rows))
        for i in rows:
            one = data.annotated[i]
            name = writing.copy(i, "JPEGImages")
            if not one.unlabelled:
                write_text(out / f"Annotations/{writing.stem(i)}.xml", _xml(one, name, data.classes))
            if any(each.shape is not None for each in one.objects):
                order = {id(each): k for k, each in enumerate(one.objects, 1)}
                values = painted(one, lambda each, order=order: order[id(each)])  # type: ignore[misc]
                of_class = np.array([0, *(each.index + 1 for each in one.objects)], np.int32)
                save_map(out / f"SegmentationObject/{writing.stem(i)}.png", values)
                save_map(out / f"SegmentationClass/{writing.stem(i)}.png", of_class[values])
    write_text(out / "classes.txt", "".join(f"{label}\n" for label in data.classes.names))


def _xml(one: Annotated, name: str, classes: ClassTable) -> str:
    segmented = int(any(each.shape is not None for each in one.objects))
    lines = [
        "<annotation>",
        f"  <filename>{escape(name)}</filename>",
        "  <source><database>edges from 0, written by vitral</database></source>",
        f"  <size><width>{one.width}</width><height>{one.height}</height><depth>3</depth></size>",
        f"  <segmented>{segmented}</segmented>",
    ]
    for each in one.objects:
        edges = "".join(
            f"<{tag}>{edge:.12g}</{tag}>" for tag, edge in zip(("xmin", "ymin", "xmax", "ymax"), each.box, strict=True)
        )
        lines.append(
            f"  <object><name>{escape(classes.names[each.index])}</name><pose>Unspecified</pose><truncated>0</truncated>"
            f"<difficult>{int(each.hard)}</difficult><bndbox>{edges}</bndbox></object>"
        )
    return "\n".join([*lines, "</annotation>", ""])
