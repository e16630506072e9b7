"""Single images of a scored split and what the model made of them, with what its attention read."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitral.data.dataset import Split
from vitral.explain.explain import explain
from vitral.explain.methods import undefined
from vitral.predict import Predictor
from vitral.report.frame import picture
from vitral.report.parts import escape as _e
from vitral.report.verdict import Verdict

ENLARGED = 160  # pixels: overlays of smaller images are enlarged to at least this
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


def example(predictor: Predictor, split: Split, index: int, verdict: Verdict) -> Example:
    """One image, and the attention of the last layer over it where that is defined."""
    pixels = split.read(index, predictor.card.preprocess.channels)
    overlay, even = None, ""
    if undefined(predictor.model, "attention") is None:
        explanation = explain(predictor, pixels)
        overlay = np.asarray(explanation.overlay(scale=max(1, -(-ENLARGED // max(pixels.shape[1:])))))
        even = explanation.even
    return Example(split.names[index], verdict, predictor.card.preprocess.shown(pixels), overlay, even)


def galleries(examples: Sequence[Example]) -> str:
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
