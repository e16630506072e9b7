"""Scores of panoptic answers: PQ of a split (`vitral.evaluation.panoptic`), of things and stuff, and class by class.

Axes: n images, K classes.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vitral.answers.panoptic import laid_out
from vitral.data.things import ThingTruth
from vitral.errors import VitralError, counted, some
from vitral.evaluation.evaluator import Evaluator, Kept, Scores
from vitral.evaluation.metrics import mean_defined, percent
from vitral.evaluation.panoptic import Counts, mean_quality
from vitral.evaluation.precision import RESAMPLED, Interval
from vitral.models.heads.outputs import Found
from vitral.randomness import uniforms


@dataclass(frozen=True)
class SegmentScore:
    """One class: how far its segments and those that were found are the same (PQ), how well matched ones overlap (SQ), and how many match (RQ)."""

    label: str
    stuff: bool
    support: int
    """Segments of the truth, without crowds."""
    pq: float | None
    sq: float | None
    rq: float | None


@dataclass(frozen=True)
class SegmentScores(Scores):
    """All scores of panoptic answers on one split."""

    HEADLINE: ClassVar[str] = "pq"
    TITLE: ClassVar[str] = "PQ"

    images: int
    pq: float | None
    """Mean over the classes that occur or were found."""
    pq_interval: Interval | None
    """95 %, by drawing the images anew."""
    pq_things: float | None
    pq_stuff: float | None
    sq: float | None
    rq: float | None
    loss: float
    """1 less the mean over the truth's segments of the overlap with the segment that matches, 0 where none does."""
    classes: list[SegmentScore]

    def line(self) -> str:
        return f"PQ {percent(self.pq)}  SQ {percent(self.sq)}  RQ {percent(self.rq)}"

    def brief(self) -> dict[str, object]:
        return {"pq": self.pq, "pq_interval": self.pq_interval, "images": self.images}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def table(self) -> str:
        wide = max([5, *(len(row.label) for row in self.classes)])
        lines = [f"{'class':{wide}}  {'kind':5}  {'segments':>8}  {'PQ':>9}  {'SQ':>9}  {'RQ':>9}"]
        lines += [
            f"{row.label:{wide}}  {'stuff' if row.stuff else 'thing':5}  {row.support:8,}  {percent(row.pq):>9}  {percent(row.sq):>9}  "
            f"{percent(row.rq):>9}"
            for row in self.classes
        ]
        return "\n".join(lines)

    def summary(self) -> str:
        between = "" if self.pq_interval is None else " (95 % interval {:.2%} to {:.2%})".format(*self.pq_interval)
        lines = [
            f"PQ {percent(self.pq)}{between} on {counted(self.images, 'image')}: things {percent(self.pq_things)}, stuff {percent(self.pq_stuff)}",
            f"overlap of what matches (SQ) {percent(self.sq)}, matches (RQ) {percent(self.rq)}",
        ]
        if absent := [row.label for row in self.classes if row.pq is None]:
            lines.append(f"in no image and no answer, so left out of the mean: {some(absent)}")
        weak = sorted((row for row in self.classes if row.pq is not None), key=lambda row: row.pq or 0.0)
        if len(weak) > 3:
            lines.append(f"weakest classes: {', '.join(f'{row.label} {percent(row.pq)}' for row in weak[:3])}")
        return "\n".join(lines)


class SegmentEvaluator(Evaluator):
    """Keeps of each image what PQ counts: [n, 4, K] of overlaps, hits, false and missed segments; and which classes are stuff, [K]."""

    scores = SegmentScores

    def __init__(self, labels: list[str]) -> None:
        super().__init__(labels)
        self.parts: list[NDArray[np.float64]] = []
        self.stuff = np.zeros(len(labels), bool)

    def add(self, outputs: Found, targets: ThingTruth) -> None:
        assert targets.ids is not None
        self.stuff[sorted(outputs.stuff)] = True
        for k, (placed, one, ids) in enumerate(zip(targets.placed, targets.annotated, targets.ids, strict=True)):
            found, segments, _ = laid_out(outputs[k : k + 1], placed)
            counts = Counts(len(self.labels))
            counts.add(found, segments, ids, one.segments)
            self.parts.append(np.stack([counts.overlap, counts.hits, counts.false, counts.missed]))

    def kept(self) -> Kept:
        return {"counts": np.array(self.parts, np.float64).reshape(-1, 4, len(self.labels)), "stuff": self.stuff}

    def take(self, kept: Kept) -> None:
        self.parts += list(kept["counts"])
        self.stuff = self.stuff | kept["stuff"]

    def result(self) -> SegmentScores:
        if not self.parts:
            raise VitralError("evaluation: there are no images to score; choose a split or folder that has some")
        parts = self.kept()["counts"]
        total = parts.sum(0)
        overlap, hits, false, missed = total
        quality = qualities(total)
        truth = hits + missed
        classes = [
            SegmentScore(
                label, bool(self.stuff[k]), int(truth[k]), None if np.isnan(quality[k]) else float(quality[k]),
                float(overlap[k] / hits[k]) if hits[k] else None,
                None if np.isnan(quality[k]) else float(hits[k] / (hits[k] + (false[k] + missed[k]) / 2)),
            )
            for k, label in enumerate(self.labels)
        ]  # fmt: skip
        return SegmentScores(
            images=len(parts),
            pq=mean_quality(quality, range(len(self.labels))),
            pq_interval=_interval(parts),
            pq_things=mean_quality(quality, np.flatnonzero(~self.stuff).tolist()),
            pq_stuff=mean_quality(quality, np.flatnonzero(self.stuff).tolist()),
            sq=mean_defined([row.sq for row in classes]),
            rq=mean_defined([row.rq for row in classes]),
            loss=1 - float(overlap.sum() / truth.sum()) if truth.sum() else 0.0,
            classes=classes,
        )


def qualities(total: NDArray[np.float64]) -> NDArray[np.float64]:
    """[K]: PQ of counts [4, K]; NaN where a class neither is nor was found."""
    counts = Counts(total.shape[1])
    counts.overlap, counts.hits, counts.false, counts.missed = total[0], *(each.astype(np.int64) for each in total[1:])
    return counts.quality()


def _interval(parts: NDArray[np.float64]) -> Interval | None:
    values = []
    for k in range(RESAMPLED):
        drawn = (uniforms(0, "bootstrap", k, np.arange(len(parts)), 1)[:, 0] * len(parts)).astype(np.int64)
        value = mean_quality(qualities(parts[drawn].sum(0)), range(parts.shape[2]))
        values += [] if value is None else [value]
    if not values:
        return None
    low, high = np.quantile(values, (0.025, 0.975)).tolist()
    return low, high
