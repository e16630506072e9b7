"""The operations of RandAugment, 3-Augment and colour jitter, each with one strength.

Images are numpy arrays [C, h, w] on the 0..255 scale, uint8 or (more than 8 bits) float32, and are not modified. Operations on colour (saturation,
grey) leave images without three channels unchanged. Levels and thresholds are shares of the scale that a picture uses (`values.white`), which for 10
and 12 bits in 16-bit files is the lowest part. Results equal Pillow's (ImageOps, ImageEnhance) up to rounding. They use numpy, whose uint8
arithmetic is several times faster than torch's on one core; only resampling uses torch.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

from vitral.data.bands import LUMA
from vitral.data.values import white

Affine = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f): the result at (x, y) shows the source at (ax + by + c, dx + ey + f), in pixels, of which the first spans 0 to 1."""


def floats(image: np.ndarray) -> np.ndarray:
    """A float32 copy, to be modified in place."""
    return image.astype(np.float32)


def restore(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """float32 values, which are overwritten, clipped to 0..255 and in the image's own type."""
    np.clip(values, 0, 255, out=values)
    return np.rint(values, out=values).astype(np.uint8) if dtype == np.uint8 else values


def luma(values: np.ndarray) -> np.ndarray:
    """float32 [3, h, w] to its grey version [h, w] (ITU-R 601)."""
    return (LUMA @ values.reshape(3, -1)).reshape(values.shape[1:])


# Blends with a plain image, in place and not yet clipped: factor 0 gives the plain image, 1 changes nothing.


def brighten(values: np.ndarray, factor: float) -> None:
    """The plain image is black."""
    values *= np.float32(factor)


def contrast(values: np.ndarray, factor: float) -> None:
    """The plain image is the mean of the grey version, or of all bands."""
    means = torch.from_numpy(values).mean((1, 2)).numpy()  # numpy's is slower
    mean = LUMA @ means if len(values) == 3 else means.mean()
    values *= np.float32(factor)
    values += np.float32((1 - factor) * mean)


def saturate(values: np.ndarray, factor: float) -> None:
    """The plain image is the grey version; images without three channels stay as they are."""
    if len(values) == 3:
        grey = luma(values) * np.float32(1 - factor)
        values *= np.float32(factor)
        values += grey


def sharpen(values: np.ndarray, factor: float) -> None:
    """The plain image is Pillow's SMOOTH filter: 3x3 ones with a 5 in the middle, divided by 13; the outermost pixels stay."""
    w = values.shape[2]
    if min(values.shape[1:]) < 3:
        return
    flat = values.reshape(-1)  # whole rows of memory at a time; what runs on into the next row is left unused
    rows = flat[:-2] + flat[1:-1]
    rows += flat[2:]
    smooth = np.empty_like(values)
    sums = smooth.reshape(-1)[w + 1 : -w - 1]
    np.add(rows[: -2 * w], rows[w:-w], out=sums)
    sums += rows[2 * w :]
    sums *= np.float32((1 - factor) / 13)
    inner = values[:, 1:-1, 1:-1]  # a view
    inner *= np.float32(factor + (1 - factor) * 4 / 13)
    inner += smooth[:, 1:-1, 1:-1]


# Pixel by pixel.


def grey(image: np.ndarray) -> np.ndarray:
    """The grey version in every channel; images without three channels stay as they are."""
    if len(image) != 3:
        return image
    return np.repeat(restore(luma(floats(image)), image.dtype)[None], 3, axis=0)


def on_own_scale(image: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`change` of the image with its own scale stretched to 0..255, and back."""
    end = white(image)
    if end == 255:
        return change(image)
    return change(image * np.float32(255 / end)) * np.float32(end / 255)


def invert(image: np.ndarray) -> np.ndarray:
    return on_own_scale(image, lambda x: 255 - x)


def solarize(image: np.ndarray, threshold: int) -> np.ndarray:
    """Inverts values at and above the threshold."""
    if threshold > 255:
        return image
    # in uint8 the excess wraps around twice, to 255 - image
    return on_own_scale(image, lambda x: x + (x >= threshold) * (255 - 2 * x))


def solarize_add(image: np.ndarray, addition: int) -> np.ndarray:
    """Brightens the darker half of the scale."""
    return on_own_scale(image, lambda x: x + (x < 128) * np.minimum(255 - x, min(addition, 255)))


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
    """Keeps the highest bits only; with 0 the image is black."""
    if bits >= 8:
        return image
    step = 2 ** (8 - bits)
    return on_own_scale(image, lambda x: x // step * step) if bits > 0 else np.zeros_like(image)


def autocontrast(image: np.ndarray) -> np.ndarray:
    """Stretches each channel to the whole scale."""
    return on_own_scale(image, _stretched)


def _stretched(image: np.ndarray) -> np.ndarray:
    low, high = image.min((1, 2)).astype(np.float32), image.max((1, 2)).astype(np.float32)
    even = high <= low
    scale = np.where(even, 1, 255 / np.where(even, 1, high - low)).astype(np.float32)
    offset = np.where(even, 0, -low * scale).astype(np.float32)
    values = floats(image)
    values *= scale[:, None, None]
    values += offset[:, None, None]
    return restore(values, image.dtype)


def equalize(image: np.ndarray) -> np.ndarray:
    """Equalises each channel's histogram."""
    return on_own_scale(image, _equalized)


def _equalized(image: np.ndarray) -> np.ndarray:
    result = np.empty_like(image)
    for channel, out in zip(image, result, strict=True):
        counts = torch.from_numpy(channel.astype(np.uint8).ravel()).bincount(minlength=256).numpy()
        used = np.flatnonzero(counts)
        step = (channel.size - counts[used[-1]]) // 255
        if step == 0:
            out[:] = channel
            continue
        before = np.cumsum(counts) - counts
        table = np.minimum((before + step // 2) // step, 255)
        if image.dtype == np.uint8:
            mapped = channel.tobytes().translate(table.astype(np.uint8).tobytes())
            out[:] = np.frombuffer(mapped, np.uint8).reshape(out.shape)
        else:  # finer than the table: in between
            out[:] = np.interp(channel, np.arange(256), table)
    return result


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur with this deviation in pixels, cut off at three deviations; border pixels are repeated outside."""
    radius = max(1, math.ceil(3 * sigma))
    taps = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-radius, radius + 1)]
    h, w = image.shape[1:]
    padded = F.pad(torch.from_numpy(floats(image))[None], (radius,) * 4, mode="replicate")[0]
    rows = padded[:, :h].mul(taps[0])  # [C, h, w + 2 radius]
    for k, tap in enumerate(taps[1:], 1):
        rows.add_(padded[:, k : k + h], alpha=tap)
    flat = rows.flatten()  # as if it were one row: what runs on into the next one is cut off
    length = len(flat) - 2 * radius
    sums = torch.empty_like(rows)
    part = torch.mul(flat[:length], taps[0], out=sums.view(-1)[:length])
    for k, tap in enumerate(taps[1:], 1):
        part.add_(flat[k : k + length], alpha=tap)
    return restore(sums[:, :, :w].div(sum(taps) ** 2).numpy(), image.dtype)


# Geometric operations: first the affine map, which serves boxes and masks as well, then the pixels.


def rotation(h: int, w: int, degrees: float) -> Affine:
    """Counter-clockwise around the centre."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return cos, -sin, (w - cos * w + sin * h) / 2, sin, cos, (h - sin * w - cos * h) / 2


def translation(x: float, y: float) -> Affine:
    return 1, 0, x, 0, 1, y


def warp(image: np.ndarray, matrix: Affine, fill: np.ndarray) -> np.ndarray:
    """The image warped by the map, bilinear, with the colour `fill` (float32 [C, 1, 1]) outside."""
    a, b, c, d, e, f = matrix
    h, w = image.shape[1:]
    array = floats(image)
    array -= fill  # from here on there are zeros outside
    values = torch.from_numpy(array)
    if (a, b, d, e) == (1, 0, 0, 1):
        moved = shifted(shifted(values, 2, c), 1, f).numpy()  # several times faster
    else:
        # A complex number for each place, on grid_sample's scale, where the image spans -1 to 1.
        x, y = torch.arange(w) + 0.5, torch.arange(h)[:, None] + 0.5
        rows = y * complex(2 * b / w, 2 * e / h) + complex(2 * c / w - 1, 2 * f / h - 1)
        grid = torch.view_as_real(x * complex(2 * a / w, 2 * d / h) + rows)[None]  # [1, h, w, 2]
        moved = F.grid_sample(values[None], grid, "bilinear", "zeros", align_corners=False)[0].numpy()
    moved += fill
    return restore(moved, image.dtype)


def shifted(values: torch.Tensor, axis: int, by: float) -> torch.Tensor:
    """The values shifted by `by` pixels along an axis, linearly interpolated, zeros outside."""
    whole, side = math.floor(by), values.shape[axis]
    if by == 0:
        return values
    result = torch.zeros_like(values)
    for offset, weight in ((whole, 1 - by + whole), (whole + 1, by - whole)):
        start, stop = max(0, -offset), min(side, side - offset)
        if start < stop:
            source = values.narrow(axis, start + offset, stop - start)
            result.narrow(axis, start, stop - start).add_(source, alpha=weight)
    return result
