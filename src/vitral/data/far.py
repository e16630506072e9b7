"""Whole files behind URLs, and their sizes; what fails is asked for again. `vitral.data.ranges` reads parts of them."""

import io
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from vitral.data import ranges
from vitral.errors import VitralError, some

AHEAD = 2**23  # bytes that are read at once
MISSING = 404
FORBIDDEN = 403  # what S3 answers by HTTP for what is not there, unless all may list
T = TypeVar("T")


def fetch(url: str) -> bytes:
    """A whole file behind a URL; VitralError where it is not there."""
    if (found := fetch_if_there(url)) is None:
        raise VitralError(f"{url}: is not there, or may not be read; check the address")
    return found


def fetch_if_there(url: str) -> bytes | None:
    """The same, or None."""
    return _asked(url, lambda system: bytes(system.cat_file(url)))


def _asked(url: str, ask: Callable[[Any], T]) -> T | None:
    """What a file system answers, asked again where that fails; None where there is no such file."""
    system, failed = ranges.file_system(url), ""
    for attempt in range(ranges.TRIES):
        if attempt:
            time.sleep(ranges.WAIT * 2 ** (attempt - 1))
        try:
            return ask(system)
        except (FileNotFoundError, PermissionError) as error:
            cause = error.__cause__  # by HTTP fsspec says so of any failure to tell a size
            if not type(cause).__module__.startswith("aiohttp") or getattr(cause, "status", None) in (
                FORBIDDEN,
                MISSING,
            ):
                return None
            failed = f"{type(cause).__name__}: {cause}"
        except Exception as error:  # each kind of server has errors of its own
            if getattr(error, "status", None) == FORBIDDEN:
                return None
            failed = f"{type(error).__name__}: {error}"
    raise VitralError(f"{url}: cannot be read ({failed}); check the address and the server")


class _Far(io.RawIOBase):
    """A file behind a URL; what fails is asked for again."""

    def __init__(self, url: str, size: int) -> None:
        self.size, self.at, self.ranges = size, 0, ranges.Ranges("", [url], [size], [0], 0)
        self.ranges.usual = ranges.STALLED  # AHEAD is much for a slow network: at first only silence counts

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.size}[whence]
        return self.at

    def readinto(self, buffer: Any) -> int:
        length = max(0, min(len(buffer), self.size - self.at))
        if length:
            buffer[:length] = self.ranges.fetch(0, self.at, length, None, "shard")
        self.at += length
        return length


def far_file(url: str) -> tuple[io.BufferedReader, int]:
    """A file behind a URL, to be read from its beginning on, and its size."""
    (size,) = sizes([url])
    return io.BufferedReader(_Far(url, size), AHEAD), size


def sizes(urls: Sequence[str]) -> list[int]:
    """Bytes of each file. Raises VitralError where one is not there, or its server does not tell."""
    found = _asked(urls[0], lambda system: system.sizes(urls))
    if found is None:
        raise VitralError(
            f"{some(urls)}: {'is' if len(urls) == 1 else 'one is'} not there, or may not be read; check the address"
        )
    if None in found:
        raise ranges.NoRangesError(urls[found.index(None)])
    return [int(size) for size in found]
