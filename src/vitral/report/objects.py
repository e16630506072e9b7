"""The report of found objects: AP by class and size, precision by recall, what mistakes cost, and the worst images beside the truth."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from vitral.data.annotated import Annotated
from vitral.data.dataset import Split
from vitral.data.detections import Detections, as_found
from vitral.data.shapes import mask_of
from vitral.drawing.charts import KINDS, Series, line_chart
from vitral.drawing.objects import Mark, marked
from vitral.errors import counted
from vitral.evaluation.evaluator import Kept
from vitral.evaluation.mistakes import HIT, IGNORED, judged
from vitral.evaluation.objects import POINTS, ObjectEvaluator, ObjectScores
from vitral.predict import Predictor
from vitral.report.frame import picture
from vitral.report.parts import card, meter, pair, percent, table
from vitral.report.sections import Sections

WORST, OTHERS = 9, 3
"""Images that are shown: with the most mistakes, and from all over the split."""
MISTAKES = {
    "class": "the wrong class",
    "place": "the wrong place",
    "duplicate": "found twice",
    "background": "nothing there",
    "missed": "missed",
}


class ObjectSections(Sections):
    """Objects with boxes, perhaps with masks."""

    def counted(self, scores: ObjectScores) -> str:
        return f"{counted(scores.objects, 'object')} of {counted(len(scores.classes), 'class', 'classes')}"

    def tiles(self, scores: ObjectScores, baselines: Mapping[str, float]) -> list[tuple[str, str]]:
        low, high = scores.ap_interval or (None, None)
        between = "" if low is None else f", 95 % interval {percent(low)} to {percent(high)}"
        shown = [
            (percent(scores.ap), f"AP: mean over overlaps from .5 to .95 and over classes{between}"),
            (percent(scores.ap50), "AP50: a box is right from an overlap of .5"),
        ]
        if scores.mask_ap is not None:
            shown.append((percent(scores.mask_ap), "AP of the masks"))
        sizes = [f"{area} {percent(value)}" for area, value in scores.ap_by_area.items() if value is not None]
        return [*shown, (" · ".join(sizes), "AP by size: under 32 x 32 pixels, up to 96 x 96, above")]

    def body(self, scores: ObjectScores) -> str:
        masks = scores.mask_ap is not None
        rows = [
            [escape(row.label), meter(row.ap), percent(row.ap50), *([percent(row.mask_ap)] if masks else []), f"{row.support:,}", f"{row.images:,}"]
            for row in sorted(scores.classes, key=lambda row: (row.ap is None, row.ap or 0.0))
        ]  # fmt: skip
        heads = ["class", "AP", "AP50", *(["AP of masks"] if masks else []), "objects", "images"]
        return (
            f"<section><h2>Classes</h2><p class=soft>Lowest AP first.</p>{table(heads, rows)}</section>"
            f"{pair([_curves(scores), _mistakes(scores)])}"
        )

    def pictures(self, predictor: Predictor, split: Split, kept: Kept) -> str:
        """The truth and what was found, side by side."""
        own = ObjectEvaluator(predictor.labels)
        own.take(kept)
        threshold = predictor.answers.threshold or 0.0
        shown = [one.take(one.scores >= threshold) for one in own.found]
        figures = []
        for i, words in worst(shown, own.truth):
            pixels = predictor.card.preprocess.shown(split.read(i, predictor.card.preprocess.channels))
            crowdless = as_found(own.truth[i], masks=all(each.shape is not None for each in own.truth[i].objects))
            views = [(_drawn(pixels, crowdless, predictor.labels, False), "the truth")]
            views.append((_drawn(pixels, shown[i], predictor.labels, True), "what was found"))
            figures.append(
                f"<figure><div class=views>{''.join(picture(drawn, name) for drawn, name in views)}</div>"
                f"<figcaption>{words}<small>{escape(split.names[i])}</small></figcaption></figure>"
            )
        return (
            "<section><h2>Worst images</h2><p class=soft>The truth on the left, what was found on the right "
            f"(from a score of {threshold:.0%}); then some from all over the split.</p><div class='gallery wide'>{''.join(figures)}</div></section>"
        )


def worst(found: Sequence[Detections], truth: Sequence[Annotated]) -> list[tuple[int, str]]:
    """Images to show and what is wrong in each, the most mistakes first."""
    verdicts = [judged(one, real) for one, real in zip(found, truth, strict=True)]
    wrong = [
        [kind for kind in verdict.kinds if kind not in (HIT, IGNORED)] + ["missed"] * len(verdict.missed)
        for verdict in verdicts
    ]
    order = np.argsort([-len(each) for each in wrong], kind="stable")
    others = order[WORST:]
    spread = others[np.linspace(0, len(others) - 1, min(OTHERS, len(others))).round().astype(np.int64)]
    words = []
    for i in (*order[:WORST].tolist(), *spread.tolist()):
        named = [f"{wrong[i].count(kind)} {name}" for kind, name in MISTAKES.items() if kind in wrong[i]]
        hits = sum(kind == HIT for kind in verdicts[i].kinds)
        words.append((i, ", ".join([f"{hits} right", *named])))
    return words


def _drawn(picture: NDArray[np.uint8], found: Detections, labels: Sequence[str], scored: bool) -> NDArray[np.uint8]:
    shapes = found.masks or (None,) * len(found)
    marks = [
        Mark(
            f"{labels[k]} {score:.0%}" if scored else labels[k], k, box,
            None if runs is None else mask_of(runs, runs.height, runs.width),
        )
        for k, score, box, runs in zip(
            found.classes.tolist(), found.scores.tolist(), map(tuple, found.boxes.tolist()), shapes, strict=True
        )
    ]  # fmt: skip
    return np.asarray(marked(picture, marks))


def _curves(scores: ObjectScores) -> str:
    """Precision by recall of the classes with the most objects."""
    rows = sorted((row for row in scores.classes if row.curve), key=lambda row: -row.support)[: len(KINDS)]
    series = [
        Series(row.label, [(at / 100, p) for at, p in zip(POINTS, row.curve or [], strict=True)], kind)
        for row, kind in zip(rows, KINDS, strict=False)
    ]
    chart = line_chart(
        "precision by recall", series, "recall", lambda value, digits: f"{value:.0%}", y_range=(0.0, 1.0)
    )
    return card(
        "Precision by recall", chart, "At an overlap of .5: of the answers from some score on, how many are right."
    )


def _mistakes(scores: ObjectScores) -> str:
    rows = [
        [name, f"{scores.mistakes.get(kind, 0):,}", meter(scores.costs.get(kind))]
        for kind, name in sorted(MISTAKES.items(), key=lambda item: -scores.costs.get(item[0], 0.0))
    ]
    words = (
        f"Of the answers from a score of {scores.threshold:.0%}, which has the highest F1, {scores.mistakes.get(HIT, 0):,} are right. "
        "What AP50 would gain if one kind were mended:"
    )
    return f"<section><h3>Mistakes</h3><p class=soft>{words}</p>{table(['mistake', 'count', 'costs'], rows)}</section>"
