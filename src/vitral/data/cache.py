"""Facts about image files, kept in the user's cache so that unchanged files need not be read again.

A file counts as unchanged if its size, inode and both its times (content, status) are the same. Each file is opened to ask for these, as network file
systems ask their server only then. File times can be too coarse to show a second change (FAT counts in steps of two seconds), so a file that changed
less than `files.SETTLED` seconds before it was read, or in the future, is not cached. Unusable files are not cached either, so that the error is
raised again. A cache that is damaged, or was written with other versions of the decoding libraries, is not used; a cache that cannot be written is
skipped.

There is one cache file for each root folder of images and each stated value range. If two processes write it, the last one wins.
"""

import contextlib
import importlib.metadata
import os
import threading
import time
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import vitral
from vitral.data.files import Status, cache_folder
from vitral.data.small import SIDE
from vitral.data.values import ImageInfo, Range

LAYOUT = 1
"""The version of the file's layout and content: raise it when either changes."""
DECODERS = ("pillow", "simplejpeg", "tifffile", "imagecodecs", "pillow-heif")
LEAST = 1.0  # seconds of reading from which results are worth caching
MOST = 2**30  # bytes of all cache files; the least recently used is deleted first
FACTS = np.dtype(
    [
        ("page", "i4"), ("size", "i8"), ("modified", "i8"), ("changed", "i8"), ("inode", "u8"), ("digest", "V16"),
        ("height", "i4"), ("width", "i4"), ("channels", "i4"), ("bit_depth", "i4"), ("low", "f8"), ("high", "f8"), ("cut", "i4"),
        ("small", "i4"),
    ]
)  # fmt: skip
"""page: -1 for a file of one. low, high: NaN without extremes. small: which of the small pictures, -1 for none."""
Key = tuple[str, int]  # name and page


class Checked(NamedTuple):
    """Facts about an image that was read to its end."""

    digest: bytes
    """Its content hash."""
    info: ImageInfo
    small: NDArray[np.uint8] | None
    """Its `small_picture`, if that was asked for."""


class Cache:
    """The cached facts about the files of one folder."""

    def __init__(self, root: Path, value_range: Range | None) -> None:
        self.root = Path(os.path.abspath(root))
        self.about = f"{LAYOUT} vitral {vitral.__version__} {_decoders()} {self.root} {value_range}"
        self.rows: dict[Key, int] = {}
        self.facts = np.zeros(0, FACTS)
        self.small = np.zeros((0, SIDE, SIDE), np.uint8)
        self.asked: set[Key] = set()
        self.used: set[int] = set()
        self.new: list[tuple[Key, Status, Checked]] = []
        self.began = time.monotonic()
        self.path = _place(self.root, value_range)
        if self.path is not None:
            self._load(self.path)

    def get(self, name: str, page: int | None, status: Status, *, small: bool) -> Checked | None:
        """The facts about a file, if it has not changed; None also if a small picture is wanted and none is cached."""
        key = (name, -1 if page is None else page)
        self.asked.add(key)
        row = self.rows.get(key)
        if row is None:
            return None
        _, *then, digest, height, width, channels, bit_depth, low, high, cut, at = self.facts[row].item()
        if then != list(status[:4]) or (small and at < 0):
            return None
        self.used.add(row)
        extremes = None if low != low else (low, high)
        return Checked(
            digest, ImageInfo(height, width, channels, bit_depth, extremes, cut), self.small[at] if small else None
        )

    def put(self, name: str, page: int | None, status: Status, checked: Checked) -> None:
        """Keep the facts about a file under its status when it was opened."""
        if status.settled:
            self.new.append(((name, -1 if page is None else page), status, checked))

    def save(self) -> None:
        """Write the new facts, and the old ones of files that were not asked for but still exist."""
        if self.path is None or not self.new or time.monotonic() - self.began < LEAST:
            return
        kept = [
            (key, row)
            for key, row in self.rows.items()
            if (row in self.used if key in self.asked else (self.root / key[0]).exists())
        ]
        facts = np.concatenate([self.facts[[row for _, row in kept]], np.zeros(len(self.new), FACTS)])
        small = [self.small[at] if at >= 0 else None for at in facts["small"][: len(kept)].tolist()]
        for row, (key, status, checked) in enumerate(self.new, len(kept)):
            info, (low, high) = checked.info, checked.info.extremes or (np.nan, np.nan)
            facts[row] = (
                key[1], *status[:4], checked.digest, info.height, info.width, info.channels, info.bit_depth, low, high, info.cut, -1,
            )  # fmt: skip
            small.append(checked.small)
        there = np.array([each is not None for each in small], bool)
        facts["small"] = np.where(there, np.cumsum(there) - 1, -1)
        names = [key[0] for key, _ in kept] + [key[0] for key, *_ in self.new]
        pictures = np.array([each for each in small if each is not None], np.uint8).reshape(-1, SIDE, SIDE)
        _write(self.path, about=_bytes([self.about]), names=_bytes(names), facts=facts, small=pictures)

    def _load(self, path: Path) -> None:
        try:
            with open(path, "rb") as file, np.load(file) as stored:  # whose checksums are checked as they are read
                if _texts(stored["about"]) != [self.about]:
                    return
                names, facts, small = _texts(stored["names"]), stored["facts"], stored["small"]
            os.utime(path)  # so that it counts as used
        except Exception:  # no file, or any error of zipfile and numpy on a damaged one
            return
        self.facts, self.small = facts, small
        self.rows = {key: row for row, key in enumerate(zip(names, facts["page"].tolist(), strict=True))}


def _place(root: Path, value_range: Range | None) -> Path | None:
    """The cache file for a folder; None if there is no place for it, or only among the images."""
    try:
        folder = cache_folder() / "scans"
        if folder.resolve().is_relative_to(root.resolve()):
            return None
    except (OSError, RuntimeError):  # no home, or a loop of links
        return None
    return (
        folder / f"{blake2b(f'{root} {value_range}'.encode(errors='surrogateescape'), digest_size=16).hexdigest()}.npz"
    )


def _decoders() -> str:
    """The libraries that decide what a file holds, with their versions."""
    found = []
    for name in DECODERS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(found)


def _bytes(texts: list[str]) -> NDArray[np.uint8]:
    return np.frombuffer("\0".join(texts).encode(errors="surrogateescape"), np.uint8)


def _texts(stored: NDArray[np.uint8]) -> list[str]:
    return stored.tobytes().decode(errors="surrogateescape").split("\0")


def _write(path: Path, **arrays: NDArray) -> None:
    """Write a file, whole or not at all, and make room for it; do nothing if that fails."""
    part = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        os.replace(part, path)
        left = MOST
        for each in sorted(path.parent.iterdir(), key=lambda each: -each.stat().st_mtime):
            left -= each.stat().st_size
            if left < 0:
                each.unlink()
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
