"""Bytes from places inside large files, here or behind a URL.

What is read from a URL (https://, s3:// and all else that fsspec knows) is compared with the digest in the index, asked for again where the server
drops the connection, stalls or sends other bytes, and kept on this computer up to a limit: in files of the shards' own size with holes where nothing
was read yet. A file here that changes while it is read is noticed by its size and time.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import numpy as np

from vitral.data.files import ImageError, Stored, cache_folder
from vitral.errors import VitralError

ROOM = 20 * 10**9
"""Bytes of shards behind URLs that are kept here, unless told otherwise."""
TRIES = 6
WAIT = 0.1  # seconds before the second try; doubled before each further one
STALLED = float(os.environ.get("VITRAL_STALLED", "20"))  # seconds of silence, after which an answer is given up
SOON = 0.5  # seconds, or LONGER times what answers usually take: then it is asked again, which pays where one answer of many stalls
LONGER = 10
PATIENT = 2  # the last tries, for which only silence counts: a slow network is not a stalled one
WHOLE = 200  # what answers a part is 206
LOOKED_AT = 256  # images between two looks at how much is kept


class NoRangesError(VitralError):
    """A server does not answer parts of a file, so that no image can be read from it."""

    def __init__(self, url: str) -> None:
        super().__init__(
            f"{url}: its server does not answer parts of a file (HTTP Range); serve the shards by one that does (nginx, S3, ...), or copy them here"
        )


def is_url(data: str | Path) -> bool:
    """Whether the data are behind a URL."""
    return "://" in str(data)


def digest_of(data: bytes) -> bytes:
    """As `vitral.data.images.content_hash`."""
    return blake2b(data, digest_size=16).digest()


def file_system(url: str) -> Any:
    """fsspec's file system of a URL, with a limit on silence."""
    try:
        import fsspec
    except ImportError:
        raise VitralError(f"{url}: data behind a URL need fsspec; run pip install 'vitral[scale]'") from None
    kind = url.partition("://")[0]
    if kind in ("http", "https"):
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=STALLED, sock_read=STALLED)
        return fsspec.filesystem(kind, client_kwargs={"timeout": timeout}, skip_instance_cache=True)
    try:
        return fsspec.filesystem(kind)
    except (ImportError, ValueError) as error:
        raise VitralError(f"{url}: {kind}:// cannot be read here ({error}); give a folder, https:// or s3://") from None


class Ranges:
    """Reads ranges of files, which lie in a folder or behind URLs. Can be pickled for another process.

    files: paths relative to `root`, or URLs. sizes, times: of each file in bytes and ns; a time is 0 behind a URL. room: bytes that are kept.
    """

    def __init__(self, root: str, files: Sequence[str], sizes: Sequence[int], times: Sequence[int], room: int) -> None:
        self._clear()
        self.root, self.files, self.sizes, self.times, self.room = root, list(files), list(sizes), list(times), room

    def _clear(self) -> None:
        self._open: dict[int, int] = {}
        self._system: Any = None
        self._kept: _Kept | None = None
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self.met: Counter[str] = Counter()
        self.usual = 0.2  # seconds of an answer, a moving mean

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value for name, value in vars(self).items() if name in ("root", "files", "sizes", "times", "room")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._clear()

    def __del__(self) -> None:
        _close(self._open)

    def place(self, file: int) -> str:
        """Where a file is."""
        name = self.files[file]
        return name if is_url(name) or os.path.isabs(name) else f"{self.root.rstrip('/')}/{name}"

    def read(self, file: int, start: int, length: int, digest: bytes | None, name: str) -> bytes:
        """`length` bytes from `start`. digest: theirs, if it is known. name: of the image, in the VitralError if they cannot be had."""
        if start + length > self.sizes[file]:
            raise ImageError(f"{name}: the index places it beyond the end of {self.place(file)}; make the index again")
        if os.getpid() != self._owner:  # a loader process: connections and open files are not shared
            self._clear()
        if not is_url(self.place(file)):
            return self._here(file, start, length, name)
        if self._kept is None:
            self._kept = _Kept(self.root, self.sizes, self.room)
        if digest is not None and (kept := self._kept.read(file, start, length, digest)) is not None:
            return kept
        data = self.fetch(file, start, length, digest, name)
        self._kept.write(file, start, data)
        return data

    def _here(self, file: int, start: int, length: int, name: str) -> bytes:
        path = self.place(file)
        with self._lock:
            if file not in self._open:
                try:
                    self._open[file] = os.open(path, os.O_RDONLY)
                except OSError as error:
                    raise ImageError(f"{name}: {path} cannot be read ({error.strerror}); restore it") from error
            descriptor = self._open[file]
        status = os.fstat(descriptor)
        if (status.st_size, status.st_mtime_ns) != (self.sizes[file], self.times[file]):
            raise ImageError(
                f"{name}: {path} has changed since it was indexed; run vitral data index {self.root} again"
            )
        data = os.pread(descriptor, length, start)
        if len(data) != length:
            raise ImageError(f"{name}: {path} is cut short; restore it")
        return data

    def fetch(self, file: int, start: int, length: int, digest: bytes | None, name: str) -> bytes:
        """The same from a URL, and not from what is kept here."""
        url, failed = self.place(file), ""

        async def refuse_whole(answer: Any) -> None:
            if answer.status == WHOLE:  # seen before the file is on its way
                raise NoRangesError(url)

        seen = {"raise_for_status": refuse_whole} if url.startswith(("http://", "https://")) else {}
        for attempt in range(TRIES):
            if attempt:
                time.sleep(WAIT * 2 ** (attempt - 1))
            try:
                with self._lock:
                    self._system = self._system or file_system(url)
                began = time.monotonic()
                data = self._system.cat_file(url, start=start, end=start + length, **seen, **self._limit(attempt))
                self.usual += 0.1 * (time.monotonic() - began - self.usual)
            except FileNotFoundError:
                raise ImageError(f"{name}: {url} is not there; check the address", "missing") from None
            except NoRangesError:
                raise
            except Exception as error:  # each kind of server has errors of its own
                stalled = isinstance(error, TimeoutError) or "imeout" in type(error).__name__
                failed = f"{type(error).__name__}: {error}".rstrip(": ")
                self.met["stalled" if stalled else "dropped"] += 1
                continue
            if len(data) == length and digest in (None, digest_of(data)):
                return bytes(data)
            if len(data) > length:
                raise NoRangesError(url)
            failed = f"{len(data):,} bytes came that are not those of the index"
            self.met["damaged"] += 1
        raise ImageError(
            f"{name}: {url} could not be read in {TRIES} tries ({failed}); check the server, or make the index again if the shards changed"
        )

    def _limit(self, attempt: int) -> dict[str, float]:
        """The seconds that an answer may take, twice as many at each try, where fsspec's file system can be told."""
        if not self._system.async_impl or attempt >= TRIES - PATIENT:
            return {}
        return {"timeout": max(SOON, LONGER * self.usual) * 2**attempt}

    def happened(self) -> str | None:
        """What the server did since this was asked last, in words."""
        if not self.met:
            return None
        said = ", ".join(f"{count:,} {what}" for what, count in sorted(self.met.items()))
        self.met.clear()
        return f"{self.root}: answers that were asked for again: {said}"


@dataclass(frozen=True)
class StoredRange(Stored):
    """A range of one of the files."""

    ranges: Ranges
    file: int
    start: int
    size: int
    known: bytes
    """Their digest."""

    def read(self) -> bytes:
        return self.ranges.read(self.file, self.start, self.size, self.known, self.name)

    def digest(self) -> bytes:
        return self.known


class _Kept:
    """What was read from URLs, in the user's cache folder; several processes share it."""

    def __init__(self, root: str, sizes: Sequence[int], room: int) -> None:
        self.open: dict[int, int] = {}
        self.lock = threading.Lock()
        self.sizes, self.room, self.written = sizes, room, 0
        named = sha256(f"{root} {list(sizes)}".encode()).hexdigest()[:16]
        self.folder = cache_folder() / "shards" / named
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            self.room = 0
        self.left = self.room - self._used() if self.room > 0 else 0

    def __del__(self) -> None:
        _close(self.open)

    def _used(self) -> int:
        return sum(os.stat(path).st_blocks * 512 for path in self.folder.iterdir())

    def _file(self, file: int) -> int:
        with self.lock:
            if file not in self.open:
                self.open[file] = os.open(self.folder / f"{file:06d}", os.O_RDWR | os.O_CREAT, 0o644)
            return self.open[file]

    def read(self, file: int, start: int, length: int, digest: bytes) -> bytes | None:
        """The bytes, if they were kept whole."""
        if self.room <= 0:
            return None
        try:
            data = os.pread(self._file(file), length, start)
        except OSError:
            return None
        return data if len(data) == length and digest_of(data) == digest else None

    def write(self, file: int, start: int, data: bytes) -> None:
        self.left -= len(data)
        if self.left < 0:
            return
        try:
            os.pwrite(self._file(file), data, start)
        except OSError:  # the disk is full
            self.left = 0
        self.written += 1
        if self.written % LOOKED_AT == 0:  # others write, too
            self.left = self.room - self._used()


def _close(descriptors: dict[int, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)


def lines_of(ends: np.ndarray, blob: np.ndarray, i: int) -> str:
    """Text i of a blob in which it ends at ends[i]."""
    start = int(ends[i - 1]) if i else 0
    return bytes(blob[start : int(ends[i])]).decode(errors="surrogateescape")
