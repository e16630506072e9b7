"""The one pass over the pixels that all checks of the data share: facts about each file, and a small picture of it.

Axes: n images, h height, w width, C channels. Images are squashed to a square, so that a copy of another size has the same small picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vitral.data import copies
from vitral.data.bands import LUMA
from vitral.data.decode import packed
from vitral.data.files import ImageError
from vitral.data.images import HINT, Images
from vitral.data.progress import OnProgress
from vitral.data.raster import Packing
from vitral.data.scan import in_threads, remembered
from vitral.data.values import ImageInfo, white
from vitral.errors import VitralError

SIDE = 64  # pixels of the grey thumbnail: enough to tell a copy from a lookalike
COLOUR_SIDE = 16


@dataclass(frozen=True)
class Unusable:
    """An image for which training would stop."""

    kind: str
    """As in `vitral.data.files.ImageError`."""
    reason: str


@dataclass
class Looks:
    """The n readable images."""

    rows: NDArray[np.int64]
    """[n]: the position of each among all images of the listing."""
    digests: list[bytes]
    infos: list[ImageInfo]
    packings: list[Packing | None]
    """None for images without a file."""
    grey: NDArray[np.uint8]
    """[n, 64, 64], of bands their mean. Pictures that use the lowest 8, 10 or 12 bits of 16 are on their own scale, as all that is judged by these
    is what training's values show.
    """
    small: NDArray[np.uint8]
    """[n, 32, 32], by which copies are recognised."""
    colour: NDArray[np.uint8]
    """[n, C, 16, 16], on the same scale; C is 3, or the number of bands if that is more."""
    light: NDArray[np.float32]
    """[n]: mean grey value as training sees it, 0..255."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def least_sides(self) -> NDArray[np.int64]:
        return np.array([min(info.height, info.width) for info in self.infos], np.int64)


def look(images: Images, progress: OnProgress | None) -> tuple[Looks, dict[int, Unusable]]:
    """Read every image once, in threads. Also returns by position the images that cannot be used."""

    def each(
        i: int,
    ) -> tuple[bytes, ImageInfo, Packing | None, NDArray[np.uint8] | None, Tensor, Tensor, float] | Unusable:
        name = images.names[i]
        try:
            seen = images.inspect(i, HINT)
            reading = images.reading if seen.page is None else replace(images.reading, page=seen.page)
            how = None if seen.encoded is None else packed(seen.encoded, name, reading)
        except VitralError as error:
            kind = error.kind if isinstance(error, ImageError) else "unreadable"
            return Unusable(kind, str(error).removeprefix(f"{name}: "))
        small = images.learn(i, seen, small=True).small
        return (seen.digest, seen.info, how, small, *thumbnails(seen.pixels))

    with remembered(images):  # so that training does not read them again
        seen = in_threads(each, len(images.names), progress)
    unusable = {i: one for i, one in enumerate(seen) if isinstance(one, Unusable)}
    usable = [one for one in seen if not isinstance(one, Unusable)]
    rows = np.array([i for i in range(len(seen)) if i not in unusable], np.int64)
    small = np.array([one[3] for one in usable], np.uint8).reshape(-1, copies.SIDE, copies.SIDE)
    grey = _stack([one[4] for one in usable], (SIDE, SIDE))
    most = max((len(one[5]) for one in usable), default=3)
    colour = _stack([_filled(one[5], most) for one in usable], (most, COLOUR_SIDE, COLOUR_SIDE))
    light = np.array([one[6] for one in usable], np.float32)
    infos, packings = [u[1] for u in usable], [u[2] for u in usable]
    return Looks(rows, [u[0] for u in usable], infos, packings, grey, small, colour, light), unusable


def thumbnails(pixels: Tensor) -> tuple[Tensor, Tensor, float]:
    """[C,h,w], 0..255, to uint8 [64, 64] in grey and [C or 3, 16, 16] in colour, each the mean over what it covers and on the scale that the
    picture uses; and the mean grey value on that of 0..255.
    """
    end = white(pixels.numpy())
    small = _resized(pixels if end == 255 else pixels * (255 / end), SIDE)
    colour = _filled(_resized(small, COLOUR_SIDE), max(3, len(small))).contiguous()
    grey = (small.float() * torch.from_numpy(LUMA)[:, None, None]).sum(0) if len(small) == 3 else small.float().mean(0)
    light = float(grey.mean()) * end / 255
    return grey.round().to(torch.uint8).contiguous(), colour, light


def _filled(pixels: Tensor, channels: int) -> Tensor:
    """[C, s, s] with so many channels, the last one repeated."""
    return torch.cat([pixels, pixels[-1:].expand(channels - len(pixels), -1, -1)])


def _resized(pixels: Tensor, side: int) -> Tensor:
    wide = pixels.contiguous()[None].float()
    return F.interpolate(wide, (side, side), mode="bilinear", antialias=True)[0].round().clamp(0, 255).to(torch.uint8)


def _stack(parts: Sequence[Tensor], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return torch.stack(list(parts)).numpy() if parts else np.empty((0, *shape), np.uint8)
