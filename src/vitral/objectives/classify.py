"""Classification: softmax cross-entropy with label smoothing (https://arxiv.org/abs/1512.00567, section 7), or a yes or no for each class."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from vitral.data.loader import Batch
from vitral.layers.lora import merged
from vitral.models.common import ImageModel
from vitral.objectives.objective import Objective


@dataclass(frozen=True)
class Classify(Objective):
    """Targets are classes [B], or shares [B, K] of mixed images and of images with several labels."""

    smoothing: float = 0.0
    loss: str = "ce"
    """ce, or bce: the sum over classes of binary cross-entropies (AugReg, section 3.2; DeiT III, section 3.1, up to its factor 1 / K)."""
    weights: Tensor | None = None
    """[K]: weight of a sample of each class."""
    independent: bool = False
    """Whether an image can have any number of the labels, so that there is no top-1."""
    binarise: bool = False
    """With bce: the target of both classes of a mixed image is 1 (DeiT III's code), not their shares."""

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits = model(batch.images).float()
        loss = self.of(logits, batch.targets)
        return {"loss": loss} if self.independent else {"loss": loss, "correct": hits(logits, batch.targets)}

    def of(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of logits [B, K]."""
        weights = None if self.weights is None else self.weights.to(logits.device)
        if self.loss == "ce" and weights is None:
            return F.cross_entropy(logits, targets, label_smoothing=self.smoothing)
        shares = F.one_hot(targets, logits.shape[1]).to(logits.dtype) if targets.ndim == 1 else targets  # [B, K]
        counts = 1.0 if weights is None else shares @ weights / shares.sum(1).clamp(min=1e-9)  # [B]
        if self.loss == "ce":
            return (F.cross_entropy(logits, shares, label_smoothing=self.smoothing, reduction="none") * counts).mean()
        uniform = 1 / 2 if self.independent else 1 / logits.shape[1]  # over yes and no, or over the classes
        if self.binarise:
            shares = (shares > 0).to(shares.dtype)
        smooth = shares * (1 - self.smoothing) + self.smoothing * uniform
        losses = F.binary_cross_entropy_with_logits(logits, smooth, reduction="none").sum(1)  # [B]
        return (losses * counts).mean()

    def result(self, model: nn.Module) -> ImageModel:
        """The model, with LoRA and the head's norm, where it has them, merged into plain layers."""
        assert isinstance(model, ImageModel)
        return merged(model)


def hits(logits: Tensor, targets: Tensor) -> Tensor:
    """How many top-1 predictions are right; in a mixed image the class of the larger share is."""
    return (logits.argmax(-1) == (targets if targets.ndim == 1 else targets.argmax(-1))).sum()


def balanced_weights(counts: Tensor) -> Tensor:
    """[K]: inverse to the classes' counts, and 1 in the mean over images."""
    return counts.sum() / (len(counts) * counts.clamp(min=1))
