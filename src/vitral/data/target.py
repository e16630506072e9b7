"""What every task's targets give: how they are read from labels, divided, counted and batched.

Axes: n images, B of a batch, K labels (class names, in order).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray

from vitral.data.problem import Problem
from vitral.data.view import Placed, View

Labels = Sequence[str] | Sequence[frozenset[str]]
"""Each image's label, or the set of its labels."""


class Targets(ABC):
    """The targets of n images."""

    task: ClassVar[str]
    each: ClassVar[str]
    """What one image has, in messages."""
    nouns: ClassVar[tuple[str, str]] = ("class", "classes")
    """A label and several, in messages."""
    one_class: ClassVar[bool] = False
    """Whether an image has one class and no more."""
    by_label: ClassVar[bool] = True
    """Whether images can be counted by label."""
    in_place: ClassVar[bool] = False
    """Whether they are of places in the image: they then follow its views, and it is read at its own size."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    @abstractmethod
    def read(cls, labels: Labels, name: str) -> tuple[list[str], Self]:
        """Label names in order, and the targets. name: the data's. Raises VitralError if the labels do not suit this task."""

    @classmethod
    def joined(cls, parts: Sequence["Targets"]) -> "Targets":
        """The targets of all parts, which are of one task, in order."""
        return type(parts[0])(np.concatenate([part.values for part in parts]))

    def take(self, rows: NDArray[Any] | Sequence[int]) -> Self:
        """The targets of these images: numbers or a mask."""
        return type(self)(self.values[rows])

    def batch(self, rows: NDArray[np.int64], placed: Callable[[int], Placed]) -> Any:
        """[B, ...]: the targets of these images for the objective; ragged ones can be sliced by image, moved and pinned like a tensor.

        placed: where the model's pixels lie in the k-th of them.
        """
        return torch.from_numpy(self.values[rows])

    def truth(self, rows: NDArray[np.int64], placed: Callable[[int], Placed]) -> Any:
        """The targets that an evaluator compares outputs with; rows, placed as in `batch`."""
        return self.batch(rows, placed)

    def drawn(self, i: int, view: View, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A picture [h, w, 3] of this view of image i with its target drawn on it, where that is of places."""
        return picture

    def named(self, i: int, labels: Sequence[str]) -> list[str]:
        """The labels of image i, in order."""
        return []

    def describe(self, i: int, labels: Sequence[str]) -> str:
        """The target of image i in a message."""
        return in_words(self.named(i, labels))

    @abstractmethod
    def key(self, i: int, labels: Sequence[str]) -> str:
        """The target of image i as text; different targets have different texts."""

    def ids(self, classes: int) -> list[int]:
        """The data's own number of each label; empty where labels are names alone."""
        return []

    def counts(self, classes: int) -> NDArray[np.int64]:
        """[K]: images of each label."""
        return np.zeros(classes, np.int64)

    def groups(self, keys: Sequence[str]) -> list[str]:
        """The group of each image, from its key: `train_fraction` keeps the same share of every group."""
        return [""] * len(self)

    def strata(self, keys: Sequence[str], contents: Sequence[bytes]) -> list[str]:
        """The stratum of each image, from its key and content hash: splits that vitral makes are balanced over strata."""
        return self.groups(keys)

    def members(self) -> list[NDArray[np.int64]]:
        """For each distinct target, the numbers of its images: int64 [m]."""
        _, kind = np.unique(self.values, axis=0, return_inverse=True)
        return [np.flatnonzero(kind == k) for k in range(kind.max() + 1)]

    def mend_splits(
        self, splits: list[str], given: Sequence[str] | None, units: Sequence[bytes], named: Sequence[Sequence[str]]
    ) -> None:
        """Adjust splits that vitral made, in place, where the task needs it. units: equal ones share a split. named: each one's labels."""
        return

    def problems(self, labels: Sequence[str], given: Sequence[str] | None) -> list[Problem]:
        """Reasons that make training impossible. given: the splits that the data name."""
        return []

    def remarks(self) -> list[str]:
        """Facts worth telling the user."""
        return []

    def facts(self, classes: int) -> dict[str, object]:
        """Facts about a split's targets that a run records."""
        return {}

    def reordered(self, position: NDArray[np.int64], classes: int) -> Self:
        """The same targets for a list of `classes` labels, in which label k is at position[k]."""
        return self


def in_words(labels: Sequence[str]) -> str:
    """A label, several, or none, in a message."""
    return ", ".join(labels) or "no label"


def untrained(targets: Targets, labels: Sequence[str], given: Sequence[str] | None) -> list[Problem]:
    """Problems with the named splits: no train split, or classes without training images."""
    if not given:
        return []
    inside = np.array(given) == "train"
    if not inside.any():
        there = sorted(set(given))
        return [Problem("no_train_split", f"there is no train split, only {', '.join(there)}; add it", tuple(there))]
    trained = targets.take(inside).counts(len(labels))
    only = [label for label, count in zip(labels, trained.tolist(), strict=True) if not count]
    if not only:
        return []
    text = f"these classes have no image in the train split: {', '.join(only)}; add some, correct the label, or remove the class"
    return [Problem("untrained_classes", text, tuple(only))]
