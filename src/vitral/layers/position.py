"""Position embeddings on a grid of patches: learned, factorised or fixed sines, and their resizing to another grid.

Learned 1-D, learned 2-D and none are the paper's alternatives (https://arxiv.org/abs/2010.11929, appendix D.4); the fixed 2-D sines are those of
https://arxiv.org/abs/2205.01580.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.errors import VitralError

POSITIONS = ("learned", "learned2d", "sincos2d", "none")


def sincos2d(h: int, w: int, dim: int, temperature: float = 10_000.0) -> Tensor:
    """[h*w, dim]: a quarter of the width each for sin and cos of the column and of the row."""
    if dim % 4:
        raise VitralError(f"2-D sine positions need a width divisible by 4, not {dim}")
    omega = temperature ** -(torch.arange(dim // 4) / max(1, dim // 4 - 1))
    row, column = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    rows, columns = row.flatten()[:, None] * omega, column.flatten()[:, None] * omega  # [h*w, dim/4]
    return torch.cat([columns.sin(), columns.cos(), rows.sin(), rows.cos()], dim=1)


def resize_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Patch positions [1, h*w, D] from one grid to another: bicubic with antialiasing (timm's rule), in float32."""
    if old == new:
        return positions
    grid = positions.unflatten(1, old).permute(0, 3, 1, 2).float()  # [1, D, h, w]
    grid = F.interpolate(grid, size=new, mode="bicubic", antialias=True, align_corners=False)
    return grid.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)  # [1, h'*w', D]


class LearnedPositions2d(nn.Module):
    """One table for rows and one for columns, each of half the width, concatenated: -> [1, h*w, D]."""

    def __init__(self, grid: tuple[int, int], dim: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(grid[0], dim // 2))
        self.columns = nn.Parameter(torch.zeros(grid[1], dim - dim // 2))

    def forward(self) -> Tensor:
        h, w = len(self.rows), len(self.columns)
        rows = self.rows[:, None].expand(h, w, -1)
        columns = self.columns[None].expand(h, w, -1)
        return torch.cat([rows, columns], dim=-1).flatten(0, 1)[None]  # [1, h*w, D]
