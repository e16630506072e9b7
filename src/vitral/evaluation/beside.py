"""Answers that need no training, and a model's beside them on the same images: the commonest answer to all, and linear classifiers.

Axes: n images, K classes or labels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from vitral.data.dataset import DataSet, Split, spread
from vitral.data.preprocess import Preprocess
from vitral.evaluation.evaluate import EVALUATORS
from vitral.evaluation.evaluator import Evaluator, Gathering
from vitral.evaluation.metrics import wilson
from vitral.evaluation.probes import FEW_SHOT_L2, L2_GRID, Ridge, edges_and_colours, features, pixels
from vitral.evaluation.words import Told
from vitral.predict import Predictor

SEEN = 2000  # training images that a linear classifier learns from, at most; with more a network learns better edges and colours
SCORED = 2000  # images that are answered, at most


@dataclass(frozen=True)
class Beside:
    """What needs no training, and how a model stands to it."""

    name: str
    right: float
    """Share of the images that it answers entirely right."""
    told: Told
    """How the model compares, by the images that only one of the two gets right (McNemar's comparison, by Wilson's 95 % interval)."""


def beside(data: DataSet, split: str, steps: Preprocess, ours: Evaluator) -> list[Beside]:
    """What needs no training beside a model's own answers on a split; empty for a task without right and wrong answers. steps: the model's."""
    if not isinstance(ours, Gathering):
        return []
    chosen = spread(len(data.splits[split]), SCORED)
    scored = data.splits[split].take(chosen)
    right = ours.right(ours.kept()["logits"][chosen], scored.targets.values)
    if right is None:
        return []
    found = _untrained(data, scored, steps)
    return [Beside(name, float(theirs.mean()), stands(right, theirs)) for name, theirs in found.items()]


def baselines(data: DataSet, split: str, steps: Preprocess, frozen: Predictor | None = None) -> dict[str, float]:
    """By name, the share of a split's images that what needs no training answers entirely right: what a run has to beat. steps: the run's.

    frozen: the weights that training starts from; their features are read instead of pixels. Empty without the split, and for a task without
    right and wrong answers.
    """
    if split not in data.splits:
        return {}
    found = _untrained(data, data.splits[split].thinned(SCORED), steps, frozen)
    return {name: float(right.mean()) for name, right in found.items()}


def _untrained(
    data: DataSet, scored: Split, steps: Preprocess, frozen: Predictor | None = None
) -> dict[str, np.ndarray]:
    """By name, bool [n]: which of the images what needs no training answers entirely right.

    A linear classifier reads frozen features, or images averaged to sides of up to 16 pixels; for few images another one reads edges and colours.
    """
    right, train = EVALUATORS[data.task].right, data.splits["train"].thinned(SEEN)
    # [1, K]: the commonest class is the largest; of several labels those that most images have are above 0
    commonest = (data.splits["train"].targets.counts(len(data.labels)) / len(data.splits["train"]) - 0.5)[None]
    answers = {"the commonest answer to all": np.repeat(commonest, len(scored), 0)}
    if right(commonest, scored.targets.values[:1]) is None:
        return {}
    if len(np.unique(train.targets.values, axis=0)) > 1:
        linear = partial(_linear, train, scored, len(data.labels))
        if frozen is not None:
            answers["a linear classifier on frozen features"] = linear(lambda split: features(frozen, split))
        else:
            answers["a linear classifier on pixels"] = linear(lambda split: pixels(split, steps))
            if len(data.splits["train"]) <= SEEN:
                described = linear(lambda split: edges_and_colours(split, steps), chosen=True)
                answers["a linear classifier on edges and colours"] = described
    found = {name: right(outputs, scored.targets.values) for name, outputs in answers.items()}
    return {name: each for name, each in found.items() if each is not None}


def _linear(
    train: Split, scored: Split, classes: int, read: Callable[[Split], np.ndarray], *, chosen: bool = False
) -> np.ndarray:
    """Outputs [n, K] of ridge regression on what `read` makes of a split's images. chosen: its penalty is, by leaving out one image at a time."""
    ridge = Ridge(read(train), train.targets.values)
    outputs = np.full((len(scored), classes), -np.inf)
    l2 = min(L2_GRID, key=ridge.left_out) if chosen else FEW_SHOT_L2
    outputs[:, ridge.classes] = ridge.scores(read(scored), l2)
    return outputs


def stands(ours: np.ndarray, theirs: np.ndarray) -> Told:
    """How answers compare with others to the same images; both bool [n], whether each is right."""
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    if only_ours == only_theirs:
        return "no better"
    low, high = wilson(only_ours, only_ours + only_theirs)
    if low > 0.5:
        return "better"
    if high < 0.5:
        return "worse"
    return "unclear" if only_ours > only_theirs else "no better"
