"""Targets that are places in images, over annotated data: what maps and objects share.

Axes: n images, K classes.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from vitral.data.annotated import AnnotatedData, Kind, Polygons, Runs
from vitral.data.problem import Problem
from vitral.data.progress import OnProgress
from vitral.data.scan import in_threads
from vitral.data.splits import keep_in_train
from vitral.data.target import Labels, Targets, untrained
from vitral.errors import VitralError


class Annotations(Targets):
    """Images of annotated data, by their numbers there: `values` int64 [n].

    present: of every image of the data the classes in it. keys: of every image its annotation's hash. place: of every class of the data its
    number among the labels.
    """

    in_place = True
    kind: ClassVar[Kind]
    """Of the annotated data."""
    least_classes: ClassVar[int] = 1
    """Below which there is nothing to tell apart."""

    def __init__(
        self,
        data: AnnotatedData,
        values: NDArray[np.int64],
        present: Sequence[NDArray[np.int64]],
        keys: Sequence[str],
        place: NDArray[np.int64],
    ) -> None:
        super().__init__(values)
        self.data, self.present, self.keys, self.place = data, present, keys, place

    @classmethod
    def read(cls, labels: Labels, name: str) -> tuple[list[str], Self]:
        raise VitralError(
            f"{name}: holds images with labels, and {cls.task} needs {cls.each}; give annotated data (docs/annotations.md names the formats)"
        )

    @classmethod
    def of(cls, data: AnnotatedData, progress: OnProgress | None = None) -> Self:
        """Of all images."""
        found = in_threads(lambda i: (cls.classes_in(data, i), _hash(data, i)), len(data.annotated), progress)
        present, keys = [classes for classes, _ in found], [key for _, key in found]
        return cls(data, np.arange(len(found)), present, keys, np.arange(len(data.classes)))

    @classmethod
    def classes_in(cls, data: AnnotatedData, i: int) -> NDArray[np.int64]:
        """The classes of image i, ascending."""
        one = data.annotated[i]
        there = {each.index for each in one.objects if not (each.crowd or each.hard)}
        return np.array(sorted(there | {segment.index for segment in one.segments if not segment.crowd}), np.int64)

    @classmethod
    def joined(cls, parts: Sequence[Targets]) -> Targets:
        first = parts[0]
        assert isinstance(first, Annotations)
        return first._with(np.concatenate([part.values for part in parts]), first.place)

    def take(self, rows: NDArray[Any] | Sequence[int]) -> Self:
        return self._with(self.values[rows], self.place)

    def reordered(self, position: NDArray[np.int64], classes: int) -> Self:
        return self._with(self.values, position[self.place])

    def _with(self, values: NDArray[np.int64], place: NDArray[np.int64]) -> Self:
        return type(self)(self.data, values, self.present, self.keys, place)

    def named(self, i: int, labels: Sequence[str]) -> list[str]:
        return [labels[k] for k in self.place[self.present[int(self.values[i])]].tolist()]

    def key(self, i: int, labels: Sequence[str]) -> str:
        return self.keys[int(self.values[i])]

    def ids(self, classes: int) -> list[int]:
        found = np.arange(classes)
        found[self.place] = self.data.classes.ids
        return found.tolist()

    def counts(self, classes: int) -> NDArray[np.int64]:
        there = [self.place[self.present[i]] for i in self.values.tolist()]
        return np.bincount(np.concatenate([np.zeros(0, np.int64), *there]), minlength=classes)

    def strata(self, keys: Sequence[str], contents: Sequence[bytes]) -> list[str]:
        """The rarest class of each image, so that every split has some of it."""
        counts = self.counts(len(self.place))
        there = [self.place[self.present[i]] for i in self.values.tolist()]
        return ["" if not len(own) else str(own[counts[own].argmin()]) for own in there]

    def members(self) -> list[NDArray[np.int64]]:
        return [np.arange(len(self))]

    def mend_splits(
        self, splits: list[str], given: Sequence[str] | None, units: Sequence[bytes], named: Sequence[Sequence[str]]
    ) -> None:
        keep_in_train(splits, given, units, named)

    def problems(self, labels: Sequence[str], given: Sequence[str] | None) -> list[Problem]:
        """A class that is only named is no problem: tables of well-known data sets name more than a part of them shows."""
        found = [problem for problem in untrained(self, labels, given) if problem.kind == "no_train_split"]
        if len(labels) >= self.least_classes:
            return found
        text = f"there is one class only ({labels[0]}), so there is nothing to tell apart; name a second, such as background"
        return [Problem("one_class", text, tuple(labels)), *found]


def _hash(data: AnnotatedData, i: int) -> str:
    """Stands for what image i is annotated with."""
    one, digest = data.annotated[i], blake2b(digest_size=16)
    for segment in one.segments:
        digest.update(repr((segment.id, segment.index, segment.crowd)).encode())
    for each in one.objects:
        digest.update(repr((each.index, each.box, each.crowd, each.hard)).encode())
        if isinstance(each.shape, Runs):
            digest.update(each.shape.counts)
        elif isinstance(each.shape, Polygons):
            for part in each.shape.parts:
                digest.update(part.tobytes())
    if one.map is None:
        return digest.hexdigest()
    if not (one.segments or one.objects):
        return one.map.digest().hex()
    digest.update(one.map.digest())
    return digest.hexdigest()
