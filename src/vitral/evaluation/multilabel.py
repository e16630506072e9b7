"""Scores where an image can have several labels, or none: each label is a yes or no of its own, yes from a probability of 0.5.

Axes: n images, K labels. As in `vitral.evaluation.metrics` a ratio whose denominator is zero is `None`, and macro averages are over the labels
that occur in the split. Average precision is the area under the precision-recall curve as a sum of steps, without interpolation (scikit-learn's,
https://scikit-learn.org/stable/modules/model_evaluation.html#precision-recall-f-measure-metrics), not PASCAL VOC's, which interpolates.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitral.errors import VitralError, counted
from vitral.evaluation import metrics
from vitral.evaluation.calibration import ReliabilityBin, expected_calibration_error, reliability
from vitral.evaluation.evaluator import Gathering, Scores
from vitral.evaluation.metrics import (
    ClassScore,
    percent,
)


@dataclass(frozen=True)
class LabelScore(ClassScore):
    """One label; `support` counts the images that have it, `predicted` those predicted to have it."""

    average_precision: float | None


@dataclass(frozen=True)
class MultiLabelEvaluation(Scores):
    """All scores of one model on one split; see `score_labels`."""

    HEADLINE: ClassVar[str] = "map"
    TITLE: ClassVar[str] = "mAP"

    images: int
    map: float | None
    """Mean average precision over the labels that occur; None if none does."""
    micro_f1: float | None
    macro_f1: float | None
    exact_match: float
    exact_match_interval: tuple[float, float]
    loss: float
    ece: float
    classes: list[LabelScore]
    reliability: list[ReliabilityBin]
    """Over all n x K answers: the probability of yes against the share that are yes."""

    @property
    def labels(self) -> list[str]:
        return [row.label for row in self.classes]

    def line(self) -> str:
        return f"mAP {percent(self.map)}  F1 {percent(self.micro_f1)}  loss {self.loss:.4f}"

    def brief(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in ("map", "micro_f1", "macro_f1", "exact_match", "images")}

    def to_json(self) -> dict[str, Any]:
        """A dict for `json.dumps`: fractions 0..1, intervals (low, high)."""
        return asdict(self)

    def table(self) -> str:
        figures = {"AP": "average_precision", "precision": "precision", "recall": "recall", "F1": "f1"}
        return metrics.columns("label", self.classes, figures)

    def summary(self) -> str:
        low, high = self.exact_match_interval
        lines = [
            f"mAP {percent(self.map)} on {counted(self.images, 'image')}",
            f"F1 micro {percent(self.micro_f1)}, macro {percent(self.macro_f1)}; all labels right on {self.exact_match:.2%} of the images "
            f"(95 % interval {low:.2%} to {high:.2%})",
            f"loss {self.loss:.4f}, calibration error {self.ece:.2%}",
        ]
        lines += metrics.averaged(self.classes, "labels", "no image has")
        return "\n".join([*lines, *metrics.weakest(self.classes, "labels", "average precision", "average_precision")])


class LabelEvaluator(Gathering):
    """Several labels an image, or none."""

    scores = MultiLabelEvaluation

    def score(self, outputs: NDArray[Any], targets: NDArray[Any]) -> MultiLabelEvaluation:
        return score_labels(outputs, targets, self.labels)

    @staticmethod
    def right(outputs: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any]:
        return ((outputs >= 0) == (targets > 0.5)).all(1)


def score_labels(logits: ArrayLike, targets: ArrayLike, labels: list[str]) -> MultiLabelEvaluation:
    """Every score of one split.

    Args:
        logits: [n, K] float, before the sigmoid; from 0 a label is predicted.
        targets: [n, K], 1 where the image has the label, else 0.
        labels: K names, in the order of the logits.

    Returns:
        A `MultiLabelEvaluation`: mean average precision, F1 over all answers (micro) and averaged over labels (macro), the share of images
        with all labels right and its Wilson 95 % interval, the mean over images of the sum of binary cross-entropies (natural log), ECE over
        15 bins of the probability of yes, a row a label.

    Raises:
        VitralError: there are no images, or a logit is not a finite float32 number.
    """
    logits, truth = np.asarray(logits), np.asarray(targets) > 0.5
    expected = (len(truth), len(labels))
    assert logits.shape == truth.shape == expected, f"logits {logits.shape}, targets {truth.shape}, labels {expected}"
    if len(logits) == 0:
        raise VitralError("evaluation: there are no images to score; choose a split or folder that has some")
    metrics.check_finite(logits, 0)
    said = logits >= 0
    classes = [_label_score(logits[:, k], said[:, k], truth[:, k], label) for k, label in enumerate(labels)]
    exact = int((said == truth).all(axis=1).sum())
    hits, answers = int((said & truth).sum()), int(said.sum() + truth.sum())
    # softplus(x) - y x is the cross-entropy of yes and no without an overflow
    losses = np.logaddexp(0, logits, dtype=np.float64) - np.where(truth, logits, 0)
    bins = reliability(sigmoid(logits).ravel(), truth.ravel())
    occurring = [row for row in classes if row.support]
    return MultiLabelEvaluation(
        images=len(truth),
        map=metrics.mean_defined([row.average_precision for row in occurring]),
        micro_f1=2 * hits / answers if answers else None,
        macro_f1=metrics.mean_defined([row.f1 for row in occurring]),
        exact_match=exact / len(truth),
        exact_match_interval=metrics.wilson(exact, len(truth)),
        loss=float(losses.sum(axis=1).mean()),
        ece=expected_calibration_error(bins),
        classes=classes,
        reliability=bins,
    )


def average_precision(scores: NDArray[np.floating], truth: NDArray[np.bool_]) -> float | None:
    """Sum over thresholds of precision x rise of recall; images of one score share a threshold. None without a true image.

    scores, truth: [n].
    """
    if not truth.any():
        return None
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # the last image of each threshold
    hits = np.cumsum(truth[order])[last]
    precision = hits / (np.flatnonzero(last) + 1)
    return float((precision * np.diff(hits, prepend=0)).sum() / truth.sum())


def sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities of yes, without an overflow."""
    small = np.exp(-np.abs(logits.astype(np.float64)))
    return np.where(logits >= 0, 1.0, small) / (1 + small)


def _label_score(logits: NDArray[Any], said: NDArray[np.bool_], truth: NDArray[np.bool_], label: str) -> LabelScore:
    counts = metrics.ratios(int((said & truth).sum()), int(truth.sum()), int(said.sum()))
    return LabelScore(label, **counts, average_precision=average_precision(logits, truth))
