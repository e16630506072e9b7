"""What can be wrong with annotations: for each kind its severity, the remedy, and what a mended copy does instead."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vitral.data.annotated import Fault
from vitral.errors import VitralError, all_of, counted, some

SHOWN = 3  # cases of a kind that an error names


@dataclass(frozen=True)
class FaultKind:
    """error: the data are neither trained on nor converted. warning: left out or corrected in reading, and reported. note: worth knowing."""

    severity: Literal["error", "warning", "note"]
    one: str
    many: str
    remedy: str
    mended: str = ""
    """What a mended copy has instead; empty if only a person can correct it."""


def _error(one: str, many: str, remedy: str, mended: str = "") -> FaultKind:
    return FaultKind("error", one, many, remedy, mended)


KINDS = {
    "missing_image": _error("image is named but not there", "images are named but not there", "restore it or remove its entry", "left out"),
    "unreadable_image": _error("image cannot be read", "images cannot be read", "replace it", "left out"),
    "size": _error(
        "image is of another size than its annotations", "images are of another size than their annotations",
        "annotate this picture, or restore the one that was annotated", "left out"),
    "same_image": _error("image is listed twice", "images are listed twice", "give each image one entry", "listed once, with all its objects"),
    "same_id": _error("id is used twice", "ids are used twice", "give each its own id", "numbered anew"),
    "unknown_image": _error("annotation is of an image that is not listed", "annotations are of images that are not listed",
                            "list the image or remove the annotation", "left out"),
    "unknown_class": _error("object is of a class that is not in the table", "objects are of classes that are not in the table",
                            "add the class or correct the object", "left out"),
    "tables": _error("class is in one split's table only", "classes are in one split's table only", "give every split the same classes",
                     "one table for all"),
    "number": _error("object has coordinates that are no numbers", "objects have coordinates that are no numbers", "annotate it again", "left out"),
    "line": _error("line cannot be understood", "lines cannot be understood", "write it anew", "left out"),
    "swapped": _error("box has its sides swapped", "boxes have their sides swapped",
                      "write the smaller coordinate first, and sizes without a minus", "in order"),
    "outside": _error("object lies outside its image", "objects lie outside their images",
                      "check size and order of the coordinates (corners or width and height, pixels or shares)", "cut off at the edge"),
    "outline": _error("outline is none", "outlines are none", "draw it again", "without an outline, the box stays"),
    "value": _error("map holds a value that is no class", "maps hold values that are no class", "name the value in classes.json, as class or void"),
    "map": _error("map cannot be used", "maps cannot be used", "write it as a PNG of class values, of the image's size"),
    "segments": _error("segment is in the map or in the list only", "segments are in the map or in the list only", "make both agree", "left out"),
    "empty": FaultKind("warning", "object is left out, smaller than a pixel", "objects are left out, smaller than a pixel",
                       "remove it or draw it again", "left out"),
    "turned": FaultKind("warning", "image is annotated lying, as it is without its EXIF turn; its objects were turned upright",
                        "images are annotated lying, as they are without their EXIF turn; their objects were turned upright",
                        "look whether they fit", "upright"),
    "box_differs": FaultKind("warning", "box is not where its outline is", "boxes are not where their outlines are",
                             "look which is right", "as the outline has it"),
    "clipped": FaultKind("note", "object reaches out of its image by up to 1 %, cut off", "objects reach out of their images by up to 1 %, cut off",
                         "nothing to do", "cut off at the edge"),
    "left_out": FaultKind("note", "shape is left out", "shapes are left out", "check that this is intended", "left out"),
}  # fmt: skip


def in_words(kind: str, faults: Sequence[Fault], shown: int = SHOWN) -> str:
    """Faults of one kind in words, with the first cases."""
    known = KINDS[kind]
    cases = [f"{fault.where}{f' ({fault.text})' if fault.text else ''}" for fault in faults]
    return f"{counted(len(faults), known.one, known.many)}: {some(cases, shown)}"


def by_kind(faults: Sequence[Fault]) -> dict[str, list[Fault]]:
    """The faults of each kind that occurs, the worst first."""
    return {kind: found for kind in KINDS if (found := [fault for fault in faults if fault.kind == kind])}


def refuse(name: str, faults: Sequence[Fault]) -> None:
    """Raise VitralError if some are errors, with all of them."""
    wrong = {kind: found for kind, found in by_kind(faults).items() if KINDS[kind].severity == "error"}
    if wrong:
        said = [f"{in_words(kind, found)}; {KINDS[kind].remedy}" for kind, found in wrong.items()]
        raise VitralError(all_of(name, said))
