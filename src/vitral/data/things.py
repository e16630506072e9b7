"""Objects as targets: boxes, masks, and the segments of a panoptic map.

Axes: n objects of an image, m crowds, h w of an image, B images of a batch, H W the model's pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitral.data.annotated import Annotated, Box, Kind
from vitral.data.annotations import Annotations
from vitral.data.formats.maps import values_of
from vitral.data.shapes import mask_of
from vitral.data.view import Placed, View
from vitral.drawing.objects import Mark, marked

LEAST_SIDE = 1.0  # pixels of the model: what is smaller is no target
LEAST_SEEN = 0.1  # of an object's area: what is cut further is no target


@dataclass(frozen=True)
class Things:
    """The objects of a batch of images: of each its classes int64 [n], boxes float32 [n, 4] as shares of the input's width and height (x0, y0, x1,
    y1), masks uint8 [n, H, W] where they are learned, and the boxes of crowds [m, 4], in which nothing that is found is wrong."""

    classes: tuple[Tensor, ...]
    boxes: tuple[Tensor, ...]
    masks: tuple[Tensor, ...] | None
    crowds: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, images: slice) -> "Things":
        masks = None if self.masks is None else self.masks[images]
        return Things(self.classes[images], self.boxes[images], masks, self.crowds[images])

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "Things":
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Things":
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Things":
        masks = None if self.masks is None else tuple(map(change, self.masks))
        classes, boxes, crowds = (tuple(map(change, each)) for each in (self.classes, self.boxes, self.crowds))
        return Things(classes, boxes, masks, crowds)


@dataclass(frozen=True)
class ThingTruth:
    """What a batch of images is annotated with, in their own pixels, with classes by number; and where the model's pixels lie in them."""

    placed: tuple[Placed, ...]
    annotated: tuple[Annotated, ...]
    ids: tuple[NDArray[np.int32], ...] | None = None
    """Of panoptic data the map of each, [h, w], of segments' ids."""

    def __len__(self) -> int:
        return len(self.annotated)


@dataclass(frozen=True)
class _Found:
    index: int
    box: Box
    mask: NDArray[np.bool_] | None
    crowd: bool


class Boxes(Annotations):
    """A class and a box for each object."""

    task = "detect"
    each = "objects with boxes"
    kind: ClassVar[Kind] = "objects"
    masked: ClassVar[bool] = False
    """Whether masks are learned."""

    def found(self, i: int) -> list[_Found]:
        """The objects of image i in its own pixels; those that are too hard count as crowds."""
        one = self.data.annotated[int(self.values[i])]
        return [
            _Found(
                int(self.place[each.index]), each.box,
                None if each.shape is None else mask_of(each.shape, one.height, one.width), each.crowd or each.hard,
            )
            for each in one.objects
        ]  # fmt: skip

    def batch(self, rows: NDArray[np.int64], placed: Callable[[int], Placed]) -> Things:
        """Of objects with a known outline the box is that of what is seen of it."""
        seen = [_seen(self.found(i), placed(k).view, masked=self.masked) for k, i in enumerate(rows.tolist())]
        classes, boxes, masks, crowds = (tuple(column) for column in zip(*seen, strict=True))
        return Things(classes, boxes, masks if self.masked else None, crowds)

    def truth(self, rows: NDArray[np.int64], placed: Callable[[int], Placed]) -> ThingTruth:
        annotated = tuple(self._numbered(self.data.annotated[int(self.values[i])]) for i in rows.tolist())
        return ThingTruth(tuple(placed(k) for k in range(len(rows))), annotated)

    def _numbered(self, one: Annotated) -> Annotated:
        objects = tuple(replace(each, index=int(self.place[each.index])) for each in one.objects)
        segments = tuple(replace(each, index=int(self.place[each.index])) for each in one.segments)
        return replace(one, objects=objects, segments=segments, map=None)

    def drawn(self, i: int, view: View, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        classes, boxes, masks, crowds = _seen(self.found(i), view, masked=self.masked)
        return self.drawn_targets(Things((classes,), (boxes,), (masks,) if self.masked else None, (crowds,)), picture)

    def drawn_targets(self, things: Things, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A picture [h, w, 3] with the objects of a batch of this one image drawn on it."""
        names = {int(self.place[k]): name for k, name in enumerate(self.data.classes.names)}
        scale = np.array([picture.shape[1], picture.shape[0]] * 2)
        masks = None if things.masks is None else things.masks[0].numpy()
        marks = [
            Mark(names[k], k, tuple((box * scale).tolist()), None if masks is None else masks[row] > 0)
            for row, (k, box) in enumerate(zip(things.classes[0].tolist(), things.boxes[0].numpy(), strict=True))
        ]
        return np.asarray(marked(picture, marks, max(picture.shape[:2])))

    def most(self) -> int:
        """Objects of the image that has most."""
        rows = (self.data.annotated[i] for i in self.values.tolist())
        return max((len(one.objects) + len(one.segments) for one in rows), default=0)


class Masks(Boxes):
    """A class, a box and a mask for each object."""

    task = "instance"
    each = "objects with masks"
    masked = True


class Segments(Boxes):
    """A class and a mask for each segment, things and stuff; together they cover the image."""

    task = "panoptic"
    each = "a segment for each pixel"
    kind = "panoptic"
    masked = True

    def found(self, i: int) -> list[_Found]:
        row = int(self.values[i])
        ids = values_of(self.data, row)
        found = []
        for segment in self.data.annotated[row].segments:
            mask = ids == segment.id
            found.append(_Found(int(self.place[segment.index]), box_of(mask), mask, segment.crowd))
        return found

    def truth(self, rows: NDArray[np.int64], placed: Callable[[int], Placed]) -> ThingTruth:
        ids = tuple(values_of(self.data, int(self.values[i])) for i in rows.tolist())
        return replace(super().truth(rows, placed), ids=ids)


def box_of(mask: NDArray[np.bool_]) -> Box:
    """The box around the pixels of a mask [h, w]; (0, 0, 0, 0) of none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _seen(found: Sequence[_Found], view: View, *, masked: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Classes, boxes, masks and crowds of what a view shows of an image's objects."""
    (a, b, _), (d, e, _) = view.rows
    growth = abs(a * e - b * d)  # of areas
    classes, boxes, masks, crowds = [], [], [], []
    for each in found:
        x0, y0, x1, y1 = _moved(each.box, view)
        whole, mask = (x1 - x0) * (y1 - y0), None
        if each.mask is not None:
            mask = view.nearest(each.mask, 0)
            seen, whole = float(mask.sum()), float(each.mask.sum()) * growth
            x0, y0, x1, y1 = box_of(mask)
        else:
            x0, x1 = (min(max(x, 0.0), view.width) for x in (x0, x1))
            y0, y1 = (min(max(y, 0.0), view.height) for y in (y0, y1))
            seen = (x1 - x0) * (y1 - y0)
        if min(x1 - x0, y1 - y0) < LEAST_SIDE or seen < LEAST_SEEN * whole:
            continue
        box = (x0 / view.width, y0 / view.height, x1 / view.width, y1 / view.height)
        if each.crowd:
            crowds.append(box)
            continue
        classes.append(each.index)
        boxes.append(box)
        if masked:
            assert mask is not None, "data without outlines learn no masks"
            masks.append(mask.astype(np.uint8))
    drawn = np.stack(masks) if masks else np.zeros((0, view.height, view.width), np.uint8)
    return (
        torch.tensor(classes, dtype=torch.int64), torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.from_numpy(drawn), torch.tensor(crowds, dtype=torch.float32).reshape(-1, 4),
    )  # fmt: skip


def _moved(box: Box, view: View) -> Box:
    """The box around a box's corners in the view."""
    x0, y0, x1, y1 = box
    corners = view.seen(np.array([(y0, x0), (y0, x1), (y1, x0), (y1, x1)]))
    (top, left), (bottom, right) = corners.min(0).tolist(), corners.max(0).tolist()
    return left, top, right, bottom
