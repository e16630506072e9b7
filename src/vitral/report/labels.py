"""What a report shows of a model that gives an image several labels: each label by itself, in place of a confusion matrix."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vitral.data.targets import in_words
from vitral.drawing.charts import reliability_chart
from vitral.errors import counted
from vitral.evaluation.multilabel import MultiLabelEvaluation, sigmoid
from vitral.evaluation.words import OF_YES, calibration_words
from vitral.report.parts import escape, meter, percent, table
from vitral.report.sections import Sections, Verdict


class LabelSections(Sections):
    """Several labels an image, or none."""

    def counted(self, scores: MultiLabelEvaluation) -> str:
        return counted(len(scores.classes), "label")

    def tiles(self, scores: MultiLabelEvaluation, baselines: Mapping[str, float]) -> list[tuple[str, str]]:
        return label_tiles(scores)

    def body(self, scores: MultiLabelEvaluation) -> str:
        return label_sections(scores)

    def choose(self, outputs: NDArray[np.floating], targets: NDArray[np.floating]) -> list[int]:
        return choose_label_examples(outputs, targets)

    def verdict(self, output: NDArray[np.floating], target: NDArray[np.floating], labels: list[str]) -> Verdict:
        label, predicted = (in_words([labels[k] for k in np.flatnonzero(yes)]) for yes in (target > 0.5, output >= 0))
        answer, probability = furthest(output, target, labels)
        return Verdict(label, predicted, probability, answer)


def label_tiles(evaluation: MultiLabelEvaluation) -> list[tuple[str, str]]:
    """(figure, what it is), the most important first."""
    low, high = evaluation.exact_match_interval
    return [
        (percent(evaluation.map), "mAP: mean average precision of the labels"),
        (percent(evaluation.micro_f1), "micro F1, over all answers"),
        (percent(evaluation.macro_f1), "macro F1, over the labels"),
        (f"{evaluation.exact_match:.2%}", f"images with all labels right, 95 % interval {low:.2%} to {high:.2%}"),
        (f"{evaluation.ece:.2%}", "expected calibration error"),
    ]


def label_sections(evaluation: MultiLabelEvaluation) -> str:
    """The labels, the weakest average precision first and those of no image last, and the reliability diagram."""
    rows = []
    for row in sorted(evaluation.classes, key=lambda row: (row.support == 0, row.average_precision or 0.0)):
        interval = "" if row.recall_interval is None else "{:.0%} to {:.0%}".format(*row.recall_interval)
        counts = [f"{row.support:,}", f"{row.predicted:,}"]
        scores = [percent(row.precision), percent(row.recall), interval, percent(row.f1)]
        rows.append([escape(row.label), meter(row.average_precision), *counts, *scores])
    heads = ["label", "average precision", "images", "said of", "precision", "recall", "recall, 95 %", "F1"]
    absent = "" if all(row.support for row in evaluation.classes) else " Averages are over the labels that occur."
    diagram = reliability_chart(
        "Reliability diagram", evaluation.reliability, axis="probability of yes", counted="answers", right="yes"
    )
    return (
        "<section><h2>Labels</h2><p class=soft>Weakest first. A label is said to be there from a probability of 50 %; average "
        f"precision needs no such threshold.{absent}</p>{table(heads, rows)}</section>"
        "<div class=pair><section><h3>Can its probabilities be trusted?</h3>" + diagram + "</section>"
        "<section><h3>Calibration</h3><p>Each label is a question of its own. Of the probabilities of yes: "
        f"{calibration_words(evaluation.reliability, OF_YES)}. The loss is {evaluation.loss:.4f}.</p>"
        "<p class=soft>In the diagram, all answers are grouped by the probability of yes; on the dashed line that is how often the "
        "label is there. Bars of few answers are faint: they say little.</p></section></div>"
    )


def choose_label_examples(
    logits: NDArray[np.floating], targets: NDArray[np.floating], wrong: int = 12, right: int = 6
) -> list[int]:
    """Which images a report shows: those with the answer furthest from the truth, then some with all labels right from all over the split.

    Args:
        logits, targets: [n, K], finite; targets 0 or 1.

    Returns:
        Indices of images, mistakes first, the worst first.
    """
    worst = np.where(targets > 0.5, -logits, logits).max(axis=1)  # [n]; above 0 the label is answered wrongly, 0 is yes
    correct = ((logits >= 0) == (targets > 0.5)).all(axis=1)
    order = np.argsort(-worst, kind="stable")
    good = np.flatnonzero(correct)
    spread = good[np.linspace(0, len(good) - 1, min(right, len(good))).round().astype(np.int64)]
    return [int(i) for i in (*order[~correct[order]][:wrong], *spread)]


def furthest(logits: NDArray[np.floating], target: NDArray[np.floating], labels: list[str]) -> tuple[str, float]:
    """The answer that is furthest from the truth, a label or "no" and a label, and the model's probability of it; logits, target: [K]."""
    k = int(np.where(target > 0.5, -logits, logits).argmax())
    return (labels[k] if logits[k] >= 0 else f"no {labels[k]}"), float(sigmoid(np.abs(logits))[k])
