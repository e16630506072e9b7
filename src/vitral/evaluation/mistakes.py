"""What kinds of mistake a detector makes, and what AP at an overlap of .5 each kind costs: TIDE, https://arxiv.org/abs/2008.08115, section 2.

The answers of an image are taken best first; each takes the free object of its class that it overlaps most, by half or more. What is left over is of
the wrong class, in the wrong place, a duplicate, or nothing but background; objects that no answer meant are missed. In crowds nothing is wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vitral.data.annotated import Annotated, Object
from vitral.data.detections import Detections
from vitral.evaluation.precision import average_precision

Mistake = Literal["class", "place", "duplicate", "background", "missed"]
HIT, IGNORED = "hit", "ignored"
OVERLAP, NEAR = 0.5, 0.1


@dataclass(frozen=True, eq=False)
class Judged:
    """What became of an image's answers and objects."""

    kinds: list[str]
    """Of each answer: hit, ignored, or a mistake."""
    objects: list[int]
    """Of each answer the object that it hit or meant, by number; -1 for none."""
    missed: list[int]
    """Objects that no answer hit or meant."""


def judged(found: Detections, truth: Annotated) -> Judged:
    """Hits and mistakes of one image, by boxes."""
    overlap = overlaps(found.boxes, truth.objects)  # [n, m]
    index = np.array([each.index for each in truth.objects], np.int64)
    crowd = np.array([each.crowd or each.hard for each in truth.objects], bool)
    taken = crowd.copy()
    kinds, objects = [""] * len(found), [-1] * len(found)
    for i in np.argsort(-found.scores, kind="stable").tolist():
        same = index == found.classes[i]
        of_thing = np.where(crowd, 0, overlap[i])
        own, other = np.where(same, of_thing, 0), np.where(same, 0, of_thing)
        free = np.where(taken, 0, own)
        if free.max(initial=0) >= OVERLAP:
            kinds[i], objects[i] = HIT, int(free.argmax())
            taken[objects[i]] = True
        elif np.where(crowd & same, overlap[i], 0).max(initial=0) >= OVERLAP:
            kinds[i] = IGNORED
        elif own.max(initial=0) >= OVERLAP:
            kinds[i], objects[i] = "duplicate", int(own.argmax())
        elif other.max(initial=0) >= OVERLAP:
            kinds[i], objects[i] = "class", int(other.argmax())
        elif own.max(initial=0) >= NEAR:
            kinds[i], objects[i] = "place", int(own.argmax())
        else:
            kinds[i] = "background"
    meant = {j for kind, j in zip(kinds, objects, strict=True) if kind in (HIT, "class", "place")}
    return Judged(kinds, objects, [j for j in np.flatnonzero(~crowd).tolist() if j not in meant])


def overlaps(boxes: NDArray[np.float64], objects: Sequence[Object]) -> NDArray[np.float64]:
    """[n, m]: intersection over union, with a crowd over the box's own area."""
    other = np.array([each.box for each in objects], np.float64).reshape(-1, 4)
    low, high = np.maximum(boxes[:, None, :2], other[:, :2]), np.minimum(boxes[:, None, 2:], other[:, 2:])
    shared = (high - low).clip(0).prod(-1)
    own, theirs = ((b[:, 2:] - b[:, :2]).clip(0).prod(-1) for b in (boxes, other))
    crowd = np.array([each.crowd or each.hard for each in objects], bool)
    return shared / np.maximum(np.where(crowd, own[:, None], own[:, None] + theirs - shared), 1e-9)


def costs(
    found: Sequence[Detections], truth: Sequence[Annotated], verdicts: Sequence[Judged], classes: int
) -> dict[Mistake, float]:
    """Of each kind how much AP at .5 would gain if all its mistakes were mended; empty where no AP is defined. verdicts: `judged` of each image."""
    now = _ap50(found, truth, classes)
    if now is None:
        return {}
    gains: dict[Mistake, float] = {}
    for kind in ("class", "place", "duplicate", "background"):
        mended = [_mended(one, real, verdict, kind) for one, real, verdict in zip(found, truth, verdicts, strict=True)]
        gains[kind] = (_ap50(mended, truth, classes) or 0.0) - now
    without = [_without(real, verdict.missed) for real, verdict in zip(truth, verdicts, strict=True)]
    gains["missed"] = (_ap50(found, without, classes) or 1.0) - now
    return gains


def surest(found: Sequence[Detections], verdicts: Sequence[Judged], objects: int) -> float | None:
    """The score from which answers balance what is right among them with how many of the objects they hit (the highest F1); None without a hit."""
    counted = [np.array([kind != IGNORED for kind in verdict.kinds], bool) for verdict in verdicts]
    hits = [np.array([kind == HIT for kind in verdict.kinds], bool) for verdict in verdicts]
    scores = np.concatenate([one.scores[each] for one, each in zip(found, counted, strict=True)])
    hit = np.concatenate([own[each] for own, each in zip(hits, counted, strict=True)])
    if not hit.any():
        return None
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], hit[order].cumsum()
    last = np.append(np.diff(scores) < 0, True)  # of those that score the same
    best = int(np.where(last, 2 * right / (np.arange(1, len(scores) + 1) + objects), 0).argmax())
    return float(scores[best] + (scores[best + 1] if best + 1 < len(scores) else 0.0)) / 2


def counts(verdicts: Sequence[Judged]) -> dict[str, int]:
    """How many answers and objects of each kind there are."""
    totals = dict.fromkeys((HIT, "class", "place", "duplicate", "background"), 0)
    for verdict in verdicts:
        for kind in verdict.kinds:
            if kind != IGNORED:
                totals[kind] += 1
    return totals | {"missed": sum(len(verdict.missed) for verdict in verdicts)}


def _ap50(found: Sequence[Detections], truth: Sequence[Annotated], classes: int) -> float | None:
    return average_precision(found, truth, classes, thresholds=(OVERLAP,), resampled=0).ap50


def _mended(found: Detections, truth: Annotated, verdict: Judged, kind: str) -> Detections:
    """As if no mistake of this kind had been made: a wrong class or place is put right where its object is not yet taken; the others are left out."""
    taken = {j for is_, j in zip(verdict.kinds, verdict.objects, strict=True) if is_ == HIT}
    classes, boxes, keep = found.classes.copy(), found.boxes.copy(), np.ones(len(found), bool)
    for i in np.argsort(-found.scores, kind="stable").tolist():
        if verdict.kinds[i] != kind:
            continue
        j = verdict.objects[i]
        if kind in ("duplicate", "background") or j in taken:
            keep[i] = False
            continue
        taken.add(j)
        classes[i], boxes[i] = truth.objects[j].index, truth.objects[j].box if kind == "place" else boxes[i]
    return Detections(classes, found.scores, boxes).take(keep)


def _without(truth: Annotated, missed: Sequence[int]) -> Annotated:
    return replace(truth, objects=tuple(each for j, each in enumerate(truth.objects) if j not in missed))
