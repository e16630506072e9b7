"""A model's answers beside those that need no training, on the same images: the commonest answer to all, and linear classifiers.

Axes: n images, K classes or labels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vitral.data.preprocess import Preprocess
from vitral.data.sources import DataSet, Split, spread
from vitral.evaluation.evaluate import EVALUATORS
from vitral.evaluation.metrics import wilson
from vitral.evaluation.probes import FEW_SHOT_L2, L2_GRID, Ridge, edges_and_colours, pixels
from vitral.evaluation.words import Told

SEEN = 2000  # training images that a linear classifier learns from, at most; with more a network learns better edges and colours
SCORED = 2000  # images that both answer, at most


@dataclass(frozen=True)
class Beside:
    """What needs no training, and how a model stands to it."""

    name: str
    right: float
    """Share of the images that it answers wholly right."""
    told: Told
    """How the model is, by the images that only one of the two answers right (McNemar's comparison, by Wilson's 95 % interval)."""


def beside(data: DataSet, split: str, steps: Preprocess, outputs: np.ndarray) -> list[Beside]:
    """The commonest answer and linear ones beside a model's outputs [n, K] on a split; none where a task has no answers that are wholly right.

    steps: how the model gets its images. A linear classifier reads them averaged to sides of up to 16 pixels; of few images another one reads
    their edges and colours.
    """
    right = EVALUATORS[data.task].right
    chosen = spread(len(data.splits[split]), SCORED)
    scored = data.splits[split].take(chosen)
    ours = right(outputs[chosen], scored.targets.values)
    if ours is None:
        return []
    train = data.splits["train"].thinned(SEEN)
    # [1, K]: the largest is the commonest class; of several labels those that most images have are above 0
    commonest = (data.splits["train"].targets.counts(len(data.labels)) / len(data.splits["train"]) - 0.5)[None]
    answers = {"the commonest answer to all": np.repeat(commonest, len(scored), 0)}
    if len(np.unique(train.targets.values, axis=0)) > 1:
        answers["a linear classifier on pixels"] = _linear(pixels, train, scored, steps, len(data.labels))
        if len(data.splits["train"]) <= SEEN:
            described = _linear(edges_and_colours, train, scored, steps, len(data.labels), chosen=True)
            answers["a linear classifier on edges and colours"] = described
    found = []
    for name, given in answers.items():
        theirs = right(given, scored.targets.values)
        assert theirs is not None
        found.append(Beside(name, float(theirs.mean()), stands(ours, theirs)))
    return found


def _linear(
    read: Callable[[Split, Preprocess], np.ndarray],
    train: Split,
    scored: Split,
    steps: Preprocess,
    classes: int,
    *,
    chosen: bool = False,
) -> np.ndarray:
    """Outputs [n, K] of a ridge on what `read` makes of the images. chosen: by the training images that are left out one by one."""
    ridge = Ridge(read(train, steps), train.targets.values)
    outputs = np.full((len(scored), classes), -np.inf)
    l2 = min(L2_GRID, key=ridge.left_out) if chosen else FEW_SHOT_L2
    outputs[:, ridge.classes] = ridge.scores(read(scored, steps), l2)
    return outputs


def stands(ours: np.ndarray, theirs: np.ndarray) -> Told:
    """How answers stand to others of the same images; both bool [n], whether each is right."""
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    if only_ours == only_theirs:
        return "no better"
    low, high = wilson(only_ours, only_ours + only_theirs)
    if low > 0.5:
        return "better"
    if high < 0.5:
        return "worse"
    return "unclear" if only_ours > only_theirs else "no better"
