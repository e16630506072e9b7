"""The commands that make data sets of boxes and masks: data convert, data scenes."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vitral.cli.options import argument
from vitral.data.options import SceneOptions

Name = Literal["coco", "yolo", "voc", "masks", "panoptic", "labelme", "parquet"]


@dataclass
class Convert:
    """Write boxes and masks in another format, with copies of the images.

    Nothing of the original is changed. What the format cannot hold is said before anything is written. docs/annotations.md has a table of what each
    format can hold.

    Example: vitral data convert street/ street-yolo --to yolo

    Example: vitral data convert voc/VOC2012 ground --to masks
    """

    data: Path = argument()
    """Folder, or its JSON, data.yaml or Parquet file."""
    out: Path = argument()
    """Folder to write, which must be new or empty."""
    to: Name = "coco"
    """Format to write."""
    format: Name | None = None
    """Format that the data are in; default: as it is recognised."""


def convert(given: Convert, words: list[str]) -> int:
    from vitral.data.formats import FORMATS, read_annotated
    from vitral.data.formats.convert import check_place, counts, plan_conversion, write_planned
    from vitral.data.formats.faults import refuse
    from vitral.training.display import Display

    check_place(given.out)
    display = Display()
    try:
        data = read_annotated(given.data, given.format, lambda n, total: display.count("reading images", n, total))
        refuse(str(given.data), data.faults)
        check_place(given.out, data)
        planned = plan_conversion(data, given.to, lambda n, total: display.count("converting", n, total))
    finally:
        display.close()
    lines = [
        f"{data.name}: {FORMATS[data.format].about} to {FORMATS[given.to].about}",
        *(f"  {said}" for said in data.understood),
    ]
    there, kept = counts(data), counts(planned.data)
    rows = [
        (what, f"{there[what]:,}" if what in there else "", f"{kept[what]:,}" if what in kept else "")
        for what in dict.fromkeys([*there, *kept])
    ]
    lines += _table([("", "read", "written"), *rows])
    if planned.left_out:
        lines.append("not kept as it was:")
        lines += _table([(f"{count:,}", what, why) for count, what, why in planned.left_out])
    print("\n".join(lines), file=sys.stderr)
    write_planned(planned, given.out)
    print(f"wrote {given.out}", file=sys.stderr)
    return 0


def _table(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    return [f"  {a:{widths[0]}}  {b:{widths[1]}}  {c}".rstrip() for a, b, c in rows]


@dataclass(frozen=True, kw_only=True)
class Scenes(SceneOptions):
    """Make scenes to try detection and segmentation on: objects over photographs, with exact masks.

    The same options write the same scenes anywhere. Without folders the objects are drawn shapes and the photographs scikit-learn's two. Files that
    training scenes are made of are in no test scene.

    Example: vitral data scenes scenes/

    Example: vitral data scenes zoo/ --cutouts stamps/animals --classes 6
    """

    out: Path = argument()
    """Folder to write, which must be new or empty: COCO JSON, and PNG maps in masks/."""


def scenes(given: Scenes, words: list[str]) -> int:
    from vitral.data.formats.convert import check_place
    from vitral.data.scenes import write_scenes
    from vitral.training.display import Display

    check_place(given.out)
    display = Display()
    try:
        data = write_scenes(given.out, given, lambda n, total: display.count("making scenes", n, total))
    finally:
        display.close()
    objects = sum(len(one.objects) for one in data.annotated)
    print(
        f"wrote {given.out}: {given.images:,} scenes to train on and {given.test:,} to test on, with {objects:,} objects of "
        f"{len(data.classes)} classes ({', '.join(data.classes.names)})",
        file=sys.stderr,
    )
    return 0
