"""Scores of what a detector finds: COCO's AP of boxes and masks, by size and class, and the mistakes that cost most.

Axes: n images, K classes, m objects of all images.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from vitral.answers.objects import SURE, detections
from vitral.data.annotated import Annotated, Object, Runs
from vitral.data.detections import Detections
from vitral.data.shapes import as_runs
from vitral.data.things import ThingTruth
from vitral.errors import counted, some
from vitral.evaluation.evaluator import Evaluator, Kept, Scores
from vitral.evaluation.metrics import percent
from vitral.evaluation.mistakes import costs, counts, judged, overlaps, surest
from vitral.evaluation.precision import AREAS, MOST, RESAMPLED, Interval, average_precision, counting
from vitral.models.heads.outputs import Found

POINTS = tuple(range(0, 101, 4))  # levels of recall of a curve that is kept


@dataclass(frozen=True)
class ObjectScore:
    """One class."""

    label: str
    support: int
    """Objects, without crowds."""
    images: int
    """In which it is."""
    ap: float | None
    ap50: float | None
    mask_ap: float | None
    curve: list[float] | None
    """Precision at recalls 0, .04, ... 1 and an overlap of .5; None without an object."""


@dataclass(frozen=True)
class ObjectScores(Scores):
    """All scores of found objects on one split."""

    HEADLINE: ClassVar[str] = "ap"
    TITLE: ClassVar[str] = "AP"

    images: int
    objects: int
    """Without crowds."""
    ap: float | None
    """Mean over overlaps from .5 to .95, and over classes."""
    ap_interval: Interval | None
    """95 %, by drawing the images anew."""
    ap50: float | None
    ap50_interval: Interval | None
    ap75: float | None
    ap_by_area: dict[str, float | None]
    """small, medium and large objects"""
    mask_ap: float | None
    mask_ap50: float | None
    mask_ap_interval: Interval | None
    loss: float
    """1 less the mean over objects of the largest score x overlap of an answer of its class."""
    threshold: float
    """Score from which the answers of this split have the highest F1 at an overlap of .5: what a model that was validated on it answers from."""
    mistakes: dict[str, int]
    """Hits and kinds of mistake among answers that score `threshold` or more."""
    costs: dict[str, float]
    """What AP at .5 would gain if no mistake of a kind were made."""
    classes: list[ObjectScore]
    counting: int = MOST
    """Answers of an image and class that count."""

    def line(self) -> str:
        masks = "" if self.mask_ap is None else f"  masks {percent(self.mask_ap)}"
        return f"AP {percent(self.ap)}  AP50 {percent(self.ap50)}{masks}"

    def brief(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in ("ap", "ap50", "ap_interval", "mask_ap", "images")}

    def chosen(self) -> dict[str, object]:
        return {"threshold": self.threshold}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def table(self) -> str:
        wide = max([5, *(len(row.label) for row in self.classes)])
        masks = any(row.mask_ap is not None for row in self.classes)
        lines = [f"{'class':{wide}}  {'objects':>7}  {'AP':>9}  {'AP50':>9}{'  mask AP' if masks else ''}"]
        lines += [
            f"{row.label:{wide}}  {row.support:7,}  {percent(row.ap):>9}  {percent(row.ap50):>9}"
            f"{f'  {percent(row.mask_ap):>7}' if masks else ''}"
            for row in self.classes
        ]
        return "\n".join(lines)

    def summary(self) -> str:
        def between(interval: Interval | None) -> str:
            return "" if interval is None else f" (95 % interval {interval[0]:.2%} to {interval[1]:.2%})"

        lines = [
            f"AP {percent(self.ap)}{between(self.ap_interval)}, AP50 {percent(self.ap50)}, AP75 {percent(self.ap75)} on "
            f"{counted(self.images, 'image')} with {counted(self.objects, 'object')}"
        ]
        if self.mask_ap is not None:
            lines.append(
                f"masks: AP {percent(self.mask_ap)}{between(self.mask_ap_interval)}, AP50 {percent(self.mask_ap50)}"
            )
        if self.counting > MOST:
            lines.append(
                f"{self.counting:,} answers an image and class count, as an image has so many objects of one; COCO's own tools count {MOST}"
            )
        areas = [f"{area} {percent(value)}" for area, value in self.ap_by_area.items() if value is not None]
        lines += [f"AP by size: {', '.join(areas)}"] if areas else []
        if worst := [(kind, gain) for kind, gain in self.costs.items() if gain > 0]:
            worst.sort(key=lambda pair: -pair[1])
            lines.append("AP50 that mistakes cost: " + ", ".join(f"{kind} {gain:.1%}" for kind, gain in worst))
        if absent := [row.label for row in self.classes if row.ap is None]:
            lines.append(f"without an object, so left out of the means: {some(absent)}")
        weak = sorted((row for row in self.classes if row.ap is not None), key=lambda row: row.ap or 0.0)
        if len(weak) > 3:
            lines.append(f"weakest classes: {', '.join(f'{row.label} {percent(row.ap)}' for row in weak[:3])}")
        return "\n".join(lines)


class ObjectEvaluator(Evaluator):
    """Keeps what was found and what is there, masks as run lengths."""

    scores = ObjectScores

    def __init__(self, labels: list[str]) -> None:
        super().__init__(labels)
        self.found: list[Detections] = []
        self.truth: list[Annotated] = []

    def add(self, outputs: Found, targets: ThingTruth) -> None:
        self.found += detections(outputs, targets.placed, masks=outputs.masks is not None)
        self.truth += targets.annotated

    def result(self) -> ObjectScores:
        return score_objects(self.found, self.truth, self.labels)

    def glance(self) -> ObjectScores:
        return score_objects(self.found, self.truth, self.labels, report=False)

    def kept(self) -> Kept:
        truth = [_answer(one) for one in self.truth]
        marks = [
            (each.crowd, each.hard, np.nan if each.area is None else each.area)
            for one in self.truth
            for each in one.objects
        ]
        sizes = np.array([(one.height, one.width) for one in self.truth], np.int64).reshape(-1, 2)
        own = {f"truth_{name}": value for name, value in _packed(truth).items()}
        return {**_packed(self.found), **own, "marks": np.array(marks, np.float64).reshape(-1, 3), "sizes": sizes}

    def take(self, kept: Kept) -> None:
        sizes = kept["sizes"].tolist()
        self.found += _unpacked(kept, "", sizes)
        marks = iter(kept["marks"].tolist())
        for one, (height, width) in zip(_unpacked(kept, "truth_", sizes), sizes, strict=True):
            shapes = one.masks or (None,) * len(one)
            objects = tuple(
                Object(
                    int(k),
                    tuple(box),
                    None if runs is None or not runs.counts else runs,
                    bool(crowd),
                    bool(hard),
                    area=None if np.isnan(area) else area,
                )
                for k, box, runs, (crowd, hard, area) in zip(
                    one.classes, one.boxes.tolist(), shapes, marks, strict=False
                )
            )
            self.truth.append(Annotated(height, width, objects=objects))


def _answer(one: Annotated) -> Detections:
    """An image's annotation in the form of what is found; an object without a shape has a mask of no runs."""
    none = Runs(one.height, one.width, b"")
    shapes = tuple(none if each.shape is None else as_runs(each.shape, one.height, one.width) for each in one.objects)
    boxes = np.array([each.box for each in one.objects], np.float64).reshape(-1, 4)
    return Detections(np.array([each.index for each in one.objects], np.int64), np.ones(len(boxes)), boxes, shapes)


def _packed(images: Sequence[Detections]) -> Kept:
    """The rows of all images one after the other, and how many are of each; run lengths as bytes, and how many are of each row (-1: no mask)."""
    runs = [row.counts for one in images for row in one.masks or ()]
    lengths = [len(row.counts) for one in images for row in one.masks or ()]
    if any(one.masks is None for one in images):
        runs, lengths = [], [-1] * sum(map(len, images))
    return {
        "rows": np.array([len(one) for one in images], np.int64),
        "classes": np.concatenate([np.zeros(0, np.int64), *(one.classes for one in images)]),
        "scores": np.concatenate([np.zeros(0), *(one.scores for one in images)]),
        "boxes": np.concatenate([np.zeros((0, 4)), *(one.boxes for one in images)]),
        "runs": np.frombuffer(b"".join(runs), np.uint8),
        "lengths": np.array(lengths, np.int64),
    }


def _unpacked(kept: Kept, what: str, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
    lengths, runs = kept[f"{what}lengths"], kept[f"{what}runs"].tobytes()
    ends = np.concatenate([[0], np.cumsum(lengths.clip(0))]).tolist()
    images, start = [], 0
    for count, (height, width) in zip(kept[f"{what}rows"].tolist(), sizes, strict=True):
        part = slice(start, start + count)
        masks = None
        if not (lengths < 0).any():
            masks = tuple(Runs(height, width, runs[ends[i] : ends[i + 1]]) for i in range(start, start + count))
        classes, scores, boxes = (kept[f"{what}{name}"][part] for name in ("classes", "scores", "boxes"))
        images.append(Detections(classes, scores, boxes, masks))
        start += count
    return images


def score_objects(
    found: Sequence[Detections], truth: Sequence[Annotated], labels: Sequence[str], *, report: bool = True
) -> ObjectScores:
    """All scores of what was found in n images; those of masks only where everything that was found has one and some object does.

    report: with intervals and mistakes, which take longest.

    Raises:
        VitralError: there are no images, or a score or box is not finite.
    """
    K = len(labels)
    resampled = RESAMPLED if report else 0
    boxes = average_precision(found, truth, K, resampled=resampled)
    shapes = any(each.shape is not None for one in truth for each in one.objects)
    masked = shapes and all(one.masks is not None for one in found)
    masks = average_precision(found, truth, K, "masks", resampled=resampled) if masked else None
    real = [[each for each in one.objects if not (each.crowd or each.hard)] for one in truth]
    support, images = np.zeros(K, np.int64), np.zeros(K, np.int64)
    for one in real:
        for each in one:
            support[each.index] += 1
        images[sorted({each.index for each in one})] += 1
    verdicts = [judged(one, each) for one, each in zip(found, truth, strict=True)]
    threshold = surest(found, verdicts, int(support.sum()))
    threshold = SURE if threshold is None else float(f"{threshold:.3g}")
    shown = [one.take(one.scores >= threshold) for one in found]
    classes = [
        ObjectScore(
            label, int(support[k]), int(images[k]), boxes.of_class(k), boxes.of_class(k, 0),
            None if masks is None else masks.of_class(k),
            [round(p, 4) for p in boxes.curve(k)[list(POINTS)].tolist()] if support[k] else None,
        )
        for k, label in enumerate(labels)
    ]  # fmt: skip
    return ObjectScores(
        images=len(truth),
        objects=int(support.sum()),
        ap=boxes.ap,
        ap_interval=boxes.interval,
        ap50=boxes.ap50,
        ap50_interval=boxes.interval50,
        ap75=boxes.ap75,
        ap_by_area={area: boxes.of_area(area) for area in AREAS[1:]},
        mask_ap=None if masks is None else masks.ap,
        mask_ap50=None if masks is None else masks.ap50,
        mask_ap_interval=None if masks is None else masks.interval,
        loss=_loss(found, real),
        threshold=threshold,
        mistakes=counts([judged(one, real) for one, real in zip(shown, truth, strict=True)]) if report else {},
        costs={kind: round(gain, 6) for kind, gain in costs(found, truth, verdicts, K).items()} if report else {},
        classes=classes,
        counting=counting(truth),
    )


def _loss(found: Sequence[Detections], real: Sequence[Sequence[Object]]) -> float:
    best: list[float] = []
    for one, objects in zip(found, real, strict=True):
        same = one.classes[:, None] == np.array([each.index for each in objects], np.int64)  # [n, m]
        best += (overlaps(one.boxes, objects) * same * one.scores[:, None]).max(0, initial=0.0).tolist()
    return 1 - float(np.mean(best)) if best else 0.0
