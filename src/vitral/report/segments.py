"""The report of panoptic answers: each class's PQ, and the worst images beside the truth."""

from collections.abc import Mapping
from html import escape

import numpy as np

from vitral.answers.panoptic import Panoptic
from vitral.data.dataset import Split
from vitral.data.things import Segments
from vitral.drawing.objects import veiled
from vitral.errors import counted
from vitral.evaluation.evaluator import Kept
from vitral.evaluation.segments import SegmentScores
from vitral.predict import Predictor
from vitral.report.frame import picture
from vitral.report.maps import OTHERS, WORST, legend
from vitral.report.parts import meter, percent, table
from vitral.report.sections import Sections


class SegmentSections(Sections):
    """A segment for each pixel."""

    def counted(self, scores: SegmentScores) -> str:
        return counted(len(scores.classes), "class", "classes")

    def tiles(self, scores: SegmentScores, baselines: Mapping[str, float]) -> list[tuple[str, str]]:
        between = "" if scores.pq_interval is None else ", 95 % interval {:.1%} to {:.1%}".format(*scores.pq_interval)
        return [
            (percent(scores.pq), f"PQ: how far segments and answers are the same, mean over the classes{between}"),
            (percent(scores.pq_things), "PQ of things"),
            (percent(scores.pq_stuff), "PQ of stuff"),
            (percent(scores.sq), "overlap of the segments that match"),
        ]

    def body(self, scores: SegmentScores) -> str:
        rows = [
            [escape(row.label), "stuff" if row.stuff else "thing", meter(row.pq), percent(row.sq), percent(row.rq), f"{row.support:,}"]
            for row in sorted(scores.classes, key=lambda row: (row.pq is None, row.pq or 0.0))
        ]  # fmt: skip
        heads = ["class", "kind", "PQ", "overlap of matches", "matches", "segments"]
        return f"<section><h2>Classes</h2><p class=soft>Lowest PQ first.</p>{table(heads, rows, names=2)}</section>"

    def pictures(self, predictor: Predictor, split: Split, kept: Kept) -> str:
        """The image, the truth and the answer, side by side, under the colours of the classes."""
        _, hits, false, missed = kept["counts"].sum(2).T  # [n] each
        order = np.argsort(-(false + missed), kind="stable")
        others = order[WORST:]
        spread = others[np.linspace(0, len(others) - 1, min(OTHERS, len(others))).round().astype(np.int64)]
        figures = []
        for i in (*order[:WORST].tolist(), *spread.tolist()):
            pixels = split.read(i, predictor.card.preprocess.channels)
            shown, answer = predictor.card.preprocess.shown(pixels), predictor.predict(pixels)
            assert isinstance(split.targets, Segments)
            assert isinstance(answer, Panoptic)
            truth = np.full(answer.map.shape, -1)
            for each in split.targets.found(i):
                truth[each.mask] = each.index
            views = [
                (shown, split.names[i]), (veiled(shown, truth), "the truth"), (veiled(shown, answer.classes), "the answer"),
            ]  # fmt: skip
            words = f"{hits[i]:.0f} right, {missed[i]:.0f} missed, {false[i]:.0f} not there"
            figures.append(
                f"<figure><div class='views three'>{''.join(picture(pixels, words) for pixels, words in views)}</div>"
                f"<figcaption>{words}<small>{escape(split.names[i])}</small></figcaption></figure>"
            )
        return (
            "<section><h2>Worst images</h2><p class=soft>Each image, its segments, and the answer; then some from all over the split. "
            f"What is of no segment is left grey.</p>{legend(predictor.labels)}<div class='gallery wide'>{''.join(figures)}</div></section>"
        )
