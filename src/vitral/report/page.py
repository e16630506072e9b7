"""A finished run as one page: `report.html`, a single file with no script and nothing from the network.

Every piece of text that comes from the data (class names, file names, messages) passes through `html.escape`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitral.drawing.charts import reliability_chart
from vitral.errors import FEW, counted, ratio
from vitral.evaluation.evaluate import Scores
from vitral.evaluation.metrics import Evaluation
from vitral.evaluation.words import calibration_words
from vitral.report.frame import curves_section, how_section, picture, remarks_section, tiles, write_page
from vitral.report.labels import label_sections, label_tiles
from vitral.report.parts import escape as _e
from vitral.report.parts import meter, percent, table

MATRIX_CLASSES = 40  # a larger confusion matrix cannot be read; its most confused pairs can
PAIRS = 30
SHOWN = 24  # pictures of a kind


@dataclass(frozen=True)
class Example:
    """One picture of the evaluated split and what the model made of it.

    image, overlay: uint8 [H, W, 3], the overlay in the image's shape or a multiple of it, or None where attention gives no one map.
    probability: of `predicted`, in [0, 1]. Where an image can have several labels, label and predicted hold all of them, and probability is
    that of `furthest`, the one answer (a label, or no such label) that is furthest from the truth. even: what is to be said of attention
    without contrast, which the overlay then does not show.
    """

    name: str
    label: str
    predicted: str
    probability: float
    image: NDArray[np.uint8]
    overlay: NDArray[np.uint8] | None
    furthest: str | None = None
    even: str = ""


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


def write_report(
    run: Path,
    *,
    title: str,
    command: str,
    labels: Sequence[str],
    evaluation: Scores,
    curves: Sequence[dict[str, Any]],
    examples: Sequence[Example],
    facts: dict[str, str],
    recipe: str = "",
    split: str = "test",
    baselines: Mapping[str, float] | None = None,
) -> Path:
    """Writes `run/report.html`, whole or not at all.

    Args:
        run: the run's folder; it exists.
        title: the page's heading.
        command: the command that made the run, to be copied.
        labels: K class names.
        evaluation: the scores on `split`.
        curves: the lines of metrics.jsonl, in order; of two with one step the later holds (a resumed run).
        examples: right and wrong cases; see `choose_examples`.
        facts: what else a reader wants, in order: data, fingerprint, cost, ... "parameters" and "training
            time" are shown large.
        recipe: the resolved recipe's text.
        split: which images were scored.
        baselines: name -> top-1 on the validation images of what needs no training, where it is known.

    Raises:
        VitralError: the file cannot be written.
    """
    assert list(labels) == evaluation.labels, "the evaluation is of other classes"
    body = [
        f"<header><h1>{_e(title)}</h1><p class=soft>{_e(_subtitle(evaluation, split))}</p></header>",
        _tiles(evaluation, facts, baselines or {}),
        remarks_section(curves),
        curves_section(curves),
        *(
            [_matrix(evaluation) if len(labels) <= MATRIX_CLASSES else _pairs(evaluation), _classes(evaluation)]
            if isinstance(evaluation, Evaluation)
            else [label_sections(evaluation)]
        ),
        _galleries(examples),
        how_section(command, recipe, facts, curves),
    ]
    return write_page(run, title, body)


def _subtitle(evaluation: Scores, split: str) -> str:
    kinds = ("class", "classes") if isinstance(evaluation, Evaluation) else ("label", "labels")
    return f"{counted(evaluation.images, 'image')} of the {split} split, {counted(len(evaluation.classes), *kinds)}"


def _tiles(evaluation: Scores, facts: dict[str, str], baselines: Mapping[str, float]) -> str:
    numbers = _class_tiles(evaluation, baselines) if isinstance(evaluation, Evaluation) else label_tiles(evaluation)
    return tiles([*numbers, (f"{evaluation.images:,}", "images scored")], facts)


def _class_tiles(evaluation: Evaluation, baselines: Mapping[str, float]) -> list[tuple[str, str]]:
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
        tiles.append((f"{baselines[best]:.2%}", f"top-1 without training: {best}, validation images"))
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


def _galleries(examples: Sequence[Example]) -> str:
    wrong = sorted((e for e in examples if e.predicted != e.label), key=lambda e: -e.probability)
    right = [e for e in examples if e.predicted == e.label]
    parts = []
    if wrong:
        parts.append(("Most confident mistakes", wrong))
    if right:
        parts.append(("Right answers", right))
    note = (
        "<p class=soft>The picture as the model sees it, and what its attention reads, brightest where most. "
        "Attention shows where information was taken from; it is no proof that this decided the answer.</p>"
        if all(example.overlay is not None for example in examples)
        else "<p class=soft>The pictures as the model sees them. Its layers do not let every patch attend to every other, "
        "so there is no one map of attention to lay over them.</p>"
    )
    return "".join(
        f"<section><h2>{name}</h2>{note if i == 0 else ''}<div class=gallery>"
        f"{''.join(_figure(example) for example in chosen[:SHOWN])}</div></section>"
        for i, (name, chosen) in enumerate(parts)
    )


def _figure(example: Example) -> str:
    right = example.predicted == example.label
    sure = f"{example.probability:.1%}"
    if example.furthest is not None:
        sure = f"<br>furthest from the truth: {_e(example.furthest)}, {sure}"
    verdict = f"<span class={'yes' if right else 'no'}>{_e(example.predicted)}</span> {sure}"
    truth = "" if right else f"<br>in truth {_e(example.label)}"
    truth += f"<br>attention {_e(example.even)}" if example.even else ""
    return (
        f"<figure><div class=views>{picture(example.image, f'{example.name}: {example.label}')}"
        f"{'' if example.overlay is None else picture(example.overlay, 'what the model looked at')}</div>"
        f"<figcaption>{verdict}{truth}<small>{_e(example.name)}</small></figcaption></figure>"
    )
