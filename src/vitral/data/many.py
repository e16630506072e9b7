"""Shards as data sets: as a listing like any other, or, of many images, as arrays, so that nothing is kept of each but numbers.

What `sources.open_data` looks for by comparing images (copies with other labels, near copies) is not looked for among many.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from vitral.data.folder import UNLABELLED
from vitral.data.formats.shards import open_index
from vitral.data.images import Images
from vitral.data.listing import Listing, build_listing
from vitral.data.options import DataOptions
from vitral.data.problem import Problem
from vitral.data.progress import OnProgress
from vitral.data.ranges import is_url
from vitral.data.shards import ANNOTATED, Index, LazyNames, ShardImages, label_of
from vitral.data.splits import SPLITS
from vitral.data.targets import Classes, Targets
from vitral.errors import VitralError, counted

MANY = 200_000
"""Images from which a data set is opened so."""
LOOKED_AT = 100_000  # images whose sizes are summed up


class Chosen(LazyNames):
    """Some of them."""

    def __init__(self, names: Sequence[str], rows: np.ndarray) -> None:
        self.names, self.rows = names, rows

    def __len__(self) -> int:
        return len(self.rows)

    def one(self, i: int) -> str:
        return self.names[int(self.rows[i])]


class Facts:
    """What a data set needs to know of its images, from the index alone."""

    def __init__(self, data: str, index: Index, options: DataOptions, *, labelled: bool) -> None:
        self.images: Images = ShardImages(index)
        rows = index.rows
        self.contents = np.ascontiguousarray(rows["digest"]).view(">u8")[::2].astype(np.uint64)
        self.labels, self.targets = _targets(data, index, labelled=labelled)
        self.split = _splits(rows["split"], self.contents, options)
        self.given = frozenset(SPLITS[k] for k in np.unique(rows["split"]) if k >= 0)
        some = rows[:: max(1, len(rows) // LOOKED_AT)]
        self.height, self.width = (int(np.median(some[name])) for name in ("height", "width"))
        self.channels = options.channels or int(some["channels"].max())
        self.bit_depth = int(some["bit_depth"].max())
        self.aspects = tuple(np.quantile(some["width"] / some["height"], np.linspace(0, 1, 21)).tolist())
        self.least = int(min(some["height"].min(), some["width"].min()))
        of_all = sha256(np.ascontiguousarray(rows["digest"]).tobytes())
        of_all.update(self.targets.values.tobytes() + self.split.tobytes() + "\n".join(self.labels).encode())
        self.fingerprint = of_all.hexdigest()


def _targets(data: str, index: Index, *, labelled: bool) -> tuple[list[str], Targets]:
    if not labelled:
        return [UNLABELLED], Classes(np.zeros(len(index.rows), np.int64))
    _refuse_unlabelled(data, index)
    named = label_of(index)
    listing = build_listing(data, ShardImages(index), [named(i) for i in range(len(index.texts))], training=False)  # type: ignore[arg-type]
    return listing.labels, listing.targets.take(index.rows["target"].astype(np.int64))


def _refuse_unlabelled(data: str, index: Index) -> None:
    if index.kind in ("classes", "sets"):
        return
    alone = f"learn without labels: vitral pretrain {data}"
    if index.kind in ANNOTATED and len(index.rows) > MANY:
        raise VitralError(
            f"{data}: holds {counted(len(index.rows), 'image')} with {ANNOTATED[index.kind]}, which are held in memory: up to {MANY:,} are learned; "
            f"give fewer shards, or {alone}"
        )
    strewn = (
        f", and {counted(index.bare, 'has', 'have')} no image: members of one sample lie next to each other"
        if index.bare
        else ""
    )
    held = (
        f" but {ANNOTATED[index.kind]}; leave out --task to learn these, or"
        if index.kind in ANNOTATED
        else f"{strewn};"
    )
    raise VitralError(
        f"{data}: its samples have no class (.cls, or a label in .json; --label-column names another field){held} {alone}"
    )


def _splits(given: np.ndarray, contents: np.ndarray, options: DataOptions) -> np.ndarray:
    """int8 [n]: which of SPLITS each image is in, those that the shards do not name by the first bits of its content hash."""
    named = {SPLITS[k] for k in np.unique(given) if k >= 0}
    split = np.where(given < 0, 0, given).astype(np.int8)
    test = 0.0 if "test" in named else options.test_fraction
    val = 0.0 if "val" in named else options.val_fraction
    place = contents / 2.0**64
    free = split == SPLITS.index("train")
    split[free & (place < test)] = SPLITS.index("test")
    split[free & (place >= test) & (place < test + val)] = SPLITS.index("val")
    return split


def notes(index: Index, facts: Facts) -> list[str]:
    """What a person should know."""
    said = [
        f"{len(index.rows):,} images in {counted(len(index.ranges.files), 'shard')}, read from an index; copies among them are not looked for"
    ]
    said += _bare(index)
    if index.skipped:
        said.append(f"left out {counted(len(index.skipped), 'image')} that could not be read when the index was made")
    return said


def _bare(index: Index) -> list[str]:
    return [f"left out {counted(index.bare, 'sample')} without an image"] if index.bare else []


def check(data: str, facts: Facts, least_side: Callable[[int, int], int] | None) -> None:
    """VitralError for images that cannot be used."""
    if least_side is not None and facts.least < (least := least_side(facts.height, facts.width)):
        raise VitralError(
            f"{data}: has images of {facts.least} pixels, smaller than one {least}x{least} patch; use a model with smaller patches"
        )


def list_shards(
    data: str, options: DataOptions, *, training: bool, labelled: bool, progress: OnProgress | None = None
) -> Listing:
    """The images of shards and their labels. Raises VitralError where the index cannot be used or made."""
    index = open_index(data, options.room, progress, options.label_column)
    images, count = ShardImages(index), len(index.rows)
    given = None
    if (index.rows["split"] >= 0).any():
        given = [SPLITS[k] if k >= 0 else "train" for k in index.rows["split"].tolist()]
    if labelled:
        _refuse_unlabelled(data, index)
    labels: Any = [UNLABELLED] * count
    if labelled:
        texts = [label_of(index)(k) for k in range(len(index.texts))]
        labels = [texts[k] for k in index.rows["target"].tolist()]
    problems = []
    if index.skipped and not options.skip_unreadable:
        lost = "; ".join(f"{name}: {why}" for name, why in index.skipped[:5])
        text = f"{counted(len(index.skipped), 'image')} could not be read when the index was made; leave them out with --skip-unreadable: {lost}"
        problems.append(Problem("unreadable", text, tuple(name for name, _ in index.skipped)))
    name = Path(data).stem if not is_url(data) else data.rstrip("/").rpartition("/")[2]
    listing = build_listing(name, images, labels, given, training=training and labelled, problems=problems)
    listing.skipped = index.skipped
    listing.understood = [f"{count:,} images in {counted(len(index.ranges.files), 'shard')}", *_bare(index)]
    return listing
