"""From a backbone's maps to the two that objects are read from: the memory, coarse, and the pixels, fine.

A plain ViT's maps, all of one stride p, are normalised, projected and summed into the memory, as in LW-DETR (https://arxiv.org/abs/2406.03459,
section 3.1), and the pixels are upscaled from it as in EoMT (https://arxiv.org/abs/2503.19108, section 3.1). A pyramid's are summed from the top down
(https://arxiv.org/abs/1612.03144); the memory is the last map but one, the pixels the first.

Where no masks are asked for (C is 0), there are no pixels, and a map finer than the memory is not read.

Axes: B batch, h w grid, D width of the memory, C width of the pixels.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from vitral.layers.conv import Conv2d
from vitral.models.heads.linear import enlarged

DOUBLINGS = 2  # from a plain ViT's patches to its pixels


class Lateral(nn.Sequential):
    """A map [B, h, w, D'] -> [B, h, w, D], normalised before it is projected."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__(nn.LayerNorm(width), nn.Linear(width, dim))


class Local(nn.Module):
    """A map [B, h, w, D] plus what a 3x3 convolution reads of it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.conv = Conv2d(dim, dim, 3, padding=1)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        near = self.conv(self.norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # [B, h, w, D]
        return x + self.proj(F.gelu(near))


class Double(nn.Module):
    """A map [B, h, w, D] at twice the resolution, [B, 2h, 2w, C]: a transposed 2x2 convolution, then a 3x3 one in each channel."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, 4 * width)
        self.conv = Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        tiles = self.up(x).unflatten(-1, (2, 2, -1))  # [B, h, w, 2, 2, C]
        fine = F.gelu(tiles.transpose(2, 3).flatten(3, 4).flatten(1, 2))  # [B, 2h, 2w, C]
        return self.norm(self.conv(fine.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class PlainNeck(nn.Module):
    """Of maps of one stride. `stride` is that of the memory, `fine` that of the pixels."""

    def __init__(self, widths: Sequence[int], strides: Sequence[int], dim: int, width: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(Lateral(each, dim) for each in widths)
        self.local = Local(dim)
        self.norm = nn.LayerNorm(dim)
        doublings = min(DOUBLINGS, max(0, strides[-1].bit_length() - 1))
        self.stride, self.fine = strides[-1], strides[-1] / 2**doublings
        self.doubles = nn.Sequential(*(Double(width if i else dim, width) for i in range(doublings if width else 0)))
        self.pixels = nn.Linear(width if doublings else dim, width) if width else None

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Maps [B, h, w, *] -> memory [B, h, w, D] and pixels [B, 4h, 4w, C]."""
        summed = sum(lateral(each) for lateral, each in zip(self.laterals, maps, strict=True))
        memory = self.norm(self.local(summed))
        return memory, None if self.pixels is None else self.pixels(self.doubles(memory))


class PyramidNeck(nn.Module):
    """Of maps whose stride grows. `stride` is that of the memory, `fine` that of the pixels."""

    def __init__(self, widths: Sequence[int], strides: Sequence[int], dim: int, width: int) -> None:
        super().__init__()
        level = max(0, len(widths) - 2)
        self.stride, self.fine = strides[level], float(strides[0])
        self.read = slice(0 if width else level, None)
        self.level = len(widths) - 1 - level  # from the coarsest
        self.laterals = nn.ModuleList(Lateral(each, dim) for each in widths[self.read])
        self.local = Local(dim)
        self.norm = nn.LayerNorm(dim)
        self.pixels = None
        if width:
            near = nn.Linear(dim, 2 * width), Local(2 * width), nn.LayerNorm(2 * width)
            self.pixels = nn.Sequential(*near, nn.Linear(2 * width, width))

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Maps, finest first -> memory [B, h, w, D] and pixels [B, h', w', C]."""
        levels: list[Tensor] = []  # coarsest first
        for lateral, each in zip(reversed(self.laterals), reversed(maps[self.read]), strict=True):
            level = lateral(each)
            levels.append(level + resized(levels[-1], level) if levels else level)
        memory = self.norm(self.local(levels[self.level]))
        return memory, None if self.pixels is None else self.pixels(levels[-1])


def resized(x: Tensor, like: Tensor) -> Tensor:
    """A map [B, h, w, D] on the grid of another, linear between the middles of cells."""
    return enlarged(x.permute(0, 3, 1, 2), like.shape[1:3]).permute(0, 2, 3, 1)
