"""A model in PyTorch, here and now."""

from typing import Any

import torch

from vitral.data.preprocess import Preprocess
from vitral.data.resample import Pixels
from vitral.engines.engine import Engine
from vitral.models.common import ImageModel


class TorchEngine(Engine):
    """Runs a model on the device where its weights are, in evaluation mode."""

    def __init__(self, model: ImageModel, preprocess: Preprocess) -> None:
        self.model, self.preprocess = model.eval(), preprocess

    def __call__(self, pixels: Pixels) -> Any:
        return self.outputs(torch.from_numpy(self.preprocess.normalise(pixels)))

    @torch.inference_mode()
    def outputs(self, batch: torch.Tensor) -> Any:
        """Normalised images [B, C, H, W] to the model's outputs, float32 on the CPU: logits [B, K], or `Maps` or `Found`."""
        return self.model(batch.to(next(self.model.parameters()).device)).float().to("cpu")
