"""The report of a run with labels: `report.html`, a single file with no script and nothing from the network.

Every text that comes from the data (class names, file names, messages) passes through `html.escape`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitral.errors import counted
from vitral.evaluation.evaluator import Scores
from vitral.report.classes import ClassSections
from vitral.report.frame import About, picture, write_run_page
from vitral.report.labels import LabelSections
from vitral.report.parts import escape as _e
from vitral.report.sections import Sections, Verdict
from vitral.report.seen import Seen, seen_section

SHOWN = 24  # pictures of a kind


@dataclass(frozen=True)
class Example:
    """One image of the scored split, and what the model made of it."""

    name: str
    verdict: Verdict
    image: NDArray[np.uint8]
    """[H, W, 3]"""
    overlay: NDArray[np.uint8] | None
    """The attention over the image, of its shape or a multiple; None for a model whose attention gives no single map."""
    even: str = ""
    """What to say of an attention map without contrast, which the overlay does not show."""


SECTIONS: dict[str, Sections] = {"classify": ClassSections(), "multilabel": LabelSections()}


def write_report(
    run: Path,
    about: About,
    evaluation: Scores,
    examples: Sequence[Example],
    *,
    split: str = "test",
    task: str = "classify",
    baselines: Mapping[str, float] | None = None,
    seen: Sequence[Seen] = (),
) -> Path:
    """Write `run/report.html`, whole or not at all; returns its path.

    Args:
        run: the run's folder; it exists.
        evaluation: the scores on `split`.
        examples: right and wrong predictions.
        task: of the run.
        baselines: name -> headline on the same images of methods without training, where known.
        seen: images, and what of them the model's view holds.

    Raises:
        VitralError: the file cannot be written.
    """
    sections = SECTIONS[task]
    subtitle = f"{counted(evaluation.images, 'image')} of the {split} split, {sections.counted(evaluation)}"
    numbers = [*sections.tiles(evaluation, baselines or {}), (f"{evaluation.images:,}", "images scored")]
    details = [sections.body(evaluation), _galleries(examples), seen_section(seen)]
    return write_run_page(run, about, subtitle, numbers, details)


def _galleries(examples: Sequence[Example]) -> str:
    wrong = sorted((e for e in examples if not _right(e)), key=lambda e: -(e.verdict.probability or 0.0))
    right = [e for e in examples if _right(e)]
    parts = [(name, found) for name, found in (("Most confident mistakes", wrong), ("Right answers", right)) if found]
    note = (
        "<p class=soft>Beside each image the attention of the last layer, brightest where most is read. It shows where information was taken "
        "from, which does not prove that this decided the answer.</p>"
        if all(example.overlay is not None for example in examples)
        else "<p class=soft>This model's attention gives no single map of an image, so the images stand alone.</p>"
    )
    return "".join(
        f"<section><h2>{name}</h2>{note if i == 0 else ''}<div class=gallery>"
        f"{''.join(_figure(example) for example in chosen[:SHOWN])}</div></section>"
        for i, (name, chosen) in enumerate(parts)
    )


def _right(example: Example) -> bool:
    return example.verdict.predicted == example.verdict.label


def _figure(example: Example) -> str:
    label, predicted, probability, furthest = example.verdict
    sure = "" if probability is None else f"{probability:.1%}"
    if furthest is not None:
        sure = f"<br>furthest from the truth: {_e(furthest)}, {sure}"
    words = f"<span class={'yes' if _right(example) else 'no'}>{_e(predicted)}</span> {sure}"
    words += "" if _right(example) else f"<br>true: {_e(label)}"
    words += f"<br>attention {_e(example.even)}" if example.even else ""
    return (
        f"<figure><div class=views>{picture(example.image, f'{example.name}: {label}')}"
        f"{'' if example.overlay is None else picture(example.overlay, 'what the attention of the last layer reads')}</div>"
        f"<figcaption>{words}<small>{_e(example.name)}</small></figcaption></figure>"
    )
