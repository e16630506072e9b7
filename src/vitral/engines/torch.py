"""A model in PyTorch, here and now."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from vitral.data.preprocess import Preprocess
from vitral.data.resample import Pixels
from vitral.engines.engine import Engine
from vitral.layers.precision import autocast, torch_dtype
from vitral.models.common import ImageModel, evaluating
from vitral.models.plain import forward_merging, forward_packed


@contextmanager
def in_use(model: nn.Module, precision: str = "fp32") -> Iterator[torch.device]:
    """Evaluation mode without gradients, in this precision; yields the model's device. Every module's mode is restored afterwards."""
    device = next(model.parameters()).device
    with evaluating(model), torch.inference_mode(), autocast(device, precision):
        yield device


def cast(model: ImageModel, dtype: torch.dtype) -> ImageModel:
    """A copy whose products' weights are in this type already: under autocast they would be cast anew in every forward pass, to the same."""
    made = copy.deepcopy(model)
    for module in made.modules():
        if type(module) in (nn.Linear, nn.Conv2d):  # others make their weights of what they hold
            module.to(dtype)
    return made


class TorchEngine(Engine):
    """Runs a model on the device where its weights are, in evaluation mode.

    precision: fp32, bf16 or fp16, unless `computing` says another. compiled: by torch.compile, for each size of a batch when it first comes. merging:
    tokens that become one with others in each block of a plain ViT.
    """

    library = "PyTorch"

    def __init__(
        self,
        model: ImageModel,
        preprocess: Preprocess,
        precision: str = "fp32",
        *,
        compiled: bool = False,
        merging: int = 0,
    ) -> None:
        self.model, self.preprocess, self.precision, self.merging = model.eval(), preprocess, precision, merging
        run = model if precision == "fp32" else cast(model, torch_dtype(precision))
        self.packs, self.run = model.plain and not merging, run
        forward = partial(forward_merging, run, each=merging) if merging else run
        self.forward = torch.compile(forward, dynamic=False) if compiled else forward

    def computing(self, precision: str) -> AbstractContextManager[object]:
        return in_use(self.model, precision)

    def __call__(self, pixels: Pixels) -> Any:
        device = next(self.model.parameters()).device
        return self.outputs(self.preprocess.normalise(torch.from_numpy(pixels).to(device)))

    @torch.inference_mode()
    def packed(self, views: Sequence[Pixels]) -> Any:
        device = next(self.model.parameters()).device
        images = [self.preprocess.normalise(torch.from_numpy(view).to(device)) for view in views]
        with autocast(device, self.precision):
            return forward_packed(self.run, images).float().to("cpu")

    @torch.inference_mode()
    def outputs(self, batch: torch.Tensor) -> Any:
        """Normalised images [B, C, H, W] to the model's outputs, float32 on the CPU: logits [B, K], or `Maps` or `Found`."""
        device = next(self.model.parameters()).device
        with autocast(device, self.precision):
            return self.forward(batch.to(device)).float().to("cpu")
