"""Reading every image once, in threads, before anything else happens."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from vitral.data.images import Images
from vitral.data.values import ImageInfo
from vitral.errors import VitralError

Progress = Callable[[int, int], None]
_CHUNK = 64  # images between two reports of progress
T = TypeVar("T")


class UnreadableError(VitralError):
    """Some images cannot be read; `unreadable` holds (name, reason) of all of them."""

    def __init__(self, message: str, unreadable: list[tuple[str, str]]) -> None:
        self.unreadable = unreadable
        super().__init__(message)


@dataclass(frozen=True)
class Scan:
    """What was found in the images that can be read, in order, and which cannot."""

    rows: list[int]
    """Where each image that can be read is among all."""
    digests: list[bytes]
    """Their content hashes."""
    infos: list[ImageInfo]
    unreadable: list[tuple[str, str]]
    """(name, reason)"""


def scan(images: Images, progress: Progress | None) -> Scan:
    """Read every image to its end, in threads."""

    def check(i: int) -> tuple[bytes, ImageInfo] | VitralError:
        try:
            return images.check(i)
        except VitralError as error:
            return error

    found = Scan([], [], [], [])
    for row, result in enumerate(in_threads(check, len(images.names), progress)):
        if isinstance(result, VitralError):
            name = images.names[row]
            found.unreadable.append((name, str(result).removeprefix(f"{name}: ")))
        else:
            found.rows.append(row)
            found.digests.append(result[0])
            found.infos.append(result[1])
    return found


def in_threads(each: Callable[[int], T], total: int, progress: Progress | None) -> list[T]:
    """each(0) to each(total - 1), in order, computed in threads: for work that lets go of Python's lock, as the decoders do."""

    def chunk(start: int) -> list[T]:
        return [each(i) for i in range(start, min(start + _CHUNK, total))]

    done: list[T] = []
    pool = ThreadPoolExecutor(min(32, os.cpu_count() or 1))
    try:
        for results in pool.map(chunk, range(0, total, _CHUNK)):
            done += results
            if progress is not None:
                progress(len(done), total)
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for a million images
    return done
