"""Which patches, removed, change the answer? A small set, found by adding greedily and then putting back what was not needed.

Counterfactuals are of https://arxiv.org/abs/1711.00399 (the nearest change that gives another answer); here a change removes whole patches.
To prove that a set is smallest all smaller ones are tried, where they are few enough; `proven` says so.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitral.errors import VitralError, counted
from vitral.explain.figure import Explanation
from vitral.explain.notebook import patches_html
from vitral.explain.removal import BATCH, IN_WORDS, Removable, Removal, order_of
from vitral.predict import ImageLike, Predictor

Patch = tuple[int, int]
EXHAUSTIVE = 4096
"""The most sets that are tried to find a smaller one or to prove that there is none."""


@dataclass(frozen=True)
class Counterfactual:
    """A set of patches without which the answer changes."""

    label: str
    """The answer to the whole picture."""
    instead: str | None
    """The answer without the patches; None where a picture can have several labels, and `label` is no longer among them."""
    patches: list[Patch]
    """(row, column) of each."""
    steps: list[Patch]
    """Every patch that the greedy search removed, in order; `patches` are those needed, or a smaller set found by trying all."""
    probabilities: list[float]
    """Of `label`: for the whole picture, after each step, and last without `patches` only."""
    grid: tuple[int, int]
    proven: bool
    """Whether every smaller set was tried and none changes the answer."""
    removal: Removal

    @property
    def mask(self) -> NDArray[np.bool_]:
        """[h, w]: where the patches are."""
        mask = np.zeros(self.grid, bool)
        mask[tuple(np.array(self.patches).T)] = True
        return mask

    def _repr_html_(self) -> str:
        return patches_html(self)

    def __str__(self) -> str:
        many, few = math.prod(self.grid), counted(len(self.patches), "patch", "patches")
        places = ", ".join(f"({row}, {column})" for row, column in self.patches)
        least = "no smaller set changes it" if self.proven else "the smallest set found; a smaller one may exist"
        first, last = (f"{self.probabilities[i]:.1%}" for i in (0, -1))
        moved = f"goes from {first} to {last}" if first != last else f"stays at {first}"
        answer = f"no longer {self.label!r}" if self.instead is None else f"{self.instead!r}"
        return (
            f"without {few} of {many}, {IN_WORDS[self.removal]}, the answer is {answer}: {least}\n"
            f"  (row, column): {places}\n"
            f"  {self.label!r} {moved}"
        )


def counterfactual(
    predictor: Predictor, image: ImageLike, explanation: Explanation | None = None, *, removal: Removal = "mean"
) -> Counterfactual:
    """The fewest patches found whose removal changes the answer.

    explanation: patches are removed in its map's order, with one forward pass each; without it each step tries every patch and removes the one
        that costs the answer most, n forward passes a step.
    removal: how patches are removed, as in `Removable`.

    Raises:
        VitralError: the answer stays when every patch is removed, or the model finds none of its labels in the picture.
    """
    picture = Removable(predictor, image, removal)
    search = _Search(picture)
    if explanation is None:
        steps = search.greedy()
    else:
        steps = search.prefix(order_of(picture.explained(explanation)))
    needed, proven = search.exhaust(search.prune(steps))
    path = search.without([steps[:i] for i in range(len(steps) + 1)] + [needed])  # [steps + 2, K]
    width = picture.grid[1]
    return Counterfactual(
        label=predictor.labels[search.target],
        instead=None if predictor.answers.independent else predictor.labels[int(path[-1].argmax())],
        patches=[divmod(i, width) for i in needed],
        steps=[divmod(i, width) for i in steps],
        probabilities=path[:, search.target].tolist(),
        grid=picture.grid,
        proven=proven,
        removal=removal,
    )


class _Search:
    """Sets of patches, as lists of their numbers 0..n-1, and whether the answer changes without them."""

    def __init__(self, picture: Removable) -> None:
        self.picture = picture
        self.target = int(self.without([[]])[0].argmax())
        if self.margins([[]])[0] < 0:
            raise VitralError("the model finds none of its labels in the picture, so there is no answer to change")

    def without(self, sets: list[list[int]]) -> NDArray[np.float64]:
        """The probabilities [S, K] once each set is removed."""
        kept = np.ones((len(sets), self.picture.count), bool)
        for row, removed in zip(kept, sets, strict=True):
            row[removed] = False
        return self.picture.probabilities(kept)

    def margins(self, sets: list[list[int]]) -> NDArray[np.float64]:
        """[S]: the answer's lead over the next class, or over 0.5 where a picture can have several labels; below 0 it has changed."""
        answers = self.without(sets)
        own = answers[:, self.target].copy()
        if self.picture.predictor.answers.independent:
            return own - 0.5
        answers[:, self.target] = -1
        return own - answers.max(axis=1)

    def greedy(self) -> list[int]:
        """Patches one by one, each the one whose removal costs most of the answer's lead, until the answer has changed."""
        taken: list[int] = []
        while left := [i for i in range(self.picture.count) if i not in taken]:
            margins = self.margins([[*taken, i] for i in left])
            taken.append(left[int(margins.argmin())])
            if margins.min() < 0:
                return taken
        raise self.stays()

    def prefix(self, order: NDArray[np.int64]) -> list[int]:
        """The first patches of the order, as many as change the answer."""
        for start in range(0, len(order), BATCH):
            prefixes = [order[: i + 1].tolist() for i in range(start, min(start + BATCH, len(order)))]
            changed = self.margins(prefixes) < 0
            if changed.any():
                return prefixes[int(changed.argmax())]
        raise self.stays()

    def prune(self, removed: list[int]) -> list[int]:
        """Put back the least needed patch, one after another, as long as the answer stays changed."""
        while len(removed) > 1:
            fewer = [removed[:i] + removed[i + 1 :] for i in range(len(removed))]
            margins = self.margins(fewer)
            if margins.min() >= 0:
                break
            removed = fewer[int(margins.argmin())]
        return removed

    def exhaust(self, removed: list[int]) -> tuple[list[int], bool]:
        """(set, proven): a smaller set that changes the answer, if trying all finds one, and whether the result is proven to be smallest."""
        n, spent = self.picture.count, 0
        for size in range(1, len(removed)):
            spent += math.comb(n, size)
            if spent > EXHAUSTIVE:
                return removed, False
            for sets in _chunks(n, size):
                margins = self.margins(sets)
                if margins.min() < 0:
                    return sets[int(margins.argmin())], True
        return removed, True

    def stays(self) -> VitralError:
        label = self.picture.predictor.labels[self.target]
        other = "mean" if self.picture.removal != "mean" else "blur"
        return VitralError(
            f"the answer is {label!r} even without any patch, so no set of them changes it; choose another removal, for instance {other}"
        )


def _chunks(n: int, size: int) -> Iterator[list[list[int]]]:
    """All sets of `size` of the numbers 0..n-1, many at a time."""
    every = itertools.combinations(range(n), size)
    while chunk := [list(chosen) for chosen in itertools.islice(every, 4 * BATCH)]:
        yield chunk
