"""Mixup and CutMix: two images of a batch and their labels are mixed into one.

Mixup, https://arxiv.org/abs/1710.09412; CutMix, https://arxiv.org/abs/1905.04899; choosing one of them and one weight for a batch as in DeiT's code.
A pure function of the batch and of uniform numbers derived from (seed, step). Image i is mixed with image B - 1 - i.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vitral.data.options import AugmentOptions

MIX_DRAWS = 6  # uniform numbers for one batch: whether, which of the two, two for the weight, two for the box


@dataclass(frozen=True)
class Mix:
    """(pixels [B, C, H, W] on the 0..255 scale, targets [B] or [B, K], numbers) -> the same mixed, with targets float32 [B, K]."""

    options: AugmentOptions
    num_classes: int

    def __call__(self, pixels: Tensor, targets: Tensor, u: np.ndarray) -> tuple[Tensor, Tensor]:
        options = self.options
        shares = F.one_hot(targets, self.num_classes).float() if targets.ndim == 1 else targets
        whether, which, a, b, y, x = u.tolist()
        if whether >= options.mix_probability or not (options.mixup or options.cutmix):
            return pixels, shares
        cut = bool(options.cutmix) and (which < options.switch or not options.mixup)
        own = beta(options.cutmix if cut else options.mixup, a, b)
        partners = pixels.flip(0)
        if cut:
            H, W = pixels.shape[2:]
            top, left, h, w = box(H, W, own, y, x)
            own = 1 - h * w / (H * W)
            pixels = pixels.clone()
            pixels[:, :, top : top + h, left : left + w] = partners[:, :, top : top + h, left : left + w]
        else:
            mixed = pixels.float().lerp(partners.float(), 1 - own)
            pixels = mixed.round().to(torch.uint8) if pixels.dtype == torch.uint8 else mixed
        return pixels, own * shares + (1 - own) * shares.flip(0)


def beta(alpha: float, a: float, b: float) -> float:
    """A draw from Beta(alpha, alpha), any alpha above 0, from two uniform numbers: exact, nothing is rejected.

    Devroye, "Random variate generation in one line of code" (Winter Simulation Conference 1996): Student's t with 2 alpha degrees of freedom by
    the polar method (Bailey 1994), mapped to the unit interval. Written in r = a^(1/alpha), which cannot overflow.
    """
    r, cos = a ** (1 / alpha), math.cos(2 * math.pi * b)
    share = 0.5 + 0.5 * cos * math.sqrt((1 - r) / (r + cos**2 * (1 - r)))
    return min(max(0.0, share), 1.0)  # rounding may give a value just outside


def box(height: int, width: int, own: float, y: float, x: float) -> tuple[int, int, int, int]:
    """Top, left, height, width of CutMix's box: 1 - own of the area around a uniformly drawn centre, clipped at the border."""
    side = math.sqrt(1 - own)
    half_h, half_w, centre_y, centre_x = (
        int(height * side) // 2,
        int(width * side) // 2,
        int(y * height),
        int(x * width),
    )
    top, left = max(0, centre_y - half_h), max(0, centre_x - half_w)
    return top, left, min(height, centre_y + half_h) - top, min(width, centre_x + half_w) - left
