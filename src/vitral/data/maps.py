"""Semantic maps as targets: a class for each pixel.

Axes: n images, h w of an image, B images of a batch, H W the model's pixels, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitral.data.annotated import AnnotatedData
from vitral.data.annotations import Annotations
from vitral.data.formats.maps import values_of
from vitral.data.view import Placed, View
from vitral.drawing.objects import veiled

VOID = -1
"""Of a pixel that has no class: neither learned nor scored."""
LOOKED_AT = 500  # maps whose pixels are counted
VALUES = 65536  # that a map can hold


@dataclass(frozen=True)
class MapTruth:
    """The maps of a batch of images, int16 [h, w] each, in the images' own pixels, and where the model's pixels lie in them."""

    placed: tuple[Placed, ...]
    maps: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.maps)


class SemanticMaps(Annotations):
    """A class for each pixel."""

    task = "semantic"
    each = "a class for each pixel"
    kind = "semantic"
    least_classes = 2

    @classmethod
    def classes_in(cls, data: AnnotatedData, i: int) -> NDArray[np.int64]:
        values = data.annotated[i].values
        if values is None:
            values = tuple(np.unique(values_of(data, i)).tolist())
        known = data.classes.by_id
        return np.array(sorted(known[value] for value in values if value in known), np.int64)

    @cached_property
    def table(self) -> NDArray[np.int16]:
        """The class of every value."""
        table = np.full(VALUES, VOID, np.int16)
        table[list(self.data.classes.ids)] = self.place
        return table

    def map(self, i: int) -> NDArray[np.int16]:
        """The classes [h, w] of image i, upright. Raises VitralError where its file is gone."""
        return self.table[values_of(self.data, int(self.values[i]))]

    def shares(self, classes: int) -> NDArray[np.float64]:
        """Of the labelled pixels the share of each class, [K], by up to LOOKED_AT of the maps, evenly spaced."""
        counts = np.zeros(classes + 1, np.int64)
        for i in range(0, len(self), -(-len(self) // LOOKED_AT)):
            counts += np.bincount(self.map(i).ravel() + 1, minlength=classes + 1)
        return counts[1:] / max(1, counts[1:].sum())

    def batch(self, rows: NDArray[np.int64], placed: Callable[[int], Placed]) -> Tensor:
        """int64 [B, H, W]"""
        seen = [placed(k).view.nearest(self.map(i), VOID) for k, i in enumerate(rows.tolist())]
        return torch.from_numpy(np.stack(seen)).long()

    def truth(self, rows: NDArray[np.int64], placed: Callable[[int], Placed]) -> MapTruth:
        maps = tuple(torch.from_numpy(self.map(i)) for i in rows.tolist())
        return MapTruth(tuple(placed(k) for k in range(len(rows))), maps)

    def drawn(self, i: int, view: View, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return veiled(picture, view.nearest(self.map(i), VOID))
