"""Walking folders: which files count as images, and which are left out, as messages report.

Left out are hidden files and those of operating systems, folders that hold a vitral run (its pictures are no data), and files that are no images:
texts by their content, and companions of pictures (a database, an archive, a sidecar) by their suffix. A file without a known suffix is judged by its
first bytes.
"""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vitral.data.filetypes import EXTENSIONS, PPM, recognise
from vitral.errors import counted, some

JUNK = frozenset(
    {"thumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "icon\r", "lost+found", "system volume information", "ehthumbs.db"}
)  # fmt: skip
"""Ignored, as is every name that starts with a dot."""
RUN_MARKS = ("run.json", "beit.toml", "sweep.toml")
"""A folder with one of these files is a run, begun or finished."""
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
UNPACKED_BY = {
    "gz": "gunzip",
    "tgz": "gunzip",
    "bz2": "bunzip2",
    "tbz2": "bunzip2",
    "xz": "unxz",
    "txz": "unxz",
    "zst": "unzstd",
}
"""The command for a compressed tar, by its ending."""
_HEAD = 512  # bytes that tell a text from an image


def starts_like_an_image(data: bytes) -> bool:
    """Whether these first bytes are an image's, of a kind that vitral reads or not."""
    found = recognise(data)
    return found is not None and found.picture


def compressed_tars(names: Sequence[str]) -> str | None:
    """A sentence on compressed tars, which are no shards, with the remedy; None where these names of files are of none."""
    found = [name for name in names if re.search(r"\.(tar\.(gz|bz2|xz|zst)|tgz|tbz2|txz)$", name.lower())]
    if not found:
        return None
    commands = " or ".join(sorted({UNPACKED_BY[name.lower().rpartition(".")[2]] for name in found}))
    return (
        f"a compressed tar is no shard, as no image in it can be read alone: decompress it ({commands}) to a .tar, or unpack it (tar -xf) if it "
        "holds class folders"
    )


def is_text(data: bytes) -> bool:
    """Whether these bytes begin a text in UTF-8, or in UTF-16 with a byte order mark; False if there are none."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return b"\0\0" not in data
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        if error.start < len(data) - 3:  # else the last character is merely cut off
            return False
        text = data[: error.start].decode()
    return bool(text) and not re.search(r"[\0-\x08\x0e-\x1a\x1c-\x1f]", text)


def is_run(folder: Path) -> bool:
    """Whether a folder holds a vitral run, or the remains of one that failed at its start."""
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
    """A walk through a folder that remembers what was left out, named relative to `root`."""

    root: Path
    runs: list[str] = field(default_factory=list)
    """Folders that hold a run."""
    others: list[str] = field(default_factory=list)
    """Files that are no images."""
    closed: list[str] = field(default_factory=list)
    """Folders that cannot be read."""
    _seen: dict[Path, tuple[list[Path], list[Path]]] = field(default_factory=dict)
    _kinds: dict[Path, str] = field(default_factory=dict)

    def again(self) -> "Walk":
        """Another look without looking at the disk: folders are as they were, and nothing is left out yet."""
        return Walk(self.root, [*self.runs], closed=[*self.closed], _seen=self._seen)

    def named(self, path: Path) -> str:
        """A path relative to the root."""
        above = len(self.root.as_posix().rstrip("/")) + 1  # Path.relative_to takes as long as listing the folders
        return path.as_posix()[above:] or "."

    def entries(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """The folders and the files in a folder, sorted; broken links count as files, so that reading them raises an error."""
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
        """image, other (a text or a companion of pictures, which is reported), or unknown, such as an empty file."""
        if path.suffix.lower() in EXTENSIONS:
            return "image"
        if path not in self._kinds:
            self._kinds[path] = kind = _looked_into(path)
            if kind == "other":
                self.others.append(self.named(path))
        return self._kinds[path]

    def images(self, files: list[Path]) -> list[Path]:
        """Those of the files that are certainly meant as images."""
        return [path for path in files if self.kind(path) == "image"]

    def under(self, folder: Path) -> list[Path]:
        """Every file under a folder that counts as an image, to any depth, by name; unknown kinds count, so that reading them raises an error."""
        return sorted(path for path in self._under(folder, ()) if self.kind(path) != "other")

    def _under(self, folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
        """All files under a folder; links are followed, except to a folder that is being walked already (a loop)."""
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
        """Messages on what was left out."""
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
    """As `Walk.kind`, from the file's first bytes; never waits on a pipe."""
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
