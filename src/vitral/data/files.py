"""Reading one file as bytes: regular files only, up to a size limit, every failure with its remedy."""

import contextlib
import os
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from vitral.errors import VitralError

MAX_FILE_BYTES = 2**31
SETTLED = 2.0  # seconds after which a new change of a file gets a new time on any file system


class ImageError(VitralError):
    """One image cannot be used. `kind` says why: missing, empty, not_an_image, damaged, animated, too_large, or unreadable for any other reason."""

    def __init__(self, message: str, kind: str = "unreadable") -> None:
        self.kind = kind
        super().__init__(message)


def cache_folder() -> Path:
    """The user's cache folder, for what vitral can fetch or compute again; it need not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitral"


_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # each exists on some systems only


class Status(NamedTuple):
    """The facts by which a changed file is recognised."""

    size: int
    modified: int
    """When its content changed, in ns since 1970."""
    changed: int
    """When its content, name, owner or permissions changed, in ns; on Windows when it was created."""
    inode: int
    settled: bool
    """Whether any later change would show."""

    @classmethod
    def of(cls, status: os.stat_result) -> "Status":
        """Of a file that is about to be read."""
        last = max(status.st_mtime_ns, status.st_ctime_ns)
        settled = time.time_ns() - last > SETTLED * 1e9
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, settled)


def read_file(
    path: str | Path, name: str, known: Callable[[Status], object] = lambda status: None
) -> tuple[bytes, Status]:
    """The bytes and the status of a regular file. Never waits on a pipe or a device.

    name: the file's, in the VitralError for anything that is no readable regular file. known: tells from its status whether it need not be read; its
    bytes are then empty.
    """
    try:
        descriptor = os.open(path, _FLAGS)
        try:
            found = os.fstat(descriptor)
            _check_kind(found, name)
            status = Status.of(found)
            if known(status):
                return b"", status
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read()
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise ImageError(f"{name}: there is no such file; check the path", "missing") from None
    except PermissionError:
        raise ImageError(f"{name}: permission denied; make it readable (chmod +r)") from None
    except OSError as error:
        raise ImageError(f"{name}: cannot be read ({error.strerror}); check the path and the disk") from error
    if not data:
        raise ImageError(f"{name}: is empty (0 bytes); restore it from its source or remove it", "empty")
    return data, status


def write_whole(path: Path, content: bytes) -> None:
    """A file that is whole or absent, also where several processes write it at once."""
    beside = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise VitralError(
            f"{path}: could not be written ({error.strerror}); free some space, or check the folder"
        ) from error


@dataclass(frozen=True)
class Stored(ABC):
    """Bytes that lie somewhere. Can be pickled for another process."""

    name: str
    """In messages."""

    @abstractmethod
    def read(self) -> bytes:
        """All of them; raises VitralError."""

    def digest(self) -> bytes:
        """blake2b of them, 16 bytes; raises VitralError."""
        return blake2b(self.read(), digest_size=16).digest()


@dataclass(frozen=True)
class StoredFile(Stored):
    """A file of its own."""

    path: Path

    def read(self) -> bytes:
        return read_file(self.path, self.name)[0]


def _check_kind(status: os.stat_result, name: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{name}: is a folder, not a file; give the path of one file")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{name}: is a pipe or a device, not a regular file; copy its content into a file")
    if status.st_size > MAX_FILE_BYTES:
        raise ImageError(
            f"{name}: has {status.st_size:,} bytes, over the limit of {MAX_FILE_BYTES:,} for one image; "
            "cut it into smaller images",
            "too_large",
        )
