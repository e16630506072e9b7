"""SegFormer's head: every map through a linear layer, enlarged to the finest, joined by another, and classified.

https://arxiv.org/abs/2105.15203, section 3.2. The names are those of its weights in Transformers (SegformerDecodeHead), whose batch norm is
`options.batch_norm`; by default a layer norm stands there, so that what a place gets does not depend on the other images of a batch.

Axes: B images, h w the finest map, D widths, E the head's own width, K classes.
"""

import math
from collections.abc import Sequence
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.models.heads.linear import enlarged
from vitral.models.heads.options import SegformerOptions
from vitral.models.heads.outputs import Maps


class SegformerHead(nn.Module):
    """Maps [B, h, w, D], finest first, to `Maps` at the stride of the finest, or of parts of its cells: U by U of each."""

    answers: ClassVar = ("classifier",)
    """The layers that give the answers."""

    def __init__(self, widths: Sequence[int], strides: Sequence[int], classes: int, options: SegformerOptions) -> None:
        super().__init__()
        E = options.head_dim
        self.parts = U = math.gcd(options.head_upscale, strides[0])
        self.stride = strides[0] // U
        self.linear_c = nn.ModuleList(nn.Linear(width, E) for width in widths)
        self.linear_fuse = nn.Linear(E * len(widths), E, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(E) if options.batch_norm else nn.LayerNorm(E)
        self.dropout = nn.Dropout2d(options.head_dropout)
        self.classifier = nn.Linear(E, classes * U * U)
        for linear in (*self.linear_c, self.linear_fuse, self.classifier):
            nn.init.trunc_normal_(
                linear.weight, std=0.02 if linear is self.classifier else linear.weight.shape[1] ** -0.5
            )
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Maps:
        finest = maps[0].shape[1:3]
        shares = self.linear_fuse.weight.chunk(len(maps), 1)[::-1]  # joined, the coarsest map comes first
        parts = [  # what is linear may come before maps are enlarged, where it costs less
            enlarged(F.linear(linear(each), share).permute(0, 3, 1, 2), finest)
            for each, linear, share in zip(maps, self.linear_c, shares, strict=True)
        ]
        fused = reduce(torch.add, parts)  # [B, E, h, w]
        if isinstance(self.norm, nn.BatchNorm2d):
            normed = self.norm(fused)
        else:
            normed = self.norm(fused.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        logits = self.classifier(self.dropout(F.relu(normed)).permute(0, 2, 3, 1))  # [B, h, w, K*U*U]
        return Maps(F.pixel_shuffle(logits.permute(0, 3, 1, 2), self.parts), self.stride)  # [B, K, h*U, w*U]
