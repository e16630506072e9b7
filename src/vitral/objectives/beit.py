"""BEiT: predict the visual tokens of patches that are hidden in blocks.

BEiT: BERT Pre-Training of Image Transformers, https://arxiv.org/abs/2106.08254, sections 2.3 and 2.4; the blocks are those of its code
(https://github.com/microsoft/unilm, beit/masking_generator.py), which hides up to 75 of 14x14 patches: a mask_ratio of 0.383.

Deviations. The tokens are those of a `vitral.models.tokenizer`, trained on the images at hand. The smallest block has 16 of 14x14 patches, and the
same share of a smaller grid. Every image counts alike, however many of its patches are hidden; in the paper's code every patch does.

Axes: B batch, N patches on a grid h w, d width of a code, M hidden patches.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.data.loader import Batch
from vitral.data.preprocess import Preprocess
from vitral.errors import VitralError
from vitral.layers.patch import patchify, unpatchify
from vitral.models.common import ImageModel
from vitral.models.tokenizer import Tokenizer
from vitral.objectives.masking import MaskedPrediction, check_mask_ratio, mean_by_image
from vitral.objectives.objective import Objective
from vitral.predict import Predictor
from vitral.randomness import keyed

TRIES = 10  # to place a block
ASPECT = 0.3  # of height over width, and of width over height, at least
SMALLEST = 16  # patches in a block, of 14x14


def block_masks(keys: Tensor, grid: tuple[int, int], mask_ratio: float) -> Tensor:
    """Hidden patches, bool [B, N], of samples with these keys [B]: rectangles, until `mask_ratio` of the grid is hidden or no more fits.

    The ratio is an upper bound; of few patches there may be none hidden.
    """
    h, w = grid
    if min(grid) < 2:
        raise VitralError(f"a grid of {h}x{w} patches has no room for blocks; choose a smaller patch_size")
    most = max(1, int(h * w * mask_ratio))
    smallest = min(SMALLEST, max(1, h * w // 12))
    masks = np.zeros((len(keys), h, w), bool)
    samples, going = keys.numpy(), np.arange(len(keys))
    block = 0
    while len(going):
        draws = keyed(samples[going], f"block {block}", TRIES * 4).reshape(-1, TRIES, 4)
        added = [add_block(masks[row], tries, smallest, most) for row, tries in zip(going, draws, strict=True)]
        going = going[added]
        going = going[masks[going].sum((1, 2)) < most]
        block += 1
    return torch.from_numpy(masks).flatten(1)


def add_block(mask: np.ndarray, tries: np.ndarray, smallest: int, most: int) -> bool:
    """Hide one more rectangle of the mask [h, w], which may overlap others; False if none of the tries fits.

    tries: random numbers [10, 4] in [0, 1), each row an area, an aspect ratio and a place.
    """
    height, width = mask.shape
    room = most - mask.sum()
    for area, ratio, down, right in tries.tolist():
        size = smallest + area * (room - smallest)
        aspect = ASPECT ** (1 - 2 * ratio)
        h, w = round(math.sqrt(size * aspect)), round(math.sqrt(size / aspect))
        if h >= height or w >= width:
            continue
        top, left = int(down * (height - h + 1)), int(right * (width - w + 1))
        block = mask[top : top + h, left : left + w]
        if 0 < (~block).sum() <= room:
            block[:] = True
            return True
    return False


class VisualTokens:
    """A trained tokenizer that takes images as the model in training gets them, and paints images for it."""

    def __init__(self, predictor: Predictor, preprocess: Preprocess, patch_size: int) -> None:
        steps, tokenizer = predictor.card.preprocess, predictor.model
        if not isinstance(tokenizer, Tokenizer):
            raise VitralError(
                f"tokenizer: {predictor.card.model} makes no visual tokens; give a run of vitral pretrain --objective tokenizer"
            )
        if tokenizer.patch_size != patch_size:
            raise VitralError(
                f"tokenizer: it has patches of {tokenizer.patch_size} pixels and the model of {patch_size}; "
                f"give --patch-size {tokenizer.patch_size}, or train another tokenizer"
            )
        if steps.channels != preprocess.channels:
            raise VitralError(
                f"tokenizer: it sees {steps.channels} channels and the model {preprocess.channels}; "
                f"give --channels {steps.channels}, or train another tokenizer"
            )
        self.tokenizer = tokenizer.eval().requires_grad_(False)
        self.codes = tokenizer.config.codes
        # From the model's normalised pixels to the tokenizer's: x * scale + shift.
        mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
        self.scale = (std / torch.tensor(steps.std))[:, None, None]
        self.shift = ((mean - torch.tensor(steps.mean)) / torch.tensor(steps.std))[:, None, None]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] to the indices of their codes, int64 [B, N]."""
        self.tokenizer.to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            return self.tokenizer.tokenise(images * self.scale.to(images.device) + self.shift.to(images.device))

    @torch.no_grad()
    def paint(self, indices: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Codes [B, N] to images [B, C, H, W]."""
        images = self.tokenizer.decode(self.tokenizer.codebook.vectors[indices], image_size)
        return (images - self.shift.to(images.device)) / self.scale.to(images.device)


@dataclass(frozen=True)
class PredictTokens(Objective):
    """The model is a MaskedPrediction of `tokens.codes` classes."""

    tokens: VisualTokens
    mask_ratio: float = 0.4
    """Largest share of the patches that is hidden."""

    def __post_init__(self) -> None:
        check_mask_ratio(self.mask_ratio)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """`loss` of the hidden patches, and `accuracy`, the share of them whose code is predicted."""
        assert isinstance(model, MaskedPrediction)
        hidden = self.hide(model, batch)
        targets = self.tokens(batch.images)[hidden]  # [M]
        logits = model(batch.images, hidden, hidden)  # [M, K]
        right = (logits.argmax(-1) == targets).float()
        return {
            "loss": mean_by_image(F.cross_entropy(logits, targets, reduction="none"), hidden),
            "accuracy": mean_by_image(right, hidden),
        }

    def hide(self, model: MaskedPrediction, batch: Batch) -> Tensor:
        """Hidden patches, bool [B, N]."""
        return block_masks(batch.keys, model.backbone.grid_of(batch.images), self.mask_ratio).to(batch.images.device)

    def result(self, model: nn.Module) -> ImageModel:
        assert isinstance(model, MaskedPrediction)
        return model.backbone

    def pictures(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Hidden patches are blank; then all are painted from codes: predicted ones where they were hidden, their own elsewhere."""
        assert isinstance(model, MaskedPrediction)
        images, size = batch.images, (batch.images.shape[2], batch.images.shape[3])
        patch = (model.backbone.patch_size, model.backbone.patch_size)
        hidden = self.hide(model, batch)
        codes = self.tokens(images)
        codes[hidden] = model(images, hidden, hidden).argmax(-1)
        return {
            "image": images,
            "what it saw": unpatchify(torch.where(hidden[..., None], 0.0, patchify(images, patch)), patch, size),
            "painted": self.tokens.paint(codes, size),
        }
