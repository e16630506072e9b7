"""The small grey picture of an image, by which copies are found."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vitral.data.resample import Pixels

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 32  # pixels


def small_picture(pixels: "Tensor | Pixels", end: float) -> NDArray[np.uint8]:
    """[C, h, w], 0..end, to [32, 32] in grey (the mean of bands): the mean over each pixel's area, exact in integers.

    No matrix products: their threads would contend with those that read the images.
    """
    whole: Pixels = np.asarray(pixels)
    if whole.dtype != np.uint8:
        whole = np.nan_to_num(whole * np.float32(255 / end)).round().clip(0, 255).astype(np.uint8)
    weights = (299, 587, 114) if len(whole) == 3 else (1,) * len(whole)
    total = sum(weights)
    grey = np.full(whole.shape[1:], total // 2, np.int32)  # so that the division rounds
    for band, weight in zip(whole, weights, strict=True):
        grey += band * np.int32(weight)
    area = grey.size
    covered = _covered(_covered(grey // total).T.astype(np.int64)).T
    return ((2 * covered + area) // (2 * area)).astype(np.uint8)


def _covered(a: NDArray[np.integer]) -> NDArray[np.integer]:
    """[n, m] to [32, m], in 32nds: the sum of the rows in each of 32 bands, rows at a border weighted by the share inside."""
    n = len(a)
    if n < SIDE:  # each row as so many
        return _covered(a.repeat(SIDE, 0)) // SIDE
    whole, part = np.divmod(np.arange(SIDE + 1) * n, SIDE)
    edges = part[:, None].astype(a.dtype) * a[np.minimum(whole, n - 1)]  # none at the end, where part is 0
    return SIDE * np.add.reduceat(a, whole[:-1], axis=0) + np.diff(edges, axis=0)
