"""Images in tar shards by their index: any of them is read alone, in any order, from a disk or behind a URL.

The index is three files: index.json, written last, with the shards, their sizes and the classes; index.bin, a row an image; index.names. Where
the shards hold annotations there are more, so that nothing is read of them to open them: index.beside, a row an image, index.values, what its map
holds, and index.told, the .json with objects or segments. All but the first are mapped, not loaded. `vitral.data.formats.shards` makes it.
"""

import json
import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from vitral.data.cache import Checked
from vitral.data.images import EncodedImages, Header
from vitral.data.ranges import Ranges, lines_of
from vitral.data.splits import SPLITS
from vitral.data.values import PLAIN, ImageInfo
from vitral.errors import VitralError

LAYOUT = 3
INDEX, ROWS, NAMES = "index.json", "index.bin", "index.names"
BESIDES, VALUES, TOLD = "index.beside", "index.values", "index.told"
ANNOTATED = {"objects": "objects", "maps": "maps", "panoptic": "panoptic segments"}
"""Kinds of shards with annotations, and what these are."""
ROW = np.dtype(
    [
        ("shard", "<u4"), ("offset", "<u8"), ("size", "<u4"), ("name_end", "<u8"), ("target", "<i4"), ("height", "<u4"), ("width", "<u4"),
        ("channels", "<u2"), ("bit_depth", "u1"), ("split", "i1"), ("digest", "V16"),
    ]
)  # fmt: skip
"""target: which of the index's texts; -1 for none. split: of SPLITS, -1 for none."""
BESIDE = np.dtype(
    [
        ("orientation", "u1"), ("told", "<u8"), ("told_size", "<u4"), ("told_digest", "V16"), ("map", "<u8"), ("map_size", "<u4"),
        ("map_digest", "V16"), ("height", "<u4"), ("width", "<u4"), ("values", "<u4"),
    ]
)  # fmt: skip
"""orientation: the image's, by EXIF. told: the offset of the .json of objects or segments, map: that of the map; 0 for none. height, width: of
the map as it is stored. values: how many different ones it holds; 0 where they are not known."""
VALUE = np.dtype([("value", "<i4"), ("pixels", "<u4")])


@dataclass(frozen=True)
class Index:
    """What is known of n images in shards."""

    root: str
    """The folder or URL of the index."""
    ranges: Ranges
    rows: Any
    """An array of ROW [n], not in memory but mapped."""
    blob: np.ndarray
    """The names, uint8, mapped."""
    texts: list[str]
    """The different targets: a class, or a list of labels as JSON."""
    kind: str
    """none, classes, sets, objects, maps or panoptic."""
    classes: list[str]
    """Of classnames.txt."""
    label: str | None
    """The field of a .json, or txt, that was asked for as the class."""
    skipped: list[tuple[str, str]]
    """Images that could not be read, and why."""
    bare: int
    """Samples without an image."""
    tables: str
    """The folder or URL in which the tables of classes lie."""
    beside: Any
    """Of annotations an array of BESIDE [n], mapped; else None."""
    told: np.ndarray | None
    """The .json beside each image, one after another, uint8, mapped; None where there are none, or an index from before 2026-12 has them not."""
    colours: tuple[tuple[int, int], ...]
    """Those that classes.json named when the maps' values were counted, as `ClassTable.colours`."""


class LazyNames(Sequence[str]):
    """The names of n images, read as they are asked for."""

    @abstractmethod
    def one(self, i: int) -> str:
        """Name i, of 0 to n-1."""

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self.one(k) for k in range(*i.indices(len(self)))]
        return self.one(range(len(self))[i])


class Names(LazyNames):
    """All names of an index."""

    def __init__(self, rows: Any, blob: np.ndarray) -> None:
        self.rows, self.blob = rows, blob

    def __len__(self) -> int:
        return len(self.rows)

    def one(self, i: int) -> str:
        return lines_of(self.rows["name_end"], self.blob, i)


class OldIndexError(VitralError):
    """An earlier version made the index."""


class ShardImages(EncodedImages):
    """The images of an index; what `check` tells of them is in it."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.names = Names(index.rows, index.blob)

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.index.root, "ranges": self.index.ranges, "reading": self.reading}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In another process the index is mapped again, not sent."""
        self.__init__(read_index(state["root"], state["ranges"].room))  # type: ignore[misc]
        self.reading = state["reading"]

    def happened(self) -> str | None:
        return self.index.ranges.happened()

    def encoded(self, i: int) -> bytes:
        row = self.index.rows[i]
        return self.index.ranges.read(
            int(row["shard"]), int(row["offset"]), int(row["size"]), row["digest"].tobytes(), self.names[i]
        )

    def header(self, i: int) -> Header:
        row = self.index.rows[i]
        orientation = int(self.index.beside[i]["orientation"])
        return Header(int(row["height"]), int(row["width"]), orientation, row["digest"].tobytes())

    def check(self, i: int, *, small: bool, page: int | None = None) -> Checked:
        if small or self.reading != PLAIN or page is not None:
            return super().check(i, small=small, page=page)
        row = self.index.rows[i]
        info = ImageInfo(int(row["height"]), int(row["width"]), int(row["channels"]), int(row["bit_depth"]))
        return Checked(row["digest"].tobytes(), info, None)


def files_of(told: dict[str, Any]) -> list[str]:
    """The files of an index beside index.json, which says this."""
    return [
        ROWS,
        NAMES,
        *([BESIDES, VALUES] if told["kind"] in ANNOTATED else []),
        *([TOLD] if told.get("told") else []),
    ]


def read_index(data: str, room: int) -> Index:
    """The index in a folder. room: bytes of shards behind URLs that are kept here."""
    root = data.rstrip("/")
    try:
        told = json.loads(Path(root, INDEX).read_text())
        refuse_older(told, told["root"] or root)
        rows: Any = np.memmap(Path(root, ROWS), ROW, "r")
        blob = np.memmap(Path(root, NAMES), np.uint8, "r")
        if told["layout"] > LAYOUT or len(rows) != told["images"] or len(blob) != told["names"]:
            raise ValueError("its files do not belong together, or another version wrote it")
        shards = told["shards"]
        names, sizes, times = ([each[key] for each in shards] for key in ("name", "size", "time"))
        ranges = Ranges(told["root"] or root, names, sizes, times, room)
        targets, labelled = rows["target"], told["kind"] in ("classes", "sets")
        if int(rows["shard"].max()) >= len(shards) or int(targets.max()) >= max(1, len(told["texts"])):
            raise ValueError("its rows name shards or targets that it does not have")
        if int(targets.min()) < (0 if labelled else -1) or not -1 <= rows["split"].min() <= rows["split"].max() < len(
            SPLITS
        ):
            raise ValueError("its rows name targets or splits that there are not")
        if not isinstance(told["tables"], str):
            raise ValueError("it does not say where tables of classes lie")
        if int(rows["name_end"][-1]) != len(blob):
            raise ValueError("its names are cut short")
        beside = np.memmap(Path(root, BESIDES), BESIDE, "r") if told["kind"] in ANNOTATED else None
        if beside is not None:
            known = int(beside["values"].sum()) * VALUE.itemsize == os.path.getsize(Path(root, VALUES))
            turned = 1 <= beside["orientation"].min() <= beside["orientation"].max() <= 8
            if len(beside) != len(rows) or not known or not turned:
                raise ValueError("its annotations are cut short or damaged")
        beside_told = np.memmap(Path(root, TOLD), np.uint8, "r") if told.get("told") else None
        if beside_told is not None and (beside is None or len(beside_told) != int(beside["told_size"].sum())):
            raise ValueError("its objects or segments are cut short")
        return Index(
            root,
            ranges,
            rows,
            blob,
            told["texts"],
            told["kind"],
            told["classes"],
            told["label"],
            [tuple(each) for each in told["skipped"]],
            int(told.get("bare", 0)),  # not counted before 2026-12
            told["tables"] or told["root"] or root,
            beside,
            beside_told,
            tuple((int(code), int(value)) for code, value in told["colours"]),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, VitralError):
            raise
        raise VitralError(
            f"{root}: the index of its shards cannot be used ({error}); make it again: vitral data index {root}"
        ) from error


def refuse_older(told: Any, place: str) -> None:
    """OldIndexError for what index.json says if an earlier version wrote it."""
    if told["layout"] < LAYOUT:
        raise OldIndexError(
            f"{place}: an earlier version made the index of its shards; make it again with vitral data index"
        )


def label_of(index: Index) -> Callable[[int], str | frozenset[str]]:
    """Target i of the index's texts as labels are listed; a number that counts the lines of classnames.txt as that class."""
    if index.kind == "sets":
        return lambda i: frozenset(json.loads(index.texts[i]))
    classes = index.classes

    def named(i: int) -> str:
        text = index.texts[i]
        if not classes or not text.isdecimal() or (text in classes and int(text) >= len(classes)):
            return text
        if int(text) >= len(classes):
            raise VitralError(
                f"{index.tables}: class {text} is beyond the {len(classes):,} lines of classnames.txt; add its name there"
            )
        return classes[int(text)]

    return named
