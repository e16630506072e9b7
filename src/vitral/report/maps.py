"""The report of semantic maps: each class's overlap with the truth, what is taken for what, and the worst images beside the truth."""

from collections.abc import Mapping
from html import escape

import numpy as np
from numpy.typing import NDArray

from vitral.answers.maps import Segmentation
from vitral.data.dataset import Split
from vitral.data.maps import SemanticMaps
from vitral.drawing.objects import class_colours, veiled
from vitral.errors import counted
from vitral.evaluation.evaluator import Kept
from vitral.evaluation.semantic import MapScores, mean_ious
from vitral.predict import Predictor
from vitral.report.frame import picture
from vitral.report.parts import meter, percent, table
from vitral.report.sections import Sections

WORST, OTHERS = 9, 3
"""Images that are shown: with the lowest mIoU, and from all over the split."""
PAIRS = 20


class MapSections(Sections):
    """A class for each pixel."""

    def counted(self, scores: MapScores) -> str:
        return counted(len(scores.classes), "class", "classes")

    def tiles(self, scores: MapScores, baselines: Mapping[str, float]) -> list[tuple[str, str]]:
        between = (
            "" if scores.miou_interval is None else ", 95 % interval {:.2%} to {:.2%}".format(*scores.miou_interval)
        )
        return [
            (percent(scores.miou), f"mIoU: mean over the classes of intersection over union{between}"),
            (percent(scores.accuracy), "pixels right"),
            (percent(max((row.share for row in scores.classes), default=None)), "pixels of the commonest class"),
            (percent(scores.mean_accuracy), "pixels right, mean of the classes"),
        ]

    def body(self, scores: MapScores) -> str:
        rows = [
            [
                escape(row.label),
                meter(row.iou),
                f"{row.images:,}",
                percent(row.share),
                percent(row.precision),
                percent(row.recall),
            ]
            for row in sorted(scores.classes, key=lambda row: (row.iou is None, row.iou or 0.0))
        ]
        heads = ["class", "IoU", "images", "share of the pixels", "precision", "recall"]
        return (
            f"<section><h2>Classes</h2><p class=soft>Lowest IoU first, over all pixels of the split that have a class. The loss is {scores.loss:.4f} "
            f"a pixel.</p>{table(heads, rows)}</section>{_pairs(scores)}"
        )

    def pictures(self, predictor: Predictor, split: Split, kept: Kept) -> str:
        """The image, the truth and the answer, side by side."""
        figures = []
        for i, iou in worst(kept["counts"]):
            pixels = split.read(i, predictor.card.preprocess.channels)
            shown, answer = predictor.card.preprocess.shown(pixels), predictor.predict(pixels)
            assert isinstance(split.targets, SemanticMaps)
            assert isinstance(answer, Segmentation)
            truth = veiled(shown, split.targets.map(i))
            views = [(shown, split.names[i]), (truth, "the truth"), (veiled(shown, answer.map), "the answer")]
            figures.append(
                f"<figure><div class='views three'>{''.join(picture(pixels, words) for pixels, words in views)}</div>"
                f"<figcaption>mIoU {percent(None if np.isnan(iou) else iou)}<small>{escape(split.names[i])}</small></figcaption></figure>"
            )
        return (
            "<section><h2>Worst images</h2><p class=soft>Each image, its map, and the answer; then some from all over the split. "
            f"What has no class is left grey.</p>{legend(predictor.labels)}<div class='gallery wide'>{''.join(figures)}</div></section>"
        )


def worst(counts: NDArray[np.int64]) -> list[tuple[int, float]]:
    """Images (and their mIoU) to show, the worst first. counts: [n, 3, K], as `MapEvaluator` keeps them."""
    ious = mean_ious(counts)
    order = np.argsort(np.nan_to_num(ious, nan=2.0), kind="stable")
    others = order[WORST:]
    spread = others[np.linspace(0, len(others) - 1, min(OTHERS, len(others))).round().astype(np.int64)]
    return [(int(i), float(ious[i])) for i in (*order[:WORST], *spread)]


def legend(labels: list[str]) -> str:
    """Which colour is which class."""
    colours = class_colours(max(256, len(labels))).tolist()
    items = "".join(
        f'<span class=chip><i style="background:rgb({r},{g},{b})"></i>{escape(label)}</span>'
        for label, (r, g, b) in zip(labels, colours, strict=False)
    )
    return f"<p class=legend>{items}</p>"


def _pairs(scores: MapScores) -> str:
    """What is most often taken for what."""
    wrong = scores.confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    rows = []
    for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[i, j]:
            share = percent(wrong[i, j] / scores.confusion[i].sum())
            rows.append([escape(scores.classes[i].label), escape(scores.classes[j].label), f"{wrong[i, j]:,}", share])
    if not rows:
        return ""
    heads = ["true class", "answered as", "pixels", "share of the true class"]
    return f"<section><h2>Most confused pairs</h2>{table(heads, rows, names=2)}</section>"
