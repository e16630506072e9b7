"""From the values that a file stores to one scale, 0 (black) to 255 (white).

Unsigned 8 and 16 bits have a known range. For floating point, signed and 32-bit integers it must be stated. Axes: h height, w width, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitral.data.files import ImageError
from vitral.errors import counted

STATE_IT = "state what is black and what is white with --value-range LOW HIGH"
_SCALES = (8, 10, 12)  # bits that cameras fill in a file of 16
_LOST = 0.99  # share of values beyond a stated range from which the range must be wrong
Range = tuple[float, float]


@dataclass(frozen=True)
class Reading:
    """How to read files that do not state it themselves; stored with the weights."""

    value_range: Range | None = None
    """The values that are black and white in files of more than 8 bits; what lies beyond is black or white too."""
    page: int | None = None
    """The page or frame to read of files with several, from 0; None: such files are refused."""


PLAIN = Reading()


def reading(value_range: Range | None, page: str | None) -> Reading:
    """From the options or a model file; with page "all" none is chosen."""
    return Reading(value_range, None if page in (None, "all") else int(page or 0))


@dataclass(frozen=True)
class ImageInfo:
    """Facts about a file: its size after EXIF orientation, channels and bits a channel."""

    height: int
    width: int
    channels: int
    """1 grey, 3 RGB, any other number: bands."""
    bit_depth: int
    """8, or 16 for anything that is read as floating point."""
    extremes: Range | None = None
    """The smallest and largest stored value, if there are more than 8 bits and the pixels were read."""
    cut: int = 0
    """Bits a channel in the file if its decoder keeps only 8 of them; 0 if nothing is lost."""


def on_scale(values: np.ndarray, reading: Reading, name: str) -> tuple[np.ndarray, Range | None]:
    """Stored values [h, w, C] as `uint8` or `float32` on the 0..255 scale, and their extremes unless they are 8-bit values.

    Raises ImageError if black and white are unknown, or (nearly) no value lies between them.
    """
    if values.dtype == np.uint8:
        return values, None
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255), None
    if values.dtype.kind not in "uif":
        raise ImageError(
            f"{name}: holds values of the kind {values.dtype}, not numbers that can be pixels; save real numbers"
        )
    if not values.size:
        raise ImageError(f"{name}: holds no pixels (shape {values.shape}); save it again", "empty")
    least, most = float(values.min()), float(values.max())
    if not np.isfinite([least, most]).all():
        lost = int((~np.isfinite(values)).sum())
        raise ImageError(
            f"{name}: {lost:,} of its {values.size:,} values are no numbers (NaN or infinite); fill them in first"
        )
    if reading.value_range is not None:
        return _within(values, reading.value_range, (least, most), name), (least, most)
    if values.dtype != np.uint16:
        kind = "floating point" if values.dtype.kind == "f" else "signed or 32-bit integers"
        raise ImageError(
            f"{name}: holds {kind} from {least:.10g} to {most:.10g}, whose black and white are not stated; {STATE_IT} "
            f"(as in --value-range {_offered(least, most)}), or convert it to 8 or 16 unsigned bits",
            "no_range",
        )
    return values.astype(np.float32) / np.float32(257), (least, most)


def beyond(extremes: Range | None, value_range: Range | None) -> Range | None:
    """The extremes, if they lie outside the range, so that values are clipped."""
    if extremes is None or value_range is None:
        return None
    return extremes if extremes[0] < value_range[0] or extremes[1] > value_range[1] else None


def clipped_in_words(found: Sequence[Range], value_range: Range) -> str:
    """3 images have values outside of --value-range 0 1 (from -0.5 to 2), which are clipped to it. found: their extremes."""
    least, most = min(each[0] for each in found), max(each[1] for each in found)
    have = counted(len(found), "image has", "images have")
    low, high = value_range
    return (
        f"{have} values outside of --value-range {low:g} {high:g} (from {least:g} to {most:g}), which are clipped to it"
    )


def _within(values: np.ndarray, value_range: Range, extremes: Range, name: str) -> np.ndarray:
    low, high = value_range
    if extremes[0] < low or extremes[1] > high:
        outside = float(((values < low) | (values > high)).mean())
        if outside > _LOST:
            raise ImageError(
                f"{name}: holds values from {extremes[0]:g} to {extremes[1]:g}, {outside:.0%} of them outside of --value-range "
                f"{low:g} {high:g}; state the range that these files have",
                "no_range",
            )
    scaled: np.ndarray = values.astype(np.float64 if values.dtype.itemsize > 2 else np.float32)
    scaled = (scaled - low) * (255 / (high - low))
    return np.clip(scaled, 0, 255).astype(np.float32)


def _offered(least: float, most: float) -> str:
    """A likely range for a file with these extremes."""
    for low, high in ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)):
        if low <= least and most <= high:
            return f"{low:g} {high:g}"
    return f"{least:.10g} {most:.10g}"


def white(pixels: np.ndarray) -> float:
    """The end of the scale that a picture uses: 255, or less for `float32` pixels that fit into 8, 10 or 12 of the 16 bits of their file.

    Cameras of 10 and 12 bits fill the lowest part of 16 bits; operations on shares of the scale (posterize, invert) must use the same part.
    """
    if pixels.dtype == np.uint8 or not pixels.size:
        return 255.0
    most = float(pixels.max())
    return next((end for end in ((2**bits - 1) / 257 for bits in _SCALES) if most <= end * (1 + 1e-6)), 255.0)
