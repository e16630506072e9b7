"""A finished run as one page: `report.html`, a single file with no script and nothing from the network.

Every piece of text that comes from the data (class names, file names, messages) passes through `html.escape`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitral.errors import counted
from vitral.evaluation.evaluator import Scores
from vitral.report.classes import ClassSections
from vitral.report.frame import curves_section, how_section, picture, remarks_section, tiles, write_page
from vitral.report.labels import LabelSections
from vitral.report.parts import escape as _e
from vitral.report.sections import Sections
from vitral.report.seen import Seen, seen_section

SHOWN = 24  # pictures of a kind


@dataclass(frozen=True)
class Example:
    """One picture of the evaluated split and what the model made of it.

    image, overlay: uint8 [H, W, 3], the overlay in the image's shape or a multiple of it, or None where attention gives no one map.
    probability: of `predicted`, in [0, 1], or None if there is none. Where an image can have several labels, label and predicted hold all of
    them, and probability is that of `furthest`, the one answer (a label, or no such label) that is furthest from the truth. even: what is to be
    said of attention without contrast, which the overlay then does not show.
    """

    name: str
    label: str
    predicted: str
    probability: float | None
    image: NDArray[np.uint8]
    overlay: NDArray[np.uint8] | None
    furthest: str | None = None
    even: str = ""


SECTIONS: dict[str, Sections] = {"classify": ClassSections(), "multilabel": LabelSections()}


def write_report(
    run: Path,
    *,
    title: str,
    command: str,
    evaluation: Scores,
    curves: Sequence[dict[str, Any]],
    examples: Sequence[Example],
    facts: dict[str, str],
    recipe: str = "",
    split: str = "test",
    task: str = "classify",
    baselines: Mapping[str, float] | None = None,
    seen: Sequence[Seen] = (),
    worth: Sequence[str] = (),
) -> Path:
    """Writes `run/report.html`, whole or not at all.

    Args:
        run: the run's folder; it exists.
        title: the page's heading.
        command: the command that made the run, to be copied.
        evaluation: the scores on `split`.
        curves: the lines of metrics.jsonl, in order; of two with one step the later holds (a resumed run).
        examples: right and wrong cases.
        facts: what else a reader wants, in order: data, fingerprint, cost, ... "parameters" and "training
            time" are shown large.
        recipe: the resolved recipe's text.
        split: which images were scored.
        task: what the scores are of.
        baselines: name -> share of right answers, on the same images, of what needs no training, where it is known.
        seen: images and what the model's view shows of them.
        worth: sentences on what the model is worth, the last a command.

    Raises:
        VitralError: the file cannot be written.
    """
    sections = SECTIONS[task]
    subtitle = f"{counted(evaluation.images, 'image')} of the {split} split, {sections.counted(evaluation)}"
    body = [
        f"<header><h1>{_e(title)}</h1><p class=soft>{_e(subtitle)}</p></header>",
        _worth(worth),
        tiles([*sections.tiles(evaluation, baselines or {}), (f"{evaluation.images:,}", "images scored")], facts),
        remarks_section(curves),
        curves_section(curves),
        sections.body(evaluation),
        _galleries(examples),
        seen_section(seen),
        how_section(command, recipe, facts, curves),
    ]
    return write_page(run, title, body)


def _worth(sentences: Sequence[str]) -> str:
    if not sentences:
        return ""
    *said, command = sentences
    return f"<section><h2>Can I use it?</h2><p>{_e(' '.join(said))}</p><pre>{_e(command)}</pre></section>"


def _galleries(examples: Sequence[Example]) -> str:
    wrong = sorted((e for e in examples if e.predicted != e.label), key=lambda e: -(e.probability or 0.0))
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
    sure = "" if example.probability is None else f"{example.probability:.1%}"
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
