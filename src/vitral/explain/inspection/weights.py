"""What a model's weights show without an image: the filters of its embedding, and its positions.

Figure 7, left and centre, of An Image is Worth 16x16 Words, https://arxiv.org/abs/2010.11929. Where a model has no such thing, the result is a
sentence that says so. Axes: D width, H heads, h w grid of patches, p q filter, C channels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitral.explain.inspection.measures import cosine_grid, principal_filters
from vitral.layers.attention import attention_layers
from vitral.layers.bit import StdConv2d
from vitral.models.common import ImageModel

SHOWN_FILTERS = 64
WHOLE = 14  # rows or columns up to which all are compared
PLACES = 8  # of more, so many


@dataclass(frozen=True)
class Filters:
    """The filters of the first layer."""

    pictures: Tensor
    """[n, p, q, C], weights on the pixels."""
    shares: Tensor | None
    """[n], the share of the filters' variance that each principal component explains; None where these are filters themselves."""
    total: int
    """How many filters the layer has."""


@dataclass(frozen=True)
class Positions:
    """Similarity of the patches' positions."""

    name: str
    similarity: Tensor
    """Cosines [a, b, h, w]: of the patch at rows[i], columns[j] with every patch."""
    rows: list[int]
    columns: list[int]


@dataclass(frozen=True)
class OffsetBias:
    """What a layer adds to its attention logits for each offset between query and key."""

    name: str
    values: Tensor
    """[H, 2h - 1, 2w - 1]: row h - 1 and column w - 1 hold the offset 0; larger rows have the query below the key."""


def filters(model: ImageModel) -> Filters:
    """Principal components of the patch embedding, or the filters of an overlapping first convolution."""
    conv = next(
        m for m in model.modules() if isinstance(m, nn.Conv2d) and m.in_channels == model.config.in_channels
    )  # in the order of definition others may come first
    weight = conv.weight.detach().float().cpu()
    if isinstance(conv, StdConv2d):  # as it is used
        weight = nn.functional.layer_norm(weight, weight.shape[1:], eps=conv.eps)
    weight = weight.permute(0, 2, 3, 1)  # [D, C, p, q] -> [D, p, q, C]
    if conv.stride != conv.kernel_size:
        return Filters(weight[:SHOWN_FILTERS], None, len(weight))
    return Filters(*principal_filters(weight), len(weight))


@torch.no_grad()
def positions(model: ImageModel, whole: int = WHOLE) -> list[Positions] | str:
    """The similarity of each table of positions that is added to tokens, or rotates them.

    whole: rows or columns up to which all are compared with the others; of more, a few.
    """
    tables = model.position_vectors()
    return [_positions(name, *found, whole) for name, found in tables.items()] or model.without_positions


def _positions(name: str, vectors: Tensor, grid: tuple[int, int], whole: int) -> Positions:
    h, w = grid
    rows, columns = _asked(h, whole), _asked(w, whole)
    cosines = cosine_grid(vectors).view(h, w, h, w)
    return Positions(name, cosines[rows][:, columns], rows, columns)


def _asked(side: int, whole: int) -> list[int]:
    """All of few rows, some of many, evenly spaced."""
    if side <= whole:
        return list(range(side))
    return [round((i + 0.5) * side / PLACES - 0.5) for i in range(PLACES)]


@torch.no_grad()
def offset_biases(model: ImageModel) -> list[OffsetBias] | str:
    """The relative position bias of each layer that has one."""
    if found := [OffsetBias(name, bias.float().cpu()) for name, bias in model.offset_biases().items()]:
        return found
    if attention_layers(model):
        return f"{type(model).__name__} has no relative position bias: its positions, if any, are in the tokens"
    return f"{type(model).__name__} has no attention"
