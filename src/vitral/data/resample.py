"""An image at another size: Pillow's filters, in Pillow's or PyTorch's arithmetic, in memory that what is wanted of the result bounds.

Images are [C, h, w] on the 0..255 scale. Both libraries weigh the same places with the same filters, along one axis and then along the other
(https://github.com/python-pillow/Pillow/blob/main/src/libImaging/Resample.c). PyTorch begins along the rows, Pillow (13) where it likes; as what
lies between is rounded and clipped to 8 bits, bicubic and lanczos differ by several levels where neighbouring pixels differ much.
Where PyTorch is not loaded numpy computes its 8-bit results, bit for bit (https://github.com/pytorch/pytorch, native/cpu/UpSampleKernel.cpp).
"""

import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitral.errors import VitralError

Floats = NDArray[np.float64]
Pixels = NDArray[Any]
"""[C, h, w], uint8 or float32"""
Region = tuple[int, int, int, int]  # top, left, height, width
WHOLE = 2**23
"""Pixels that a result, and what lies between the two passes towards it, may have beyond the image's own number before only parts are made."""
BLOCK = 2**22
"""Values that a part holds."""
BAND = 16
"""Pixels of a line that are computed at once from those that they read."""


def _cubic(x: Floats) -> Floats:
    """Keys' cubic with a = -0.5."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


FILTERS: dict[str, tuple[float, Callable[[Floats], Floats]]] = {
    "bicubic": (2.0, _cubic),
    "bilinear": (1.0, lambda x: np.maximum(0, 1 - np.abs(x))),
    "lanczos": (3.0, lambda x: np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)),
    "box": (0.5, lambda x: ((x > -0.5) & (x <= 0.5)).astype(np.float64)),
    "hamming": (1.0, lambda x: np.where(np.abs(x) < 1, np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)), 0)),
}
"""Half of each filter's width, and its weights."""
INTERPOLATIONS = (*FILTERS, "nearest")
ARITHMETICS = ("torch", "pillow")


def resize(
    image: Pixels,
    height: int,
    width: int,
    interpolation: str,
    region: Region | None = None,
    *,
    arithmetic: str = "torch",
    rounded: bool = True,
) -> Pixels:
    """[C, h, w] to [C, height, width] of the same kind, antialiased, or to a region of that.

    image: uint8, or float32 that stays so. region: the part of the result that is wanted. arithmetic: whose order of
    passes and rounding. rounded: off makes the result float32, neither rounded nor clipped.
    Raises VitralError where a side of the result has no pixel.
    """
    h, w = image.shape[1:]
    if height < 1 or width < 1:
        raise VitralError(f"an image of {h}x{w} pixels would be resized to {height}x{width}: it is too long and thin")
    top, left, rows, columns = region or (0, 0, height, width)
    image = image if rounded else image.astype(np.float32)
    if (h, w) == (height, width):
        return image[:, top : top + rows, left : left + columns]
    if interpolation == "nearest":
        ys, xs = _nearest(h, height, top, rows, arithmetic), _nearest(w, width, left, columns, arithmetic)
        return image[:, ys][:, :, xs]
    if max(height, h) * width > max(h * w, WHOLE):
        return _part(image, height, width, interpolation, (top, left, rows, columns), rounded)
    torch_has_it = interpolation in ("bicubic", "bilinear") and arithmetic == "torch"
    thin = image.dtype == np.uint8 and 1 in (
        h,
        w,
        height,
        width,
    )  # which torch 2.13 gets wrong, or stops at with an internal error
    if torch_has_it and "torch" in sys.modules and not thin:
        whole = _by_torch(image, height, width, interpolation, rounded)
    elif torch_has_it and image.dtype == np.uint8:
        whole = _along(image, width, interpolation)
        whole = _along(whole.swapaxes(1, 2), height, interpolation).swapaxes(1, 2)
    elif image.dtype == np.uint8 and arithmetic == "pillow":
        whole = _by_pillow(image, height, width, interpolation)
    else:
        return _part(image, height, width, interpolation, (top, left, rows, columns), rounded)
    return whole[:, top : top + rows, left : left + columns]


def _nearest(size: int, new: int, start: int, count: int, arithmetic: str) -> NDArray[np.int64]:
    """Where pixels `start`, `start` + 1, ... of a line of `new` come from: the middle of each, multiplied in float32 (PyTorch's nearest-exact),
    or added up (Pillow), which decides where it falls between two pixels.
    """
    if arithmetic == "torch":
        places = (np.arange(start, start + count, dtype=np.float32) + np.float32(0.5)) * np.float32(size / new)
    else:
        steps = np.full(start + count, size / new)
        steps[0] /= 2
        places = np.add.accumulate(steps)[start:]
    return np.minimum(np.floor(places).astype(np.int64), size - 1)


def _by_torch(image: Pixels, height: int, width: int, interpolation: str, rounded: bool) -> Pixels:
    import torch
    from torch.nn import functional as F

    whole = F.interpolate(
        torch.from_numpy(image)[None], (height, width), mode=interpolation, antialias=True, align_corners=False
    )[0]
    return (whole.clamp(0, 255) if rounded and whole.dtype != torch.uint8 else whole).numpy()


def _along(image: NDArray[np.uint8], new: int, interpolation: str) -> NDArray[np.uint8]:
    """The last axis as PyTorch resizes 8 bits: weights of 16 bits, as fine as the largest allows, and sums of whole numbers."""
    size = image.shape[-1]
    if size == new:
        return image
    result = np.empty((*image.shape[:-1], new), np.uint8)
    bits, bands = _bands(size, new, interpolation)
    for k, (low, high, whole_numbers) in enumerate(bands):
        sums = image[..., low:high].astype(np.float64) @ whole_numbers  # exact: below 2^53
        sums *= 2.0**-bits
        sums += 0.5
        result[..., BAND * k : BAND * (k + 1)] = np.floor(sums, out=sums).clip(0, 255, out=sums)
    return result


@functools.lru_cache(maxsize=64)  # images of one camera have one size
def _bands(size: int, new: int, interpolation: str) -> tuple[int, list[tuple[int, int, Floats]]]:
    """For `_along`: the bits of weights, and of each BAND pixels the first and last that they read, and their weights as one matrix."""
    read = taps(size, new, 0, new, interpolation)
    largest, bits, bands = max(float(weights.max()) for _, weights in read), 0, []
    while bits < 22 and int(0.5 + largest * 2 ** (bits + 1)) < 2**15:
        bits += 1
    for start in range(0, new, BAND):
        band = read[start : start + BAND]
        low, high = band[0].first, max(first + len(weights) for first, weights in band)
        whole_numbers = np.zeros((high - low, len(band)))
        for j, (first, weights) in enumerate(band):
            scaled = weights * 2**bits
            whole_numbers[first - low : first - low + len(weights), j] = np.trunc(scaled + np.copysign(0.5, scaled))
        bands.append((low, high, whole_numbers))
    return bits, bands


def _by_pillow(image: Pixels, height: int, width: int, interpolation: str) -> Pixels:
    """Three channels at once, others one by one; Pillow takes no other number."""
    parts = [image] if len(image) == 3 else np.split(image, len(image))
    resized = []
    for part in parts:
        array = np.ascontiguousarray(part.transpose(1, 2, 0))  # [h, w, 1 or 3]
        picture = Image.fromarray(array if array.shape[2] == 3 else array[..., 0])
        made = np.array(picture.resize((width, height), Image.Resampling[interpolation.upper()]))
        resized.append(made.reshape(height, width, array.shape[2]).transpose(2, 0, 1))
    return resized[0] if len(resized) == 1 else np.concatenate(resized)


class Taps(NamedTuple):
    """What one pixel of a result reads of a line: the pixels from `first` on, each by its weight."""

    first: int
    weights: Floats


def taps(size: int, new: int, start: int, count: int, interpolation: str) -> list[Taps]:
    """Of pixels `start`, `start` + 1, ... of a line of `new` that is made of one of `size`."""
    reach, weigh = FILTERS[interpolation]
    scale = size / new
    wide = max(1.0, scale)
    found = []
    for i in range(start, start + count):
        centre = (i + 0.5) * scale
        first, last = max(0, int(centre - reach * wide + 0.5)), min(size, int(centre + reach * wide + 0.5))
        weights = weigh((np.arange(first, last, dtype=np.float64) - centre + 0.5) / wide)
        found.append(Taps(first, weights / weights.sum()))
    return found


def _part(image: Pixels, height: int, width: int, interpolation: str, region: Region, rounded: bool) -> Pixels:
    """A region of the result, along the rows and then along the columns, by blocks of rows: no more is kept than the region and a block."""
    top, left, count_y, count_x = region
    vertical, horizontal = (
        [(first, weights.astype(np.float32)) for first, weights in line]
        for line in (
            taps(image.shape[1], height, top, count_y, interpolation),
            taps(image.shape[2], width, left, count_x, interpolation),
        )
    )
    whole_numbers = rounded and image.dtype == np.uint8
    C = len(image)
    low, high = vertical[0][0], max(first + len(weights) for first, weights in vertical)
    block = max(1, BLOCK // (C * max(count_x, max(len(weights) for _, weights in horizontal))))
    dense = None  # the horizontal weights as one matrix [w, count_x], where lines are short
    if image.shape[2] <= 4 * count_x:
        dense = np.zeros((image.shape[2], count_x), np.float32)
        for j, (first, weights) in enumerate(horizontal):
            dense[first : first + len(weights), j] = weights
    result = np.zeros((C, count_y, count_x), np.float32)
    for start in range(low, high, block):
        stop = min(start + block, high)
        across = np.empty((C, stop - start, count_x), np.float32)
        if dense is not None:
            across = image[:, start:stop].astype(np.float32) @ dense
        else:
            for j, (first, weights) in enumerate(horizontal):
                across[:, :, j] = image[:, start:stop, first : first + len(weights)].astype(np.float32) @ weights
        if whole_numbers:
            across = np.floor(across + 0.5).clip(0, 255)
        for i, (first, weights) in enumerate(vertical):
            begin, end = max(first, start), min(first + len(weights), stop)
            if begin < end:
                rows = across[:, begin - start : end - start]  # [C, n, count_x]
                result[:, i] += np.einsum("n,cnx->cx", weights[begin - first : end - first], rows)
    if whole_numbers:
        return np.floor(result + 0.5).clip(0, 255).astype(np.uint8)
    return result.clip(0, 255) if rounded else result
