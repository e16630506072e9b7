"""What `open_data` gives: labelled images in splits."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from vitral.data.images import Images
from vitral.data.moments import moments
from vitral.data.targets import Targets
from vitral.errors import VitralError


@dataclass
class Split:
    """The images of one split, in a stable order. Can be pickled for another process."""

    name: str
    """train, val or test."""
    names: Sequence[str]
    """The name of image i in messages: its path relative to the data, or for example fashion-mnist/train/17."""
    targets: Targets
    """Label indices refer to the data set's labels."""
    images: Images
    """The images of all splits."""
    rows: np.ndarray
    """int64 [n]: image i of this split is image rows[i] of `images`."""
    contents: np.ndarray
    """uint64 [n]: the first eight bytes of each image's content hash; copies have the same."""

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, i: int, channels: int | None = None, hint: int | None = None) -> Tensor:
        """Image i as [C, h, w], 0..255, read-only; channels, hint as in `decode`. Raises VitralError if its file is gone or has changed."""
        return self.images.read(int(self.rows[i]), channels, hint)

    def path(self, i: int) -> Path | None:
        """The file of image i; None if it has no file of its own."""
        return self.images.path(int(self.rows[i]))

    def take(self, chosen: np.ndarray) -> "Split":
        """The images at these positions, int64 [m], in this order."""
        names = [self.names[i] for i in chosen.tolist()]
        return Split(self.name, names, self.targets.take(chosen), self.images, self.rows[chosen], self.contents[chosen])

    def thinned(self, most: int) -> "Split":
        """Up to `most` images, evenly spread over the split, which may be sorted by class."""
        return self.take(spread(len(self), most))


def spread(count: int, most: int) -> np.ndarray:
    """int64 [m]: up to `most` of the positions 0..count - 1, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(np.int64))


@dataclass
class DataSet:
    """Labelled images in splits; each has been decoded to its end."""

    name: str
    labels: list[str]
    """Class names; targets are indices into this list."""
    splits: dict[str, Split]
    """train where training was asked for; val and test where given or made."""
    channels: int
    """Of the model's input: 1 grey, 3 RGB, or the number of bands."""
    bit_depth: int
    """8, or 16 if any image holds 16 bits a channel."""
    height: int
    width: int
    """Median size of the training images in pixels."""
    fingerprint: str
    """sha256 (hex) of the sorted (content, label, split) triples, independent of file names and folders."""
    aspects: tuple[float, ...] = (1.0,)
    """Width over height of the training images at the quantiles 0, 0.05, ..., 1."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """(name, reason) of the unreadable images that were left out."""
    given: frozenset[str] = frozenset()
    """Splits that the data name; the others were made from content hashes."""
    notes: list[str] = field(default_factory=list)
    """Facts worth telling the user that are no errors."""

    @property
    def task(self) -> str:
        """A key of `TARGETS`, such as classify (one class an image) or multilabel (several labels, or none)."""
        return next(iter(self.splits.values())).targets.task

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor, int]:
        """Mean and deviation of the training images' pixels, as `vitral.data.moments.moments` gives them; computed once."""
        return moments(self.splits["train"], self.channels)


def write_skipped(dataset: DataSet, path: str | Path) -> None:
    """Write the images that were left out, and why, as a CSV file with the columns name and reason."""
    try:
        with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(["name", "reason"])
            writer.writerows(dataset.skipped)
    except OSError as error:
        raise VitralError(f"{path}: cannot be written ({error.strerror}); choose a folder that can be") from error
