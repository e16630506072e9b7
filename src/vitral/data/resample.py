"""An image at another size: Pillow's filters, in Pillow's or PyTorch's arithmetic, in memory that what is wanted of the result bounds.

Images are [C, h, w] on the 0..255 scale. Both libraries weigh the same places with the same filters, along one axis and then along the other
(https://github.com/python-pillow/Pillow/blob/main/src/libImaging/Resample.c). PyTorch begins along the rows, Pillow (13) where it likes; as what
lies between is rounded and clipped to 8 bits, bicubic and lanczos differ by several levels where neighbouring pixels differ much.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vitral.errors import VitralError

Floats = NDArray[np.float64]
Region = tuple[int, int, int, int]  # top, left, height, width
WHOLE = 2**23
"""Pixels that a result, and what lies between the two passes towards it, may have beyond the image's own number before only parts are made."""
BLOCK = 2**22
"""Values that a part holds."""


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
    image: Tensor,
    height: int,
    width: int,
    interpolation: str,
    region: Region | None = None,
    *,
    arithmetic: str = "torch",
    rounded: bool = True,
) -> Tensor:
    """[C, h, w] to [C, height, width] of the same kind, antialiased, or to a region of that.

    image: uint8, or float32 that stays so. region: the part of the result that is wanted. arithmetic: whose order of
    passes and rounding. rounded: off makes the result float32, neither rounded nor clipped.
    Raises VitralError where a side of the result has no pixel.
    """
    h, w = image.shape[1:]
    if height < 1 or width < 1:
        raise VitralError(f"an image of {h}x{w} pixels would be resized to {height}x{width}: it is too long and thin")
    top, left, rows, columns = region or (0, 0, height, width)
    image = image if rounded else image.float()
    if (h, w) == (height, width):
        return image[:, top : top + rows, left : left + columns]
    if interpolation == "nearest":
        ys, xs = _nearest(h, height, top, rows, arithmetic), _nearest(w, width, left, columns, arithmetic)
        return image[:, ys][:, :, xs]
    if max(height, h) * width > max(h * w, WHOLE):
        return _part(image, height, width, interpolation, (top, left, rows, columns), rounded)
    if interpolation in ("bicubic", "bilinear") and arithmetic == "torch":
        whole = F.interpolate(image[None], (height, width), mode=interpolation, antialias=True, align_corners=False)[0]
        whole = whole.clamp(0, 255) if rounded and whole.dtype != torch.uint8 else whole
    elif image.dtype == torch.uint8 and arithmetic == "pillow":
        whole = _by_pillow(image, height, width, interpolation)
    else:
        return _part(image, height, width, interpolation, (top, left, rows, columns), rounded)
    return whole[:, top : top + rows, left : left + columns]


def _nearest(size: int, new: int, start: int, count: int, arithmetic: str) -> Tensor:
    """Where pixels `start`, `start` + 1, ... of a line of `new` come from: the middle of each, multiplied in float32 (PyTorch's nearest-exact),
    or added up (Pillow), which decides where it falls between two pixels.
    """
    if arithmetic == "torch":
        places = (np.arange(start, start + count, dtype=np.float32) + np.float32(0.5)) * np.float32(size / new)
    else:
        steps = np.full(start + count, size / new)
        steps[0] /= 2
        places = np.add.accumulate(steps)[start:]
    return torch.from_numpy(np.minimum(np.floor(places).astype(np.int64), size - 1))


def _by_pillow(image: Tensor, height: int, width: int, interpolation: str) -> Tensor:
    """Three channels at once, others one by one; Pillow takes no other number."""
    parts = [image] if len(image) == 3 else list(image.split(1))
    resized = []
    for part in parts:
        array = np.ascontiguousarray(part.permute(1, 2, 0).numpy())  # [h, w, 1 or 3]
        picture = Image.fromarray(array if array.shape[2] == 3 else array[..., 0])
        made = np.array(picture.resize((width, height), Image.Resampling[interpolation.upper()]))
        resized.append(torch.from_numpy(made.reshape(height, width, array.shape[2])).permute(2, 0, 1))
    return resized[0] if len(resized) == 1 else torch.cat(resized)


class Taps(NamedTuple):
    """What one pixel of a result reads of a line: the pixels from `first` on, each by its weight."""

    first: int
    weights: Tensor


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
        found.append(Taps(first, torch.from_numpy((weights / weights.sum()).astype(np.float32))))
    return found


def _part(image: Tensor, height: int, width: int, interpolation: str, region: Region, rounded: bool) -> Tensor:
    """A region of the result, along the rows and then along the columns, by blocks of rows: no more is kept than the region and a block."""
    top, left, count_y, count_x = region
    vertical = taps(image.shape[1], height, top, count_y, interpolation)
    horizontal = taps(image.shape[2], width, left, count_x, interpolation)
    whole_numbers = rounded and image.dtype == torch.uint8
    C = len(image)
    low, high = vertical[0].first, max(t.first + len(t.weights) for t in vertical)
    block = max(1, BLOCK // (C * max(count_x, max(len(t.weights) for t in horizontal))))
    dense = None  # the horizontal weights as one matrix [w, count_x], where lines are short
    if image.shape[2] <= 4 * count_x:
        dense = torch.zeros(image.shape[2], count_x)
        for j, (first, weights) in enumerate(horizontal):
            dense[first : first + len(weights), j] = weights
    result = torch.zeros(C, count_y, count_x)
    for start in range(low, high, block):
        stop = min(start + block, high)
        across = torch.empty(C, stop - start, count_x)
        if dense is not None:
            across = image[:, start:stop].float() @ dense
        else:
            for j, (first, weights) in enumerate(horizontal):
                across[:, :, j] = image[:, start:stop, first : first + len(weights)].float() @ weights
        if whole_numbers:
            across = (across + 0.5).floor().clamp(0, 255)
        for i, (first, weights) in enumerate(vertical):
            begin, end = max(first, start), min(first + len(weights), stop)
            if begin < end:
                rows = across[:, begin - start : end - start]  # [C, n, count_x]
                result[:, i] += torch.einsum("n,cnx->cx", weights[begin - first : end - first], rows)
    if whole_numbers:
        return (result + 0.5).floor().clamp(0, 255).to(torch.uint8)
    return result.clamp(0, 255) if rounded else result
