"""Images to patches to tokens: the linear embedding of non-overlapping patches, https://arxiv.org/abs/2010.11929, equation 1."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.errors import VitralError
from vitral.layers.conv import Conv2d

FINEST = 4  # pixels of the cells of a stem's maps that dense tasks read


def patchify(images: Tensor, patch: tuple[int, int], channels_last: bool = False) -> Tensor:
    """Images [B, C, H, W] to flat patches [B, N, C*p*q], patches row by row, each in the order channel, row, column.

    With `channels_last` a patch is row, column, channel, [B, N, p*q*C]. Height and width that the patch does not tile are padded with
    zeros at the bottom and the right.
    """
    p, q = patch
    B, C, H, W = images.shape
    if H % p or W % q:
        images = F.pad(images, (0, -W % q, 0, -H % p))
    h, w = -(-H // p), -(-W // q)
    tiles = images.view(B, C, h, p, w, q)
    tiles = tiles.permute(0, 2, 4, 3, 5, 1) if channels_last else tiles.permute(0, 2, 4, 1, 3, 5)  # [B, h, w, C, p, q]
    return tiles.reshape(B, h * w, C * p * q)


def unpatchify(
    patches: Tensor, patch: tuple[int, int], image_size: tuple[int, int], channels_last: bool = False
) -> Tensor:
    """The inverse of `patchify`: flat patches [B, N, C*p*q], or with `channels_last` [B, N, p*q*C], to images [B, C, H, W] of this size."""
    p, q = patch
    tiles = patches.unflatten(1, patch_grid(patch, *image_size))  # [B, h, w, C*p*q]
    if channels_last:
        tiles = tiles.unflatten(-1, (p, q, -1)).permute(0, 5, 1, 3, 2, 4)  # [B, C, h, p, w, q]
    else:
        tiles = tiles.unflatten(-1, (-1, p, q)).permute(0, 3, 1, 4, 2, 5)  # [B, C, h, p, w, q]
    return tiles.flatten(4, 5).flatten(2, 3)[..., : image_size[0], : image_size[1]]


def patch_grid(patch: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """Rows and columns of patches that cover an image of this size."""
    if height < patch[0] or width < patch[1]:
        raise VitralError(
            f"an image of {height}x{width} is smaller than one patch of {patch[0]}x{patch[1]}; "
            "enlarge the image or choose a smaller patch_size"
        )
    return -(-height // patch[0]), -(-width // patch[1])


def prepend(tokens: Tensor, *first: Tensor | None) -> Tensor:
    """Tokens [B, N, D] with learned ones [1, n, D] (class, distillation, registers) before them; None is left out."""
    prefix = [each.to(tokens.dtype).expand(tokens.shape[0], -1, -1) for each in first if each is not None]
    return torch.cat([*prefix, tokens], dim=1) if prefix else tokens


def check_channels(images: Tensor, in_channels: int) -> None:
    """Refuse images [B, C, H, W] whose channels a first convolution cannot take."""
    if images.shape[1] != in_channels:
        raise VitralError(
            f"images have {images.shape[1]} channels and the model takes {in_channels}; "
            "convert the images or create the model with in_channels"
        )


class Embedding(nn.Module):
    """Images [B, C, H, W] to tokens, one for each patch of `patch` pixels (height, width)."""

    patch: tuple[int, int]

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches that cover an image of this size."""
        return patch_grid(self.patch, height, width)


class PatchEmbed(Embedding):
    """[B, C, H, W] -> [B, N, D]: each patch through one linear layer.

    The weight has a convolution's shape [D, C, p, q], the layout that everybody's checkpoints share; a matrix product over
    flat patches computes the same, and faster on a CPU.
    """

    def __init__(self, patch: tuple[int, int], in_channels: int, dim: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        check_channels(images, self.proj.in_channels)
        channels_last = images.stride(1) == 1  # permuted maps [B, h, w, C]: gather runs of channels, not single numbers
        weight = self.proj.weight.permute(0, 2, 3, 1) if channels_last else self.proj.weight
        return F.linear(patchify(images, self.patch, channels_last), weight.flatten(1), self.proj.bias)


class ConvStem(Embedding):
    """[B, C, H, W] -> [B, N, D] by 3x3 convolutions, each with batch norm and ReLU, and a 1x1 convolution.

    Early Convolutions Help Transformers See Better, https://arxiv.org/abs/2106.14881, section 4 and table 4: a convolution has stride 2, but
    stride 1 where its width is that of the one before. Patches of p need log2 p strides of 2.
    """

    def __init__(self, widths: Sequence[int], patch_size: int, in_channels: int, dim: int) -> None:
        super().__init__()
        inputs = (in_channels, *widths)
        strides = [
            1 if i and before == width else 2 for i, (before, width) in enumerate(zip(inputs, widths, strict=False))
        ]
        if math.prod(strides) != patch_size:
            raise VitralError(
                f"stem={tuple(widths)}: convolutions of strides {strides} make patches of {math.prod(strides)}, not {patch_size}; "
                "repeat a width for stride 1, change it for stride 2, or give another patch_size"
            )
        self.patch = (patch_size, patch_size)
        self.in_channels = in_channels
        self.finer: dict[int, int] = {}
        """Strides and widths of the maps that are finer than the patches."""
        stride = 1
        for width, step in zip(widths, strides, strict=True):
            stride *= step
            if FINEST <= stride < patch_size:
                self.finer[stride] = width
        layers: list[nn.Module] = []
        for before, width, stride in zip(inputs, widths, strides, strict=False):
            layers += [Conv2d(before, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.stem = nn.Sequential(*layers)
        self.proj = nn.Conv2d(widths[-1], dim, kernel_size=1)

    def forward(self, images: Tensor, finer: list[Tensor] | None = None) -> Tensor:
        """finer: gets the maps [B, h, w, D] of FINEST pixels' stride or more that are finer than the patches, as they are before each halving."""
        check_channels(images, self.in_channels)
        p, q = self.patch
        images = F.pad(images, (0, -images.shape[3] % q, 0, -images.shape[2] % p))
        maps, stride = images.contiguous(memory_format=torch.channels_last), 1
        for layer in self.stem:
            if isinstance(layer, nn.Conv2d) and layer.stride[0] == 2:
                if finer is not None and stride >= FINEST:
                    finer.append(maps.permute(0, 2, 3, 1))
                stride *= 2
            maps = layer(maps)  # [B, D', h, w]
        return F.linear(maps.permute(0, 2, 3, 1).flatten(1, 2), self.proj.weight.flatten(1), self.proj.bias)
