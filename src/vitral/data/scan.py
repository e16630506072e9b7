"""Every image is read once, in threads, before anything else; images whose files have not changed since are not read again."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vitral.data.cache import Cache, Checked
from vitral.data.images import Images
from vitral.data.progress import OnProgress
from vitral.data.ranges import NoRangesError
from vitral.data.values import ImageInfo
from vitral.errors import VitralError

_CHUNK = 64  # images between two reports of progress
_MOST = 32  # threads
T = TypeVar("T")


class UnreadableError(VitralError):
    """Some images cannot be read; `unreadable` holds (name, reason) of all of them."""

    def __init__(self, message: str, unreadable: list[tuple[str, str]]) -> None:
        self.unreadable = unreadable
        super().__init__(message)


@dataclass(frozen=True)
class Scan:
    """Facts about the readable images, in order, and the unreadable ones."""

    rows: list[int]
    """The position of each readable image among all."""
    digests: list[bytes]
    """Their content hashes."""
    infos: list[ImageInfo]
    unreadable: list[tuple[str, str]]
    """(name, reason)"""
    small: list[NDArray[np.uint8]] = field(default_factory=list)
    """The `small_picture` of each readable image; empty if not asked for."""

    def take(self, kept: Sequence[int]) -> "Scan":
        """The same for these of the readable images."""
        rows, digests, infos = (
            [self.rows[k] for k in kept],
            [self.digests[k] for k in kept],
            [self.infos[k] for k in kept],
        )
        return Scan(rows, digests, infos, self.unreadable, [self.small[k] for k in kept] if self.small else [])


def scan(images: Images, progress: OnProgress | None, *, small: bool = False) -> Scan:
    """Check every image to its end. small: keep a small picture of each."""

    def check(i: int) -> Checked | VitralError:
        try:
            return images.check(i, small=small)
        except NoRangesError:  # of all images, not of this one
            raise
        except VitralError as error:
            return error

    with remembered(images):
        results = in_threads(check, len(images.names), progress)
    found = Scan([], [], [], [])
    for row, result in enumerate(results):
        if isinstance(result, VitralError):
            name = images.names[row]
            found.unreadable.append((name, str(result).removeprefix(f"{name}: ")))
        else:
            found.rows.append(row)
            found.digests.append(result.digest)
            found.infos.append(result.info)
            if result.small is not None:
                found.small.append(result.small)
    return found


@contextlib.contextmanager
def remembered(images: Images) -> Iterator[None]:
    """A context in which `check` skips files that have not changed since they were cached, and `learn` caches what was read."""
    files = images.files()
    if files is None:
        yield
        return
    files.cache = Cache(files.root, images.reading.value_range)
    try:
        yield
    finally:
        files.cache.save()  # also what was read before Ctrl-C
        files.cache = None


def in_threads(each: Callable[[int], T], total: int, progress: OnProgress | None, *, waiting: bool = False) -> list[T]:
    """each(0) to each(total - 1), in order, computed in threads: for work that releases Python's lock, as decoding does.

    waiting: whether it waits for a server rather than computes, so that more threads than cores pay.
    """
    size = 4 if waiting else _CHUNK

    def chunk(start: int) -> list[T]:
        return [each(i) for i in range(start, min(start + size, total))]

    done: list[T] = []
    pool = ThreadPoolExecutor(_MOST if waiting else min(_MOST, os.cpu_count() or 1))
    try:
        for results in pool.map(chunk, range(0, total, size)):
            done += results
            if progress is not None:
                progress(len(done), total)
    finally:
        pool.shutdown(cancel_futures=True)  # or Ctrl-C would wait for all images
    return done
