"""The linear head: the maps of several depths, each normalised, side by side, and one linear layer.

As DINOv2 and DINOv3 read frozen features (https://arxiv.org/abs/2508.10104, dinov3/eval/segmentation/models/heads/linear_head.py), but with a layer
norm for each map instead of a batch norm over all: what a place gets does not depend on the other images of a batch. A small ViT's cells are large
beside its images, so by default the layer answers for parts of a cell (sub-pixel convolution, https://arxiv.org/abs/1609.05158).

Axes: B images, h w the finest map, D widths, K classes.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.models.heads.options import LinearOptions
from vitral.models.heads.outputs import Maps


class LinearHead(nn.Module):
    """Maps [B, h, w, D], finest first, to `Maps` at the stride of the finest, or of parts of its cells: U by U of each."""

    answers: ClassVar = ("classifier",)
    """The layers that give the answers."""

    def __init__(self, widths: Sequence[int], strides: Sequence[int], classes: int, options: LinearOptions) -> None:
        super().__init__()
        self.parts = U = math.gcd(options.head_upscale, strides[0])
        self.stride = strides[0] // U
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.dropout = nn.Dropout2d(options.head_dropout)
        self.classifier = nn.Linear(sum(widths), classes * U * U)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Maps:
        finest = maps[0].shape[1:3]
        normed = [norm(each).permute(0, 3, 1, 2) for norm, each in zip(self.norms, maps, strict=True)]  # [B, D, h, w]
        joined = self.dropout(torch.cat([enlarged(each, finest) for each in normed], 1))  # [B, sum of D, h, w]
        logits = self.classifier(joined.permute(0, 2, 3, 1))  # [B, h, w, K*U*U]
        return Maps(F.pixel_shuffle(logits.permute(0, 3, 1, 2), self.parts), self.stride)  # [B, K, h*U, w*U]


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """[B, D, h, w] at this height and width, linear between the middles of cells."""
    if maps.shape[2:] == tuple(size):
        return maps
    down, across = (between(old, new, maps) for old, new in zip(maps.shape[2:], size, strict=True))
    return down @ maps @ across.T


def between(old: int, new: int, like: Tensor) -> Tensor:
    """[new, old]: what each of `new` cells along a side takes of each of the `old` ones."""
    places = ((torch.arange(new, device=like.device) + 0.5) * (old / new) - 0.5).clamp(0, old - 1)
    return (1 - (places[:, None] - torch.arange(old, device=like.device)).abs()).clamp(min=0).to(like.dtype)
