"""An image becomes a tensor or an array [C,h,w] (C channels, h height, w width), 0..255, or an error that names it.

`uint8` normally; `float32` if the source holds more bits, so that nothing is lost: value / 257 for 16 bits, a stated range for others (`values`). A
file's kind is told by its first bytes, not its name (`filetypes`). Grey and RGB JPEG is decoded by simplejpeg (libjpeg-turbo), TIFF of many bands by
tifffile (`tiff`), arrays by numpy (`arrays`), all else by Pillow (`raster`). EXIF orientation is applied. Transparency is laid over white. CMYK
becomes RGB without a colour profile; embedded profiles are not applied. Colour to grey is ITU-R 601 luma. Files that are ambiguous are refused:
several pages or frames of which none was chosen, values whose range is not stated.
"""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg
from PIL import Image

from vitral.data.arrays import array_info, array_pixels, deep_netpbm, read_npy
from vitral.data.bands import with_channels
from vitral.data.files import ImageError, read_file
from vitral.data.filetypes import EXTENSIONS as EXTENSIONS
from vitral.data.filetypes import Format, recognise
from vitral.data.headers import bits_of, count_heif, heif_info, heif_pixels, without_texts
from vitral.data.raster import (
    Packing,
    check_pixels,
    count_frames,
    damaged,
    image_info,
    image_pixels,
    open_frame,
    orientation,
    packing,
    turn,
    turned_size,
)
from vitral.data.tiff import Page as TiffPage
from vitral.data.tiff import pages, tiff_info, tiff_pixels
from vitral.data.values import PLAIN, ImageInfo, Range, Reading

if TYPE_CHECKING:
    from torch import Tensor

_MOST_CUT = 8  # bits a channel that Pillow keeps of an AVIF or of a JPEG 2000 in colour


@dataclass(frozen=True)
class PageOf:
    """One page of a file of several; `decode` and a predictor take it like a file."""

    file: str | Path | bytes
    page: int
    """From 0."""

    def __str__(self) -> str:
        return f"{self.file if not isinstance(self.file, bytes) else 'image bytes'} page {self.page}"


Source = str | Path | bytes | Image.Image | PageOf


def probe(data: bytes, name: str = "image bytes", reading: Reading = PLAIN) -> ImageInfo:
    """Size, channels and bits of an encoded image from its header alone. Raises VitralError if it is no image, too large, or of a refused kind."""
    return _jpeg_info(data, name, reading) or _Opened(data, name, reading).info()


def decode(
    source: Source,
    channels: int | None = None,
    *,
    name: str | None = None,
    hint: int | None = None,
    reading: Reading = PLAIN,
) -> "Tensor":
    """Decode an image to [C, h, w], 0..255, `uint8` or (more than 8 bits) `float32`; in memory the channels may lie last.

    channels: the number wanted (only 1 and 3 are converted), or None for the file's own (palettes count as colour). name: the image's, in errors.
    hint: the shorter side in pixels that the caller will resize to; a JPEG more than 2.5 times as large may then be decoded smaller, but no less than
    1.25 times the hint (by scaling its DCT, at a fraction of the cost). reading: value range and page, which the file does not state. Raises
    VitralError, which names the image, for anything but one whole, readable, still image.
    """
    return decode_seen(source, channels, name=name, hint=hint, reading=reading)[0]


def decode_seen(
    source: Source,
    channels: int | None = None,
    *,
    name: str | None = None,
    hint: int | None = None,
    reading: Reading = PLAIN,
) -> "tuple[Tensor, Range | None]":
    """`decode`, and the smallest and largest value in the file if it has more than 8 bits."""
    pixels, extremes = decode_array(source, channels, name=name, hint=hint, reading=reading)
    return _to_tensor(pixels), extremes


def decode_array(
    source: Source,
    channels: int | None = None,
    *,
    name: str | None = None,
    hint: int | None = None,
    reading: Reading = PLAIN,
) -> tuple[np.ndarray, Range | None]:
    """`decode_seen` as an array, which needs no PyTorch."""
    name, reading = name or _name_of(source), _reading_of(source, reading)
    if isinstance(source, Image.Image):
        pixels, info = image_pixels(source, reading, name, None)
        pixels = with_channels(pixels, channels, name)
    else:
        pixels, info = _read(_bytes_of(source, name), channels, name, hint, reading)
    return _channels_first(pixels), info.extremes


def decode_bytes(
    data: bytes, channels: int | None, name: str, hint: int | None = None, reading: Reading = PLAIN
) -> "tuple[Tensor, ImageInfo]":
    """`decode` of an encoded image, and its header's facts (the file's own size and channels)."""
    pixels, info = _read(data, channels, name, hint, reading)
    return _to_tensor(_channels_first(pixels)), info


def _read(
    data: bytes, channels: int | None, name: str, hint: int | None, reading: Reading
) -> tuple[np.ndarray, ImageInfo]:
    """[h,w,C] of an encoded image, and what the file says."""
    info = _jpeg_info(data, name, reading)
    if info is not None and channels in (None, 1, 3):
        return _jpeg_pixels(data, info, channels or info.channels, name, hint), info
    pixels, info = _Opened(data, name, reading).pixels()
    return with_channels(pixels, channels, name), info


def count_pages(data: bytes, name: str) -> int:
    """How many pages or frames a file has. Raises VitralError if it cannot be opened."""
    return 1 if _jpeg_info(data, name, PLAIN) else _Opened(data, name, None).total


def packed(data: bytes, name: str, reading: Reading = PLAIN) -> Packing:
    """How a decoded file stores its picture."""
    return _Opened(data, name, reading).packing()


class _Opened:
    """A file other than a plain JPEG, with its format and the page to read.

    reading: None only to count pages.
    """

    def __init__(self, data: bytes, name: str, reading: Reading | None) -> None:
        self.format = _known(data, name)
        self.data = without_texts(data) if self.format.reader == "PNG" else data
        self.name, self.reading = name, reading or PLAIN
        self.array: np.ndarray | None = None
        self.tiff: list[TiffPage] = []
        if self.format.reader == "numpy":
            self.array = read_npy(data, name)
            self.total = len(self.array)
        elif self.format.reader == "TIFF":
            self.tiff = pages(data, name)
            self.total = len(self.tiff)
        elif self.format.reader == "heif":
            self.total = count_heif(data, name)
        else:
            self.total = count_frames(self._frame(0), name)
        self.page = 0 if reading is None else _chosen(self.total, reading.page, name)

    def _frame(self, frame: int) -> Image.Image:
        image = open_frame(self.data, self.name, self.format.reader, frame)
        if (
            self.format.reader == "JPEG2000"
            and (bits := bits_of(self.data, "JPEG2000")) > _MOST_CUT
            and image.mode != "I;16"
        ):
            raise ImageError(
                f"{self.name}: is a JPEG 2000 of {bits} bits a colour, of which Pillow keeps 8; convert it to 16-bit TIFF "
                "(opj_decompress -i IN -o OUT.tif)",
                "other_format",
            )
        return image

    def info(self) -> ImageInfo:
        """Facts from the header."""
        if self.array is not None:
            return array_info(self.array)
        if self.tiff:
            page = self.tiff[self.page]
            known = tiff_info(page, self.name)
            return known or image_info(open_frame(self.data, self.name, "TIFF", page.index), self.data, self.name)
        if self.format.reader == "heif":
            return heif_info(self.data, self.page, self.name)
        return self._said(image_info(self._frame(self.page), self.data, self.name))

    def pixels(self) -> tuple[np.ndarray, ImageInfo]:
        """The decoded pixels [h, w, C] and the facts."""
        name, reading = self.name, self.reading
        if self.array is not None:
            return array_pixels(self.array[self.page], reading, name)
        if self.tiff:
            return tiff_pixels(self.data, self.tiff[self.page], reading, name)
        if self.format.reader == "heif":
            return heif_pixels(self.data, self.page, reading, name)
        if self.format.reader == "PPM" and (deep := deep_netpbm(self.data, reading, name)) is not None:
            return deep
        pixels, info = image_pixels(self._frame(self.page), reading, name, lambda: self._frame(self.page))
        return pixels, self._said(info)

    def packing(self) -> Packing:
        if self.array is not None or self.format.reader == "heif":
            return Packing(self.format.name, "", 1, False)
        if self.tiff:
            page = self.tiff[self.page]
            if not page.plain:
                return Packing("TIFF", "", page.orientation, page.alpha is not None)
            return packing(open_frame(self.data, self.name, "TIFF", page.index), self.data)
        return packing(self._frame(self.page), self.data)

    def _said(self, info: ImageInfo) -> ImageInfo:
        bits = bits_of(self.data, self.format.reader)
        return dataclasses.replace(info, cut=bits) if bits > _MOST_CUT and info.bit_depth == 8 else info


def _known(data: bytes, name: str) -> Format:
    """The format of a file, if vitral reads it. Raises ImageError that names another format, or says that it is no image."""
    found = recognise(data, name)
    if found is None:
        raise ImageError(
            f"{name}: is not a JPEG, PNG, WebP, AVIF, TIFF, GIF, BMP or other image that is read, or its header is cut short; "
            "replace it or remove it",
            "not_an_image",
        )
    if not found.reader:
        kind = "other_format" if found.picture else "not_an_image"
        raise ImageError(f"{name}: is {found.name}, which is not read; {found.remedy}", kind)
    return found


def _chosen(total: int, page: int | None, name: str) -> int:
    """The page to read. Raises ImageError if none was chosen of several, or the chosen one does not exist."""
    if page is None and total > 1:
        raise ImageError(
            f"{name}: holds {total:,} frames or pages; extract the one wanted into a file of its own, or choose with --page: "
            f"--page 0 is the first, --page all makes an image of every one",
            "animated",
        )
    if page is not None and page >= total:
        have = "has one page" if total == 1 else f"has the pages 0 to {total - 1:,}"
        raise ImageError(
            f"{name}: {have}, and page {page} is asked for; choose one that is there with --page", "animated"
        )
    return page or 0


def _reading_of(source: Source, reading: Reading) -> Reading:
    return dataclasses.replace(reading, page=source.page) if isinstance(source, PageOf) else reading


def _bytes_of(source: str | Path | bytes | PageOf, name: str) -> bytes:
    file = source.file if isinstance(source, PageOf) else source
    return file if isinstance(file, bytes) else read_file(Path(file), name)[0]


def _name_of(source: Source) -> str:
    if isinstance(source, bytes):
        return "image bytes"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "image in memory")  # only images from files have a filename
    return str(source)


def _channels_first(pixels: np.ndarray) -> np.ndarray:
    """[h,w,C] -> [C,h,w], not copied unless it has to be for being written to."""
    return np.require(pixels, requirements=["C", "W"]).transpose(2, 0, 1)


def _to_tensor(pixels: np.ndarray) -> "Tensor":
    import torch

    return torch.from_numpy(pixels)


def _jpeg_info(data: bytes, name: str, reading: Reading = PLAIN) -> ImageInfo | None:
    """Header facts of a grey or RGB JPEG, which simplejpeg decodes; None for anything else."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        height, width, colour, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None  # Pillow reads a few more rare kinds and explains what is wrong with the rest
    if colour not in ("Gray", "YCbCr", "RGB"):
        return None
    check_pixels(height, width, name)
    _chosen(1, reading.page, name)
    height, width = turned_size(height, width, _jpeg_orientation(data, name))
    return ImageInfo(height, width, 1 if colour == "Gray" else 3, 8)


def _jpeg_orientation(data: bytes, name: str) -> int:
    return orientation(open_frame(data, name, "JPEG")) if b"Exif\x00\x00" in data else 1


def _jpeg_pixels(data: bytes, info: ImageInfo, channels: int, name: str, hint: int | None) -> np.ndarray:
    """Pixels [h, w, C], upright. A file that is cut short or corrupt raises an error instead of giving a grey area."""
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
