"""Decoding with Pillow: every format and mode becomes an array [h, w, C], or an error that names it.

Axes: h height, w width, C channels (1 grey, 3 RGB). Pillow cuts 16-bit colour to 8 bits; here such a file is decoded twice, once for the high and
once for the low byte of each value.
"""

import io
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vitral.data.files import ImageError
from vitral.data.values import ImageInfo, Range, Reading, on_scale
from vitral.errors import VitralError

MAX_PIXELS = 178_956_970  # the most that Pillow opens: twice its MAX_IMAGE_PIXELS
_ORIENTATION, _PHOTOMETRIC = 0x0112, 262  # EXIF and TIFF tags
_GREY_MODES = frozenset({"1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I;16N", "F", "I"})
_COLOUR_MODES = frozenset({"RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr", "HSV"})
# Pillow scales the pixels of PNGs with fewer than 8 bits, but not their transparent key
_GREY_KEY_SCALE = {"1": 255, "L;2": 85, "L;4": 17}
# Raw mode of 16-bit colour -> raw mode that returns the other byte of each value
_OTHER_BYTE = {
    "RGB;16B": "RGB;16L",
    "RGB;16L": "RGB;16B",
    "RGBA;16B": "RGBA;16L",
    "RGBA;16L": "RGBA;16B",
    "RGB;16N": "RGB;16B" if struct.pack("=H", 1) == b"\1\0" else "RGB;16L",
    "RGBA;16N": "RGBA;16B" if struct.pack("=H", 1) == b"\1\0" else "RGBA;16L",
}
# Python's warning filters are shared by all threads, and headers are read in threads
_header_lock = threading.Lock()


def open_frame(data: bytes, name: str, reader: str, frame: int = 0) -> Image.Image:
    """Pillow's image of one frame with only the header read, checked for size. reader: Pillow's name of the format."""
    with named(name), quiet():
        image = Image.open(io.BytesIO(data), formats=(reader,))
        check_pixels(image.height, image.width, name)
        if frame:
            image.seek(frame)
    check_pixels(image.height, image.width, name)
    return image


def count_frames(image: Image.Image, name: str) -> int:
    """The number of frames; previews that telephones append to a picture (MPO) and an icon's sizes do not count."""
    if image.format in ("MPO", "ICO", "ICNS"):
        return 1
    with named(name), quiet():
        return getattr(image, "n_frames", 1)  # Pillow defines it for the formats that can have several


@dataclass(frozen=True)
class Packing:
    """How a file stores its picture, which the pixels of `image_pixels` no longer show."""

    format: str
    """JPEG, PNG, ..., as Pillow names it."""
    mode: str
    """Pillow's mode: L, RGB, P (a palette), CMYK, ..."""
    orientation: int
    """EXIF's, 1 to 8; 1 is upright."""
    transparent: bool
    """Whether it has an alpha channel or a transparent colour."""


def packing(image: Image.Image, data: bytes) -> Packing:
    """From the header alone, for a file that was decoded before. The rare EXIF behind a PNG's pixels is read with the pixels."""
    plain = image.format == "PNG" and "exif" not in image.info and b"eXIf" not in data
    turned = 1 if plain else orientation(image)
    alpha = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    return Packing(image.format or "", image.mode, turned, alpha)


def check_pixels(height: int, width: int, name: str) -> None:
    """Refuse an image that is too large, from the header alone."""
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"{name}: {width:,} x {height:,} pixels, over the limit of {MAX_PIXELS:,}; cut it into tiles or shrink it",
            "too_large",
        )


def image_info(image: Image.Image, data: bytes | None, name: str) -> ImageInfo:
    """Header facts of an image and the file that it was opened from. Raises VitralError for refused kinds."""
    channels, bit_depth = _kind(image, name)
    if image.format == "PNG" and data is not None and "exif" not in image.info and b"eXIf" not in data:
        turn_by = 1  # Pillow would decode the pixels to look for EXIF behind them
    else:
        turn_by = orientation(image)
    return ImageInfo(*turned_size(image.height, image.width, turn_by), channels, bit_depth)


def image_pixels(
    image: Image.Image, reading: Reading, name: str, again: Callable[[], Image.Image] | None
) -> tuple[np.ndarray, ImageInfo]:
    """Pixels [h,w,C], upright, `uint8` or (of more than 8 bits) `float32` on the 0..255 scale, and the facts.

    again: reopens the image's file, if there is one. Loads the image. Raises VitralError for refused kinds and for files that are damaged or cut
    short.
    """
    raw = _raw_mode(image)
    stored, bit_depth = _kind(image, name)
    extremes: Range | None = None
    with named(name):
        if _is_wide(image):
            pixels, extremes = _wide_pixels(image, reading, name)
        elif not _is_deep(image):
            pixels = _shallow_pixels(image, raw)
        elif again is None:
            raise VitralError(f"{name}: holds 16 bits a colour, of which Pillow keeps 8; give the file's path instead")
        else:
            pixels, extremes = _deep_pixels(image, again(), raw, reading, name)
    pixels = turn(pixels, orientation(image))
    return pixels, ImageInfo(pixels.shape[0], pixels.shape[1], stored, bit_depth, extremes)


def orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 if there is none or the metadata are damaged."""
    if image.format == "TIFF":
        return 1  # Pillow turns TIFFs itself and gives the turned size
    with quiet():
        try:
            value = image.getexif().get(_ORIENTATION, 1)
        except Exception:  # any error of Pillow's parser: the pixels do not depend on it
            return 1
    return value if value in range(1, 9) else 1


def turned_size(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Height and width once the orientation has been applied."""
    return (width, height) if orientation >= 5 else (height, width)


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation to [h,w,C]: a view that shows the picture upright."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)  # mirrored along the diagonal; a flip remains, as below
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    return pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


@contextmanager
def named(name: str) -> Iterator[None]:
    """Convert whatever Pillow raises on a damaged file to a VitralError that names the file."""
    try:
        yield
    except (VitralError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        text = f"{name}: over the limit of {MAX_PIXELS:,} pixels ({error}); cut it into tiles"
        raise ImageError(text, "too_large") from error
    except Image.UnidentifiedImageError:
        text = f"{name}: is not a JPEG, PNG or other image that can be opened, or its header is cut short; replace it or remove it"
        raise ImageError(text, "not_an_image") from None
    except Exception as error:  # Pillow's decoders raise a dozen kinds
        raise damaged(name, error) from error


def damaged(name: str, error: Exception | str) -> ImageError:
    """The error for an image whose header is readable but whose pixels cannot be decoded to the end."""
    return ImageError(f"{name}: is damaged or cut short ({error}); restore it from its source or remove it", "damaged")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow's warnings about size and metadata: vitral has its own limit on size and needs no metadata."""
    with _header_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _kind(image: Image.Image, name: str) -> tuple[int, int]:
    """Channels (1 or 3) and bits a channel (8 or 16). Raises VitralError if something would be lost."""
    raw = _raw_mode(image)
    known = image.mode in _GREY_MODES | _COLOUR_MODES and raw != "I;12"
    if not known or (_is_deep(image) and raw not in _OTHER_BYTE and raw != "LA;16B"):
        raise VitralError(f"{name}: has pixels of the kind {raw or image.mode}; convert it to PNG")
    grey = image.mode in _GREY_MODES or raw == "LA;16B"
    deep = _is_wide(image) or _is_deep(image)
    return 1 if grey else 3, 16 if deep else 8


def _raw_mode(image: Image.Image) -> str:
    """Pillow's raw mode of the file's pixels; empty for an image loaded or made in memory."""
    tiles = getattr(image, "tile", None)  # only images from files have it
    if not tiles:
        return ""
    args = tiles[0].args
    return args if isinstance(args, str) else str(args[0]) if args else ""


def _is_wide(image: Image.Image) -> bool:
    """Is this a mode of 16 or 32 bits, integers or floating point?"""
    return image.mode.startswith(("I", "F"))


def _is_deep(image: Image.Image) -> bool:
    """Is this 16-bit colour (or grey with alpha), which Pillow would cut to 8 bits?"""
    return ";16" in _raw_mode(image) and not _is_wide(image)


def _shallow_pixels(image: Image.Image, raw: str) -> np.ndarray:
    """Pixels [h,w,C] of every mode of 8 bits or fewer."""
    key = image.info.get("transparency")
    inverted = image.format == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info
    image.load()
    if image.mode == "P" and key is not None:
        image = image.convert("RGBA")
    elif image.mode in ("RGBa", "La", "PA"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode == "CMYK":
        if (
            inverted
        ):  # Pillow assumes that every CMYK JPEG is inverted as Adobe's are; those without Adobe's marker are not
            image = Image.fromarray(255 - np.asarray(image), "CMYK")
        image = image.convert("RGB")
    elif image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("RGB")
    pixels = np.array(image)
    if image.mode in ("LA", "RGBA"):
        return over_white(pixels[:, :, :-1], pixels[:, :, -1:])
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
        key = key * _GREY_KEY_SCALE.get(raw, 1) if isinstance(key, int) else key
    return _key_to_white(pixels, key)


def _wide_pixels(image: Image.Image, reading: Reading, name: str) -> tuple[np.ndarray, Range | None]:
    """Pixels [h,w,1] float32 of a mode of 16 or 32 bits, and their extremes."""
    key = image.info.get("transparency")
    tags = getattr(image, "tag_v2", {})  # TIFF only
    values = np.asarray(image)[:, :, None]
    pixels, extremes = on_scale(values.astype(np.uint16) if image.mode.startswith("I;16") else values, reading, name)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero, which Pillow handles for 8 bits only
        pixels = 255 - pixels
    return np.where(values == key, np.float32(255), pixels) if isinstance(key, int) else pixels, extremes


def _deep_pixels(
    image: Image.Image, again: Image.Image, raw: str, reading: Reading, name: str
) -> tuple[np.ndarray, Range | None]:
    """Pixels [h,w,C] float32 of a 16-bit colour image, and their extremes; `again`: the same file, opened anew."""
    key = image.info.get("transparency")
    if raw == "LA;16B":  # grey and alpha, two bytes each: read as four channels
        _set_raw_mode(image, "RGBA")
        packed = np.asarray(image).astype(np.uint16)
        values = packed[:, :, 0::2] * np.uint16(256) + packed[:, :, 1::2]
    else:
        _set_raw_mode(again, _OTHER_BYTE[raw])
        values = np.asarray(image).astype(np.uint16) * np.uint16(256) + np.asarray(again)
    if values.shape[2] == 3:
        pixels, extremes = on_scale(values, reading, name)
        clear = False if key is None else (values == np.asarray(key)).all(axis=2, keepdims=True)
        return np.where(clear, np.float32(255), pixels), extremes
    pixels, extremes = on_scale(values[:, :, :-1], reading, name)
    return over_white(pixels, values[:, :, -1:].astype(np.float32) / 257), extremes


def _set_raw_mode(image: Image.Image, raw: str) -> None:
    tile = image.tile[0]  # type: ignore[attr-defined]
    args = raw if isinstance(tile.args, str) else (raw, *tile.args[1:])
    image.tile = [tile._replace(args=args)]  # type: ignore[attr-defined]


def over_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """[h, w, C], not premultiplied, laid over white by the alpha [h, w, 1]; all on the 0..255 scale."""
    if colours.dtype == np.uint8:
        wide, share = colours.astype(np.uint16), alpha.astype(np.uint16)
        return ((wide * share + 255 * (255 - share) + 127) // 255).astype(np.uint8)  # at most 65,152: no overflow
    opacity = (alpha / 255).astype(np.float32)
    return colours * opacity + 255 * (1 - opacity)


def _key_to_white(pixels: np.ndarray, key: object) -> np.ndarray:
    """The one fully transparent value that a PNG may name, [h,w,C], becomes white."""
    if key is None:
        return pixels
    return np.where((pixels == np.asarray(key)).all(axis=2, keepdims=True), np.uint8(255), pixels)
