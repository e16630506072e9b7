"""From the pixels of a model's view to its answers as one graph of tensors, which every format of an exported file is made of."""

import numpy as np
import torch
from torch import Tensor, nn

from vitral.data.preprocess import Preprocess
from vitral.data.view import View
from vitral.engines.exported import KINDS, Form
from vitral.errors import VitralError
from vitral.predict import Predictor

SHAPES = ((300, 200), (120, 333), (64, 64))  # of images, from which it is seen whether views have one size


class Graph(nn.Module):
    """From what `Preprocess.view` gives to the tensors that `Form` names; raw: from normalised pixels."""

    mean: Tensor
    std: Tensor

    def __init__(self, predictor: Predictor, raw: bool) -> None:
        super().__init__()
        self.model, self.raw = predictor.model, raw
        self.probabilities = predictor.answers.probabilities
        mean, std = predictor.card.preprocess.moments()
        self.register_buffer("mean", torch.from_numpy(mean), persistent=False)
        self.register_buffer("std", torch.from_numpy(std), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, ...]:
        if self.raw:
            outputs = self.model(pixels)
        else:
            outputs = self.model((pixels.float() - self.mean) / self.std)
        if isinstance(outputs, Tensor):
            return self.squashed(outputs)
        first, *others = outputs.tensors().values()
        return self.squashed(first), *others

    def squashed(self, logits: Tensor) -> Tensor:
        return logits if self.raw else self.probabilities(logits)


def example(steps: Preprocess, raw: bool) -> Tensor:
    """Two images as the graph takes them: with one, exporters take the number of images for a constant.

    Raises VitralError where views differ in size.
    """
    sizes = {(view.height, view.width) for view in (steps.follow(View(h, w)) for h, w in SHAPES if _fits(steps, h, w))}
    if sizes - {(steps.height, steps.width)}:
        raise VitralError(
            "this model takes images of many sizes (its preprocessing keeps their proportions), and an exported file takes one; export a model "
            "that was trained with --resize crop, squash or pad"
        )
    dtype = torch.uint8 if not raw and stays_uint8(steps) else torch.float32
    return torch.zeros(2, steps.channels, steps.height, steps.width, dtype=dtype)


def _fits(steps: Preprocess, h: int, w: int) -> bool:
    try:
        steps.check(h, w, "image")
    except VitralError:
        return False
    return True


def stays_uint8(steps: Preprocess) -> bool:
    """Whether 8-bit images are 8-bit images still when the model sees them."""
    grey = np.zeros((steps.channels, 2 * steps.height, 2 * steps.width), np.uint8)
    return steps.bit_depth == 8 and steps.view(grey).dtype == np.uint8


def form_of(predictor: Predictor, raw: bool) -> Form:
    """What the model's graph gives, from what it answers to two black images."""
    steps = predictor.card.preprocess
    outputs = predictor.outputs(torch.zeros(2, steps.channels, steps.height, steps.width))
    squash = predictor.answers.squash
    if isinstance(outputs, Tensor):
        return Form(raw, squash, ("logits",))
    kind = next(name for name, known in KINDS.items() if type(outputs) is known)
    return Form(raw, squash, tuple(outputs.tensors()), kind, outputs.constants())
