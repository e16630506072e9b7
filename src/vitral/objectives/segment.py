"""Semantic segmentation: softmax cross-entropy of every pixel that has a class, which the logits of its cell answer for.

Logits enlarged to the pixels, as in use, would cost a third of a step on a processor and teach the same. Where most pixels are background, classes
that are rare weigh more, or they are learned last. Softmax so weighted answers with rare classes too often: therefore logits are raised by the
logarithm of their class's weight while they are learned; without it, in use, they are those of the true shares
(https://arxiv.org/abs/2007.07314, section 4.2).

Axes: B images, K classes, H W pixels, h w cells of s by s pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.data.loader import Batch
from vitral.data.maps import VOID
from vitral.layers.lora import merged
from vitral.models.common import ImageModel
from vitral.objectives.objective import Objective


@dataclass(frozen=True)
class Segment(Objective):
    """Targets are classes int64 [B, H, W], VOID where there is none. The loss is the mean over the labelled pixels of the whole step's batch, each
    weighted by its class.
    """

    weights: tuple[float, ...]
    """Of the classes."""

    def count(self, batch: Batch) -> float:
        return float(self.weigh(batch.targets).sum(dtype=torch.float64))

    def weigh(self, classes: Tensor) -> Tensor:
        """The weight of each class in a tensor; 0 of void."""
        table = torch.tensor([*self.weights, 0.0], device=classes.device)
        return table[classes]  # VOID is -1, the last

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        found = model(batch.images).float()
        own = cells(batch.targets, found.stride, found.logits.shape[2:])  # [B, s*s, h, w]
        weight = self.weigh(own)
        whole = max(1e-9, self.count(batch) if batch.whole is None else batch.whole)
        right = found.logits.detach().argmax(1, keepdim=True) == own
        raised = found.logits + torch.tensor(self.weights, device=own.device).log()[:, None, None]  # [B, K, h, w]
        surprise = -raised.log_softmax(1).gather(1, own.clamp(min=0))  # [B, s*s, h, w]
        return {"loss": (surprise * weight).sum() / whole, "accuracy": (right * weight).sum() / whole}

    def result(self, model: nn.Module) -> ImageModel:
        """The model, with LoRA, where it has it, merged into plain layers."""
        assert isinstance(model, ImageModel)
        return merged(model)


def cells(targets: Tensor, side: int, grid: Sequence[int]) -> Tensor:
    """Classes [B, H, W] by the cells of a grid (h, w) that they lie in, [B, side * side, h, w]; what of a cell lies outside is void."""
    (h, w), (H, W) = grid, targets.shape[1:]
    padded = F.pad(targets, (0, w * side - W, 0, h * side - H), value=VOID)
    tiles = padded.unflatten(2, (w, side)).unflatten(1, (h, side))  # [B, h, s, w, s]
    return tiles.permute(0, 2, 4, 1, 3).flatten(1, 2)


def rarity_weights(shares: Sequence[float], power: float) -> tuple[float, ...]:
    """Weights of classes with these shares of the pixels: share ** -power, with a mean of 1 over the pixels; 1 of a class that has none."""
    raw = [share**-power if share else 0.0 for share in shares]
    mean = sum(share * weight for share, weight in zip(shares, raw, strict=True))
    return tuple(weight / mean if weight else 1.0 for weight in raw)
