"""Positions on a grid of patches: learned, factorised or fixed sines, relative bias tables, and their resizing to another grid.

Learned 1-D, learned 2-D and none are alternatives in https://arxiv.org/abs/2010.11929, appendix D.4; the fixed 2-D sines are those of
https://arxiv.org/abs/2205.01580; the relative bias is that of https://arxiv.org/abs/2103.14030, section 3.2.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.errors import VitralError

POSITIONS = ("learned", "learned2d", "sincos2d", "none")
RESIZES = ("timm", "hf", "torchvision", "jax", "dinov2")
Grid = tuple[int, int]


def sincos2d(h: int, w: int, dim: int, temperature: float = 10_000.0, endpoint: bool = True) -> Tensor:
    """[h*w, dim]: a quarter of the width each for sin and cos of the column and of the row.

    Frequencies fall from 1 to 1 / temperature, reached (`endpoint`) or, as MAE has them, not quite.
    """
    if dim % 4:
        raise VitralError(f"2-D sine positions need a width divisible by 4, not {dim}")
    omega = temperature ** -(torch.arange(dim // 4) / max(1, dim // 4 - endpoint))
    row, column = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    rows, columns = row.flatten()[:, None] * omega, column.flatten()[:, None] * omega  # [h*w, dim/4]
    return torch.cat([columns.sin(), columns.cos(), rows.sin(), rows.cos()], dim=1)


def resize_positions(positions: Tensor, old: Grid, new: Grid, mode: str = "timm", prefix: int = 0) -> Tensor:
    """Positions [1, prefix + h*w, D] from one grid to another, in float32; those of the `prefix` tokens are kept.

    The libraries differ: timm interpolates bicubically with antialiasing, hf (Transformers) without, torchvision without and with the
    corners aligned, jax (the ViT paper's code) linearly with the corners aligned, dinov2 bicubically by a factor of (new + 0.1) / old.
    """
    if mode not in RESIZES:
        raise VitralError(f"resizing of positions by {mode!r}: choose one of {', '.join(RESIZES)}")
    if old == new:
        return positions
    grid = positions[:, prefix:].unflatten(1, old).permute(0, 3, 1, 2).float()  # [1, D, h, w]
    if mode == "dinov2":
        factors = [(n + 0.1) / o for n, o in zip(new, old, strict=True)]
        grid = F.interpolate(grid, scale_factor=factors, mode="bicubic")
    else:
        kind = "bilinear" if mode == "jax" else "bicubic"
        corners = mode in ("jax", "torchvision")
        grid = F.interpolate(grid, size=new, mode=kind, antialias=mode == "timm", align_corners=corners)
    patches = grid.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)  # [1, h'*w', D]
    return torch.cat([positions[:, :prefix], patches], dim=1) if prefix else patches


class LearnedPositions2d(nn.Module):
    """One table for rows and one for columns, each of half the width, concatenated: -> [1, h*w, D]."""

    def __init__(self, grid: Grid, dim: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(grid[0], dim // 2))
        self.columns = nn.Parameter(torch.zeros(grid[1], dim - dim // 2))

    def forward(self) -> Tensor:
        h, w = len(self.rows), len(self.columns)
        rows = self.rows[:, None].expand(h, w, -1)
        columns = self.columns[None].expand(h, w, -1)
        return torch.cat([rows, columns], dim=-1).flatten(0, 1)[None]  # [1, h*w, D]


def relative_index(h: int, w: int) -> Tensor:
    """[h*w, h*w]: for each pair (query, key) of a grid the row of a table of (2h-1)(2w-1) relative offsets."""
    row, column = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    row, column = row.flatten(), column.flatten()
    down = row[:, None] - row[None] + h - 1  # [h*w, h*w], 0 to 2h-2
    right = column[:, None] - column[None] + w - 1
    return down * (2 * w - 1) + right


def resize_bias_table(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """A table of relative offsets [(2h-1)(2w-1) + extra, H] from one grid to another, bicubic; its `extra` last rows are kept."""
    if old == new:
        return table
    rows, columns = 2 * old[0] - 1, 2 * old[1] - 1
    grid = table[: rows * columns].T.unflatten(1, (rows, columns))[None].float()  # [1, H, 2h-1, 2w-1]
    grid = F.interpolate(grid, size=(2 * new[0] - 1, 2 * new[1] - 1), mode="bicubic", align_corners=False)
    return torch.cat([grid[0].flatten(1).T.to(table.dtype), table[rows * columns :]])
