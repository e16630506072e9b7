"""The one pass over the pixels that every check of the data shares: what each file is, and a small picture of it.

Axes: n images, h height, w width, C channels. Images are squashed to a square, so that a copy of another size has the same small picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vitral.data.files import ImageError
from vitral.data.images import Images
from vitral.data.raster import LUMA, ImageInfo, Packing, packing
from vitral.data.scan import Progress, in_threads
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
    """What the n images that can be read look like."""

    rows: NDArray[np.int64]
    """[n]: where each is among all images of the listing."""
    digests: list[bytes]
    infos: list[ImageInfo]
    packings: list[Packing | None]
    """None for images that come from no file."""
    grey: NDArray[np.uint8]
    """[n, 64, 64]"""
    colour: NDArray[np.uint8]
    """[n, 3, 16, 16]"""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def least_sides(self) -> NDArray[np.int64]:
        return np.array([min(info.height, info.width) for info in self.infos], np.int64)


def look(images: Images, progress: Progress | None) -> tuple[Looks, dict[int, Unusable]]:
    """Read every image once, in threads; and by their place, those that cannot be used."""

    def each(i: int) -> tuple[bytes, ImageInfo, Packing | None, Tensor, Tensor] | Unusable:
        name = images.names[i]
        try:
            seen = images.inspect(i, hint=SIDE)
            packed = None if seen.encoded is None else packing(seen.encoded, name)
        except VitralError as error:
            kind = error.kind if isinstance(error, ImageError) else "unreadable"
            return Unusable(kind, str(error).removeprefix(f"{name}: "))
        return (seen.digest, seen.info, packed, *thumbnails(seen.pixels))

    seen = in_threads(each, len(images.names), progress)
    unusable = {i: one for i, one in enumerate(seen) if isinstance(one, Unusable)}
    usable = [one for one in seen if not isinstance(one, Unusable)]
    rows = np.array([i for i in range(len(seen)) if i not in unusable], np.int64)
    grey = _stack([one[3] for one in usable], (SIDE, SIDE))
    colour = _stack([one[4] for one in usable], (3, COLOUR_SIDE, COLOUR_SIDE))
    return Looks(rows, [u[0] for u in usable], [u[1] for u in usable], [u[2] for u in usable], grey, colour), unusable


def thumbnails(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """[C,h,w], 0..255, to uint8 [64, 64] in grey and [3, 16, 16] in colour, each the mean over what it covers."""
    small = _resized(pixels, SIDE)
    colour = _resized(small, COLOUR_SIDE).expand(3, -1, -1).contiguous()
    grey = small[0] if len(small) == 1 else (small.float() * torch.from_numpy(LUMA)[:, None, None]).sum(0)
    return grey.round().to(torch.uint8).contiguous(), colour


def _resized(pixels: Tensor, side: int) -> Tensor:
    wide = pixels.contiguous()[None].float()
    return F.interpolate(wide, (side, side), mode="bilinear", antialias=True)[0].round().clamp(0, 255).to(torch.uint8)


def _stack(parts: Sequence[Tensor], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return torch.stack(list(parts)).numpy() if parts else np.empty((0, *shape), np.uint8)
