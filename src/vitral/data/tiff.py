"""Decoding TIFF: its tags, and the files that Pillow cannot represent: more than three bands, floating point, 32 bits, separate planes.

Adobe's TIFF 6.0: samples beyond those that the photometric interpretation needs are alpha if ExtraSamples says so (1, 2), else further bands
(0 or missing). Read with tifffile. Axes: h height, w width, S samples a pixel, C bands.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from vitral.data.files import ImageError
from vitral.data.raster import (
    check_pixels,
    damaged,
    image_pixels,
    named,
    open_frame,
    over_white,
    quiet,
    turn,
    turned_size,
)
from vitral.data.values import ImageInfo, Reading, on_scale

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES = 256, 257, 258, 259, 262, 277
_SUBFILE, _ORIENTATION, _PLANAR, _EXTRA, _FORMAT = 254, 274, 284, 338, 339  # tags
# photometric interpretation: samples that it needs
_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 4: 1, 5: 4, 6: 3, 8: 3, 9: 3, 10: 3}
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3  # sample formats
_MOST_PAGES = 100_000
_ALPHA = (1, 2)


@dataclass(frozen=True)
class Page:
    """The tags of one page of a TIFF."""

    index: int
    """Its number among all directories of the file, which include smaller copies of pages."""
    height: int
    width: int
    bits: int
    samples: int
    format: int
    photometric: int
    planar: bool
    """Whether each sample has a plane of its own."""
    extra: tuple[int, ...]
    """The kind of each sample beyond the colours: 0 a band, 1 premultiplied alpha, 2 alpha."""
    orientation: int
    """EXIF's, 1 to 8."""

    @property
    def alpha(self) -> int | None:
        """The number of the extra sample that is alpha, if any."""
        return next((i for i, kind in enumerate(self.extra) if kind in _ALPHA), None)

    @property
    def channels(self) -> int:
        if self.photometric in (3, 5):
            return 3  # a palette, or inks
        return self.samples - (self.alpha is not None)

    @property
    def plain(self) -> bool:
        """Whether Pillow represents it without loss."""
        alone = self.format == _UNSIGNED and self.bits <= 16 and (self.bits <= 8 or not self.planar)
        return alone and (self.extra == () or (len(self.extra) == 1 and self.alpha is not None))

    @property
    def single(self) -> bool:
        """Whether it is one band that Pillow represents without loss: 32-bit floating point, or signed integers."""
        return self.samples == 1 and (self.format, self.bits) in ((_FLOAT, 32), (_SIGNED, 16), (_SIGNED, 32))


def pages(data: bytes, name: str) -> list[Page]:
    """The pages of a TIFF, without overviews (smaller copies of pages)."""
    found, index, seen = [], 0, set()
    file = io.BytesIO(data)
    with named(name), quiet():
        directory = ImageFileDirectory_v2(data[: 16 if data[2:3] == b"+" else 8])  # BigTIFF or not
        place = directory.next
        while place and place not in seen and index < _MOST_PAGES:
            seen.add(place)
            file.seek(place)
            directory.load(file)
            if not int(directory.get(_SUBFILE, 0) or 0) & 1:
                found.append(_page(directory, index, name))
            place, index = directory.next, index + 1
    if not found:
        raise damaged(name, "no page in it")
    return found


def _page(tags: ImageFileDirectory_v2, index: int, name: str) -> Page:
    def first(tag: int, default: int) -> int:
        value = tags.get(tag, default)
        return int(value[0] if isinstance(value, tuple) else value)

    samples, photometric = first(_SAMPLES, 1), first(_PHOTOMETRIC, 1)
    extra = tags.get(_EXTRA, ())
    extra = tuple(int(kind) for kind in (extra if isinstance(extra, tuple) else (extra,)))
    beyond = max(0, samples - _COLOURS.get(photometric, samples))
    if photometric == 2 and samples < 3:
        raise damaged(name, f"{samples} samples a pixel for red, green and blue")
    extra = (*extra, *(0,) * beyond)[:beyond]
    kind = first(_FORMAT, _UNSIGNED)
    return Page(
        index, first(_HEIGHT, 0), first(_WIDTH, 0), first(_BITS, 1), samples, _UNSIGNED if kind == 4 else kind,
        photometric, first(_PLANAR, 1) == 2 and samples > 1, extra, turned if (turned := first(_ORIENTATION, 1)) in range(1, 9) else 1,
    )  # fmt: skip


def tiff_info(page: Page, name: str) -> ImageInfo | None:
    """Facts about a page from its tags; None if Pillow knows them."""
    check_pixels(page.height, page.width, name)
    if page.plain:
        return None
    deep = page.bits > 8 or page.format != _UNSIGNED
    return ImageInfo(*turned_size(page.height, page.width, page.orientation), page.channels, 16 if deep else 8)


def tiff_pixels(data: bytes, page: Page, reading: Reading, name: str) -> tuple[np.ndarray, ImageInfo]:
    """Pixels [h,w,C] of a page, upright, `uint8` or `float32` on the 0..255 scale, and its facts."""
    check_pixels(page.height, page.width, name)
    if page.plain or page.single:
        image = open_frame(data, name, "TIFF", page.index)
        return image_pixels(image, reading, name, lambda: open_frame(data, name, "TIFF", page.index))
    check_pixels(page.height * -(-page.samples // 4), page.width, name)
    values = _stored(data, page, name)
    at = None if page.alpha is None else page.samples - len(page.extra) + page.alpha
    pixels, extremes = on_scale(values if at is None else np.delete(values, at, axis=2), reading, name)
    if page.photometric == 0 and page.samples == 1:
        pixels = 255 - pixels
    if at is not None:
        alpha = _opacity(values[:, :, at : at + 1])
        if page.extra[page.alpha or 0] == 1:  # colours are multiplied by it already
            pixels = np.clip(pixels.astype(np.float32) + 255 - alpha, 0, 255).astype(pixels.dtype)
        else:
            pixels = over_white(pixels, alpha)
    pixels = turn(pixels, page.orientation)
    return pixels, ImageInfo(
        pixels.shape[0], pixels.shape[1], pixels.shape[2], 8 if pixels.dtype == np.uint8 else 16, extremes
    )


def _stored(data: bytes, page: Page, name: str) -> np.ndarray:
    """The values of a page as they are stored: [h, w, S]."""
    import tifffile  # most TIFFs do not need it

    if page.photometric in (3, 5, 6):
        raise ImageError(
            f"{name}: is a TIFF with a palette, inks or YCbCr and further bands, which is not read; write its bands as they are"
        )
    with named(name):
        try:
            with tifffile.TiffFile(io.BytesIO(data)) as file:
                opened = file.pages[page.index]
                values = np.asarray(opened.asarray())
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            how = getattr(opened.compression, "name", str(opened.compression))
            raise ImageError(
                f"{name}: is a TIFF of {page.samples} bands compressed with {how}, which needs imagecodecs; run pip install 'vitral[tiff]', "
                "or write it without compression (gdal_translate -co COMPRESS=DEFLATE IN OUT)",
                "other_format",
            ) from None
        if page.planar and page.samples > 1:
            values = np.moveaxis(values.reshape(page.samples, page.height, page.width), 0, -1)  # [S,h,w] -> [h,w,S]
        return values.reshape(page.height, page.width, page.samples)


def _opacity(alpha: np.ndarray) -> np.ndarray:
    """Alpha of any kind on the 0..255 scale; floating point from 0 to 1."""
    most = 1.0 if alpha.dtype.kind == "f" else float(np.iinfo(alpha.dtype).max)
    return alpha if alpha.dtype == np.uint8 else np.clip(alpha.astype(np.float32) * np.float32(255 / most), 0, 255)
