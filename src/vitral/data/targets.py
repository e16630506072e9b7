"""Targets, a class for each task: how they are read from labels, balanced over splits, counted and batched.

Axes: n images, K labels (class names, in order).
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitral.data.problem import Problem
from vitral.data.splits import common, keep_in_train
from vitral.errors import VitralError

Labels = Sequence[str] | Sequence[frozenset[str]]
"""Each image's label, or the set of its labels."""


class Targets(ABC):
    """The targets of n images."""

    task: ClassVar[str]
    each: ClassVar[str]
    """What one image has, in messages."""
    nouns: ClassVar[tuple[str, str]] = ("class", "classes")
    """A label and several, in messages."""
    by_label: ClassVar[bool] = True
    """Whether images can be counted by label."""

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

    def batch(self, rows: NDArray[np.int64] | slice) -> Tensor:
        """[B, ...]: a batch of targets for the objective."""
        return torch.from_numpy(self.values[rows])

    def named(self, i: int, labels: Sequence[str]) -> list[str]:
        """The labels of image i, in order."""
        return []

    def describe(self, i: int, labels: Sequence[str]) -> str:
        """The target of image i in a message."""
        return in_words(self.named(i, labels))

    @abstractmethod
    def key(self, i: int, labels: Sequence[str]) -> str:
        """The target of image i as text; different targets have different texts."""

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


class Classes(Targets):
    """One class an image: int64 [n], indices into the labels."""

    task = "classify"
    each = "one class"

    @classmethod
    def read(cls, labels: Labels, name: str) -> tuple[list[str], Self]:
        if not all(isinstance(label, str) for label in labels):
            raise VitralError(
                f"{name}: its images can have several labels, and the task classify takes one class an image; choose --task multilabel, or give "
                "data with one label an image"
            )
        names = order_labels({str(label) for label in labels})
        position = {label: i for i, label in enumerate(names)}
        return names, cls(np.array([position[str(label)] for label in labels], dtype=np.int64))

    def named(self, i: int, labels: Sequence[str]) -> list[str]:
        return [labels[int(self.values[i])]]

    def key(self, i: int, labels: Sequence[str]) -> str:
        return labels[int(self.values[i])]

    def groups(self, keys: Sequence[str]) -> list[str]:
        return list(keys)

    def counts(self, classes: int) -> NDArray[np.int64]:
        return np.bincount(self.values, minlength=classes)

    def problems(self, labels: Sequence[str], given: Sequence[str] | None) -> list[Problem]:
        if len(labels) != 1:
            return _untrained(self, labels, given)
        text = f"there is one class only ({labels[0]}); a classifier needs two or more, each with a folder or label of its own"
        return [Problem("one_class", text, tuple(labels)), *_untrained(self, labels, given)]

    def facts(self, classes: int) -> dict[str, object]:
        """majority: the share of the commonest class; shares: every class's."""
        shares = self.counts(classes) / max(1, len(self))
        return {"majority": round(float(shares.max()), 6), "shares": [round(float(s), 6) for s in shares]}

    def reordered(self, position: NDArray[np.int64], classes: int) -> Self:
        return type(self)(position[self.values])


class LabelSets(Targets):
    """Several labels an image, or none: float32 [n, K] of zeros and ones."""

    task = "multilabel"
    each = "several labels"
    nouns = ("label", "labels")

    @classmethod
    def read(cls, labels: Labels, name: str) -> tuple[list[str], Self]:
        sets = [label if isinstance(label, frozenset) else frozenset([label]) for label in labels]
        names = order_labels({label for each in sets for label in each})
        position = {label: i for i, label in enumerate(names)}
        values = np.zeros((len(sets), len(names)), np.float32)
        for row, each in zip(values, sets, strict=True):
            row[[position[label] for label in each]] = 1
        return names, cls(values)

    def named(self, i: int, labels: Sequence[str]) -> list[str]:
        return [labels[k] for k in np.flatnonzero(self.values[i] > 0.5).tolist()]

    def key(self, i: int, labels: Sequence[str]) -> str:
        return json.dumps(self.named(i, labels))  # a list, so that no two sets read alike

    def groups(self, keys: Sequence[str]) -> list[str]:
        return list(keys)

    def counts(self, classes: int) -> NDArray[np.int64]:
        return self.values.sum(0).astype(np.int64)

    def strata(self, keys: Sequence[str], contents: Sequence[bytes]) -> list[str]:
        return common(keys, contents)

    def mend_splits(
        self, splits: list[str], given: Sequence[str] | None, units: Sequence[bytes], named: Sequence[Sequence[str]]
    ) -> None:
        keep_in_train(splits, given, units, named)

    def problems(self, labels: Sequence[str], given: Sequence[str] | None) -> list[Problem]:
        if len(np.unique(self.values, axis=0)) > 1:
            return _untrained(self, labels, given)
        same = self.named(0, labels)
        text = f"all images have the same labels ({in_words(same)}), so there is nothing to tell apart; add images with others"
        return [Problem("same_labels", text, tuple(same)), *_untrained(self, labels, given)]

    def remarks(self) -> list[str]:
        held = self.values.sum(1)  # [n]
        bare = int((held == 0).sum())
        have = f"{bare:,} image has" if bare == 1 else f"{bare:,} images have"
        return [f"{held.mean():.1f} labels an image on average; {have} none"]

    def reordered(self, position: NDArray[np.int64], classes: int) -> Self:
        values = np.zeros((len(self), classes), np.float32)
        values[:, position] = self.values
        return type(self)(values)


TARGETS: dict[str, type[Targets]] = {kind.task: kind for kind in (Classes, LabelSets)}


def in_words(labels: Sequence[str]) -> str:
    """A label, several, or none, in a message."""
    return ", ".join(labels) or "no label"


def order_labels(labels: set[str]) -> list[str]:
    """Class names in a stable order: by number if all are whole numbers, else by character."""
    if all(re.fullmatch(r"[+-]?\d+", label) for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def _untrained(targets: Targets, labels: Sequence[str], given: Sequence[str] | None) -> list[Problem]:
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
