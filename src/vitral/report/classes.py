"""The report of a classifier, one class an image: confusion matrix, scores of each class, calibration."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vitral.drawing.charts import reliability_chart
from vitral.errors import FEW, counted, ratio
from vitral.evaluation.metrics import Evaluation
from vitral.evaluation.words import calibration_words
from vitral.report.parts import calibration_cards, meter, percent, table
from vitral.report.parts import escape as _e
from vitral.report.sections import WholeSections, examples
from vitral.report.verdict import Verdict

MATRIX_CLASSES = 40  # a larger confusion matrix cannot be read; its most confused pairs can
PAIRS = 30


class ClassSections(WholeSections):
    """One class an image."""

    def counted(self, scores: Evaluation) -> str:
        return counted(len(scores.classes), "class", "classes")

    def tiles(self, scores: Evaluation, baselines: Mapping[str, float]) -> list[tuple[str, str]]:
        low, high = scores.top1_interval
        top1 = f"top-1, 95 % interval {low:.2%} to {high:.2%}{_in_counts(scores.top1, scores.images)}"
        commonest = max(scores.classes, key=lambda row: row.support)
        always = commonest.support / scores.images
        trivial = f"top-1 of answering {commonest.label} to all{_in_counts(always, scores.images)}"
        tiles = [(f"{scores.top1:.2%}", top1), (f"{always:.2%}", trivial)]
        if baselines:
            best = max(baselines, key=lambda name: baselines[name])
            tiles.append((f"{baselines[best]:.2%}", f"top-1 without training: {best}"))
        if scores.top5 is not None:
            tiles.append((f"{scores.top5:.2%}", "top-5"))
        tiles.append(("–" if scores.macro_f1 is None else f"{scores.macro_f1:.2%}", "macro F1"))
        return [*tiles, (f"{scores.ece:.2%}", "expected calibration error")]

    def body(self, scores: Evaluation) -> str:
        confusion = _matrix(scores) if len(scores.labels) <= MATRIX_CLASSES else _pairs(scores)
        return confusion + _classes(scores)

    def choose(self, outputs: NDArray[np.floating], targets: NDArray[np.integer]) -> list[int]:
        shifted = outputs.astype(np.float64) - outputs.max(axis=1, keepdims=True)
        confidence = 1 / np.exp(shifted).sum(axis=1)  # [n]
        return examples(confidence, outputs.argmax(axis=1) == targets)

    def verdict(self, output: NDArray[np.floating], target: NDArray[np.integer], labels: list[str]) -> Verdict:
        shares = np.exp(output.astype(np.float64) - output.max())
        best = int(output.argmax())
        return Verdict(labels[int(target)], labels[best], float(shares[best] / shares.sum()))


def _in_counts(share: float, images: int) -> str:
    """A share of few images also as a count."""
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
            said = f"{label} predicted as {labels[j]}: {count} ({share:.1%})"
            level = f"{min(1.0, share if i == j else 0.12 + 1.6 * share):.3f}" if count else "0"  # errors must show
            cells.append(f'<td class="{kind}" style="--v:{level}" title="{_e(said)}">{count}</td>')
        rows.append(f'<tr><th class=side title="{_e(label)}"><span>{_e(label)}</span></th>{"".join(cells)}</tr>')
    few = " few" if len(labels) <= 12 else ""
    return (
        "<section><h2>Confusion matrix</h2><p class=soft>A row for each true class, a column for each predicted class; "
        "the stronger the colour, the larger the share of the row.</p>"
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
        return "<section><h2>Confusion</h2><p>No image was predicted as another class.</p></section>"
    heads = ["true class", "predicted as", "images", "share of the true class"]
    return f"<section><h2>Most confused pairs</h2>{table(heads, rows, names=2)}</section>"


def _classes(evaluation: Evaluation) -> str:
    """A row a class, the lowest F1 first and classes without images last; then the calibration."""
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
    said = sum(b.images * (b.confidence or 0.0) for b in evaluation.reliability) / evaluation.images
    return (
        f"<section><h2>Classes</h2><p class=soft>Lowest F1 first. {averages}</p>{table(heads, rows)}</section>"
        + calibration_cards(
            reliability_chart("Reliability diagram", evaluation.reliability),
            f"On average the model gives its answer a probability of <b>{said:.1%}</b>, and it is right <b>{evaluation.top1:.1%}</b> of the "
            f"time: {calibration_words(evaluation.reliability)}. Its loss is {evaluation.loss:.4f}.",
            "Images are grouped by the probability that the model gave to its answer. On the dashed line it is right as often as "
            "it says. Faint bars hold few images and so say little.",
        )
    )
