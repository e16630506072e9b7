"""Overlapping tiles over an image that is larger than those that a model was trained on."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitral.data.view import Box, Placed

OVERLAP = 0.25
"""Share of a tile that the next one shows too, at least: an object up to that size is whole in one of them."""


class Tile(NamedTuple):
    """A part of an image as a model answered it."""

    outputs: Any
    """The model's, of this part alone."""
    placed: Placed
    """Where the model's pixels lie in the part, taken as an image of its own."""
    box: Box
    """Top, left, height and width of the part in the image."""


def tiles(height: int, width: int, side: tuple[int, int], overlap: float = OVERLAP) -> list[Box]:
    """The fewest tiles of `side` (height, width) that cover an image and overlap so far, evenly spread; smaller ones where the image is smaller."""
    tall, broad = min(height, side[0]), min(width, side[1])
    rows, columns = _starts(height, tall, overlap), _starts(width, broad, overlap)
    return [(top, left, tall, broad) for top in rows for left in columns]


def _starts(size: int, side: int, overlap: float) -> list[int]:
    steps = math.ceil((size - side) / (side * (1 - overlap)))
    return [round((size - side) * k / max(1, steps)) for k in range(steps + 1)]


def nearness(side: int) -> NDArray[np.float32]:
    """[side]: how far each pixel of a tile's side lies from its nearer end, above 0: its weight where tiles overlap."""
    places = np.arange(side, dtype=np.float32) + 0.5
    return np.minimum(places, side - places)


def cut_off(boxes: NDArray[np.float64], tile: Box, height: int, width: int, margin: float = 2.0) -> NDArray[np.bool_]:
    """[n]: which boxes [n, 4] (x0, y0, x1, y1 in an image of height x width) end at an edge of the tile behind which the image goes on."""
    top, left, tall, broad = tile
    inner = (left > 0, top > 0, left + broad < width, top + tall < height)
    edges = np.array((left, top, left + broad, top + tall), np.float64)
    return ((np.abs(boxes - edges) < margin) & np.array(inner)).any(-1)
