"""Outlines and masks: polygons filled exactly as by COCO's tools, run lengths, areas, boxes, and outlines from masks.

Computed by faster-coco-eval (extra `dense`), which is imported on first use. Axes: h height, w width.
"""

from collections import defaultdict
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from vitral.data.annotated import Box, Polygons, Runs, Shape
from vitral.data.raster import turn
from vitral.errors import VitralError


def _coco() -> ModuleType:
    try:
        from faster_coco_eval.core import mask
    except ImportError:
        raise VitralError("masks and outlines need faster-coco-eval; run pip install 'vitral[dense]'") from None
    return mask


def runs_of(mask: NDArray[np.bool_]) -> Runs:
    """A mask [h, w] as run lengths."""
    packed = _coco().encode(np.asfortranarray(mask, np.uint8))
    return Runs(mask.shape[0], mask.shape[1], packed["counts"])


def as_runs(shape: Shape, height: int, width: int) -> Runs:
    """A shape in an image of this size as run lengths. Raises ValueError for invalid run lengths, or those of another size."""
    if isinstance(shape, Runs):
        if (shape.height, shape.width) != (height, width):
            raise ValueError(f"is of {shape.width} x {shape.height} pixels")
        return shape
    coco = _coco()
    filled = coco.frPyObjects([part.ravel().tolist() for part in shape.parts], height, width)
    return Runs(height, width, coco.merge(filled)["counts"])


def unpacked(height: int, width: int, counts: list[int]) -> Runs:
    """Run lengths from a list. Raises ValueError if they do not fill the mask exactly."""
    if any(count < 0 for count in counts) or sum(counts) != height * width:
        raise ValueError(f"run lengths make {sum(counts):,} pixels, not {height} x {width}")
    return Runs(
        height, width, _coco().frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]
    )


def mask_of(shape: Shape, height: int, width: int) -> NDArray[np.bool_]:
    """Bool [h, w]: the pixels that a shape covers in an image of this size. Raises ValueError as `as_runs`."""
    runs = as_runs(shape, height, width)
    try:
        return _coco().decode({"size": [height, width], "counts": runs.counts}).astype(bool)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"run lengths cannot be read ({error})") from error


def area_and_box(shape: Shape, height: int, width: int) -> tuple[int, Box]:
    """How many pixels a shape covers, and the box around them, (0, 0, 0, 0) of none. Raises ValueError as `as_runs`."""
    runs = as_runs(shape, height, width)
    if isinstance(shape, Runs):
        mask_of(shape, height, width)  # the library checks the total length only when it unpacks the runs
    packed = {"size": [height, width], "counts": runs.counts}
    x, y, w, h = np.asarray(_coco().toBbox(packed)).ravel().tolist()
    return int(_coco().area(packed)), (x, y, x + w, y + h)


def bounds(polygons: Polygons) -> Box:
    """The box around outlines."""
    points = np.concatenate(polygons.parts)
    (x0, y0), (x1, y1) = points.min(0).tolist(), points.max(0).tolist()
    return x0, y0, x1, y1


def outlines(mask: NDArray[np.bool_]) -> Polygons | None:
    """The edges of a mask [h, w] as polygons that fill to exactly this mask; None if the mask is empty or has holes."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    top, left = int(rows[0]), int(columns[0])
    mask = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    padded = np.pad(mask, 1).astype(np.int8)
    following: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for dy, dx in ((0, 1), (1, 0)):  # edges between neighbours, directed so that the mask lies to their right
        change = padded[dy:, dx:] - padded[: len(padded) - dy, : padded.shape[1] - dx]
        for y, x in np.argwhere(change).tolist():
            start, end = (x, y - 1), (x, y)  # of an upright edge, in pixels of the mask
            if dy:
                start, end = (x, y), (x - 1, y)
            entering = change[y, x] > 0
            a, b = (end, start) if entering else (start, end)
            following[a].append(b)
    parts = []
    while following:
        first = start = next(iter(following))
        loop, came = [start], (0, 0)
        while True:
            ends = following[start]
            if len(ends) > 1:  # two corners touch: turn right, so that the parts stay separate
                right = (start[0] - came[1], start[1] + came[0])
                ends.sort(key=lambda end, right=right: end == right)  # type: ignore[misc]
            end = ends.pop()
            if not ends:
                del following[start]
            went = (end[0] - start[0], end[1] - start[1])
            if went == came:
                loop.pop()
            loop.append(end)
            start, came = end, went
            if end == first:
                break
        points = np.array(loop[:-1], np.float64)
        x, y = points.T
        if float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) < 0:
            return None  # runs round a hole
        parts.append(points)
    if not (mask_of(Polygons(tuple(parts)), *mask.shape) == mask).all():
        return None
    return Polygons(tuple(part + np.array((left, top)) for part in parts))


def turned_points(points: NDArray[np.float64], height: int, width: int, orientation: int) -> NDArray[np.float64]:
    """Points [n, 2] of the stored image, of this size, to the upright image. orientation: EXIF's."""
    x, y = points[:, 0], points[:, 1]
    if orientation in (2, 3, 7, 8):
        x = width - x
    if orientation in (3, 4, 6, 7):
        y = height - y
    return np.stack((y, x) if orientation >= 5 else (x, y), 1)


def turned_box(box: Box, height: int, width: int, orientation: int) -> Box:
    """`turned_points` of a box."""
    (x0, y0), (x1, y1) = turned_points(np.array(box).reshape(2, 2), height, width, orientation).tolist()
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def turned_shape(shape: Shape, height: int, width: int, orientation: int) -> Shape:
    """`turned_points` of a shape. Raises ValueError as `as_runs`."""
    if isinstance(shape, Polygons):
        return Polygons(tuple(turned_points(part, height, width, orientation) for part in shape.parts))
    return runs_of(turn(mask_of(shape, height, width)[:, :, None], orientation)[:, :, 0])
