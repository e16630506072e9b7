"""Annotated data of one format into another: what it cannot hold is known before anything is written, and the original is never touched."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from vitral.data.annotated import Annotated, AnnotatedData, Object, Polygons
from vitral.data.formats import FORMATS
from vitral.data.formats.faults import KINDS, by_kind
from vitral.data.formats.kinds import CHANGES, Planned, hidden
from vitral.data.formats.voc import MOST_OBJECTS
from vitral.data.progress import OnProgress
from vitral.data.shapes import area_and_box, bounds
from vitral.errors import VitralError

_BOX_MOVES = 1.0  # pixels by which a box may differ from its outline's without being said


def plan_conversion(data: AnnotatedData, to: str, progress: OnProgress | None = None) -> Planned:
    """What writing data as this format will keep and lose. Raises VitralError where the format cannot hold them at all."""
    target = FORMATS[to]
    planned = Planned(data, to)
    for kind, found in by_kind(data.faults).items():
        if KINDS[kind].severity != "error" and KINDS[kind].mended:
            planned.leave(
                len(found),
                KINDS[kind].one,
                f"{KINDS[kind].mended}: {found[0].where}{f' ({found[0].text})' if found[0].text else ''}",
            )
    if data.kind not in target.holds:
        CHANGES[data.kind, next(iter(target.holds))](planned, progress)
    classes, there = planned.data.classes, planned.data
    holds = target.holds[there.kind]
    if there.kind == "objects":
        _fit_objects(planned, holds)
        there = planned.data
    if (
        "ids" not in holds
        and there.kind == "objects"
        and data.classes.ids != tuple(range(len(classes)))
        and to in ("yolo", "parquet", "shards")
    ):
        planned.leave(
            len(classes),
            "class number",
            f"{data.classes.ids[0]} to {data.classes.ids[-1]} become 0 to {len(classes) - 1}, in this order",
        )
    if "groups" not in holds and classes.groups:
        planned.leave(len(set(classes.groups)), "supercategory", "the format has none")
    bare = sum(one.split is None for one in there.annotated)
    if to in ("yolo", "parquet", "shards"):
        planned.leave(bare, "image without a split", "goes to train")
    if to in ("coco", "parquet", "shards") and any(not one.unlabelled for one in there.annotated):
        planned.leave(
            sum(one.unlabelled for one in there.annotated),
            "image that is not annotated",
            "becomes one in which there is nothing",
        )
    return planned


def _fit_objects(planned: Planned, holds: frozenset[str]) -> None:
    """Without what the format has no words for."""
    data, to = planned.data, planned.to

    def only(kept: Callable[[Object], bool], what: str, why: str) -> None:
        count = sum(not kept(each) for one in data.annotated for each in one.objects)
        if count:
            planned.leave(count, what, why)
            rows = [replace(one, objects=tuple(filter(kept, one.objects))) for one in planned.data.annotated]
            planned.data = replace(planned.data, annotated=rows)

    if "crowd" not in holds:
        only(lambda each: not each.crowd, "crowd", "the format cannot mark it, and it is no single object")
    if "hard" not in holds:
        only(lambda each: not each.hard, "object set aside as difficult", "the format cannot mark it")
    rows = planned.data.annotated
    if to in ("yolo", "labelme"):
        moved = sum(_moves(each, one) for one in rows for each in one.objects)
        planned.leave(moved, "box that differs from its outline's", "the outline stays, and with it its own box")
    if to == "yolo":
        several = sum(
            isinstance(each.shape, Polygons) and len(each.shape.parts) > 1 for one in rows for each in one.objects
        )
        planned.leave(
            several,
            "outline in several parts",
            "kept as run lengths (rle), which only Ultralytics of 2026-08 and later reads",
        )
    if to == "voc":
        full = next(
            (
                i
                for i, one in enumerate(rows)
                if len(one.objects) > MOST_OBJECTS and any(each.shape for each in one.objects)
            ),
            None,
        )
        if full is not None:
            name, count = data.images.names[full], len(rows[full].objects)
            raise VitralError(
                f"{name}: has {count} objects with outlines, and a map of VOC's can tell {MOST_OBJECTS} apart; convert to another format"
            )
        planned.leave(
            sum(map(hidden, rows)),
            "outline that lies partly under another",
            "loses the pixels that both have: VOC's map has one object a pixel",
        )


def _moves(each: Object, one: Annotated) -> bool:
    if each.shape is None:
        return False
    around = (
        bounds(each.shape) if isinstance(each.shape, Polygons) else area_and_box(each.shape, one.height, one.width)[1]
    )
    return max(abs(a - b) for a, b in zip(around, each.box, strict=True)) > _BOX_MOVES


def check_place(out: Path, data: AnnotatedData | None = None) -> None:
    """Refuse a place that holds something, or lies in the data."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise VitralError(f"{out}: is there already and not empty; choose another place")
    if data is not None and out.absolute().is_relative_to(data.root):
        raise VitralError(f"{out}: lies in the data, which are never changed; choose a place elsewhere")


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` to write into, which takes its place once all is written."""
    check_place(out)
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        yield part
        if out.exists():
            out.rmdir()
        os.rename(part, out)
    except VitralError as error:
        error.args = (str(error).replace(str(part), str(out)),)
        raise
    except OSError as error:
        raise VitralError(f"{out}: cannot be written ({error.strerror or error}); choose another place") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_planned(planned: Planned, out: Path) -> None:
    """Write the data into an empty or new folder, which appears when all of it is there."""
    check_place(out, planned.data)
    with fresh_folder(out) as part:
        FORMATS[planned.to].write(planned.data, part)


def counts(data: AnnotatedData) -> dict[str, int]:
    """How many images, objects or segments, and classes there are."""
    what = "segments" if data.kind == "panoptic" else "objects"
    number = sum(len(one.segments if data.kind == "panoptic" else one.objects) for one in data.annotated)
    return {
        "images": len(data.images.names),
        **({what: number} if data.kind != "semantic" else {}),
        "classes": len(data.classes),
    }
