"""The commands that make data sets: data convert, data scenes, data pack, data index."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vitral.cli.options import argument
from vitral.data.options import SceneOptions
from vitral.errors import VitralError, counted, some

SHOWN = 5  # images by name that were left out
Name = Literal["coco", "yolo", "voc", "masks", "panoptic", "labelme", "parquet", "shards"]


@dataclass
class Convert:
    """Write boxes and masks in another format, with copies of the images.

    Nothing of the original is changed. What the format cannot hold is said before anything is written. docs/annotations.md has a table of what each
    format can hold.

    Example: vitral data convert street/ street-yolo --to yolo

    Example: vitral data convert voc/VOC2012 ground --to masks
    """

    data: str = argument()
    """Folder, its JSON, data.yaml or Parquet file, or shards behind a URL."""
    out: Path = argument()
    """Folder to write, which must be new or empty."""
    to: Name = "coco"
    """Format to write: coco, yolo, voc, masks, panoptic, labelme, parquet or shards."""
    format: Name | None = None
    """Format that the data are in: coco, yolo, voc, masks, panoptic, labelme, parquet or shards; default: as it is recognised."""


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
    scenes of one split are made of are in no other.

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
    val = f"{given.val:,} for validation, " if given.val else ""
    print(
        f"wrote {given.out}: {given.images:,} scenes to train on, {val}{given.test:,} to test on, with {objects:,} objects of "
        f"{len(data.classes)} classes ({', '.join(data.classes.names)})",
        file=sys.stderr,
    )
    return 0


@dataclass
class Pack:
    """Write images and labels to tar shards in the WebDataset layout, with an index by which they are read in any order.

    The images are copied as they are. vitral train takes the folder, or its URL once it lies on a server.

    Example: vitral data pack photos/ photos-shards
    """

    data: str = argument()
    """Folder, table or built-in name, as for vitral train."""
    out: Path = argument()
    """Folder to write, which must be new or empty."""
    shard_megabytes: int = 256
    """Size of a shard, about."""


def pack(given: Pack, words: list[str]) -> int:
    from vitral.cli.parse import at_least
    from vitral.data.formats import recognise
    from vitral.data.formats.convert import check_place, fresh_folder
    from vitral.data.formats.pack import pack as packed
    from vitral.data.given import NAMES
    from vitral.data.listers import list_data
    from vitral.data.options import DataOptions
    from vitral.training.display import Display

    at_least(1, shard_megabytes=given.shard_megabytes)
    check_place(given.out)
    display = Display()
    try:
        if given.data not in NAMES and recognise(given.data) is not None:
            raise VitralError(
                f"{given.data}: is annotated; boxes, masks and maps go into shards by vitral data convert {given.data} {given.out} "
                "--to shards"
            )
        listing = list_data(given.data, DataOptions(), training=False)
        with fresh_folder(given.out) as part:
            made = packed(
                listing, part, given.shard_megabytes * 10**6, lambda n, total: display.count("packing images", n, total)
            )
    finally:
        display.close()
    print(
        f"wrote {given.out}: {counted(made.images, 'image')} in {counted(made.shards, 'shard')}, {made.bytes / 1e6:,.1f} MB, and their index"
        + _left_out(made.skipped),
        file=sys.stderr,
    )
    return 0


def _left_out(skipped: Sequence[tuple[str, str]]) -> str:
    """A sentence on images that cannot be read, the first by name; empty if there are none."""
    if not skipped:
        return ""
    shown = "; ".join(f"{name}: {why}" for name, why in skipped[:SHOWN])
    more = f"; and {len(skipped) - SHOWN:,} more" if len(skipped) > SHOWN else ""
    return f"\nleft out {counted(len(skipped), 'image')} that cannot be read, as index.json lists under skipped: {shown}{more}"


@dataclass
class Index:
    """Read tar shards once and write the index by which their images are read in any order.

    vitral train makes it by itself where it is missing; this makes it beforehand, and of shards behind URLs.

    Example: vitral data index shards/

    Example: vitral data index https://host/train-{000000..000031}.tar --out index/
    """

    data: str = argument()
    """Folder of .tar files, one of them, or a URL with the numbers of the first and the last in braces."""
    out: Path | None = None
    """Folder of the index; default: that of the shards."""
    label: str | None = None
    """The field of a sample's .json that is its class, or txt for the text beside it; default: .cls, else label, class and the like in .json."""


def index(given: Index, words: list[str]) -> int:
    from vitral.data.formats.indexing import write_index
    from vitral.data.formats.shard_places import place_of
    from vitral.data.ranges import is_url
    from vitral.training.display import Display

    if given.out is None and is_url(given.data):
        raise VitralError("--out: an index cannot be written behind a URL; name a folder for it")
    out = given.out or place_of(given.data)
    display = Display()
    try:
        made = write_index(given.data, out, lambda n, total: display.count("reading shards", n, total), given.label)
    finally:
        display.close()
    bare = ""
    if made.bare:
        bare = f"\nleft out {counted(len(made.bare), 'sample')} without an image: {some(made.bare, SHOWN)}"
    print(f"wrote {out}: an index of {counted(made.images, 'image')}{_left_out(made.skipped)}{bare}", file=sys.stderr)
    return 0
