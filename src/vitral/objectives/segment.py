"""Semantic segmentation: softmax cross-entropy of every pixel that has a class, on logits enlarged to the pixels.

Axes: B images, K classes, H W pixels.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from vitral.data.loader import Batch
from vitral.data.maps import VOID
from vitral.layers.lora import merged
from vitral.models.common import ImageModel
from vitral.objectives.objective import Objective


@dataclass(frozen=True)
class Segment(Objective):
    """Targets are classes int64 [B, H, W], VOID where there is none. The loss is the mean over the labelled pixels of the whole step's batch."""

    def count(self, batch: Batch) -> float:
        return float((batch.targets != VOID).sum())

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        targets = batch.targets  # [B, H, W]
        logits = model(batch.images).float().at_pixels(*targets.shape[1:])  # [B, K, H, W]
        whole = max(1.0, self.count(batch) if batch.whole is None else batch.whole)
        right = (logits.detach().argmax(1) == targets).sum()  # void is no class, so never right
        loss = F.cross_entropy(logits, targets, ignore_index=VOID, reduction="sum")
        return {"loss": loss / whole, "accuracy": right / whole}

    def result(self, model: nn.Module) -> ImageModel:
        """The model, with LoRA, where it has it, merged into plain layers."""
        assert isinstance(model, ImageModel)
        return merged(model)
