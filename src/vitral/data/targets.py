"""Targets, a class for each task, and the table of all: how they are read from labels, balanced over splits, counted and batched.

Axes: n images, K labels (class names, in order).
"""

import json
import re
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vitral.data.maps import SemanticMaps
from vitral.data.problem import Problem
from vitral.data.splits import common, keep_in_train
from vitral.data.target import Labels, Targets, in_words, untrained
from vitral.data.things import Boxes, Masks, Segments
from vitral.errors import VitralError

__all__ = ["TARGETS", "Classes", "LabelSets", "Labels", "Targets", "in_words", "order_labels"]


class Classes(Targets):
    """One class an image: int64 [n], indices into the labels."""

    task = "classify"
    each = "one class"
    one_class = True

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
            return untrained(self, labels, given)
        text = f"there is one class only ({labels[0]}); a classifier needs two or more, each with a folder or label of its own"
        return [Problem("one_class", text, tuple(labels)), *untrained(self, labels, given)]

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
            return untrained(self, labels, given)
        same = self.named(0, labels)
        text = f"all images have the same labels ({in_words(same)}), so there is nothing to tell apart; add images with others"
        return [Problem("same_labels", text, tuple(same)), *untrained(self, labels, given)]

    def remarks(self) -> list[str]:
        held = self.values.sum(1)  # [n]
        bare = int((held == 0).sum())
        have = f"{bare:,} image has" if bare == 1 else f"{bare:,} images have"
        return [f"{held.mean():.1f} labels an image on average; {have} none"]

    def reordered(self, position: NDArray[np.int64], classes: int) -> Self:
        values = np.zeros((len(self), classes), np.float32)
        values[:, position] = self.values
        return type(self)(values)


TARGETS: dict[str, type[Targets]] = {
    kind.task: kind for kind in (Classes, LabelSets, SemanticMaps, Boxes, Masks, Segments)
}


def order_labels(labels: set[str]) -> list[str]:
    """Class names in a stable order: by number if all are whole numbers, else by character."""
    if all(re.fullmatch(r"[+-]?\d+", label) for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)
