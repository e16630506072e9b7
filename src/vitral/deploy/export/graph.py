"""From the pixels of a model's view to its answers as one graph of tensors, traced once for all formats that are made of it."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitral.data.preprocess import Preprocess
from vitral.data.view import View
from vitral.engines.exported import KINDS, PIXEL_VALUES, PIXELS, Form
from vitral.errors import VitralError
from vitral.predict import Predictor

OPSET = 18
"""The oldest set of ONNX's operators that torch's exporter writes: more runtimes read it."""
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


class Traced:
    """The graph of a predictor, for the formats that are made of it. The model must not change in between.

    raw: from normalised pixels to logits. Raises VitralError for a model that predicts nothing.
    """

    def __init__(self, predictor: Predictor, *, raw: bool = False) -> None:
        predictor.check_head()
        self.predictor, self.model, self.raw = predictor, predictor.model, raw

    @cached_property
    def form(self) -> Form:
        """What the graph gives, from what the model answers to two black images."""
        steps = self.predictor.card.preprocess
        outputs = self.predictor.outputs(torch.zeros(2, steps.channels, steps.height, steps.width))
        squash = self.predictor.answers.squash
        if isinstance(outputs, Tensor):
            return Form(self.raw, squash, ("logits",))
        kind = next(name for name, known in KINDS.items() if type(outputs) is known)
        return Form(self.raw, squash, tuple(outputs.tensors()), kind, outputs.constants())

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        """For any number of images."""
        graph, images = Graph(self.predictor, self.raw).eval(), example(self.predictor.card.preprocess, self.raw)
        with quietly():
            program = torch.export.export(graph, (images,), **_any_number())
        for node in list(program.graph.nodes):  # pixels of more than 8 bits come as float32
            if node.target is torch.ops.aten._assert_tensor_metadata.default:
                program.graph.erase_node(node)
        program.graph_module.recompile()
        return program

    @cached_property
    def proto(self) -> Any:
        """ONNX's ModelProto, without metadata. Raises VitralError where onnx or onnxscript is missing."""
        try:
            import onnx  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError:
            raise VitralError(
                "export to ONNX needs onnx, onnxscript and onnxruntime; run pip install 'vitral[export]'"
            ) from None
        program = self.program
        with quietly():
            made = torch.onnx.export(
                program, dynamo=True, opset_version=OPSET, external_data=False, verbose=False,
                input_names=[PIXEL_VALUES if self.raw else PIXELS], output_names=list(self.form.given),
            )  # fmt: skip
        assert made is not None
        return made.model_proto


def _any_number() -> dict[str, Any]:
    """For the exporter: the first axis is of any length."""
    return {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without what exporters and quantisers log and warn of."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


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
