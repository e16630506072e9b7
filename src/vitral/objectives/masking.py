"""What objectives with hidden patches share: a model that classifies patches, and a mean in which every image counts alike.

Axes: B batch, N patches, D width, K classes, M patches that are predicted.
"""

import torch
from torch import Tensor, nn

from vitral.errors import VitralError
from vitral.layers.initialise import truncated_normal
from vitral.models.common import ImageModel, Maskable


def maskable(backbone: ImageModel) -> Maskable:
    """The backbone, if its patches can be hidden and found again among its tokens; else a VitralError."""
    if not isinstance(backbone, Maskable):
        raise VitralError(f"{type(backbone).__name__}: only a ViT or a BEiT can hide patches; choose one of them")
    assert backbone.num_classes == 0
    for name in ("representation_dim", "patch_drop"):
        if getattr(backbone.config, name, 0):
            raise VitralError(f"{name}: predicting hidden patches needs all encoded patches, unchanged; set it to 0")
    return backbone


class MaskedPrediction(nn.Module):
    """A backbone, the token that replaces a hidden patch, and a linear head over the encoded patches.

    backbone: a ViT or a BEiT with num_classes=0, and without patch_drop and representation_dim. classes: K.
    """

    def __init__(self, backbone: ImageModel, classes: int) -> None:
        super().__init__()
        self.backbone = maskable(backbone)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, self.backbone.dim))
        self.head = nn.Linear(self.backbone.dim, classes)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        truncated_normal(self.head)

    def forward(self, images: Tensor, asked: Tensor, hidden: Tensor, source: Tensor | None = None) -> Tensor:
        """Images [B, C, H, W] to float32 logits [M, K] of the patches in `asked`, bool [B, N], image by image.

        hidden: bool [B, N], the patches that the mask token replaces. source: int64 [B, N], the patch whose embedding each of the others gets;
        default: its own.
        """
        backbone = self.backbone

        def replace(patches: Tensor) -> Tensor:  # [B, N, D]
            if source is not None:
                patches = patches.gather(1, source[..., None].expand(-1, -1, patches.shape[2]))
            return torch.where(hidden[..., None], self.mask_token.to(patches.dtype), patches)

        tokens = backbone.encode(backbone.embed(images, replace), backbone.grid_of(images))  # [B, prefix + N, D]
        patches = tokens[:, backbone.num_prefix :]  # [B, N, D]
        return self.head(backbone.fc_norm(patches[asked])).float()


def mean_by_image(values: Tensor, asked: Tensor) -> Tensor:
    """The mean over images of each image's mean, so that an image's loss does not depend on how many patches others in its batch have hidden.

    values [M]: of the patches in `asked`, bool [B, N]. An image without any counts 0.
    """
    shares = asked / asked.sum(1, keepdim=True).clamp(min=1)  # [B, N]
    return (values * shares[asked]).sum() / len(asked)


def check_mask_ratio(ratio: float) -> None:
    if not 0 < ratio < 1:
        raise VitralError(f"mask_ratio={ratio}: must lie between 0 and 1")
