"""What a report shows of a model that gives an image one class: the confusion matrix, the classes, and whether its probabilities can be trusted."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vitral.drawing.charts import reliability_chart
from vitral.errors import FEW, counted, ratio
from vitral.evaluation.metrics import Evaluation
from vitral.evaluation.words import calibration_words
from vitral.report.parts import escape as _e
from vitral.report.parts import meter, percent, table
from vitral.report.sections import Sections, Verdict

MATRIX_CLASSES = 40  # a larger confusion matrix cannot be read; its most confused pairs can
PAIRS = 30


class ClassSections(Sections):
    """One class an image."""

    def counted(self, scores: Evaluation) -> str:
        return counted(len(scores.classes), "class", "classes")

    def tiles(self, scores: Evaluation, baselines: Mapping[str, float]) -> list[tuple[str, str]]:
        return _tiles(scores, baselines)

    def body(self, scores: Evaluation) -> str:
        confusion = _matrix(scores) if len(scores.labels) <= MATRIX_CLASSES else _pairs(scores)
        return confusion + _classes(scores)

    def choose(self, outputs: NDArray[np.floating], targets: NDArray[np.integer]) -> list[int]:
        return choose_examples(outputs, targets)

    def verdict(self, output: NDArray[np.floating], target: NDArray[np.integer], labels: list[str]) -> Verdict:
        shares = np.exp(output.astype(np.float64) - output.max())
        best = int(output.argmax())
        return Verdict(labels[int(target)], labels[best], float(shares[best] / shares.sum()))


def choose_examples(
    logits: NDArray[np.floating], targets: NDArray[np.integer], wrong: int = 12, right: int = 6
) -> list[int]:
    """Which images a report shows: the most confident mistakes, then right answers from all over the split.

    Args:
        logits: [n, K], finite. targets: [n], the true classes.

    Returns:
        Indices of images, mistakes first, the most confident first.
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    confidence = 1 / np.exp(shifted).sum(axis=1)  # [n]
    correct = logits.argmax(axis=1) == targets
    order = np.argsort(-confidence, kind="stable")
    mistakes = order[~correct[order]][:wrong]
    good = np.flatnonzero(correct)
    spread = good[np.linspace(0, len(good) - 1, min(right, len(good))).round().astype(np.int64)]
    return [int(i) for i in (*mistakes, *spread)]


def _tiles(evaluation: Evaluation, baselines: Mapping[str, float]) -> list[tuple[str, str]]:
    """The headline score, what it is to be held against, and the other scores."""
    low, high = evaluation.top1_interval
    right = _in_counts(evaluation.top1, evaluation.images)
    tiles = [(f"{evaluation.top1:.2%}", f"top-1, 95 % interval {low:.2%} to {high:.2%}{right}")]
    commonest = max(evaluation.classes, key=lambda row: row.support)
    always = commonest.support / evaluation.images
    by_it = f"top-1 of answering {commonest.label} to all{_in_counts(always, evaluation.images)}"
    tiles.append((f"{always:.2%}", by_it))
    if baselines:
        best = max(baselines, key=lambda name: baselines[name])
        tiles.append((f"{baselines[best]:.2%}", f"top-1 without training: {best}"))
    if evaluation.top5 is not None:
        tiles.append((f"{evaluation.top5:.2%}", "top-5"))
    tiles.append(("–" if evaluation.macro_f1 is None else f"{evaluation.macro_f1:.2%}", "macro F1"))
    tiles.append((f"{evaluation.ece:.2%}", "expected calibration error"))
    return tiles


def _in_counts(share: float, images: int) -> str:
    """Few images as a count, beside their share."""
    return f", {ratio(share, images)} images" if round(share * images) < FEW else ""


def _matrix(evaluation: Evaluation) -> str:
    labels, counts = evaluation.labels, evaluation.confusion
    heads = "".join(f'<th class=head title="{_e(label)}"><span>{_e(label)}</span></th>' for label in labels)
    rows = []
    for i, label in enumerate(labels):
        support = max(1, int(counts[i].sum()))
        cells = []
        for j, count in enumerate(counts[i].tolist()):
            share = count / support
            kind = ("hit " if i == j else "") + ("none" if count == 0 else "strong" if share > 0.45 else "")
            said = f"{label} taken for {labels[j]}: {count} ({share:.1%})"
            level = f"{min(1.0, share if i == j else 0.12 + 1.6 * share):.3f}" if count else "0"  # errors must show
            cells.append(f'<td class="{kind}" style="--v:{level}" title="{_e(said)}">{count}</td>')
        rows.append(f'<tr><th class=side title="{_e(label)}"><span>{_e(label)}</span></th>{"".join(cells)}</tr>')
    few = " few" if len(labels) <= 12 else ""
    return (
        "<section><h2>Confusion matrix</h2><p class=soft>Each row is a true class, each column what the "
        "model said; the colour is the share of the row.</p>"
        f'<div class="scroll whole"><table class="confusion{few}"><tr><th class=side></th>{heads}</tr>'
        f"{''.join(rows)}</table></div></section>"
    )


def _pairs(evaluation: Evaluation) -> str:
    labels, counts = evaluation.labels, evaluation.confusion
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    rows = []
    for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[i, j]:
            share = wrong[i, j] / counts[i].sum()
            rows.append([_e(labels[i]), _e(labels[j]), f"{wrong[i, j]:,}", f"{share:.1%}"])
    if not rows:
        return "<section><h2>Confusion</h2><p>No image was taken for another class.</p></section>"
    heads = ["true class", "taken for", "images", "share of the true class"]
    return f"<section><h2>Most confused pairs</h2>{table(heads, rows, names=2)}</section>"


def _classes(evaluation: Evaluation) -> str:
    """The per-class table, the weakest F1 first and classes without images last, and the reliability diagram."""
    rows = []
    for row in sorted(evaluation.classes, key=lambda row: (row.support == 0, row.f1)):
        interval = "" if row.recall_interval is None else "{:.0%} to {:.0%}".format(*row.recall_interval)
        scores = [percent(row.precision), percent(row.recall), interval]
        rows.append([_e(row.label), meter(row.f1), f"{row.support:,}", *scores])
    heads = ["class", "F1", "images", "precision", "recall", "recall, 95 %"]
    averages = (
        f"Macro averages: precision {percent(evaluation.macro_precision)}, "
        f"recall {percent(evaluation.macro_recall)} (balanced accuracy), F1 {percent(evaluation.macro_f1)}"
        f"{'' if all(row.support for row in evaluation.classes) else ', over the classes that have images'}."
    )
    diagram = reliability_chart("Reliability diagram", evaluation.reliability)
    return (
        f"<section><h2>Classes</h2><p class=soft>Weakest first. {averages}</p>{table(heads, rows)}</section>"
        "<div class=pair><section><h3>Can its probabilities be trusted?</h3>" + diagram + "</section>"
        f"<section><h3>Calibration</h3><p>{_calibration_words(evaluation)}</p><p class=soft>In the diagram, "
        "images are grouped by the probability that the model gave to its answer; on the dashed line it is "
        "right as often as it says. Bars of few images are faint: they say little.</p></section></div>"
    )


def _calibration_words(evaluation: Evaluation) -> str:
    filled = [b for b in evaluation.reliability if b.confidence is not None]
    said = sum(b.images * (b.confidence or 0.0) for b in filled) / evaluation.images
    return (
        f"On average the model gives its answer a probability of <b>{said:.1%}</b>, and it is right "
        f"<b>{evaluation.top1:.1%}</b> of the time: {calibration_words(evaluation.reliability)}. Its loss is {evaluation.loss:.4f}."
    )
