"""Another way of running a model beside the model as it is, on the same images: points of the score lost, and time won."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from vitral.data.dataset import Split
from vitral.data.resample import Pixels
from vitral.deploy.fastest.contest import ROUNDS, Way, defined, lost_or_won, timed
from vitral.evaluation.evaluator import Evaluator, Gathering, Scores

BATCH = 8  # images in one forward pass when speeds are compared
Scored = tuple[Scores, Evaluator]
"""What `evaluate` gives."""
Pair = tuple[float, float]
"""Of the model as it is, and of the other way."""


@dataclass(frozen=True)
class Price:
    """What another way costs."""

    images: int
    scores: Pair
    """The task's headline score, a share of 1."""
    only_right: tuple[int, int]
    """Images that one of the two answers right and the other does not."""
    rates: Pair
    """Images a second in batches of `BATCH`."""
    faster: float
    """Time of a batch as it is over that of the other way, the median over turns."""

    @property
    def lost(self) -> float:
        """Points of the score."""
        return 100 * (self.scores[0] - self.scores[1])

    def to_json(self) -> dict[str, object]:
        return {**asdict(self), "lost_points": self.lost, "batch_size": BATCH}

    def lines(self, title: str, name: str) -> str:
        """title: of the score. name: of the other way."""
        return (
            f"{title} {self.scores[0]:.2%} as it is, {self.scores[1]:.2%} {name}: {lost_or_won(self.lost)}; of {self.images:,} images "
            f"{self.only_right[0]:,} are right only as it is, {self.only_right[1]:,} only {name}\n"
            f"images a second in batches of {BATCH}: {self.rates[0]:,.1f} as it is, {self.rates[1]:,.1f} {name}, {self.faster:.2f} times as many"
        )


def price(
    ways: tuple[Way, Way],
    scored: tuple[Scored, Scored],
    split: Split,
    views: Sequence[Sequence[Pixels]],
) -> Price:
    """What the second way costs beside the first.

    Args:
        scored: each on the split, of models with one answer an image.
        views: for each way images as it sees them, for speed.
    """
    first, second = (_right(evaluator) for _, evaluator in scored)
    turns = timed(ways, views, BATCH, ROUNDS)  # [rounds, 2]
    rates = BATCH / np.median(turns, axis=0)
    return Price(
        len(split),
        (defined(scored[0][0], split), defined(scored[1][0], split)),
        (int((first & ~second).sum()), int((second & ~first).sum())),
        (float(rates[0]), float(rates[1])),
        float(np.median(turns[:, 0] / turns[:, 1])),
    )


def _right(evaluator: Evaluator) -> np.ndarray:
    """bool [n]: whether the answer of each image is entirely right."""
    assert isinstance(evaluator, Gathering)
    right = evaluator.right(*evaluator.kept().values())
    assert right is not None
    return right
