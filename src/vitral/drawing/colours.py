"""Values to colours, and maps laid over their pictures. Pure numpy and Pillow. Axes: h w grid, H W pixels."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitral.errors import VitralError

# Viridis and inferno of van der Walt & Smith 2015 (CC0, https://bids.github.io/colormap) at nine equal steps,
# linear in between: lightness rises evenly, so a map reads the same in grey and to colour-blind eyes.
COLOURS = {
    "viridis": ("440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725"),
    "inferno": ("000004", "210c4a", "57106e", "8a226a", "bc3754", "e45a31", "f98e09", "f9cb35", "fcffa4"),
}


EVEN = 0.02
"""A map that spans less than this share of its largest absolute value is drawn as equal everywhere."""


def is_even(values: NDArray[np.floating]) -> bool:
    """Whether a map [h, w] has no contrast: it spans less than `EVEN` of its largest absolute value. The one rule for pictures and words."""
    return _spans_nothing(float(values.min()), float(values.max()))


def _spans_nothing(low: float, high: float) -> bool:
    return high == low or high - low < EVEN * max(abs(low), abs(high))


def evenness(values: NDArray[np.floating], form: Callable[[float], str] = "{:.4g}".format) -> str:
    """That a map [h, w] has no contrast, in words, its values written by `form`; "" for a map with some."""
    low, high = float(values.min()), float(values.max())
    if not _spans_nothing(low, high):
        return ""
    least, most = form(low), form(high)
    if values.size == 1:
        return f"one patch alone: {least}"
    return f"equal everywhere: {least}" if least == most else f"nearly equal everywhere: {least} to {most}"


def normalise(values: NDArray[np.floating], floor: float | None = None) -> NDArray[np.float64]:
    """[h, w] scaled for drawing to [0, 1]: from its smallest value, or `floor`, to its largest; 0 everywhere if `is_even`."""
    if is_even(values):
        return np.zeros(values.shape)
    above = np.clip(values.astype(np.float64) - (values.min() if floor is None else floor), 0, None)
    return above / above.max() if above.any() else above


def upsample(values: NDArray[np.floating], size: tuple[int, int], smooth: bool = True) -> NDArray[np.float64]:
    """[h, w] -> [H, W], the grid covering the image: bilinear (which stays in range) or the nearest patch."""
    how = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST
    raster = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    larger = np.asarray(raster.resize((size[1], size[0]), how), np.float64)
    return np.clip(larger, values.min(), values.max())  # float32 rounding


def place(values: NDArray[np.floating], box: tuple[int, int, int, int], size: tuple[int, int]) -> NDArray[np.float64]:
    """A map [h, w] of a crop at any resolution, placed in the whole picture of `size` (H, W): [H, W], 0 outside the crop.

    box: (top, left, height, width) of the crop in pixels of the whole picture; what lies beyond the picture was padding.
    """
    top, left, height, width = box
    whole = np.zeros(size)
    fine = upsample(values, (height, width))
    y, x = max(0, top), max(0, left)
    inside = fine[y - top : size[0] - top, x - left : size[1] - left]
    whole[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return whole


def shown(
    picture: NDArray[np.uint8], box: tuple[int, int, int, int], beyond: tuple[int, int] = (0, 0)
) -> NDArray[np.uint8]:
    """The part of a picture [H, W, 3] that a box shows, black where it reaches beyond, and `beyond` rows and columns more."""
    top, left, height, width = box
    seen = np.zeros((height + beyond[0], width + beyond[1], picture.shape[2]), np.uint8)
    y, x = max(0, top), max(0, left)
    inside = picture[y : max(0, top + height), x : max(0, left + width)]
    seen[y - top : y - top + inside.shape[0], x - left : x - left + inside.shape[1]] = inside
    return seen


def colourise(values: NDArray[np.floating], colours: str = "viridis") -> NDArray[np.uint8]:
    """[..., h, w] in [0, 1] -> uint8 [..., h, w, 3]; what lies outside takes the end colours."""
    anchors = np.array([list(bytes.fromhex(colour)) for colour in COLOURS[colours]], np.float64)  # [9, 3]
    where = np.clip(values, 0.0, 1.0) * (len(anchors) - 1)
    below = np.minimum(where.astype(np.int64), len(anchors) - 2)
    share = (where - below)[..., None]
    mixed = anchors[below] * (1 - share) + anchors[below + 1] * share
    return np.rint(mixed).astype(np.uint8)


def overlay(image: NDArray[np.uint8], values: NDArray[np.floating], alpha: float = 0.6) -> Image.Image:
    """A map over its picture, in inferno's colours and the picture's own size and shape.

    The larger a value, the stronger the colour: where the map is 0 the picture stays, greyed and darkened by `alpha`, and where it is 1 the
    colour covers `alpha` of it.

    Args:
        image: uint8 [H, W, 3].
        values: [h, w] in [0, 1] at any resolution; enlarged smoothly.
        alpha: strength in [0, 1]; 0 gives the picture back.

    Raises:
        VitralError: alpha is outside [0, 1].
    """
    if not 0 <= alpha <= 1:
        raise VitralError(f"alpha {alpha}: the strength of an overlay lies between 0 and 1; choose for example 0.6")
    assert image.ndim == 3, f"image {image.shape} is not [H, W, 3]"
    assert image.dtype == np.uint8, f"image is {image.dtype}, not uint8"
    heat = upsample(np.clip(values, 0.0, 1.0), image.shape[:2])  # [H, W]
    picture: NDArray[Any] = image.astype(np.float64)
    grey = picture @ np.array([0.299, 0.587, 0.114])  # [H, W], ITU-R BT.601
    faded = (0.75 * grey)[..., None]
    calm = picture * (1 - 0.7 * alpha) + faded * 0.7 * alpha  # what is not looked at
    weight = (alpha * heat**0.8)[..., None]  # keeps middling attention visible, and faint noise faint
    mixed = calm * (1 - weight) + colourise(heat, "inferno") * weight
    return Image.fromarray(np.clip(np.rint(mixed), 0, 255).astype(np.uint8))
