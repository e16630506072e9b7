"""Queries with boxes that read a map: cross-attention, its bias by where a place lies of the query's box, and boxes as changes of other boxes.

The bias is that of Plain DETR (https://arxiv.org/abs/2308.01904, section 4.1). Boxes are x0, y0, x1, y1, in shares of the image unless said
otherwise. Axes: B batch, H heads, Q queries, N = h*w places of the map, D width.
"""

import math

import torch
from torch import Tensor, nn

from vitral.layers.attention import AttentionLayer, attend
from vitral.layers.mlp import Mlp
from vitral.layers.position import Grid

OCTAVES = 8  # of the waves that a box's position is written in: the shortest is 1/64 of the image
LARGEST = math.log(64)  # of the logarithm by which a box's side may grow in one step


class CrossAttention(AttentionLayer):
    """Queries [B, Q, D] read a memory [B, N, D] -> [B, Q, D]."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__(dim, num_heads)
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor | None = None) -> Tensor:
        keys, values = self.kv(memory).chunk(2, -1)  # each [B, N, D]
        q, k, v = self.heads(self.q(x)), self.heads(keys), self.heads(values)  # [B, H, Q, d], [B, H, N, d]
        mixed = attend(q, k, v, bias=bias, recorder=self.recorder)  # [B, H, Q, d]
        return self.proj(mixed.transpose(1, 2).flatten(2))


class BoxBias(nn.Module):
    """What is added to the logits of attention from a query with a box to a place: one function of the column's offsets from the box's left and
    right edge, and one of the row's from its top and bottom.

    Offsets are in cells, their size by its logarithm.
    """

    def __init__(self, num_heads: int, hidden: int = 64) -> None:
        super().__init__()
        self.columns, self.rows = (
            nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, num_heads)) for _ in range(2)
        )

    def forward(self, boxes: Tensor, grid: Grid) -> Tensor:
        """Boxes [B, Q, 4] in cells of the grid (h, w) -> [B, H, Q, h*w]."""
        across = self.columns(self.offsets(boxes[..., 0::2], grid[1]))  # [B, Q, w, H]
        down = self.rows(self.offsets(boxes[..., 1::2], grid[0]))  # [B, Q, h, H]
        bias = down[:, :, :, None] + across[:, :, None]  # [B, Q, h, w, H]
        return bias.flatten(2, 3).permute(0, 3, 1, 2)

    @staticmethod
    def offsets(edges: Tensor, cells: int) -> Tensor:
        """Two edges [B, Q, 2] along an axis of so many cells -> [B, Q, cells, 2]."""
        centres = torch.arange(cells, device=edges.device, dtype=edges.dtype) + 0.5
        offsets = edges[:, :, None] - centres[:, None]
        return offsets.sign() * (1 + offsets.abs()).log2()


class QueryLayer(nn.Module):
    """Queries [B, Q, D] look at each other and at the memory: three residual branches, each with a norm before it."""

    def __init__(self, dim: int, attention: nn.Module, cross: CrossAttention, mlp: Mlp) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim)
        self.cross = cross
        self.norm3 = nn.LayerNorm(dim)
        self.mlp = mlp

    def forward(self, x: Tensor, positions: Tensor, memory: Tensor, bias: Tensor) -> Tensor:
        """positions [B, Q, D] of the queries; memory [B, N, D]; bias [B, H, Q, N] of the attention to it."""
        x = x + self.attn(self.norm1(x) + positions)
        x = x + self.cross(self.norm2(x) + positions, memory, bias)
        return x + self.mlp(self.norm3(x))


def waves(boxes: Tensor) -> Tensor:
    """Boxes [..., 4] as sines and cosines of their centre and size in octaves, [..., 8 * OCTAVES]."""
    scales = math.pi * 2.0 ** torch.arange(OCTAVES, device=boxes.device)
    angles = (centred(boxes)[..., None] * scales).flatten(-2)  # [..., 4 * OCTAVES]
    return torch.cat([angles.sin(), angles.cos()], -1)


def refined(boxes: Tensor, change: Tensor) -> Tensor:
    """Boxes [..., 4] moved by a change [..., 4]: of the centre in sides of the box, and of the sides by their logarithm; in float32."""
    centre, sides = centred(boxes).split(2, -1)
    move, grow = change.float().split(2, -1)
    centre, sides = centre + move * sides, sides * grow.clamp(max=LARGEST).exp()
    return torch.cat([centre - sides / 2, centre + sides / 2], -1)


def centred(boxes: Tensor) -> Tensor:
    """x0, y0, x1, y1 -> centre x, centre y, width, height."""
    start, end = boxes.split(2, -1)
    return torch.cat([(start + end) / 2, end - start], -1)
