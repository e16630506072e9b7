"""A finished run as one page: `report.html`, a single file with no script and nothing from the network.

Every piece of text that comes from the data (class names, file names, messages) passes through `html.escape`.
"""

import base64
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitral.checkpoints.atomic import write_atomically
from vitral.errors import counted
from vitral.evaluation.metrics import Evaluation
from vitral.report.charts import Series, line_chart, reliability_chart

NAME = "report.html"
MATRIX_CLASSES = 40  # a larger confusion matrix cannot be read; its most confused pairs can
PAIRS = 30
SHOWN = 24  # pictures of a kind
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
TINY, LARGE = 128, 320  # pixels: enlarge smaller pictures without smoothing, shrink larger ones
HEADLINE_FACTS = ("parameters", "training time")
LOSS_WORDS = (
    "Training loss is measured on changed images (augmentation), with smoothed labels where the recipe has them; "
    "validation loss on the images as they are. So training may lie above validation."
)


@dataclass(frozen=True)
class Example:
    """One picture of the evaluated split and what the model made of it.

    image, overlay: uint8 [H, W, 3], the overlay in the image's shape or a multiple of it, or None where attention gives no one map.
    probability: of `predicted`, in [0, 1].
    """

    name: str
    label: str
    predicted: str
    probability: float
    image: NDArray[np.uint8]
    overlay: NDArray[np.uint8] | None


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
    evaluation: Evaluation,
    curves: Sequence[dict[str, Any]],
    examples: Sequence[Example],
    facts: dict[str, str],
    recipe: str = "",
    split: str = "test",
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

    Raises:
        VitralError: the file cannot be written.
    """
    assert list(labels) == evaluation.labels, "the evaluation is of other classes"
    body = [
        f"<header><h1>{_e(title)}</h1><p class=soft>{_e(_subtitle(evaluation, split))}</p></header>",
        _tiles(evaluation, facts),
        _curves(curves),
        _matrix(evaluation) if len(labels) <= MATRIX_CLASSES else _pairs(evaluation),
        _classes(evaluation),
        _galleries(examples),
        _how(command, recipe, facts, curves),
    ]
    css = resources.files("vitral.report").joinpath("report.css").read_text("utf-8")
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # The browser itself holds the page to its word: no script, nothing fetched.
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{_e(title)}</title><style>{css}</style></head>\n<body><main>\n"
        + "\n".join(body)
        + "\n<footer>Written by vitral. This page is one file and needs no network.</footer>\n"
        "</main></body></html>\n"
    )
    write_atomically(run / NAME, page.encode("utf-8", "backslashreplace"))  # file names need not be valid text
    return run / NAME


def _subtitle(evaluation: Evaluation, split: str) -> str:
    return f"{counted(evaluation.images, 'image')} of the {split} split, {len(evaluation.classes):,} classes"


def _tiles(evaluation: Evaluation, facts: dict[str, str]) -> str:
    low, high = evaluation.top1_interval
    tiles = [(f"{evaluation.top1:.2%}", f"top-1, 95 % interval {low:.2%} to {high:.2%}")]
    if evaluation.top5 is not None:
        tiles.append((f"{evaluation.top5:.2%}", "top-5"))
    tiles.append(("–" if evaluation.macro_f1 is None else f"{evaluation.macro_f1:.2%}", "macro F1"))
    tiles.append((f"{evaluation.ece:.2%}", "expected calibration error"))
    tiles.append((f"{evaluation.images:,}", "images scored"))
    tiles += [(facts[key], key) for key in HEADLINE_FACTS if key in facts]
    inside = "".join(f"<div class=tile><b>{_e(value)}</b><span>{_e(name)}</span></div>" for value, name in tiles)
    return f"<div class=tiles>{inside}</div>"


def _points(curves: Sequence[dict[str, Any]], event: str, key: str) -> list[tuple[float, float]]:
    """(epoch, value) of the lines with a finite value, by step; a later line replaces an earlier one."""
    by_step: dict[int, tuple[float, float]] = {}
    for line in curves:
        value = line.get(key)
        if line.get("event") == event and value is not None and math.isfinite(value):
            by_step[int(line["step"])] = (float(line["epoch"]), float(value))
    return [by_step[step] for step in sorted(by_step)]


def _curves(curves: Sequence[dict[str, Any]]) -> str:
    def both(key: str) -> list[Series]:
        return [
            Series("training", _points(curves, "train", key), "a", smoothed=True),
            Series("validation", _points(curves, "val", key), "b", marks=True),
        ]

    rate = [Series("learning rate", _points(curves, "train", "lr"))]
    speed = [Series("images/s", _points(curves, "train", "images_per_s"), smoothed=True)]
    charts = [
        ("Loss", line_chart("Loss over the epochs", both("loss"), "epoch")),
        ("Top-1", line_chart("Top-1 over the epochs", both("top1"), "epoch", lambda v, digits: f"{v:.{digits}%}")),
        ("Learning rate", line_chart("Learning rate over the epochs", rate, "epoch", _short)),
        (
            "Images a second",
            line_chart("Training speed over the epochs", speed, "epoch", lambda v, digits: f"{v:,.{digits}f}"),
        ),
    ]
    words = {"Loss": LOSS_WORDS} if _points(curves, "val", "loss") else {}
    cards = "".join(
        f"<section><h3>{name}</h3>{svg}" + (f"<p class=soft>{words[name]}</p>" if name in words else "") + "</section>"
        for name, svg in charts
        if svg
    )
    return f"<div class=pair>{cards}</div>" if cards else ""


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
    table = _table(["true class", "taken for", "images", "share of the true class"], rows, names=2)
    return f"<section><h2>Most confused pairs</h2>{table}</section>"


def _classes(evaluation: Evaluation) -> str:
    """The per-class table, the weakest F1 first and classes without images last, and the reliability diagram."""
    rows = []
    for row in sorted(evaluation.classes, key=lambda row: (row.support == 0, row.f1)):
        interval = "" if row.recall_interval is None else "{:.0%} to {:.0%}".format(*row.recall_interval)
        meter = "" if row.f1 is None else f'<span class=meter><i style="--v:{row.f1:.3f}"></i></span>'
        scores = [_percent(row.precision), _percent(row.recall), interval]
        rows.append([_e(row.label), _percent(row.f1) + meter, f"{row.support:,}", *scores])
    heads = ["class", "F1", "images", "precision", "recall", "recall, 95 %"]
    averages = (
        f"Macro averages: precision {_percent(evaluation.macro_precision)}, "
        f"recall {_percent(evaluation.macro_recall)} (balanced accuracy), F1 {_percent(evaluation.macro_f1)}"
        f"{'' if all(row.support for row in evaluation.classes) else ', over the classes that have images'}."
    )
    diagram = reliability_chart("Reliability diagram", evaluation.reliability)
    return (
        f"<section><h2>Classes</h2><p class=soft>Weakest first. {averages}</p>{_table(heads, rows)}</section>"
        "<div class=pair><section><h3>Can its probabilities be trusted?</h3>" + diagram + "</section>"
        f"<section><h3>Calibration</h3><p>{_calibration_words(evaluation)}</p><p class=soft>In the diagram, "
        "images are grouped by the probability that the model gave to its answer; on the dashed line it is "
        "right as often as it says. Bars of few images are faint: they say little.</p></section></div>"
    )


def _calibration_words(evaluation: Evaluation) -> str:
    filled = [b for b in evaluation.reliability if b.confidence is not None]
    said = sum(b.images * (b.confidence or 0.0) for b in filled) / evaluation.images
    lean = "more sure than it should be" if said > evaluation.top1 else "less sure than it could be"
    return (
        f"On average the model gives its answer a probability of <b>{said:.1%}</b>, and it is right "
        f"<b>{evaluation.top1:.1%}</b> of the time: it is {lean}. The expected calibration error, over "
        f"{len(evaluation.reliability)} groups, is <b>{evaluation.ece:.1%}</b>; loss {evaluation.loss:.4f}."
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
    verdict = f"<span class={'yes' if right else 'no'}>{_e(example.predicted)}</span> {example.probability:.1%}"
    truth = "" if right else f"<br>in truth {_e(example.label)}"
    return (
        f"<figure><div class=views>{_img(example.image, f'{example.name}: {example.label}')}"
        f"{'' if example.overlay is None else _img(example.overlay, 'what the model looked at')}</div>"
        f"<figcaption>{verdict}{truth}<small>{_e(example.name)}</small></figcaption></figure>"
    )


def _img(pixels: NDArray[np.uint8], words: str) -> str:
    """A picture as a data URL: small ones exactly (PNG), large ones shrunk (JPEG)."""
    picture = Image.fromarray(pixels)
    tiny = max(picture.size) <= TINY
    buffer = io.BytesIO()
    if tiny:
        picture.save(buffer, "PNG", optimize=True)
    else:
        picture.thumbnail((LARGE, LARGE), Image.Resampling.LANCZOS)
        picture.save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    kind, look = ("png", "tiny") if tiny else ("jpeg", "photo")
    return f'<img class={look} alt="{_e(words)}" src="data:image/{kind};base64,{data}">'


def _how(command: str, recipe: str, facts: dict[str, str], curves: Sequence[dict[str, Any]]) -> str:
    rest = [(key, value) for key, value in facts.items() if key not in HEADLINE_FACTS]
    listed = "".join(f"<dt>{_e(key)}</dt><dd>{_e(value)}</dd>" for key, value in rest)
    said = [str(line.get("text", "")) for line in curves if line.get("event") == "message"]
    parts = [f"<h2>How it was made</h2><pre>{_e(command)}</pre>"]
    if listed:
        parts.append(f"<dl>{listed}</dl>")
    if recipe:
        parts.append(f"<details><summary>The recipe, as resolved</summary><pre>{_e(recipe)}</pre></details>")
    if said:
        text = _e("\n".join(said))
        parts.append(f"<details><summary>What training said ({len(said)})</summary><pre>{text}</pre></details>")
    return f"<section>{''.join(parts)}</section>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], names: int = 1) -> str:
    """Cells are HTML already; the first `names` columns hold words and are set to the left."""

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = [" class=name" if i < names else "" for i in range(len(cells))]
        inside = "".join(f"<{tag}{kind}>{cell}</{tag}>" for cell, kind in zip(cells, kinds, strict=True))
        return f"<tr>{inside}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<div class=scroll><table class=rows>{line(heads, 'th')}{body}</table></div>"


def _percent(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.1%}"


def _short(value: float, digits: int) -> str:
    """0.0005 as 5e-4, since a learning rate is said so."""
    return "0" if value == 0 else f"{value:.{digits}e}".replace("e-0", "e-") if abs(value) < 0.01 else f"{value:g}"


def _e(text: str) -> str:
    return html.escape(text, quote=True)
