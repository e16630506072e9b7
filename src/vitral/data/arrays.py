"""Files of plain numbers: NumPy's .npy, and PGM and PPM of more than 8 bits. Axes: n pages, h height, w width, C channels."""

import io
import re

import numpy as np
from numpy.lib import format as npy

from vitral.data.files import ImageError
from vitral.data.raster import check_pixels, damaged
from vitral.data.values import ImageInfo, Reading, on_scale


def read_npy(data: bytes, name: str) -> np.ndarray:
    """The array of a .npy file as pages [n,h,w,C], a view of the bytes: of [h,w], [h,w,C], [C,h,w], and [n,h,w,C].

    Of three axes the first or the last is the channels, if it is shorter than both others. Pickled objects are refused.
    """
    file = io.BytesIO(data)
    try:
        version = npy.read_magic(file)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, by_columns, kind = header(file)
    except Exception as error:  # numpy raises several kinds on damaged headers
        raise damaged(name, error) from error
    if kind.hasobject or kind.names or kind.kind not in "buif":
        raise ImageError(
            f"{name}: holds {kind}, not numbers that can be pixels; save the pixels as real numbers (numpy.save)"
        )
    if min(shape, default=0) < 1:
        raise ImageError(f"{name}: holds an array of shape {shape}, without pixels; save it again", "empty")
    size = int(np.prod(shape, dtype=object))
    if len(data) - file.tell() < size * kind.itemsize:
        raise damaged(name, ValueError(f"{size:,} values are promised, and the file ends before"))
    values = np.frombuffer(data, kind, size, file.tell()).reshape(shape, order="F" if by_columns else "C")
    return arranged(values.astype(kind.newbyteorder("="), copy=False), name)


def arranged(values: np.ndarray, name: str) -> np.ndarray:
    """An array as pages [n,h,w,C], not copied; VitralError where it is not clear which axis is which."""
    if values.ndim == 2:
        pages = values[None, :, :, None]
    elif values.ndim == 4:
        pages = values
    elif values.ndim == 3 and values.shape[2] < min(values.shape[:2]):
        pages = values[None]
    elif values.ndim == 3 and values.shape[0] < min(values.shape[1:]):
        pages = np.moveaxis(values, 0, 2)[None]
    else:
        raise ImageError(
            f"{name}: holds an array of shape {values.shape}, in which it is not clear what the channels are; save [h, w], or [h, w, C] or "
            "[C, h, w] with fewer channels than pixels on each side",
            "other_bands",
        )
    check_pixels(pages.shape[1] * -(-pages.shape[3] // 4), pages.shape[2], name)
    return pages


def array_info(pages: np.ndarray) -> ImageInfo:
    _, height, width, channels = pages.shape
    return ImageInfo(height, width, channels, 8 if pages.dtype in (np.uint8, np.bool_) else 16)


def array_pixels(page: np.ndarray, reading: Reading, name: str) -> tuple[np.ndarray, ImageInfo]:
    """[h,w,C] of any real numbers to pixels `uint8` or `float32` on the 0..255 scale, and the facts."""
    pixels, extremes = on_scale(page, reading, name)
    return pixels, ImageInfo(
        pixels.shape[0], pixels.shape[1], pixels.shape[2], 8 if pixels.dtype == np.uint8 else 16, extremes
    )


def deep_netpbm(data: bytes, reading: Reading, name: str) -> tuple[np.ndarray, ImageInfo] | None:
    """Pixels and facts of a PGM or PPM whose white is above 255, which Pillow would cut to 8 bits a colour; None for all others.

    White is the header's value (https://netpbm.sourceforge.net/doc/ppm.html) unless a range is stated.
    """
    kind = data[:2]
    if kind not in (b"P2", b"P3", b"P5", b"P6"):
        return None
    gap = rb"(?:\s|#[^\r\n]*[\r\n])+"
    found = re.match(rb"P\d" + rb"".join(gap + rb"(\d{1,9})" for _ in range(3)) + rb"\s", data[:4096])
    if found is None or int(found[3]) <= 255:
        return None
    width, height, most = (int(found[i]) for i in (1, 2, 3))
    check_pixels(height, width, name)
    channels = 1 if kind in (b"P2", b"P5") else 3
    count, rest = height * width * channels, data[found.end() :]
    if most > 65535:
        raise damaged(name, ValueError(f"white is {most}, above 65,535"))
    if kind in (b"P5", b"P6"):
        short = len(rest) < 2 * count
        values = np.zeros(0, np.uint16) if short else np.frombuffer(rest, ">u2", count)
    else:
        numbers = rest.split()
        short = len(numbers) < count or not all(number.isdigit() for number in numbers[:count])
        values = np.zeros(0, np.uint16) if short else np.array(numbers[:count], dtype=np.int64).clip(0, 65535)
    if short or not count:
        raise damaged(name, ValueError(f"{count:,} values are promised, and the file ends before"))
    stated = reading if reading.value_range is not None else Reading((0.0, float(most)))
    pixels, extremes = on_scale(values.astype(np.uint16).reshape(height, width, channels), stated, name)
    return pixels, ImageInfo(height, width, channels, 16, extremes)
