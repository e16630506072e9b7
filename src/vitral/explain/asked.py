"""A place that is asked about: the model as one with a single logit, which tokens gave the answer, and what those read.

Axes: B images, H heads, N = h*w places of the memory, C channels, P prefix tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitral.answers.objects import Box
from vitral.errors import VitralError
from vitral.explain.attention import LayerChoice, check_alike
from vitral.explain.capture import Pass, decoder_reads
from vitral.explain.geometry import Floats, Geometry
from vitral.layers.attention import check_layer
from vitral.layers.position import Grid
from vitral.models.around import Around
from vitral.models.common import ImageModel, Reader, covering
from vitral.models.heads.query import QueryHead


class Asked(Around):
    """A model of places as one with a single logit: images [B, C, H, W] -> [B, 1]."""

    def __init__(self, model: ImageModel, ask: Callable[[Tensor], Tensor]) -> None:
        super().__init__(model.config, model)
        self.whole, self.ask = model, ask
        self.num_classes, self.head = 1, model.head

    @property
    def inner(self) -> ImageModel:
        return self.whole

    def forward(self, images: Tensor) -> Tensor:
        return self.ask(images)

    def pool(self, tokens: Tensor) -> Tensor:
        """The patch itself of one patch [B, P + 1, D] or [B, 1, 1, D]: no token stands for the whole image."""
        return tokens[:, -1] if tokens.ndim == 3 else tokens[:, -1, -1]

    @property
    def reader(self) -> Reader:
        """All patches: a head over maps reads them after the last norm."""
        return "mean"


@dataclass(frozen=True)
class Place:
    """What is asked about."""

    model: Asked
    images: Tensor
    """[1, C, H, W]: the image, padded to whole cells."""
    name: str
    """In words, without its class."""
    label: str
    index: int
    """Of the class."""
    probability: float
    box: Box | None
    """Around it, x0, y0, x1, y1 in pixels of the picture; None for a class wherever it was answered."""
    row: int
    """Of the model's answers; -1 of a map's."""
    region: NDArray[np.float64] | None
    """[H, W]: 1 where the tokens lie that gave the answer, or became the query that did; None where no tokens of patches did."""
    token: int | None
    """The prefix token that gave it, if one did."""
    middle: tuple[float, float]
    """y and x in the model's pixels."""

    @property
    def queried(self) -> bool:
        """Whether a query of a decoder gave it."""
        return bool(decoder_reads(self.model.whole))

    def asking(self, geometry: Geometry) -> NDArray[np.float64]:
        """[P + h*w], summing to one: the weight of each token in the answer."""
        weights = np.zeros(geometry.num_prefix + geometry.grid[0] * geometry.grid[1])
        if self.token is not None:
            weights[self.token] = 1
        else:
            assert self.region is not None, "its tokens are known"
            weights[geometry.num_prefix :] = cells(self.region, geometry.grid, geometry.stride).ravel()
        return weights / weights.sum()

    def patch(self, grid: Grid, stride: int) -> tuple[int, int]:
        """Row and column of the patch in its middle."""
        y, x = self.middle
        return min(grid[0] - 1, int(y // stride)), min(grid[1] - 1, int(x // stride))


def cells(region: NDArray[np.float64], grid: Grid, stride: int) -> Floats:
    """A region [H, W] in the squares of a grid, [h, w]: the share of each that it covers."""
    h, w = grid
    padded = np.zeros((h * stride, w * stride))
    part = region[: h * stride, : w * stride]
    padded[: part.shape[0], : part.shape[1]] = part
    return padded.reshape(h, stride, w, stride).mean((1, 3))


def attention(place: Place, seen: Pass, layer: LayerChoice | None, head: int | None) -> tuple[Floats, int, str]:
    """([h, w], its stride, what it shows): what the place's query reads of the memory in a layer of the decoder, by default the last; of a place
    without a query what its tokens read in a layer of the backbone. The mean of all heads, or one of them.
    """
    layer = -1 if layer is None else layer
    if not place.queried:
        geometry = [each.geometry for each in seen.layers]
        arrays = [each.array() for each in seen.layers]
        if layer == "mean":
            check_alike(geometry, arrays)
        chosen = range(len(arrays)) if layer == "mean" else [check_layer(layer, len(arrays))]
        maps = np.mean([geometry[i].places(geometry[i].keys(arrays[i], place.asking(geometry[i]))) for i in chosen], 0)
        stride, what = geometry[chosen[-1]].stride, "layer"
    else:
        read = [each[0, :, place.row].detach().float().cpu().numpy() for each in seen.crossed]  # [H, N] each
        chosen = range(len(read)) if layer == "mean" else [check_layer(layer, len(read), "decoder layers")]
        stride = int(_query_head(place).neck.stride)
        maps = np.mean([read[i] for i in chosen], 0)
        maps, what = maps.reshape(len(maps), *covering(place.images, stride)), "decoder layer"  # [H, h, w]
    if head is not None and not -len(maps) <= head < len(maps):
        raise VitralError(f"head {head}: a layer has {len(maps)} heads, numbered 0 to {len(maps) - 1}")
    which = f"mean of {what}s" if layer == "mean" else f"{what} {chosen[0]}"
    words = f"attention of {place.name}, {which}, {'mean of heads' if head is None else f'head {head}'}"
    return maps.mean(0) if head is None else maps[head], stride, words


def read_square(
    place: Place, seen: Pass, square: Floats, brought: Floats, last: Geometry, *, weighted: bool
) -> NDArray[np.float64]:
    """[P + h*w]: the part of each token in the answer, from a matrix between all tokens [T, T], row by what it was made of.

    Of the tokens that gave the answer what others `brought` them [T, T], and of a query also what it read of the memory, summed over the decoder's
    layers. weighted: that times its gradient, where positive, and of all queries, since they read each other
    (https://arxiv.org/abs/2103.15679, section 3.3).
    """
    found = place.asking(last) @ brought
    if not place.queried:
        return found
    if weighted:
        gradients = torch.autograd.grad(seen.logits[0, 0], seen.crossed)
        parts = [
            (read * each).clamp(min=0)[0].mean(0).sum(0) for read, each in zip(seen.crossed, gradients, strict=True)
        ]
    else:
        parts = [read[0, :, place.row].mean(0) for read in seen.crossed]  # [N] each
    memory = torch.stack(parts).sum(0).detach().double().cpu().numpy()
    assert len(memory) == last.grid[0] * last.grid[1], "the memory of a plain ViT has its grid"
    return found + np.pad(memory, (last.num_prefix, 0)) @ square


def _query_head(place: Place) -> QueryHead:
    head = place.model.head
    assert isinstance(head, QueryHead), "only these have queries that read"
    return head
