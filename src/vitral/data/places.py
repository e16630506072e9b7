"""The files that a table's paths mean: relative to the table or to --images, with or without suffix, written here or on Windows.

Every rule that was needed to find a file is reported, a path that fits two files is an error, and if images are missing a nearby folder that holds
them is suggested.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from vitral.data.filetypes import EXTENSIONS
from vitral.data.problem import Problem
from vitral.data.walk import Walk
from vitral.errors import counted, some

_LOOKED = 2000  # folders searched for missing images, at most
_TRIED = 50  # missing images searched for, at most


@dataclass
class Places:
    """The files under `root` that the cells of a table name."""

    root: Path
    missing: list[str] = field(default_factory=list)
    """Cells without a file."""
    double: list[str] = field(default_factory=list)
    """Cells that fit several files, with these."""
    said: list[str] = field(default_factory=list)
    _folders: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def find(self, cells: Sequence[str], *, elsewhere: bool) -> list[str]:
        """The path of each cell's file relative to the root; the cell itself if there is none.

        elsewhere: whether the paths were written for another place, so that leading folders may be dropped, the same number from all.
        """
        written = [self._as_here(cell) for cell in cells]
        elsewhere = elsewhere or all(re.match(r"[A-Za-z]:[\\/]|\\\\", cell) for cell in cells)  # on Windows
        tries = range(max((len(parts) for parts in written), default=1) if elsewhere else 1)
        best, dropped = [self._match(parts) for parts in written], 0
        for drop in tries[1:]:
            if all(best):
                break
            found = [self._match(parts[drop:]) if len(parts) > drop else [] for parts in written]
            if sum(map(bool, found)) > sum(map(bool, best)):
                best, dropped = found, drop
        names = []
        for cell, found_here in zip(cells, best, strict=True):
            if len(found_here) > 1:
                self.double.append(f"{cell} ({' or '.join(found_here)})")
            if not found_here:
                self.missing.append(cell)
            names.append(found_here[0] if found_here else cell)
        self._tell(cells, names, dropped)
        return names

    def _as_here(self, cell: str) -> list[str]:
        """The parts of a path; backslashes separate them unless a file has such a name."""
        if os.path.lexists(self.root / cell):
            return [cell]
        if "\\" in cell:
            path = PureWindowsPath(cell)
            return [part for part in path.parts if part != path.anchor]
        return (
            [part for part in cell.split("/") if part not in ("", ".")]
            if not cell.startswith("/")
            else ["/", *cell[1:].split("/")]
        )

    def _match(self, parts: Sequence[str]) -> list[str]:
        """The files that a path means: the one of this name, or those that have this name plus a suffix."""
        if not parts:
            return []
        name = os.path.join(*parts)
        if os.path.lexists(self.root / name):
            return [name]
        folder, stem = os.path.split(name)
        found = self._stems(folder).get(stem.strip()) if Path(stem).suffix.lower() not in EXTENSIONS else None
        return [os.path.join(folder, each) for each in found or []]

    def _stems(self, folder: str) -> dict[str, list[str]]:
        """The image files in a folder by their names without suffix."""
        if folder not in self._folders:
            stems: dict[str, list[str]] = {}
            try:
                entries = sorted(os.listdir(self.root / folder))
            except OSError:
                entries = []
            for name in entries:
                stem, ending = os.path.splitext(name)
                if ending.lower() in EXTENSIONS and not name.startswith("."):
                    stems.setdefault(stem, []).append(name)
            self._folders[folder] = stems
        return self._folders[folder]

    def _tell(self, cells: Sequence[str], names: Sequence[str], dropped: int) -> None:
        changed = [(cell, name) for cell, name in zip(cells, names, strict=True) if cell != name]
        if not changed:
            return
        cell, name = changed[0]
        how = []
        if any("\\" in cell for cell, _ in changed):
            how.append("written on Windows")
        if dropped:
            how.append(f"without the first {counted(dropped, 'folder')} of their paths")
        if any(not Path(cell).suffix or Path(cell).suffix != Path(name).suffix for cell, name in changed):
            how.append("with their endings looked up")
        if how:
            self.said.append(f"images {', '.join(how)}: {cell} is {name}")

    def problems(self, *, skipping: bool) -> list[Problem]:
        """The faults found. skipping: whether missing images are left out."""
        found = []
        if self.double:
            text = (
                f"{counted(len(self.double), 'image')} could be several files: {some(self.double, 5)}; write the ending, "
                "or remove the files that are not meant"
            )
            found.append(Problem("ambiguous_images", text, tuple(self.double)))
        if self.missing and not skipping:
            text = (
                f"names {counted(len(self.missing), 'image')} that are not there: {some(self.missing)}; paths are relative to {self.root}; "
                f"{f'{near}; or ' if (near := self.near()) else ''}correct them, or leave these images out with --skip-unreadable"
            )
            found.append(Problem("missing_images", text, tuple(self.missing)))
        return found

    def near(self) -> str:
        """A hint at the nearby folder that holds most of the missing files, with the flag for it; empty if there is none."""
        tails = [re.split(r"[\\/]", cell.rstrip())[-1] for cell in self.missing[:_TRIED]]
        best, most = None, 0
        walk = Walk(self.root.parent)
        for folder in _around(self.root, walk):
            names = [path.name for path in walk.entries(folder)[1]]
            there = {*names, *(os.path.splitext(n)[0] for n in names if os.path.splitext(n)[1].lower() in EXTENSIONS)}
            hits = sum(tail in there for tail in tails)
            if hits > most:
                best, most = folder, hits
            if most == len(tails):
                break
        if best is None:
            return ""
        shown = os.path.relpath(best)
        share = "the files are" if most == len(tails) else f"{most} of the first {len(tails)} are"
        return f"{share} in {os.path.basename(best)}/: add --images {shown}"


def _around(root: Path, walk: Walk) -> Iterator[Path]:
    """The folders below a folder, the nearest first, then its parent and the folders in that; at most `_LOOKED`."""
    level, looked = [root], 0
    while level and looked < _LOOKED:
        level = [inner for folder in level for inner in walk.entries(folder)[0]][: _LOOKED - looked]
        looked += len(level)
        yield from level
    yield root.parent
    yield from (folder for folder in walk.entries(root.parent)[0] if folder != root)
