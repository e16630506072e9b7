"""The images of a data set and how they are read: files, an array, or encoded images in memory.

Each kind can be pickled for another process, names image i, hashes its content, checks it to the end, and reads it as [C, h, w] (C channels, h
height, w width).
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from vitral.data.bands import with_channels
from vitral.data.cache import Cache, Checked
from vitral.data.decode import count_pages, decode_bytes, packed, probe
from vitral.data.files import Status, read_file
from vitral.data.small import SIDE, small_picture
from vitral.data.values import PLAIN, ImageInfo, Reading, white
from vitral.errors import VitralError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
HINT = 2 * SIDE  # pixels of the shorter side that a small picture is made from


def content_hash(data: bytes) -> bytes:
    """A hash, 16 bytes, of an image's content: the file's bytes, or the pixels."""
    return blake2b(data, digest_size=16).digest()


def _hint(small: bool) -> int:
    return HINT if small else 1  # at 1 a JPEG is parsed whole, at an eighth of its size


class Header(NamedTuple):
    """What annotations need to know of their image."""

    height: int
    """Upright, pixels."""
    width: int
    orientation: int
    """By EXIF, 1 to 8."""
    digest: bytes
    """`content_hash`"""


class Inspected(NamedTuple):
    """One image, read to its end."""

    digest: bytes
    """`content_hash`."""
    info: ImageInfo
    """Header facts."""
    pixels: "Tensor"
    """[C, h, w] on the 0..255 scale, read-only."""
    encoded: bytes | None
    """The file's bytes; None where pixels are held, not a file."""
    page: int | None = None
    """Which page of the file it is, if it was not `Images.reading` that chose it."""
    status: Status | None = None
    """The file's, when it was opened."""


class Images(ABC):
    """The images of one data set, 0 to n-1."""

    names: Sequence[str]
    reading: Reading = PLAIN
    """The value range and page to read, which files do not state."""

    def check(self, i: int, *, small: bool, page: int | None = None) -> Checked:
        """Read image i to its end; raises VitralError. small: whether to make its small picture. page: as in `read`."""
        return self.learn(i, self.inspect(i, _hint(small), page), small=small, page=page)

    def learn(self, i: int, seen: Inspected, *, small: bool, page: int | None = None) -> Checked:
        """The result of `check` for image i from that of `inspect`, whose hint must be at least `HINT` for a small picture."""
        picture = small_picture(seen.pixels, white(seen.pixels.numpy())) if small else None
        return Checked(seen.digest, seen.info, picture)

    def files(self) -> "FileImages | None":
        """The image files that these come from, if any."""
        return None

    def together(self, i: int, digest: bytes) -> bytes:
        """A value that image i shares with images that must be in its split: its content hash, or for a page its file's. digest: its own."""
        return digest

    def pages(self, i: int) -> int:
        """How many pages or frames the file of image i has; raises VitralError."""
        return 1

    @abstractmethod
    def inspect(self, i: int, hint: int | None, page: int | None = None) -> Inspected:
        """Read image i to its end, as `check` does, and return what was read; hint, page as in `read`."""

    @abstractmethod
    def read(self, i: int, channels: int | None, hint: int | None, page: int | None = None) -> "Tensor":
        """Image i as [C, h, w] on the 0..255 scale, as from `decode`; raises VitralError. page: that of `reading` by default."""

    def _reading(self, page: int | None) -> Reading:
        return self.reading if page is None else replace(self.reading, page=page)

    @abstractmethod
    def path(self, i: int) -> Path | None:
        """The file of image i, if it has one."""

    def happened(self) -> str | None:
        """What reading has met since this was asked last that a run's log should tell, such as a server that does not answer."""
        return None

    def header(self, i: int) -> Header:
        """Of an image that has a file; raises VitralError."""
        data = self.encoded(i)
        info = probe(data, self.names[i])
        return Header(info.height, info.width, packed(data, self.names[i]).orientation, content_hash(data))

    def encoded(self, i: int) -> bytes:
        """The bytes of image i's file; raises VitralError."""
        path = self.path(i)
        assert path is not None, "pixels without a file"
        return read_file(path, self.names[i])[0]


class FileImages(Images):
    """Image files, named relative to a folder. `check` and `inspect` remember each file, so that `read` detects a change."""

    cache: Cache | None = None
    """The cached facts about them, during a scan."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root = root
        self.names = names
        self._seen = np.zeros(len(names), dtype=[("size", "i8"), ("changed_ns", "i8"), ("hash", "V16")])

    def files(self) -> "FileImages":
        return self

    def _file(self, i: int, known: Callable[[Status], object] = lambda status: None) -> tuple[bytes, Status]:
        return read_file(os.path.join(self.root, self.names[i]), self.names[i], known)  # faster than with a Path

    def path(self, i: int) -> Path:
        return self.root / self.names[i]

    def pages(self, i: int) -> int:
        return count_pages(self._file(i)[0], self.names[i])

    def check(self, i: int, *, small: bool, page: int | None = None) -> Checked:
        known: Checked | None = None

        def is_known(status: Status) -> bool:
            nonlocal known
            if self.cache is not None:
                known = self.cache.get(self.names[i], self._reading(page).page, status, small=small)
            return known is not None

        data, status = self._file(i, is_known)
        if known is not None:
            self._seen[i] = (status.size, status.modified, known.digest)
            return known
        return self.learn(i, self._inspected(i, data, status, _hint(small), page), small=small, page=page)

    def inspect(self, i: int, hint: int | None, page: int | None = None) -> Inspected:
        return self._inspected(i, *self._file(i), hint, page)

    def _inspected(self, i: int, data: bytes, status: Status, hint: int | None, page: int | None) -> Inspected:
        pixels, info = decode_bytes(data, None, self.names[i], hint, self._reading(page))
        digest = content_hash(data)
        self._seen[i] = (status.size, status.modified, digest)  # a size of 0 means: not checked yet
        return Inspected(digest, info, pixels, data, status=status)

    def learn(self, i: int, seen: Inspected, *, small: bool, page: int | None = None) -> Checked:
        checked = super().learn(i, seen, small=small)
        if self.cache is not None and seen.status is not None:
            digest = self._seen[i]["hash"].tobytes()  # the file's; `seen` has the page's
            self.cache.put(self.names[i], self._reading(page).page, seen.status, checked._replace(digest=digest))
        return checked

    def read(self, i: int, channels: int | None, hint: int | None, page: int | None = None) -> "Tensor":
        name = self.names[i]
        data, status = self._file(i)
        size, changed_ns, digest = self._seen[i]
        touched = (status.size, status.modified) != (size, changed_ns)
        if size and touched and content_hash(data) != digest.tobytes():
            raise VitralError(
                f"{name}: has changed since the data were scanned; start again, so that splits and fingerprint hold"
            )
        return decode_bytes(data, channels, name, hint, self._reading(page))[0]


@dataclass
class ArrayImages(Images):
    """Grey images of one size in memory, `uint8` [n,h,w]; `read` hands out views, not copies: do not write to them."""

    pixels: np.ndarray
    names: Sequence[str]

    def path(self, i: int) -> None:
        return None

    def inspect(self, i: int, hint: int | None, page: int | None = None) -> Inspected:
        _, height, width = self.pixels.shape
        digest = content_hash(self.pixels[i].tobytes())
        return Inspected(digest, ImageInfo(height, width, 1, 8), self.read(i, 1, hint), None)

    def read(self, i: int, channels: int | None, hint: int | None, page: int | None = None) -> "Tensor":
        if channels not in (None, 1, 3):
            with_channels(self.pixels[i][:, :, None], channels, self.names[i])  # which refuses
        import torch

        return torch.from_numpy(self.pixels[i]).expand(channels or 1, -1, -1)  # [h,w] -> [C,h,w]


class EncodedImages(Images):
    """Images that are the bytes of files, but no files of their own: a subclass says where the bytes are."""

    def path(self, i: int) -> None:
        return None

    @abstractmethod
    def encoded(self, i: int) -> bytes:
        """The bytes of image i as a file would hold them; raises VitralError."""

    def pages(self, i: int) -> int:
        return count_pages(self.encoded(i), self.names[i])

    def inspect(self, i: int, hint: int | None, page: int | None = None) -> Inspected:
        data = self.encoded(i)
        pixels, info = decode_bytes(data, None, self.names[i], hint, self._reading(page))
        return Inspected(content_hash(data), info, pixels, data)

    def read(self, i: int, channels: int | None, hint: int | None, page: int | None = None) -> "Tensor":
        return decode_bytes(self.encoded(i), channels, self.names[i], hint, self._reading(page))[0]


@dataclass
class PackedImages(EncodedImages):
    """Encoded images (the bytes of files) in one buffer, image i from ends[i] to ends[i + 1]."""

    buffer: np.ndarray
    ends: np.ndarray
    names: Sequence[str]

    def encoded(self, i: int) -> bytes:
        return self.buffer[self.ends[i] : self.ends[i + 1]].tobytes()


class SomeImages(EncodedImages):
    """Some of other images that have encoded bytes."""

    def __init__(self, base: Images, rows: Sequence[int]) -> None:
        self.base, self.rows = base, list(rows)
        self.names = [base.names[i] for i in rows]

    def encoded(self, i: int) -> bytes:
        return self.base.encoded(self.rows[i])

    def header(self, i: int) -> Header:
        return self.base.header(self.rows[i])

    def happened(self) -> str | None:
        return self.base.happened()


class PagedImages(Images):
    """Every page of other images' files as an image of its own.

    of: for each page the image that it belongs to, int64 [n], and pages: its number there.
    """

    def __init__(self, base: Images, of: np.ndarray, pages: np.ndarray) -> None:
        self.base, self.of, self.numbers = base, of, pages
        several = np.bincount(of, minlength=len(base.names)) > 1
        self.names = [
            f"{base.names[i]} page {page}" if several[i] else base.names[i]
            for i, page in zip(of.tolist(), pages.tolist(), strict=True)
        ]
        self.reading = base.reading
        self._digests: dict[int, bytes] = {}

    def path(self, i: int) -> Path | None:
        return self.base.path(int(self.of[i]))

    def together(self, i: int, digest: bytes) -> bytes:
        return self._digests.get(int(self.of[i]), digest)

    def files(self) -> FileImages | None:
        return self.base.files()

    def check(self, i: int, *, small: bool, page: int | None = None) -> Checked:
        checked = self._named(i, lambda: self.base.check(int(self.of[i]), small=small, page=int(self.numbers[i])))
        return checked._replace(digest=self._digest(i, checked.digest))

    def inspect(self, i: int, hint: int | None, page: int | None = None) -> Inspected:
        seen = self._named(i, lambda: self.base.inspect(int(self.of[i]), hint, int(self.numbers[i])))
        return seen._replace(digest=self._digest(i, seen.digest), page=int(self.numbers[i]))

    def learn(self, i: int, seen: Inspected, *, small: bool, page: int | None = None) -> Checked:
        checked = self.base.learn(int(self.of[i]), seen, small=small, page=int(self.numbers[i]))
        return checked._replace(digest=seen.digest)

    def _digest(self, i: int, of_file: bytes) -> bytes:
        """A page's content hash; the file's own if it has only one page."""
        self._digests[int(self.of[i])] = of_file
        if self.names[i] == self.base.names[int(self.of[i])]:
            return of_file
        return content_hash(of_file + int(self.numbers[i]).to_bytes(8, "little"))

    def read(self, i: int, channels: int | None, hint: int | None, page: int | None = None) -> "Tensor":
        file, number = int(self.of[i]), int(self.numbers[i])
        return self._named(i, lambda: self.base.read(file, channels, hint, number))

    def _named(self, i: int, get: Callable[[], T]) -> T:
        """The result of `get`, with errors under the page's name."""
        try:
            return get()
        except VitralError as error:
            error.args = (str(error).replace(self.base.names[int(self.of[i])], self.names[i], 1),)
            raise
