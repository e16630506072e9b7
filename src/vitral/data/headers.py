"""Files that Pillow alone does not read well: bit depths that it cuts, PNG texts that it refuses, and HEIC."""

import struct

import numpy as np

from vitral.data.files import ImageError
from vitral.data.raster import check_pixels, named, over_white
from vitral.data.values import ImageInfo, Reading, on_scale

_SIGNATURE = 8  # bytes before a PNG's first chunk
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_TURNS = (
    b"Raw profile type exif\0",
    b"Raw profile type APP1\0",
    b"XML:com.adobe.xmp\0",
)  # texts that may hold the EXIF orientation
_LARGE = 1_000_000  # bytes


def without_texts(data: bytes) -> bytes:
    """A PNG without its texts and colour profile, which are not used: Pillow refuses intact images with large texts.

    Texts that may hold the EXIF orientation stay unless they are large.
    """
    if not any(kind in data for kind in _TEXTS):
        return data
    kept, place = [data[:_SIGNATURE]], _SIGNATURE
    while place + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        end = place + 12 + length
        chunk = data[place:end]
        if kind not in _TEXTS or (chunk[8:].startswith(_TURNS) and length < _LARGE):
            kept.append(chunk)
        place = end
    return b"".join([*kept, data[place:]])


def bits_of(data: bytes, reader: str) -> int:
    """Bits a channel of an AVIF or JPEG 2000 from its header, 8 if not stated. Pillow keeps 8 of a colour."""
    if reader == "AVIF":
        at = data.find(b"av1C", 0, 8192)  # https://aomediacodec.github.io/av1-isobmff/#av1codecconfigurationbox
        if at < 0 or len(data) < at + 7:
            return 8
        flags = data[at + 6]
        return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
    if reader == "JPEG2000":
        at = data.find(b"\xff\x4f\xff\x51", 0, 8192)  # the codestream's SIZ marker: ISO 15444-1, A.5.1
        if at < 0 or len(data) < at + 43:
            return 8
        return (data[at + 42] & 0x7F) + 1
    return 8


def _heif(data: bytes, name: str):  # type: ignore[no-untyped-def]
    """pillow-heif's file, with all bits."""
    try:
        import pillow_heif
    except ImportError:
        raise ImageError(
            f"{name}: is a HEIC image, which needs pillow-heif; run pip install 'vitral[heif]', or convert it (heif-convert IN OUT.jpg)",
            "other_format",
        ) from None
    try:
        return pillow_heif.open_heif(data, convert_hdr_to_8bit=False)
    except Exception as error:  # the library raises several kinds
        raise ImageError(
            f"{name}: is a HEIC image that pillow-heif cannot open ({error}); convert it (heif-convert IN OUT.jpg), or restore it from its source",
            "damaged",
        ) from error


def count_heif(data: bytes, name: str) -> int:
    return len(_heif(data, name))


def heif_info(data: bytes, frame: int, name: str) -> ImageInfo:
    image = _heif(data, name)[frame]
    width, height = image.size
    check_pixels(height, width, name)
    return ImageInfo(height, width, 1 if image.mode.startswith("L") else 3, 16 if ";16" in image.mode else 8)


def heif_pixels(data: bytes, frame: int, reading: Reading, name: str) -> tuple[np.ndarray, ImageInfo]:
    """Pixels [h,w,C] of a HEIC, turned upright by the library, and its facts. Values of 10 and 12 bits are scaled to 16."""
    info = heif_info(data, frame, name)
    with named(name):
        values = np.asarray(_heif(data, name)[frame])
    values = values if values.ndim == 3 else values[:, :, None]
    colours, alpha = values[:, :, : info.channels], values[:, :, info.channels :]
    pixels, extremes = on_scale(colours, reading, name)
    if alpha.shape[2]:
        pixels = over_white(pixels, alpha if alpha.dtype == np.uint8 else alpha.astype(np.float32) / 257)
    return pixels, ImageInfo(info.height, info.width, info.channels, info.bit_depth, extremes)
