"""MAE: paint the patches that the encoder does not see, https://arxiv.org/abs/2111.06377; the model is `vitral.models.mae`."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitral.data.loader import Batch
from vitral.models.common import ImageModel
from vitral.models.mae import MAEOutput, MaskedAutoencoder
from vitral.objectives.noise import noise
from vitral.objectives.objective import Objective


@dataclass(frozen=True)
class PaintPatches(Objective):
    """The model is a MaskedAutoencoder, whose config has the mask ratio and what is painted; its encoder is saved."""

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        assert isinstance(model, MaskedAutoencoder)
        return {"loss": self.paint(model, batch).loss}

    def paint(self, model: MaskedAutoencoder, batch: Batch) -> MAEOutput:
        """The model's output; an image's key decides which of its patches are hidden."""
        count = math.prod(model.grid_of(batch.images))
        return model(batch.images, noise(batch.keys, "hidden patches", count, batch.images.device))

    def result(self, model: nn.Module) -> ImageModel:
        assert isinstance(model, MaskedAutoencoder)
        return model.encoder

    def pictures(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Hidden patches are blank, then painted. With `norm_pixels` the painted ones get the mean and deviation of the true patches."""
        assert isinstance(model, MaskedAutoencoder)
        images, size = batch.images, (batch.images.shape[2], batch.images.shape[3])
        _, painted, mask = self.paint(model, batch)
        patches, hidden, painted = model.patches(images), mask[..., None].bool(), painted.float()  # [B, N, p*p*C]
        if model.config.norm_pixels:
            painted = painted * (patches.var(-1, keepdim=True) + 1e-6).sqrt() + patches.mean(-1, keepdim=True)
        return {
            "image": images,
            "what it saw": model.picture(torch.where(hidden, 0.0, patches), size),
            "painted": model.picture(torch.where(hidden, painted, patches), size),
        }
