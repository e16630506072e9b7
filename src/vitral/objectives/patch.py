"""Masked patch prediction as the ViT paper tried it: which mean colour had the patches that were corrupted?

An Image is Worth 16x16 Words, https://arxiv.org/abs/2010.11929, appendix B.1.2: half of the embedded patches are corrupted, and of these 80 % become
the mask token, 10 % the embedding of another patch of the image, 10 % stay. A colour has 3 bits a channel: 512 classes in RGB, 8 in grey.

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
    """What is trained is a MaskedPrediction of `colour_classes(C)` classes; mean and std are those that normalised the images, 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    mask_ratio: float = 0.5

    def __post_init__(self) -> None:
        check_mask_ratio(self.mask_ratio)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """`loss` of the corrupted patches, and `accuracy`, the share of them whose colour is right."""
        assert isinstance(model, MaskedPrediction)
        corrupted, masked, source = self.corrupt(model, batch)
        wanted = self.classes(self.colours(model, batch.images))[corrupted]  # [M]
        logits = model(batch.images, corrupted, masked, source)  # [M, K]
        return {
            "loss": mean_by_image(F.cross_entropy(logits, wanted, reduction="none"), corrupted),
            "accuracy": (logits.argmax(-1) == wanted).float().mean(),
        }

    def corrupt(self, model: MaskedPrediction, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Which patches are corrupted and which of them masked, bool [B, N] each, and where each patch's embedding is from, int64 [B, N]."""
        device, N = batch.images.device, math.prod(model.backbone.grid_of(batch.images))
        count = max(1, round(N * self.mask_ratio))
        first = noise(batch.keys, "corrupted patches", N, device).argsort(dim=1)[:, :count]
        corrupted = torch.zeros(len(batch), N, dtype=torch.bool, device=device).scatter(1, first, True)
        how = noise(batch.keys, "corruption", N, device)
        swapped = corrupted & (how >= MASKED) & (how < MASKED + SWAPPED)
        # Any patch but itself: 1 to N - 1 places on, around the end.
        step = 1 + (noise(batch.keys, "other patch", N, device) * (N - 1)).long().clamp(max=max(0, N - 2))
        own = torch.arange(N, device=device)
        return corrupted, corrupted & (how < MASKED), torch.where(swapped, (own + step) % N, own)

    def colours(self, model: MaskedPrediction, images: Tensor) -> Tensor:
        """The mean colour of each patch, 0..1, over what of it lies in the image: [B, N, C]."""
        patch = (model.backbone.patch_size, model.backbone.patch_size)
        area = patchify(torch.ones_like(images[:1, :1]), patch).sum(-1)  # [1, N]
        sums = patchify(images, patch).unflatten(2, (images.shape[1], -1)).sum(-1)  # [B, N, C]
        return sums / area[..., None] * images.new_tensor(self.std) + images.new_tensor(self.mean)

    def classes(self, colours: Tensor) -> Tensor:
        """Colours [..., C] in 0..1 to classes: a number to the base 8, the first channel its first digit."""
        digits = (colours * LEVELS).long().clamp(0, LEVELS - 1)
        return (digits * _places(digits)).sum(-1)

    def shown(self, classes: Tensor, channels: int) -> Tensor:
        """Classes [...] to the normalised colours [..., C] in the middle of them."""
        digits = classes[..., None] // _places(classes.new_empty(channels)) % LEVELS
        levels = (digits + 0.5) / LEVELS
        return (levels - levels.new_tensor(self.mean)) / levels.new_tensor(self.std)

    def result(self, model: nn.Module) -> ImageModel:
        assert isinstance(model, MaskedPrediction)
        return model.backbone

    def pictures(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Masked patches are blank, swapped ones show the patch whose embedding they have; of the corrupted ones the colours are painted."""
        assert isinstance(model, MaskedPrediction)
        images, size = batch.images, (batch.images.shape[2], batch.images.shape[3])
        patch = (model.backbone.patch_size, model.backbone.patch_size)
        corrupted, masked, source = self.corrupt(model, batch)
        patches = patchify(images, patch)  # [B, N, C*p*p]
        swapped = patches.gather(1, source[..., None].expand_as(patches))
        said = self.shown(model(images, corrupted, masked, source).argmax(-1), images.shape[1])  # [M, C]
        painted = patches.clone()
        painted[corrupted] = said.repeat_interleave(patch[0] * patch[1], dim=1)
        return {
            "image": images,
            "what it saw": unpatchify(torch.where(masked[..., None], 0.0, swapped), patch, size),
            "painted": unpatchify(painted, patch, size),
        }


def colour_classes(channels: int) -> int:
    """How many colours are told apart: 512 in RGB, 8 in grey, 4,096 of four bands; VitralError for more, whose classes few patches would share."""
    if channels > MOST_CHANNELS:
        raise VitralError(
            f"objective patch names each patch's mean colour, which for {channels} bands is one of {LEVELS**channels:,}; "
            f"choose another (--objective mae), or data of at most {MOST_CHANNELS} bands"
        )
    return LEVELS**channels


def _places(like: Tensor) -> Tensor:
    """What a digit of each channel counts for: 64, 8, 1."""
    channels = like.shape[-1]
    return LEVELS ** torch.arange(channels - 1, -1, -1, device=like.device)
