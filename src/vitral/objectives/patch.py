"""Masked patch prediction, as the ViT paper tried it: predict the mean colour of each corrupted patch.

An Image is Worth 16x16 Words, https://arxiv.org/abs/2010.11929, appendix B.1.2: half of the embedded patches are corrupted: 80 % of these become
the mask token, 10 % the embedding of another patch of the image, and 10 % stay. Colours have 3 bits a channel: 512 classes in RGB, 8 in grey.

Axes: B batch, N patches, C channels.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.data.loader import Batch
from vitral.errors import VitralError
from vitral.layers.patch import patchify, unpatchify
from vitral.models.common import ImageModel
from vitral.objectives.masking import MaskedPrediction, check_mask_ratio, mean_by_image
from vitral.objectives.noise import noise
from vitral.objectives.objective import Objective

LEVELS = 8  # of a channel: 3 bits
MOST_CHANNELS = 4
MASKED, SWAPPED = 0.8, 0.1  # of the corrupted patches; the rest stay


@dataclass(frozen=True)
class MeanColours(Objective):
    """The model is a MaskedPrediction of `colour_classes(C)` classes. mean, std: those that normalised the images, 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    mask_ratio: float = 0.5

    def __post_init__(self) -> None:
        check_mask_ratio(self.mask_ratio)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """`loss` of the corrupted patches, and `accuracy`, the share of them whose colour is predicted."""
        assert isinstance(model, MaskedPrediction)
        corrupted, masked, source = self.corrupt(model, batch)
        targets = self.classes(self.colours(model, batch.images))[corrupted]  # [M]
        logits = model(batch.images, corrupted, masked, source)  # [M, K]
        return {
            "loss": mean_by_image(F.cross_entropy(logits, targets, reduction="none"), corrupted),
            "accuracy": (logits.argmax(-1) == targets).float().mean(),
        }

    def corrupt(self, model: MaskedPrediction, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Which patches are corrupted, and which of them masked, bool [B, N] each; and which patch each one's embedding is of, int64 [B, N]."""
        device, N = batch.images.device, math.prod(model.backbone.grid_of(batch.images))
        count = max(1, round(N * self.mask_ratio))
        first = noise(batch.keys, "corrupted patches", N, device).argsort(dim=1)[:, :count]
        corrupted = torch.zeros(len(batch), N, dtype=torch.bool, device=device).scatter(1, first, True)
        how = noise(batch.keys, "corruption", N, device)
        swapped = corrupted & (how >= MASKED) & (how < MASKED + SWAPPED)
        # Any other patch: 1 to N - 1 places further, wrapping around at the end.
        step = 1 + (noise(batch.keys, "other patch", N, device) * (N - 1)).long().clamp(max=max(0, N - 2))
        own = torch.arange(N, device=device)
        return corrupted, corrupted & (how < MASKED), torch.where(swapped, (own + step) % N, own)

    def colours(self, model: MaskedPrediction, images: Tensor) -> Tensor:
        """The mean colour of each patch, 0..1, over its pixels inside the image: [B, N, C]."""
        patch = (model.backbone.patch_size, model.backbone.patch_size)
        area = patchify(torch.ones_like(images[:1, :1]), patch).sum(-1)  # [1, N]
        sums = patchify(images, patch).unflatten(2, (images.shape[1], -1)).sum(-1)  # [B, N, C]
        return sums / area[..., None] * images.new_tensor(self.std) + images.new_tensor(self.mean)

    def classes(self, colours: Tensor) -> Tensor:
        """Colours [..., C] in 0..1 to classes [...]: a number of base 8 whose first digit is the first channel."""
        digits = (colours * LEVELS).long().clamp(0, LEVELS - 1)
        return (digits * _places(digits)).sum(-1)

    def shown(self, classes: Tensor, channels: int) -> Tensor:
        """Classes [...] to the normalised colours [..., C] at their centres."""
        digits = classes[..., None] // _places(classes.new_empty(channels)) % LEVELS
        levels = (digits + 0.5) / LEVELS
        return (levels - levels.new_tensor(self.mean)) / levels.new_tensor(self.std)

    def result(self, model: nn.Module) -> ImageModel:
        assert isinstance(model, MaskedPrediction)
        return model.backbone

    def pictures(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Masked patches are blank, and swapped ones show the other patch; then corrupted patches are painted in their predicted colour."""
        assert isinstance(model, MaskedPrediction)
        images, size = batch.images, (batch.images.shape[2], batch.images.shape[3])
        patch = (model.backbone.patch_size, model.backbone.patch_size)
        corrupted, masked, source = self.corrupt(model, batch)
        patches = patchify(images, patch)  # [B, N, C*p*p]
        swapped = patches.gather(1, source[..., None].expand_as(patches))
        predicted = self.shown(model(images, corrupted, masked, source).argmax(-1), images.shape[1])  # [M, C]
        painted = patches.clone()
        painted[corrupted] = predicted.repeat_interleave(patch[0] * patch[1], dim=1)
        return {
            "image": images,
            "what it saw": unpatchify(torch.where(masked[..., None], 0.0, swapped), patch, size),
            "painted": unpatchify(painted, patch, size),
        }


def colour_classes(channels: int) -> int:
    """How many colours there are: 512 in RGB, 8 in grey, 4,096 of four bands. A VitralError for more bands: few patches would share a class."""
    if channels > MOST_CHANNELS:
        raise VitralError(
            f"objective patch predicts each patch's mean colour, which with {channels} bands is one of {LEVELS**channels:,}; "
            f"choose another (--objective mae), or data of at most {MOST_CHANNELS} bands"
        )
    return LEVELS**channels


def _places(like: Tensor) -> Tensor:
    """The value of each channel's digit: 64, 8, 1."""
    channels = like.shape[-1]
    return LEVELS ** torch.arange(channels - 1, -1, -1, device=like.device)
