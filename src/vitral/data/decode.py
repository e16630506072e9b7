"""An image becomes a tensor [C,h,w] (C channels, h height, w width), 0..255, or an error that names it.

`uint8` normally; `float32`, value / 257, where the source holds 16 bits, so that nothing is lost. Grey and
RGB JPEG goes through simplejpeg (libjpeg-turbo), all else through Pillow (`raster`). EXIF orientation is
applied. Transparency is laid over white. CMYK becomes RGB without a colour profile; embedded profiles are not
applied. Colour to grey is ITU-R 601 luma. What cannot be represented without loss (several frames, floating
point, 32-bit integers) is refused.
"""

import math
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch import Tensor

from vitral.data.files import read_file
from vitral.data.raster import (
    ImageInfo,
    check_pixels,
    damaged,
    image_info,
    image_pixels,
    open_image,
    orientation,
    turn,
    turned_size,
)

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"}
)

Source = str | Path | bytes | Image.Image


def probe(source: Source) -> ImageInfo:
    """Size, channels and bits by the header alone. Raises VitralError if it is none, too large, or of a
    refused kind.
    """
    name = _name_of(source)
    if isinstance(source, Image.Image):
        return image_info(source, None, name)
    data = source if isinstance(source, bytes) else read_file(Path(source), name)[0]
    return _jpeg_info(data, name) or image_info(open_image(data, name), data, name)


def decode(source: Source, channels: int | None = None, *, name: str | None = None, hint: int | None = None) -> Tensor:
    """Decode an image to [C,h,w], 0..255, `uint8` or (16-bit sources) `float32`; in memory the channels may
    lie last.

    channels: 1, 3, or None to keep what the file has (palettes count as colour). name: what to call it in an
    error. hint: the shorter side in pixels that the caller will resize to; a JPEG more than 2.5 times as
    large may then come back smaller, but no less than 1.25 times the hint (its DCT is scaled, at a fraction
    of the cost). Raises VitralError, which names the image, for everything that is not one whole, readable,
    still image.
    """
    assert channels in (None, 1, 3), channels
    name = name or _name_of(source)
    if isinstance(source, Image.Image):
        return _to_tensor(image_pixels(source, None, channels, name)[0])
    data = source if isinstance(source, bytes) else read_file(Path(source), name)[0]
    return decode_bytes(data, channels, name, hint)[0]


def decode_bytes(data: bytes, channels: int | None, name: str, hint: int | None = None) -> tuple[Tensor, ImageInfo]:
    """`decode` of an encoded image, and what its header says (the file's own size and channels, whatever was
    asked).
    """
    info = _jpeg_info(data, name)
    if info is not None:
        return _to_tensor(_jpeg_pixels(data, info, channels or info.channels, name, hint)), info
    pixels, info = image_pixels(open_image(data, name), data, channels, name)
    return _to_tensor(pixels), info


def _name_of(source: Source) -> str:
    if isinstance(source, bytes):
        return "image bytes"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "image in memory")  # only images from files have a filename
    return str(source)


def _to_tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)  # [h,w,C] -> [C,h,w], not copied


def _jpeg_info(data: bytes, name: str) -> ImageInfo | None:
    """Header facts of a JPEG that simplejpeg decodes, grey or RGB; None for everything else."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        height, width, colour, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None  # Pillow reads a few rare kinds more, and says what is wrong with the rest
    if colour not in ("Gray", "YCbCr", "RGB"):
        return None
    check_pixels(height, width, name)
    height, width = turned_size(height, width, _jpeg_orientation(data, name))
    return ImageInfo(height, width, 1 if colour == "Gray" else 3, 8)


def _jpeg_orientation(data: bytes, name: str) -> int:
    return orientation(open_image(data, name)) if b"Exif\x00\x00" in data else 1


def _jpeg_pixels(data: bytes, info: ImageInfo, channels: int, name: str, hint: int | None) -> np.ndarray:
    """Pixels [h,w,C], upright. Strict: a file that is cut short or corrupt is an error, not a grey area."""
    scale: dict[str, int] = {}
    if hint is not None and min(info.height, info.width) > 2.5 * hint:
        least = math.ceil(1.25 * hint)
        scale = {"min_height": least, "min_width": least, "min_factor": 2}
    colour = "GRAY" if channels == 1 else "RGB"
    try:
        pixels = simplejpeg.decode_jpeg(data, colour, **scale)
    except ValueError as error:
        if "extraneous bytes before marker 0xd9" not in str(error):  # mere padding before the end marker
            raise damaged(name, error) from error
        pixels = simplejpeg.decode_jpeg(data, colour, strict=False, **scale)
    return turn(pixels, _jpeg_orientation(data, name))
