"""Folders as they lie on a disk: what in them counts as an image, and what is left out, which is never left unsaid.

Left out are hidden files and what operating systems leave behind, folders that hold a run of ours (its pictures and pages are no data), and files
that are no images: texts by their content, and companions of pictures (a database, an archive, a sidecar) by their ending. Whether a file
without a known ending is an image is decided by its first bytes.
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vitral.data.filetypes import EXTENSIONS, PPM, recognise
from vitral.errors import counted, some

JUNK = frozenset(
    {"thumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "icon\r", "lost+found", "system volume information", "ehthumbs.db"}
)  # fmt: skip
"""And all that starts with a dot."""
RUN_MARKS = ("run.json", "beit.toml", "sweep.toml")
"""Files of which a folder that holds one is a run, begun or finished."""
CLAIMED = "lock"
"""An empty file of this name is the first that a run writes."""
COMPANIONS = frozenset(
    {
        ".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".log",
        ".html", ".htm", ".pdf", ".doc", ".docx", ".odt", ".xls", ".xlsx", ".ods", ".py", ".ipynb", ".sh", ".bat", ".db", ".sqlite",
        ".parquet", ".arrow", ".feather", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".aae", ".xmp", ".pp3", ".thm",
        ".url", ".lnk", ".bak", ".mat", ".pkl", ".pickle", ".h5", ".hdf5", ".cache", ".md5", ".sha256", ".safetensors", ".pt", ".pth",
        ".onnx",
    }
)  # fmt: skip
_HEAD = 512  # bytes that tell a text from an image


def starts_like_an_image(data: bytes) -> bool:
    """Whether these first bytes are those of an image, of a kind that can be read here or not."""
    found = recognise(data)
    return found is not None and found.picture


def is_text(data: bytes) -> bool:
    """Whether these bytes are the beginning of a text in UTF-8, or in UTF-16 with its mark; nothing at all is none."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return b"\0\0" not in data
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if error.start < len(data) - 3:  # else a character that is cut off
            return False
        text = data[: error.start].decode()
    return bool(text) and not re.search(r"[\0-\x08\x0e-\x1a\x1c-\x1f]", text)


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run of ours, or what is left of one that died at its start."""
    return any((folder / mark).is_file() for mark in RUN_MARKS) or _only_claimed(folder)


def _only_claimed(folder: Path) -> bool:
    try:
        if (folder / CLAIMED).stat().st_size:
            return False
        return not any(os.path.splitext(name)[1].lower() in EXTENSIONS for name in os.listdir(folder))
    except OSError:
        return False


@dataclass
class Walk:
    """One look through a folder; remembers what was left out on the way, all named relative to `root`."""

    root: Path
    runs: list[str] = field(default_factory=list)
    """Folders that hold a run."""
    others: list[str] = field(default_factory=list)
    """Files that are no images."""
    closed: list[str] = field(default_factory=list)
    """Folders that cannot be read."""
    _seen: dict[Path, tuple[list[Path], list[Path]]] = field(default_factory=dict)
    _kinds: dict[Path, str] = field(default_factory=dict)

    def named(self, path: Path) -> str:
        """A path as the data name it."""
        above = len(self.root.as_posix().rstrip("/")) + 1  # pathlib's own way takes as long as to list the folders
        return path.as_posix()[above:] or "."

    def entries(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """The folders and the files in a folder, sorted; broken links are files, which fail later, by name."""
        if folder not in self._seen:
            self._seen[folder] = self._listed(folder)
        return self._seen[folder]

    def _listed(self, folder: Path) -> tuple[list[Path], list[Path]]:
        try:
            with os.scandir(folder) as scanned:
                found = sorted((entry.name, entry.is_dir()) for entry in scanned)
        except OSError:
            self.closed.append(self.named(folder))
            return [], []
        counts = [(folder / name, inner) for name, inner in found if name[0] != "." and name.casefold() not in JUNK]
        runs = {path for path, inner in counts if inner and is_run(path)}
        self.runs += map(self.named, sorted(runs))
        return (
            [path for path, inner in counts if inner and path not in runs],
            [path for path, inner in counts if not inner],
        )

    def kind(self, path: Path) -> str:
        """What a file is meant as: image, other (a text or a companion of pictures, which is noted), or unknown, such as an empty file."""
        if path.suffix.lower() in EXTENSIONS:
            return "image"
        if path not in self._kinds:
            self._kinds[path] = kind = _looked_into(path)
            if kind == "other":
                self.others.append(self.named(path))
        return self._kinds[path]

    def images(self, files: list[Path]) -> list[Path]:
        """Those of some files that are surely meant as images."""
        return [path for path in files if self.kind(path) == "image"]

    def under(self, folder: Path) -> list[Path]:
        """Every file that counts as an image under a folder, to any depth, by name; those of unknown kinds do, to fail by name."""
        return sorted(path for path in self._under(folder, ()) if self.kind(path) != "other")

    def _under(self, folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
        """All files under a folder, links followed, except into a folder that we are in already (a loop)."""
        try:
            status = os.stat(folder)
        except OSError:
            self.closed.append(self.named(folder))
            return
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        folders, files = self.entries(folder)
        yield from files
        for inner in folders:
            yield from self._under(inner, (*above, here))

    def left_out(self) -> list[str]:
        """What a person should know was left out."""
        notes = []
        if self.runs:
            n = counted(len(self.runs), "folder that holds", "folders that hold")
            notes.append(f"left out {n} a run of vitral: {some(self.runs, 3)}")
        if self.others:
            notes.append(
                f"left out {counted(len(self.others), 'file that is', 'files that are')} no images: {some(self.others, 3)}"
            )
        return notes


def _looked_into(path: Path) -> str:
    """As `Walk.kind`, by the file's first bytes, without ever waiting on a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            head = os.read(descriptor, _HEAD) if regular else b""
        finally:
            os.close(descriptor)
    except OSError:
        return "unknown"
    if not regular:
        return "unknown"
    text = is_text(head)
    if starts_like_an_image(head) and (not text or recognise(head) is PPM):
        return "image"
    return "other" if path.suffix.lower() in COMPANIONS or text else "unknown"
