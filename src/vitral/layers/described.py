"""What a person would measure of a small picture, its edges and its colours, and a linear classifier on them.

Histograms of oriented gradients, https://doi.org/10.1109/CVPR.2005.177, and of colours. Nothing here is learned by gradients.

Axes: B batch, C channels, H W pixels, F features, K classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE, CELL, DIRECTIONS = 64, 8, 9  # pixels of the picture that is described, and of a cell; directions of half a turn
ROUNDED = 0.01  # grey levels, by which a value on the edge of a bin is above it whatever was rounded before
FAINT = 10.0  # grey levels: a block whose edges are fainter counts less


def describe(images: Tensor) -> Tensor:
    """[B, C, 64, 64], 0..255, to [B, F]: the directions of edges in 49 overlapping blocks, and the colours of each quarter.

    Of the grey picture 9 directions in cells of 8 x 8 pixels, blocks of 2 x 2 cells normalised and clipped at 0.2. The root of the share of each
    of 64 colours, or of 8 levels in each of other bands.
    """
    return torch.cat([edges(images.mean(1)), colours(images)], dim=1)


def edges(grey: Tensor) -> Tensor:
    """[B, 64, 64] to [B, 4 x 9 x 49]."""
    dx = F.pad(grey[:, :, 2:] - grey[:, :, :-2], (1, 1))
    dy = F.pad(grey[:, 2:] - grey[:, :-2], (0, 0, 1, 1))
    place = torch.atan2(dy, dx).remainder(torch.pi) / torch.pi * DIRECTIONS  # of half a turn
    apart = (place[:, None] - torch.arange(DIRECTIONS, device=grey.device)[:, None, None]).abs()
    shares = (1 - torch.minimum(apart, DIRECTIONS - apart)).clamp(min=0)  # between the two nearest directions
    votes = (dx.square() + dy.square()).sqrt()[:, None] * shares  # [B, 9, 64, 64]
    blocks = F.unfold(F.avg_pool2d(votes, CELL), 2)  # [B, 4 x 9, 49]
    return (blocks / (blocks.norm(dim=1, keepdim=True) + FAINT)).clamp(max=0.2).flatten(1)


def colours(images: Tensor) -> Tensor:
    """[B, C, 64, 64] to [B, 4 x 64] of three bands, else to [B, 4 x 8 C]."""
    B, C, H, W = images.shape
    bins = 4 if C == 3 else 8
    level = ((images + ROUNDED) * (bins / 256)).floor()
    kinds = torch.arange(bins, device=images.device)[:, None, None]
    inside = (level[:, :, None] == kinds).float()  # [B, C, bins, 64, 64]
    if C != 3:
        return F.avg_pool2d(inside.flatten(1, 2), H // 2).flatten(1).sqrt()
    # [B, C, bins, 2, H/2, 2, W/2] -> [B, 4, C, bins, pixels]
    quarters = inside.view(B, C, bins, 2, H // 2, 2, W // 2).permute(0, 3, 5, 1, 2, 4, 6).flatten(5).flatten(1, 2)
    red, green, blue = quarters.unbind(2)  # each [B, 4, bins, pixels]
    pairs = (red[:, :, :, None] * green[:, :, None]).flatten(2, 3)  # [B, 4, 16, pixels]
    shares = pairs @ blue.mT / pairs.shape[-1]  # [B, 4, 16, 4]
    return shares.flatten(2).mT.flatten(1).sqrt()  # each colour's quarters side by side


class EdgesAndColours(nn.Module):
    """Normalised images [B, C, H, W] to logits [B, K]: a linear classifier on `describe`, fitted in closed form (`evaluation/described.py`).

    No gradient flows to the images: bins have none.
    """

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        features = describe(torch.zeros(1, in_channels, SIDE, SIDE)).shape[1]
        self.register_buffer("mean", torch.zeros(in_channels, 1, 1))  # of the images' normalisation, which is undone
        self.register_buffer("std", torch.ones(in_channels, 1, 1))
        self.register_buffer("weight", torch.zeros(num_classes, features))
        self.register_buffer("bias", torch.zeros(num_classes))

    def features(self, images: Tensor) -> Tensor:
        """[B, C, H, W] to [B, F], in float32."""
        with torch.autocast(images.device.type, enabled=False):
            plain = (images.detach().float() * self.std + self.mean).mul(255).clamp(0, 255)
            if plain.shape[2:] != (SIDE, SIDE):
                mode = "area" if min(plain.shape[2:]) >= SIDE else "bilinear"
                plain = F.interpolate(plain, (SIDE, SIDE), mode=mode)
            return describe(plain)

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            return F.linear(self.features(images), self.weight, self.bias)
