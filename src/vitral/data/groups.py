"""Encoded images in Parquet files that are too large for memory: read as they are asked for, a row group at a time.

A row group is the least that Parquet gives; Hugging Face's hold 100 images. The last ones read are kept, so that reading in order reads each once;
in a shuffled order every image costs its group (tar shards cost the image alone: `vitral data pack`).
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitral.data.files import ImageError
from vitral.data.images import EncodedImages

LARGE = 2**30  # bytes of a file whose images are left in it
KEPT = 2**28  # bytes of row groups that a process keeps, one at least


@dataclass(frozen=True)
class Left:
    """An image that was left in its file: a row, counted from 0."""

    path: Path
    column: str
    row: int


class GroupedImages(EncodedImages):
    """The images left in some files; can be pickled for another process."""

    def __init__(self, left: Sequence[Left], names: Sequence[str]) -> None:
        self.names = names
        self.tables = [*dict.fromkeys((one.path, one.column) for one in left)]
        numbers = {file: number for number, file in enumerate(self.tables)}
        self.of = np.array([numbers[one.path, one.column] for one in left], np.int32)
        self.row = np.array([one.row for one in left], np.int64)
        self._clear()

    def _clear(self) -> None:
        self._owner, self._lock = os.getpid(), threading.Lock()
        self._open: dict[int, tuple[Any, np.ndarray]] = {}
        self._kept: OrderedDict[tuple[int, int], list[Any]] = OrderedDict()
        self._held = 0

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._clear()

    def encoded(self, i: int) -> bytes:
        if os.getpid() != self._owner:  # a loader process: open files are not shared
            self._clear()
        number, row = int(self.of[i]), int(self.row[i])
        with self._lock:
            try:
                cell = self._cell(number, row)
            except Exception as error:  # whatever the library raises on a damaged file
                path = self.tables[number][0]
                raise ImageError(
                    f"{self.names[i]}: {path} cannot be read ({error}); restore it", "unreadable"
                ) from error
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(data, bytes):
            raise ImageError(f"{self.names[i]}: row {row + 1} holds no image; fill it in or remove the row", "missing")
        return data

    def _cell(self, number: int, row: int) -> Any:
        from pyarrow import parquet

        path, column = self.tables[number]
        if number not in self._open:
            file = parquet.ParquetFile(path)
            counts = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
            self._open[number] = file, np.concatenate([[0], np.cumsum(counts)])
        file, starts = self._open[number]
        group = int(np.searchsorted(starts, row, "right")) - 1
        key = number, group
        if key not in self._kept:
            self._kept[key] = file.read_row_group(group, columns=[column]).column(0).to_pylist()
            self._held += _size(self._kept[key])
            while self._held > KEPT and len(self._kept) > 1:
                self._held -= _size(self._kept.popitem(last=False)[1])
        self._kept.move_to_end(key)
        return self._kept[key][row - int(starts[group])]


def _size(cells: list[Any]) -> int:
    """Bytes of the images in some cells."""
    blobs = (cell.get("bytes") if isinstance(cell, dict) else cell for cell in cells)
    return sum(len(blob) for blob in blobs if isinstance(blob, bytes))
