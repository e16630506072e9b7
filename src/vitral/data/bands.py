"""Channels: 1 is grey, 3 are red, green and blue, any other number are bands, which are never dropped or invented.

Axes: C channels, h height, w width.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vitral.data.files import ImageError
from vitral.data.values import ImageInfo, white
from vitral.errors import VitralError, counted, some

if TYPE_CHECKING:
    from torch import Tensor

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R 601
COLOURS = (1, 3)
_NAMED = 3  # files of each kind in an error


def in_words(channels: int) -> str:
    """A number of channels in words."""
    return {1: "grey", 3: "colour"}.get(channels, f"{channels} bands")


def with_channels(pixels: np.ndarray, channels: int | None, name: str) -> np.ndarray:
    """[h,w,C] with so many channels: colour to grey by ITU-R 601 luma (as Pillow's), grey repeated; VitralError between other numbers."""
    stored = pixels.shape[2]
    if channels is None or channels == stored:
        return pixels
    if channels not in COLOURS or stored not in COLOURS:
        raise ImageError(
            f"{name}: has {counted(stored, 'channel')} ({in_words(stored)}), and {channels} ({in_words(channels)}) are wanted; "
            f"bands are neither dropped nor made up: give files with {channels}, or a model for {stored}",
            "other_bands",
        )
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    if pixels.dtype == np.uint8:
        return np.array(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))[:, :, None]
    return (pixels @ LUMA)[:, :, None]


def count_channels(infos: Sequence[ImageInfo], names: Sequence[str], asked: int | None) -> tuple[int, str | None]:
    """The number of channels for a model of these images, and an error if they differ. asked: the number that the user wants."""
    kinds: dict[int, list[str]] = defaultdict(list)
    for info, name in zip(infos, names, strict=True):
        kinds[info.channels].append(name)
    most = max(kinds, default=1)
    if len(kinds) > 1 and any(channels not in COLOURS for channels in kinds):
        lines = [f"{in_words(c)} ({len(kinds[c]):,}): {some(kinds[c], _NAMED)}" for c in sorted(kinds)]
        return most, (
            f"the images differ in their bands: {'; '.join(lines)}; a model sees one number of bands: give files that all have the same"
        )
    if asked is not None and asked != most and (asked not in COLOURS or most not in COLOURS):
        return most, (
            f"the images have {counted(most, 'channel')} ({in_words(most)}), and --channels asks for {asked}; bands are neither dropped nor made up: "
            "leave --channels out, or write files with the bands wanted"
        )
    return asked or most, None


def shown_bands(channels: int, chosen: tuple[int, int, int] | None) -> tuple[int, int, int]:
    """Which channels, from 0, are painted red, green and blue. chosen: counted from 1; default: the first three, or the first in grey."""
    if chosen is None:
        return (0, 1, 2) if channels >= 3 else (0, 0, 0)
    check_shown(chosen, channels)
    red, green, blue = chosen
    return red - 1, green - 1, blue - 1


def check_shown(chosen: tuple[int, int, int], channels: int) -> None:
    """Raise VitralError if a band to be shown does not exist."""
    if not all(1 <= band <= channels for band in chosen):
        said = " ".join(map(str, chosen))
        raise VitralError(
            f"--show-bands {said}: these images have the bands 1 to {channels}; choose three of them, for red, green and blue"
        )


def to_rgb(pixels: "Tensor | np.ndarray", chosen: tuple[int, int, int] | None = None) -> np.ndarray:
    """[C, H, W] on the 0..255 scale for display: uint8 [H, W, 3]. chosen: as in `shown_bands`.

    Pictures that use only the lowest 8, 10 or 12 of 16 bits are shown on their own scale; otherwise they would be black.
    """
    values = pixels if isinstance(pixels, np.ndarray) else pixels.cpu().numpy()
    channels = len(values)
    picked = values if channels == 3 and chosen is None else values[list(shown_bands(channels, chosen))]
    if picked.dtype != np.uint8:
        picked = picked.astype(np.float32)
        end = white(picked)
        picked = np.rint(picked if end == 255 else picked * np.float32(255 / end)).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(picked.transpose(1, 2, 0))  # [3, H, W] -> [H, W, 3]
