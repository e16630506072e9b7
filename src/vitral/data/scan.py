"""Reading every image once, in threads, before anything else happens."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from vitral.data.images import Images
from vitral.data.raster import ImageInfo
from vitral.errors import VitralError

Progress = Callable[[int, int], None]
Checked = tuple[bytes, ImageInfo]
_CHUNK = 64  # images between two reports of progress


class UnreadableError(VitralError):
    """Some images cannot be read; `unreadable` holds (name, reason) of all of them."""

    def __init__(self, message: str, unreadable: list[tuple[str, str]]) -> None:
        self.unreadable = unreadable
        super().__init__(message)


def scan(images: Images, progress: Progress | None) -> tuple[list[Checked | None], list[tuple[str, str]]]:
    """Read every image to its end, in threads: (hash, header facts) or None of each, and (name, reason) of
    the bad.
    """
    total = len(images.names)

    def check_chunk(start: int) -> list[Checked | VitralError]:
        results: list[Checked | VitralError] = []
        for i in range(start, min(start + _CHUNK, total)):
            try:
                results.append(images.check(i))
            except VitralError as error:
                results.append(error)
        return results

    checked: list[Checked | None] = []
    unreadable: list[tuple[str, str]] = []
    pool = ThreadPoolExecutor(min(32, os.cpu_count() or 1))  # the decoders let go of Python's lock
    try:
        for results in pool.map(check_chunk, range(0, total, _CHUNK)):
            for result in results:
                if isinstance(result, VitralError):
                    name = images.names[len(checked)]
                    unreadable.append((name, str(result).removeprefix(f"{name}: ")))
                checked.append(None if isinstance(result, VitralError) else result)
            if progress is not None:
                progress(len(checked), total)
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for a million images
    return checked, unreadable
