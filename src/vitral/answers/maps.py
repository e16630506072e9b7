"""A class for each pixel of the original image.

Axes: K classes, h w of the original, rows and columns of the head's cells.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from vitral.answers.answer import Answer, Answers
from vitral.answers.squash import softmax
from vitral.data.formats.write import map_picture
from vitral.data.preprocess import Kind
from vitral.data.tiles import Tile, nearness
from vitral.data.view import Placed, View
from vitral.drawing.objects import keyed, veiled
from vitral.models.heads.outputs import Maps

BLOCK = 2**24
"""Logits that lie in memory at a time."""


@dataclass(frozen=True, eq=False)
class Segmentation(Answer):
    """The class of every pixel, and the classes' names in order."""

    map: NDArray[np.int16] = field(repr=False)
    """[h, w] of the upright original: positions in `labels`."""
    labels: list[str]
    ids: Sequence[int] = ()
    """Of each label the value that stands for it in the map's picture; its position where there are none."""

    @property
    def shares(self) -> list[tuple[str, float]]:
        """The classes that are there and their shares of the pixels, the largest first."""
        counts = np.bincount(self.map.ravel(), minlength=len(self.labels))
        order = np.argsort(-counts, kind="stable")
        return [(self.labels[k], counts[k] / self.map.size) for k in order.tolist() if counts[k]]

    def pictures(self, image: NDArray[np.uint8]) -> Iterator[tuple[str, Image.Image]]:
        """The map in the training data's own values, and the image under the classes' colours, which are the map's."""
        ids = np.array(self.ids or range(len(self.labels)))
        yield ".png", map_picture(ids[self.map])
        names = [(label, int(ids[self.labels.index(label)])) for label, _ in self.shares]
        yield "-overlay.jpg", keyed(Image.fromarray(veiled(image, ids[self.map])), names)

    def line(self, top_k: int) -> str:
        return "  ".join(f"{label} {share:.1%}" for label, share in self.shares[:top_k])

    def cells(self, top_k: int, separator: str) -> list[str]:
        found = [cell for label, share in self.shares[:top_k] for cell in (label, f"{share:.6f}")]
        return [*found, *[""] * (2 * min(top_k, len(self.labels)) - len(found))]

    def to_json(self) -> dict[str, object]:
        height, width = self.map.shape
        return {"height": height, "width": width, "shares": dict(self.shares)}


class MapAnswers(Answers):
    """The class with the largest logit, at every pixel."""

    of_whole = False
    kind = "maps"

    def __call__(self, outputs: Maps, names: Sequence[str], top_k: int, placed: Sequence[Placed]) -> list[Segmentation]:
        return [
            Segmentation(name, segmented(logits, outputs.stride, place), self.labels, self.ids)
            for name, logits, place in zip(names, outputs.logits, placed, strict=True)
        ]

    def joined(self, tiles: Iterable[Tile], name: str, size: tuple[int, int], top_k: int) -> Segmentation:
        return Segmentation(name, blended(list(tiles), *size), self.labels, self.ids)

    def probabilities(self, outputs: Kind) -> Kind:
        return softmax(outputs, 1)

    def columns(self, top_k: int, separator: str) -> list[str]:
        count = min(top_k, len(self.labels))
        return [f"{what}{'' if k == 1 else f'_{k}'}" for k in range(1, count + 1) for what in ("label", "share")]


def segmented(logits: ArrayLike, stride: int, placed: Placed) -> NDArray[np.int16]:
    """The class with the largest logit at each pixel of the original: int16 [h, w]. logits [K, rows, columns] of one image."""
    return np.concatenate([part.argmax(0).astype(np.int16) for part in at_original(logits, stride, placed)])


def blended(tiles: Sequence[Tile], height: int, width: int) -> NDArray[np.int16]:
    """The class with the largest logit at each pixel of an image; where tiles overlap that of their mean, a tile counting less towards its edges."""
    found = np.empty((height, width), np.int16)
    classes = tiles[0].outputs.logits.shape[1]
    rows = max(1, BLOCK // (classes * width))
    for first in range(0, height, rows):
        last = min(first + rows, height)
        total = np.zeros((classes, last - first, width), np.float32)
        for tile in tiles:
            top, left, tall, broad = tile.box
            low, high = max(first, top), min(last, top + tall)
            if low < high:
                window = part_of(tile.placed, low - top, 0, high - low, broad)
                part = np.concatenate(list(at_original(tile.outputs.logits[0], tile.outputs.stride, window)), 1)
                weight = nearness(tall)[low - top : high - top, None] * nearness(broad)
                total[:, low - first : high - first, left : left + broad] += part * weight
        found[first:last] = total.argmax(0)
    return found


def part_of(placed: Placed, top: int, left: int, height: int, width: int) -> Placed:
    """Where the model's pixels lie in a part of the image, taken as an image of its own."""
    (a, b, c), (d, e, f) = placed.view.rows
    moved = ((a, b, c + a * top + b * left), (d, e, f + d * top + e * left))
    return Placed(height, width, View(placed.view.height, placed.view.width, moved))


def at_original(logits: ArrayLike, stride: float, placed: Placed) -> Iterator[NDArray[np.float32]]:
    """The logits under each pixel of the original, linear between the middles of cells: [K, some rows, w], from the top to the bottom.

    logits: [K, rows, columns], an array or a tensor on the CPU. Pixels that the view leaves out get what is nearest to them in it.
    """
    cells = np.asarray(logits, np.float32)
    (a, b, c), (d, e, f) = placed.view.rows
    assert b == d == 0, "the view of an evaluation is not turned"
    ys = (np.arange(placed.height) + 0.5) * a + c
    xs = (np.arange(placed.width) + 0.5) * e + f
    down = _between(ys, placed.view.height, stride, cells.shape[1])
    left, other, across = _between(xs, placed.view.width, stride, cells.shape[2])
    rows = max(1, BLOCK // (len(cells) * max(placed.width, cells.shape[2])))
    for start in range(0, placed.height, rows):
        lower, upper, weight = (each[start : start + rows] for each in down)
        part = _mixed(cells[:, lower], cells[:, upper], weight[:, None])  # [K, rows, columns]
        yield _mixed(part[:, :, left], part[:, :, other], across)


def _mixed(first: NDArray[np.float32], second: NDArray[np.float32], share: NDArray[Any]) -> NDArray[np.float32]:
    """What lies between, `share` of the way to the second, which is overwritten."""
    second -= first
    second *= share
    second += first
    return second


def _between(
    places: NDArray[Any], side: int, stride: float, count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The two cells whose middles lie around each place (in pixels of a view's side), and the share of the latter."""
    cells = (places.clip(0, side) / stride - 0.5).clip(0, min(count, math.ceil(side / stride)) - 1)
    lower = np.floor(cells).astype(np.int64)
    return lower, (lower + 1).clip(max=count - 1), (cells - lower).astype(np.float32)
