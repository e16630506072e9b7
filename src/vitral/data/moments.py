"""Mean and deviation of a split's pixels."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from vitral.data.dataset import Split

LOOKED_AT = 1000  # images
SIDE = 64  # pixels: files may be decoded at a smaller scale, down to this
AT_ONCE = 2**22
"""Pixels of a block: a smaller image is summed at once, with the same result."""


def moments(split: "Split", channels: int) -> tuple[Tensor, Tensor, int]:
    """Mean and deviation, float64 [C], of the pixels as 0..1, from up to 1,000 evenly spaced images; and the number of these."""
    rows = range(0, len(split), -(-len(split) // LOOKED_AT))
    sums = torch.zeros(3, channels, dtype=torch.float64)  # count, sum, sum of squares
    for i in rows:
        whole = split.read(i, channels, SIDE).flatten(1)
        sums += sum(_sums(part) for part in whole.split(AT_ONCE, dim=1))
    mean = sums[1] / sums[0]
    return mean, (sums[2] / sums[0] - mean.square()).clamp(min=1e-10).sqrt(), len(rows)


def _sums(part: Tensor) -> Tensor:
    """Count, sum and sum of squares, float64 [3, C], of pixels [C, n] on the 0..255 scale, as 0..1."""
    pixels = part.double() / 255
    return torch.stack([torch.full((len(part),), pixels.shape[1]), pixels.sum(1), pixels.square().sum(1)])
