"""One process at a time works in a folder: a lock on a file in it, which the system releases when the process ends, however it ends."""

import contextlib
import errno
import fcntl
import itertools
import os
import struct
import sys
import weakref
from pathlib import Path

from vitral.data.walk import CLAIMED as NAME
from vitral.errors import VitralError

FLOCK = "hhlli4x"  # struct flock of fcntl(2) where a long has 64 bits: type, whence, start, length, process
_HELD: "weakref.WeakValueDictionary[str, Claim]" = weakref.WeakValueDictionary()
"""Of this process, by the folder's true path: the system's locks do not hold within a process."""


class Claim:
    """A folder that this process alone works in, until `release`, until nobody holds the claim, or until the process ends.

    The lock is not inherited by loader processes, which may outlive a killed run by seconds. Raises VitralError where another process (or
    another claim in this one) has it, or the folder cannot be made.
    """

    def __init__(self, folder: Path, what: str = "run") -> None:
        self.folder, self.made = folder, not folder.exists()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = os.path.realpath(folder)
            if path in _HELD:
                raise taken(folder, what)
            file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise VitralError(f"{folder}: cannot be written to ({error.strerror}); choose another --out") from error
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise taken(folder, what) from None
            raise VitralError(
                f"{folder}: this file system cannot lock files ({error.strerror}), so two runs could spoil each other; choose another --out"
            ) from error
        _HELD[path] = self
        self._close = weakref.finalize(self, os.close, file)

    def release(self) -> None:
        """Let others work in the folder."""
        _HELD.pop(os.path.realpath(self.folder), None)
        self._close()

    def undo(self) -> None:
        """Release it, and remove a folder that was made for it and is still empty."""
        with contextlib.suppress(OSError):
            if self.made and os.listdir(self.folder) == [NAME]:
                (self.folder / NAME).unlink()
                self.folder.rmdir()
        self.release()

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, *how: object) -> None:
        self.release()


def going_on(folder: Path) -> bool:
    """Whether somebody works there now."""
    if os.path.realpath(folder) in _HELD:
        return True
    try:
        with open(folder / NAME, "rb+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EAGAIN) and os.access(folder / NAME, os.W_OK)
    return False


def taken(folder: Path, what: str = "run") -> VitralError:
    """That somebody works there now; with the number of the process, where the system tells it."""
    held = _holder(folder)
    who = "" if held is None else f" (process {held})"
    return VitralError(f"{folder}: a {what} is going on there{who}; wait for it, or choose another --out")


def _holder(folder: Path) -> int | None:
    """The process that has the lock, as far as Linux knows it: of another machine's it knows none."""
    if os.path.realpath(folder) in _HELD:
        return os.getpid()
    if sys.platform != "linux":
        return None
    asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    with contextlib.suppress(OSError, struct.error), open(folder / NAME, "rb+") as file:
        kind, *_, process = struct.unpack(FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))
        return process if kind != fcntl.F_UNLCK and process > 0 else None
    return None


def claim_unused(path: Path) -> Claim:
    """The path, or the first of path-2, path-3, ... that nobody has, claimed: two that ask at once get two folders."""
    for n in itertools.count(1):
        folder = path if n == 1 else path.with_name(f"{path.name}-{n}")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise VitralError(f"{folder}: cannot be made ({error.strerror}); choose another --out") from error
        claim = Claim(folder)
        claim.made = True
        return claim
    raise AssertionError("names without end")
