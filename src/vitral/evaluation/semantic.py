"""Scores of semantic maps: the mean over the classes of intersection over union (mIoU), over all pixels of a split at the images' own sizes.

As mmseg counts (mmseg/evaluation/metrics/iou_metric.py): one confusion matrix of the whole split; pixels that are void in the truth do not count,
whatever is answered there; a class that is in neither truth nor answers has no IoU and is left out of the mean. Shares are in 0..1.

Axes: n images, K classes, h w of an image.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from vitral.answers.maps import at_original
from vitral.data.maps import VOID, MapTruth
from vitral.errors import VitralError, counted, some
from vitral.evaluation.evaluator import Evaluator, Kept, Scores
from vitral.evaluation.metrics import mean_defined, percent
from vitral.models.heads.outputs import Maps
from vitral.randomness import derive

DRAWS = 1000  # of the bootstrap
RIGHT, ANSWERED, TRUE = range(3)


@dataclass(frozen=True)
class ClassIoU:
    """One class: its pixels, those answered as it, and how far both are the same."""

    label: str
    iou: float | None
    precision: float | None
    recall: float | None
    share: float
    """Of all labelled pixels."""
    images: int
    """In which it is."""


@dataclass(frozen=True)
class MapScores(Scores):
    """All scores of semantic maps on one split."""

    HEADLINE: ClassVar[str] = "miou"
    TITLE: ClassVar[str] = "mIoU"

    images: int
    miou: float | None
    miou_interval: tuple[float, float] | None
    """95 %, by a bootstrap over images."""
    accuracy: float | None
    """Of all labelled pixels (aAcc)."""
    mean_accuracy: float | None
    """The mean of the classes' recall (mAcc)."""
    loss: float
    """Mean cross-entropy of a pixel, natural log."""
    classes: list[ClassIoU]
    confusion: NDArray[np.int64]
    """[K, K] pixels: row the true class, column the answered one."""

    def line(self) -> str:
        return f"mIoU {percent(self.miou)}  pixels {percent(self.accuracy)}  loss {self.loss:.4f}"

    def brief(self) -> dict[str, object]:
        return {"miou": self.miou, "miou_interval": self.miou_interval, "images": self.images}

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"confusion": self.confusion.tolist()}

    def table(self) -> str:
        wide = max([5, *(len(row.label) for row in self.classes)])
        lines = [f"{'class':{wide}}  {'images':>7}  {'pixels':>9}  {'IoU':>9}  {'precision':>9}  {'recall':>9}"]
        lines += [
            f"{row.label:{wide}}  {row.images:7,}  {percent(row.share):>9}  {percent(row.iou):>9}  {percent(row.precision):>9}  "
            f"{percent(row.recall):>9}"
            for row in self.classes
        ]
        return "\n".join(lines)

    def summary(self) -> str:
        between = ""
        if self.miou_interval is not None:
            low, high = self.miou_interval
            between = f" (95 % interval {low:.2%} to {high:.2%})"
        lines = [
            f"mIoU {percent(self.miou)}{between} on {counted(self.images, 'image')}",
            f"pixels right {percent(self.accuracy)}, mean of the classes {percent(self.mean_accuracy)}, loss {self.loss:.4f}",
        ]
        if absent := [row.label for row in self.classes if row.iou is None]:
            lines.append(f"in no map and no answer, so left out of the mean: {some(absent)}")
        worst = sorted((row for row in self.classes if row.iou is not None), key=lambda row: row.iou or 0.0)
        if len(worst) > 3:
            lines.append(f"weakest classes: {', '.join(f'{row.label} {percent(row.iou)}' for row in worst[:3])}")
        return "\n".join(lines)


class MapEvaluator(Evaluator):
    """Keeps one confusion matrix, and of each image what its classes share with the truth: `counts` [n, 3, K] pixels (right, answered, true)."""

    scores = MapScores

    def __init__(self, labels: list[str]) -> None:
        super().__init__(labels)
        K = len(labels)
        self.confusion = np.zeros((K, K), np.int64)
        self.counts: list[NDArray[np.int64]] = []
        self.losses: list[float] = []

    def add(self, outputs: Maps, targets: MapTruth) -> None:
        for logits, placed, truth in zip(outputs.logits, targets.placed, targets.maps, strict=True):
            self.add_image(at_original(logits, outputs.stride, placed), truth)

    def add_image(self, parts: Any, truth: torch.Tensor) -> None:
        """One image: logits [K, some rows, w] from the top to the bottom, and its classes [h, w]."""
        K, top, loss = len(self.labels), 0, 0.0
        own = np.zeros(K * K, np.int64)
        for logits in map(torch.as_tensor, parts):
            if not bool(torch.isfinite(logits).all()):
                raise VitralError(
                    f"logits: the model answers image {len(self.counts)} with NaN or infinity, so training has diverged; evaluate an earlier "
                    "checkpoint, or train with a lower learning rate or in float32"
                )
            wanted = truth[top : top + logits.shape[1]].long()  # [rows, w]
            top += logits.shape[1]
            known = wanted != VOID
            loss += float(F.cross_entropy(logits[None], wanted[None], ignore_index=VOID, reduction="sum"))
            pairs = wanted[known] * K + logits.argmax(0)[known]
            own += np.bincount(pairs.numpy(), minlength=K * K)
        matrix = own.reshape(K, K)
        self.confusion += matrix
        self.counts.append(np.stack([matrix.diagonal(), matrix.sum(0), matrix.sum(1)]))
        self.losses.append(loss)

    def kept(self) -> Kept:
        counts = np.array(self.counts, np.int64).reshape(-1, 3, len(self.labels))
        return {"confusion": self.confusion, "counts": counts, "losses": np.array(self.losses)}

    def take(self, kept: Kept) -> None:
        self.confusion = self.confusion + kept["confusion"]
        self.counts += list(kept["counts"])
        self.losses += kept["losses"].tolist()

    def result(self) -> MapScores:
        if not self.counts:
            raise VitralError("evaluation: there are no images to score; choose a split or folder that has some")
        counts = self.kept()["counts"]  # [n, 3, K]
        total = counts.sum(0)
        pixels = int(total[TRUE].sum())
        ious = [
            _ratio(right, union) for right, union in zip(total[RIGHT].tolist(), _unions(total).tolist(), strict=True)
        ]
        recalls = [_ratio(right, true) for right, true in zip(total[RIGHT].tolist(), total[TRUE].tolist(), strict=True)]
        classes = [
            ClassIoU(
                label, ious[k], _ratio(int(total[RIGHT, k]), int(total[ANSWERED, k])), recalls[k],
                int(total[TRUE, k]) / max(1, pixels), int((counts[:, TRUE, k] > 0).sum()),
            )
            for k, label in enumerate(self.labels)
        ]  # fmt: skip
        return MapScores(
            images=len(counts),
            miou=mean_defined(ious),
            miou_interval=bootstrap(counts),
            accuracy=_ratio(int(total[RIGHT].sum()), pixels),
            mean_accuracy=mean_defined(recalls),
            loss=float(np.sum(self.losses)) / max(1, pixels),
            classes=classes,
            confusion=self.confusion,
        )


def _unions(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """[..., K] of counts [..., 3, K]."""
    found: NDArray[np.int64] = counts[..., ANSWERED, :] + counts[..., TRUE, :] - counts[..., RIGHT, :]
    return found


def mean_ious(counts: NDArray[Any]) -> NDArray[np.float64]:
    """The mIoU of counts [..., 3, K]: [...], NaN where no class has one."""
    unions = _unions(counts)
    there = unions > 0
    ious = np.divide(counts[..., RIGHT, :], unions, out=np.zeros(unions.shape), where=there)
    number = there.sum(-1)
    return np.divide(ious.sum(-1), number, out=np.full(number.shape, np.nan), where=number > 0)


def bootstrap(counts: NDArray[np.int64], draws: int = DRAWS) -> tuple[float, float] | None:
    """The 95 % interval of the mIoU, by drawing as many images with replacement; None for fewer than two images, or without a class."""
    n, _, K = counts.shape
    if n < 2:
        return None
    random = np.random.default_rng(derive(0, "bootstrap", n))
    weights = random.multinomial(n, np.full(n, 1 / n), draws).astype(np.float64)  # [draws, n]
    found = mean_ious((weights @ counts.reshape(n, -1)).reshape(draws, 3, K))
    found = found[~np.isnan(found)]
    if not len(found):
        return None
    low, high = np.quantile(found, (0.025, 0.975)).tolist()
    return low, high


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
