"""Panoptic quality of a split: https://arxiv.org/abs/1801.00868, section 4; its rules for void and crowds are panopticapi's.

Axes: K classes, h w pixels of an image. Of each class true positives, false positives, false negatives and the sum of overlaps are counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vitral.data.annotated import Segment

VOID = 0  # the number of pixels that are of no segment


@dataclass
class Counts:
    """Of K classes, over the images that were added."""

    classes: int
    overlap: NDArray[np.float64] = field(init=False)
    hits: NDArray[np.int64] = field(init=False)
    false: NDArray[np.int64] = field(init=False)
    missed: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.overlap = np.zeros(self.classes)
        self.hits, self.false, self.missed = (np.zeros(self.classes, np.int64) for _ in range(3))

    def add(
        self,
        found: NDArray[np.int32],
        segments: Sequence[Segment],
        truth: NDArray[np.int32],
        true_segments: Sequence[Segment],
    ) -> None:
        """An image: maps [h, w] of segments' numbers, 0 for void, and the segments that they hold."""
        pairs, pixels = np.unique(np.stack([truth.ravel(), found.ravel()]), axis=1, return_counts=True)
        shared = {(int(t), int(f)): int(n) for (t, f), n in zip(pairs.T, pixels, strict=True)}
        size_true, size_found = ({s.id: 0 for s in each} for each in (true_segments, segments))
        for (t, f), n in shared.items():
            size_true[t] = size_true.get(t, 0) + n
            size_found[f] = size_found.get(f, 0) + n
        true, own = {s.id: s for s in true_segments}, {s.id: s for s in segments}
        matched_true, matched_found = set(), set()
        for (t, f), n in shared.items():
            if t not in true or f not in own or true[t].crowd or true[t].index != own[f].index:
                continue
            iou = n / (size_true[t] + size_found[f] - n - shared.get((VOID, f), 0))
            if iou > 0.5:  # so no two segments can overlap a third
                self.hits[own[f].index] += 1
                self.overlap[own[f].index] += iou
                matched_true.add(t)
                matched_found.add(f)
        for segment in true_segments:
            if segment.id not in matched_true and not segment.crowd:
                self.missed[segment.index] += 1
        for segment in segments:
            excused = shared.get((VOID, segment.id), 0) + sum(
                shared.get((s.id, segment.id), 0) for s in true_segments if s.crowd and s.index == segment.index
            )
            if segment.id not in matched_found and excused <= 0.5 * size_found[segment.id]:
                self.false[segment.index] += 1

    def quality(self) -> NDArray[np.float64]:
        """[K]: PQ of each class; NaN where there is neither a segment of it nor a false one."""
        total = self.hits + (self.false + self.missed) / 2
        return np.where(total > 0, self.overlap / np.maximum(total, 0.5), np.nan)


def mean_quality(quality: NDArray[np.float64], chosen: Sequence[int]) -> float | None:
    """The mean over these classes; None if none of them occurs."""
    known = quality[list(chosen)]
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else None
