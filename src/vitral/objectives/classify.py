"""Classification: cross-entropy with label smoothing (https://arxiv.org/abs/1512.00567, section 7)."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Classify:
    """(model, images [B, C, H, W], targets [B]) -> {"loss": mean over the batch, "correct": how many top-1 hits}."""

    smoothing: float = 0.0

    def __call__(self, model: nn.Module, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
        logits = model(images).float()
        return {
            "loss": F.cross_entropy(logits, targets, label_smoothing=self.smoothing),
            "correct": (logits.argmax(-1) == targets).sum(),
        }
