"""From logits and targets to every figure that an evaluation reports. Pure numpy; fractions are in 0..1.

Axes: n images, K classes. A ratio with a denominator of zero is `None`, never a warning or a NaN: the recall of a class without images, the
precision of a class that is never predicted, the F1 of a class that is neither. Macro averages are over the classes that have images in the
split. A class that has images and is never predicted counts in them with a precision and an F1 of 0, as in scikit-learn (zero_division=0,
labels=those of the split): leaving it out would reward a model that never predicts it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitral.errors import VitralError, counted, some
from vitral.evaluation.calibration import ReliabilityBin, expected_calibration_error, reliability
from vitral.evaluation.evaluator import Gathering, Scores

TOP = 5
Z95 = 1.959963984540054  # standard normal quantile of 0.975
ROWS_AT_ONCE = 8192  # bounds the float64 copies: 50,000 images x 1,000 classes would be 400 MB each


@dataclass(frozen=True)
class ClassScore:
    """One class against all others; `support` counts its images, `predicted` the images predicted as this class."""

    label: str
    support: int
    predicted: int
    precision: float | None
    recall: float | None
    recall_interval: tuple[float, float] | None
    f1: float | None


def ratios(hits: int, support: int, predicted: int) -> dict[str, Any]:
    """The figures of a `ClassScore`: of `support` images of the class, and `predicted` predicted as it, `hits` are both."""
    return {
        "support": support,
        "predicted": predicted,
        "precision": hits / predicted if predicted else None,
        "recall": hits / support if support else None,
        "recall_interval": wilson(hits, support) if support else None,
        "f1": 2 * hits / (support + predicted) if support + predicted else None,
    }


def columns(kind: str, rows: Sequence[ClassScore], figures: Mapping[str, str]) -> str:
    """A line for each class, aligned: its images, and figures (title: field). kind: of a row, "class" or "label"."""
    wide = max([5, *(len(row.label) for row in rows)])
    lines = [f"{kind:{wide}}  {'images':>7}" + "".join(f"  {title:>9}" for title in figures)]
    for row in rows:
        shares = "".join(f"  {percent(getattr(row, field)):>9}" for field in figures.values())
        lines.append(f"{row.label:{wide}}  {row.support:7,}{shares}")
    return "\n".join(lines)


def averaged(rows: Sequence[ClassScore], kind: str, without: str) -> list[str]:
    """The classes without images, which averages leave out, in a line if there are any."""
    absent = [row.label for row in rows if not row.support]
    over = f"{len(rows) - len(absent)} of {len(rows)} {kind}"
    return [f"averages are over {over}: {without} {some(absent)}"] if absent else []


def weakest(rows: Sequence[ClassScore], kind: str, title: str, field: str) -> list[str]:
    """The three weakest classes by one of their figures, in a line if there are more with images."""
    worst = sorted((row for row in rows if row.support), key=lambda row: getattr(row, field) or 0.0)
    said = ", ".join(f"{row.label} {percent(getattr(row, field))}" for row in worst[:3])
    return [f"weakest {kind} by {title}: {said}"] if len(worst) > 3 else []


@dataclass(frozen=True)
class Evaluation(Scores):
    """All scores of one model on one split; see `score`."""

    HEADLINE: ClassVar[str] = "top1"
    TITLE: ClassVar[str] = "top-1"

    images: int
    top1: float
    top1_interval: tuple[float, float]
    top5: float | None
    loss: float
    ece: float
    macro_precision: float | None
    macro_recall: float | None
    macro_f1: float | None
    balanced_accuracy: float | None
    classes: list[ClassScore]
    confusion: NDArray[np.int64]
    reliability: list[ReliabilityBin]

    @property
    def labels(self) -> list[str]:
        return [row.label for row in self.classes]

    def line(self) -> str:
        return f"top-1 {self.top1:.2%}  loss {self.loss:.4f}"

    def brief(self) -> dict[str, object]:
        return {"top1": self.top1, "top1_interval": list(self.top1_interval), "images": self.images}

    def to_json(self) -> dict[str, Any]:
        """A dict for `json.dumps`: fractions 0..1, intervals (low, high), a confusion row a true class."""
        return asdict(self) | {"confusion": self.confusion.tolist()}

    def table(self) -> str:
        return columns("class", self.classes, {"precision": "precision", "recall": "recall", "F1": "f1"})

    def summary(self) -> str:
        low, high = self.top1_interval
        lines = [f"top-1 {self.top1:.2%} (95 % interval {low:.2%} to {high:.2%}) on {counted(self.images, 'image')}"]
        if self.top5 is not None:
            lines.append(f"top-5 {self.top5:.2%}")
        lines.append(
            f"macro F1 {percent(self.macro_f1)}, balanced accuracy {percent(self.balanced_accuracy)}, "
            f"loss {self.loss:.4f}, calibration error {self.ece:.2%}"
        )
        lines += averaged(self.classes, "classes", "no images of")
        if missed := [row.label for row in self.classes if row.support and not row.predicted]:
            lines.append(f"never predicted, so with precision and F1 of 0 in the averages: {some(missed)}")
        return "\n".join([*lines, *weakest(self.classes, "classes", "F1", "f1")])

    def spread(self, outputs: NDArray[Any], targets: NDArray[Any]) -> dict[str, object]:
        """How the predicted classes and the mistakes are distributed.

        Args:
            outputs: logits [n, K]. targets: [n].

        Returns:
            largest: share of the most predicted class. answer_entropy: of the predicted classes' shares, in nats. separation: area under the ROC
            curve of confidence against being right (about 0.5 where labels are wrong at random, 0.8 and more where the mistakes are hard
            images), None if all or none are right. repeated: how often two mistakes are of one kind (true class, predicted class), over the same
            if all kinds were equally frequent (1 where labels are wrong at random, several where classes look alike), None under two mistakes.
        """
        shares = np.bincount(outputs.argmax(1), minlength=outputs.shape[1]) / len(outputs)
        seen = shares[shares > 0]
        shifted = outputs.astype(np.float64) - outputs.max(1, keepdims=True)
        sure, right = 1 / np.exp(shifted).sum(1), outputs.argmax(1) == targets  # [n]
        separation = None
        if 0 < right.sum() < len(right):
            order = np.searchsorted(np.sort(sure[~right]), sure[right], side="left")
            ties = np.searchsorted(np.sort(sure[~right]), sure[right], side="right") - order
            separation = round(float((order + ties / 2).mean() / (~right).sum()), 4)
        mistakes = self.confusion.copy()
        np.fill_diagonal(mistakes, 0)
        total = int(mistakes.sum())
        of_a_kind = float((mistakes * (mistakes - 1)).sum())
        kinds = mistakes.size - len(mistakes)
        repeated = round(of_a_kind * kinds / (total * (total - 1)), 4) if total > 1 and kinds else None
        return {
            "largest": round(float(shares.max()), 6),
            "answer_entropy": round(float(-(seen * np.log(seen)).sum()), 6),
            "separation": separation,
            "repeated": repeated,
        }


class ClassEvaluator(Gathering):
    """One class an image."""

    scores = Evaluation

    def score(self, outputs: NDArray[Any], targets: NDArray[Any]) -> Evaluation:
        return score(outputs, targets, self.labels)

    @staticmethod
    def right(outputs: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any]:
        return outputs.argmax(1) == targets


def score(logits: ArrayLike, targets: ArrayLike, labels: list[str]) -> Evaluation:
    """Every score of one split.

    Args:
        logits: [n, K] float, before the softmax. Of equal logits, the lower class index counts as the higher.
        targets: [n] int, the true class of each image, 0..K-1.
        labels: K class names, in the order of the logits.

    Returns:
        An `Evaluation`: top-1 with its Wilson 95 % interval, top-5 when there are more than five classes,
        mean cross-entropy (natural log), ECE over 15 bins, a row a class, macro averages, confusion matrix.

    Raises:
        VitralError: there are no images, or a logit is not a finite float32 number.
    """
    logits, targets = np.asarray(logits), np.asarray(targets)
    expected = (len(targets), len(labels))
    assert logits.shape == expected, f"logits {logits.shape} for (targets, labels) {expected}"
    if len(logits) == 0:
        raise VitralError("evaluation: there are no images to score; choose a split or folder that has some")
    assert ((targets >= 0) & (targets < len(labels))).all(), "a target is outside the classes"

    losses, confidence, predicted, rank = _per_image(logits, targets.astype(np.int64))
    correct = predicted == targets
    confusion = confusion_matrix(targets, predicted, len(labels))
    counts = zip(
        labels, confusion.diagonal().tolist(), confusion.sum(1).tolist(), confusion.sum(0).tolist(), strict=True
    )
    classes = [ClassScore(label, **ratios(*each)) for label, *each in counts]
    bins = reliability(confidence, correct)
    here = [row for row in classes if row.support]
    macro_recall = mean_defined([row.recall for row in here])
    return Evaluation(
        images=len(targets),
        top1=float(correct.mean()),
        top1_interval=wilson(int(correct.sum()), len(targets)),
        top5=float((rank < TOP).mean()) if len(labels) > TOP else None,
        loss=float(losses.mean()),
        ece=expected_calibration_error(bins),
        macro_precision=mean_defined([row.precision or 0.0 for row in here]),
        macro_recall=macro_recall,
        macro_f1=mean_defined([row.f1 for row in here]),
        balanced_accuracy=macro_recall,  # the same figure by its other name
        classes=classes,
        confusion=confusion,
        reliability=bins,
    )


def wilson(hits: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """The Wilson (1927) score interval of a proportion: sensible at 0 %, at 100 % and for few trials."""
    assert 0 <= hits <= trials > 0, f"{hits} of {trials}"
    share = hits / trials
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / scale
    # At the ends the formula gives exactly 0 and 1; rounding must not move them past the share.
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def confusion_matrix(targets: NDArray[np.integer], predicted: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """[K, K] counts: row the true class, column the predicted one."""
    flat = targets.astype(np.int64) * classes + predicted
    counts = np.bincount(flat, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)  # [K*K] -> [K, K]


def _per_image(
    logits: NDArray[Any], targets: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Of each image: loss, probability of the predicted class, predicted class, rank of the true class."""
    n, classes = logits.shape
    losses, confidence = np.empty(n), np.empty(n)
    predicted, rank = np.empty(n, np.int64), np.empty(n, np.int64)
    for start in range(0, n, ROWS_AT_ONCE):
        here = slice(start, start + ROWS_AT_ONCE)
        rows = logits[here].astype(np.float64)  # [b, K]
        check_finite(rows, start)
        truth = targets[here, None]  # [b, 1]
        rows -= rows.max(axis=1, keepdims=True)
        log_total = np.log(np.exp(rows).sum(axis=1))  # [b]; the largest logit is now 0
        own = np.take_along_axis(rows, truth, axis=1)  # [b, 1]
        losses[here] = log_total - own[:, 0]
        confidence[here] = np.exp(-log_total)
        predicted[here] = rows.argmax(axis=1)
        rank[here] = ((rows > own) | ((rows == own) & (np.arange(classes) < truth))).sum(axis=1)
    return losses, confidence, predicted, rank


def check_finite(rows: NDArray[np.float64], start: int) -> None:
    bad = ~(np.abs(rows) <= np.finfo(np.float32).max).all(axis=1)  # NaN compares false
    if bad.any():
        raise VitralError(
            f"logits: the model answers image {start + int(bad.argmax())} with NaN or infinity, so training "
            "has diverged; evaluate an earlier checkpoint, or train with a lower learning rate or in float32"
        )


def mean_defined(ratios: list[float | None]) -> float | None:
    defined = [ratio for ratio in ratios if ratio is not None]
    return math.fsum(defined) / len(defined) if defined else None


def percent(ratio: float | None) -> str:
    return "undefined" if ratio is None else f"{ratio:.2%}"
