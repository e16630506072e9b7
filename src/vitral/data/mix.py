"""Mixup and CutMix: two images of a batch, and their labels, become one.

Mixup, https://arxiv.org/abs/1710.09412; CutMix, https://arxiv.org/abs/1905.04899; the switch between them and one weight a batch as in
DeiT's code. A pure function of the batch and of uniform numbers derived from (seed, step). Each image's partner is its mirror in the batch.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vitral.data.options import AugmentOptions

MIX_DRAWS = 64  # uniform numbers for one batch


@dataclass(frozen=True)
class Mix:
    """(pixels [B, C, H, W] on the 0..255 scale, targets [B] or [B, K], numbers) -> the same mixed, with targets float32 [B, K]."""

    options: AugmentOptions
    num_classes: int

    def __call__(self, pixels: Tensor, targets: Tensor, u: np.ndarray) -> tuple[Tensor, Tensor]:
        options = self.options
        shares = F.one_hot(targets, self.num_classes).float() if targets.ndim == 1 else targets
        if u[0] >= options.mix_probability or not (options.mixup or options.cutmix):
            return pixels, shares
        cut = u[1] < options.switch if options.mixup and options.cutmix else bool(options.cutmix)
        own = beta(options.cutmix if cut else options.mixup, u[4:])
        if cut:
            top, left, h, w = box(pixels.shape[2], pixels.shape[3], own, u[2], u[3])
            own = 1 - h * w / (pixels.shape[2] * pixels.shape[3])
            mixed = pixels.clone()
            mixed[:, :, top : top + h, left : left + w] = pixels.flip(0)[:, :, top : top + h, left : left + w]
        else:
            mixed = pixels.float().lerp(pixels.flip(0).float(), 1 - own)
            mixed = mixed.round().to(pixels.dtype) if pixels.dtype == torch.uint8 else mixed
        return mixed, own * shares + (1 - own) * shares.flip(0)


def beta(alpha: float, u: np.ndarray) -> float:
    """A draw from Beta(alpha, alpha) by Johnk's method (1964): pairs are proposed until one lies within; both parameters at most a few."""
    for x, y in u[: len(u) // 2 * 2].reshape(-1, 2).tolist():
        a, b = x ** (1 / alpha), y ** (1 / alpha)
        if 0 < a + b <= 1:
            return a / (a + b)
    return 0.5


def box(height: int, width: int, own: float, y: float, x: float) -> tuple[int, int, int, int]:
    """Top, left, height, width of CutMix's box: a share 1 - own of the area around a uniform centre, cut at the border."""
    side = (1 - own) ** 0.5
    h, w, centre_y, centre_x = int(height * side), int(width * side), int(y * height), int(x * width)
    top, left = max(0, centre_y - h // 2), max(0, centre_x - w // 2)
    return top, left, min(height, centre_y + h // 2) - top, min(width, centre_x + w // 2) - left
