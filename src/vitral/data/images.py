"""Where the pixels of a data set are, and how one is read: files, an array, or encoded images in memory.

Each kind can be sent to another process, names image i, hashes its content, checks it whole, and reads it as
[C,h,w] (C channels, h height, w width).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vitral.data.decode import decode_bytes
from vitral.data.files import read_file
from vitral.data.raster import ImageInfo
from vitral.errors import VitralError


def content_hash(data: bytes) -> bytes:
    """16 bytes that stand for an image's content: the file's bytes, or the pixels'."""
    return blake2b(data, digest_size=16).digest()


class Inspected(NamedTuple):
    """One image, read to its end."""

    digest: bytes
    """`content_hash`."""
    info: ImageInfo
    """Header facts."""
    pixels: Tensor
    """[C,h,w] on the 0..255 scale, not to be written to."""
    encoded: bytes | None
    """The file's bytes; None where pixels are held, not a file."""


class Images(ABC):
    """The images of one data set, 0 to n-1."""

    names: Sequence[str]

    def check(self, i: int) -> tuple[bytes, ImageInfo]:
        """Read image i to its end: its content hash and header facts, or VitralError."""
        seen = self.inspect(i, hint=1)  # a JPEG is then parsed whole, at an eighth
        return seen.digest, seen.info

    @abstractmethod
    def inspect(self, i: int, hint: int | None) -> Inspected:
        """Read image i to its end, as `check` does, and keep what was read; hint as in `read`."""

    @abstractmethod
    def read(self, i: int, channels: int | None, hint: int | None) -> Tensor:
        """Image i as [C,h,w] on the 0..255 scale, as `decode` gives it, or VitralError."""

    @abstractmethod
    def path(self, i: int) -> Path | None:
        """The file of image i, if it has one."""


class FileImages(Images):
    """Image files, named relative to a folder. `inspect` remembers each file, so that `read` notices a changed
    one.
    """

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root = root
        self.names = names
        self._seen = np.zeros(len(names), dtype=[("size", "i8"), ("changed_ns", "i8"), ("hash", "V16")])

    def path(self, i: int) -> Path:
        return self.root / self.names[i]

    def inspect(self, i: int, hint: int | None) -> Inspected:
        data, status = read_file(self.path(i), self.names[i])
        pixels, info = decode_bytes(data, None, self.names[i], hint)
        digest = content_hash(data)
        self._seen[i] = (status.st_size, status.st_mtime_ns, digest)  # a size of 0 means: not checked yet
        return Inspected(digest, info, pixels, data)

    def read(self, i: int, channels: int | None, hint: int | None) -> Tensor:
        name = self.names[i]
        data, status = read_file(self.path(i), name)
        size, changed_ns, digest = self._seen[i]
        touched = (status.st_size, status.st_mtime_ns) != (size, changed_ns)
        if size and touched and content_hash(data) != digest.tobytes():
            raise VitralError(
                f"{name}: has changed since the data were scanned; start again, so that splits and fingerprint hold"
            )
        return decode_bytes(data, channels, name, hint)[0]


@dataclass
class ArrayImages(Images):
    """Grey images of one size in memory, `uint8` [n,h,w]; `read` hands out views, not copies: do not write to
    them.
    """

    pixels: np.ndarray
    names: Sequence[str]

    def path(self, i: int) -> None:
        return None

    def inspect(self, i: int, hint: int | None) -> Inspected:
        _, height, width = self.pixels.shape
        digest = content_hash(self.pixels[i].tobytes())
        return Inspected(digest, ImageInfo(height, width, 1, 8), self.read(i, 1, hint), None)

    def read(self, i: int, channels: int | None, hint: int | None) -> Tensor:
        return torch.from_numpy(self.pixels[i]).expand(channels or 1, -1, -1)  # [h,w] -> [C,h,w]


@dataclass
class PackedImages(Images):
    """Encoded images (the bytes of files) one after the other in a buffer, image i from ends[i] to ends[i +
    1].
    """

    buffer: np.ndarray
    ends: np.ndarray
    names: Sequence[str]

    def path(self, i: int) -> None:
        return None

    def _bytes(self, i: int) -> bytes:
        return self.buffer[self.ends[i] : self.ends[i + 1]].tobytes()

    def inspect(self, i: int, hint: int | None) -> Inspected:
        data = self._bytes(i)
        pixels, info = decode_bytes(data, None, self.names[i], hint)
        return Inspected(content_hash(data), info, pixels, data)

    def read(self, i: int, channels: int | None, hint: int | None) -> Tensor:
        return decode_bytes(self._bytes(i), channels, self.names[i], hint)[0]
