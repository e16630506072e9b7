"""Annotations of one kind as another: objects as semantic or panoptic maps, and panoptic maps as objects; with what is lost."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vitral.data.annotated import Annotated, AnnotatedData, ClassTable, Object, Segment
from vitral.data.formats.maps import VOID, painted, values_of
from vitral.data.progress import OnProgress
from vitral.data.scan import in_threads
from vitral.data.shapes import area_and_box, runs_of
from vitral.errors import VitralError, counted


@dataclass
class Planned:
    """Data as they will be written, and what of them will not be."""

    data: AnnotatedData
    to: str
    left_out: list[tuple[int, str, str]] = field(default_factory=list)
    """(how many, of what, why)"""

    def leave(self, count: int, what: str, why: str) -> None:
        if count:
            self.left_out.append((count, what, why))


def hidden(one: Annotated) -> int:
    """How many outlines lie partly under others."""
    shaped = [each for each in one.objects if each.shape is not None]
    if len(shaped) < 2:
        return 0
    place = {id(each): k for k, each in enumerate(shaped, 1)}
    pixels = np.bincount(
        painted(replace(one, objects=tuple(shaped)), lambda each: place[id(each)]).ravel(), minlength=len(shaped) + 1
    )
    return sum(
        int(pixels[k]) < area_and_box(each.shape, one.height, one.width)[0]
        for k, each in enumerate(shaped, 1)
        if each.shape is not None
    )


def _outlined(planned: Planned) -> None:
    """Refuse boxes without outlines."""
    data = planned.data
    bare = [(i, each) for i, one in enumerate(data.annotated) for each in one.objects if each.shape is None]
    if bare:
        name = data.images.names[bare[0][0]]
        raise VitralError(
            f"{data.root}: {counted(len(bare), 'object has a box and no outline', 'objects have a box and no outline')}, the first in {name}; "
            f"a map needs every outline: convert to a format that holds boxes (coco, yolo, voc, labelme, parquet)"
        )


def _objects_to_semantic(planned: Planned, progress: OnProgress | None) -> None:
    _outlined(planned)
    data = planned.data
    background = next(
        name for name in ("background", "_background_", "beside all classes") if name not in data.classes.names
    )
    void = VOID if len(data.classes) < VOID else 65535
    if len(data.classes) >= void:
        raise VitralError(f"{data.root}: has {len(data.classes):,} classes, more than a map can tell apart")
    classes = ClassTable(
        (0, *range(1, len(data.classes) + 1)), (background, *data.classes.names), void=frozenset({void})
    )
    annotated = data.annotated
    objects = [each for one in annotated for each in one.objects]
    planned.leave(
        sum(not (each.crowd or each.hard) for each in objects),
        "object as one of its class",
        "a map says the class of a pixel, not the object",
    )
    planned.leave(
        sum(each.crowd or each.hard for each in objects), "crowd or difficult object", f"becomes void ({void})"
    )
    planned.leave(sum(map(hidden, annotated)), "outline that lies partly under another", "the smaller one shows")
    planned.data = replace(data, kind="semantic", classes=classes, render=partial(_classes_of, annotated, void))


def _classes_of(annotated: Sequence[Annotated], void: int, i: int) -> NDArray[np.int32]:
    """The objects of image i as a map of their classes from 1, crowds and hard ones void."""
    return painted(annotated[i], lambda each: void if each.crowd or each.hard else each.index + 1)


def _numbers_of(annotated: Sequence[Annotated], i: int) -> NDArray[np.int32]:
    """The objects of image i as a map of their numbers from 1."""
    place = {id(each): k for k, each in enumerate(annotated[i].objects, 1)}
    return painted(annotated[i], lambda each: place[id(each)])


def _objects_to_panoptic(planned: Planned, progress: OnProgress | None) -> None:
    _outlined(planned)
    data = planned.data
    render = partial(_numbers_of, data.annotated)

    def segments(i: int) -> tuple[Segment, ...]:
        there = set(np.unique(render(i)).tolist())
        return tuple(
            Segment(k, each.index, each.crowd) for k, each in enumerate(data.annotated[i].objects, 1) if k in there
        )

    found = in_threads(segments, len(data.annotated), progress)
    planned.leave(
        sum(map(hidden, data.annotated)),
        "outline that lies partly under another",
        "the smaller one shows: a pixel has one segment",
    )
    gone = sum(len(one.objects) - len(each) for one, each in zip(data.annotated, found, strict=True))
    planned.leave(gone, "object that lies wholly under others", "no pixel is left to it")
    planned.leave(
        sum(each.hard for one in data.annotated for each in one.objects),
        "mark of a difficult object",
        "the format cannot mark it",
    )
    rows = [replace(one, objects=(), segments=each) for one, each in zip(data.annotated, found, strict=True)]
    planned.data = replace(data, kind="panoptic", annotated=rows, render=render)


def _semantic_to_panoptic(planned: Planned, progress: OnProgress | None) -> None:
    data = planned.data
    place = np.zeros(65536, np.int32)
    place[list(data.classes.ids)] = np.arange(1, len(data.classes) + 1)

    render = partial(_looked_up, data, place)

    def segments(i: int) -> tuple[Segment, ...]:
        return tuple(Segment(k, k - 1) for k in np.unique(render(i)).tolist() if k)

    found = in_threads(segments, len(data.annotated), progress)
    rows = [replace(one, segments=each) for one, each in zip(data.annotated, found, strict=True)]
    classes = replace(data.classes, stuff=frozenset(range(len(data.classes))), void=frozenset())
    planned.data = replace(data, kind="panoptic", annotated=rows, classes=classes, render=render)


def _looked_up(data: AnnotatedData, place: NDArray[np.int32], i: int) -> NDArray[np.int32]:
    """The map of image i with each value replaced by its place."""
    return place[values_of(data, i)]


def _segment_classes(data: AnnotatedData, values: Sequence[int], void: int, i: int) -> NDArray[np.int32]:
    """The segments of image i as a map of their classes' values."""
    stored = values_of(data, i)
    found = np.full(stored.shape, void, np.int32)
    for segment in data.annotated[i].segments:
        found[stored == segment.id] = values[segment.index]
    return found


def _panoptic_to_semantic(planned: Planned, progress: OnProgress | None) -> None:
    data = planned.data
    ids = data.classes.ids
    kept = bool(ids) and ids[0] > 0 and ids[-1] < VOID
    values = ids if kept else tuple(range(len(ids)))
    void = 0 if kept else VOID if len(ids) < VOID else 65535
    render = partial(_segment_classes, data, values, void)
    planned.leave(
        sum(len(one.segments) for one in data.annotated),
        "segment as one of its class",
        "a map says the class of a pixel, not the object",
    )
    if not kept:
        planned.leave(len(ids), "class number", f"becomes 0 to {len(ids) - 1}, in the order of the numbers")
    classes = ClassTable(values, data.classes.names, void=frozenset({void}))
    planned.data = replace(data, kind="semantic", classes=classes, render=render)


def _panoptic_to_objects(planned: Planned, progress: OnProgress | None) -> None:
    data = planned.data

    def objects(i: int) -> tuple[Object, ...]:
        ids, one = values_of(data, i), data.annotated[i]
        found = []
        for segment in one.segments:
            if segment.index not in data.classes.stuff:
                runs = runs_of(ids == segment.id)
                area, box = area_and_box(runs, one.height, one.width)
                found.append(Object(segment.index, box, runs, segment.crowd, area=area))
        return tuple(found)

    made = in_threads(objects, len(data.annotated), progress)
    stuff = sum(segment.index in data.classes.stuff for one in data.annotated for segment in one.segments)
    planned.leave(stuff, "segment of stuff", "what cannot be counted (sky, road) is no object")
    rows = [
        replace(one, objects=each, segments=(), map=None, turn=1)
        for one, each in zip(data.annotated, made, strict=True)
    ]
    planned.data = replace(data, kind="objects", annotated=rows)


def _semantic_to_objects(planned: Planned, progress: OnProgress | None) -> None:
    raise VitralError(
        f"{planned.data.root}: is semantic maps, which do not say where one object ends and the next begins; convert to panoptic, or annotate objects"
    )


CHANGES: dict[tuple[str, str], Callable[[Planned, OnProgress | None], None]] = {
    ("objects", "semantic"): _objects_to_semantic,
    ("objects", "panoptic"): _objects_to_panoptic,
    ("semantic", "panoptic"): _semantic_to_panoptic,
    ("semantic", "objects"): _semantic_to_objects,
    ("panoptic", "semantic"): _panoptic_to_semantic,
    ("panoptic", "objects"): _panoptic_to_objects,
}
