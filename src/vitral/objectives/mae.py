"""MAE: paint the patches that the encoder did not see, https://arxiv.org/abs/2111.06377; the model is `vitral.models.mae`."""

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
    """What is trained is a MaskedAutoencoder, whose shape says how much is hidden and what is painted; the result is its encoder."""

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        assert isinstance(model, MaskedAutoencoder)
        return {"loss": self.paint(model, batch).loss}

    def paint(self, model: MaskedAutoencoder, batch: Batch) -> MAEOutput:
        """The model's answer where each image's key decides what is hidden of it."""
        count = math.prod(model.grid_of(batch.images))
        return model(batch.images, noise(batch.keys, "hidden patches", count, batch.images.device))

    def result(self, model: nn.Module) -> ImageModel:
        assert isinstance(model, MaskedAutoencoder)
        return model.encoder

    def pictures(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Hidden patches are blank; painted ones get back the mean and deviation of the true ones where these were taken out (`norm_pixels`)."""
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
