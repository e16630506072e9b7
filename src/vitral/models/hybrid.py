"""The hybrid Vision Transformer: the patches are cut from a ResNet's feature map instead of the image.

An Image is Worth 16x16 Words, https://arxiv.org/abs/2010.11929, section 3.1 and appendix B.3; How to train your ViT,
https://arxiv.org/abs/2106.10270. The ResNet is Big Transfer's (group norm, weight standardisation) with the norms after the
convolutions. Everything behind the embedding is the ViT. Parameter names and epsilons are timm's.

Axes: B batch, C channels, H W pixels, h w grid, N = h*w, D width.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.errors import VitralError
from vitral.layers.bit import GroupNormRelu, MaxPoolSame, StdConv2d
from vitral.layers.patch import PatchEmbed, check_channels
from vitral.models.vit import VisionTransformer, ViTConfig

WIDTH = 64  # of the stem; stages have 4, 8, 16, 32 times as many channels


@dataclass(frozen=True, kw_only=True)
class HybridConfig(ViTConfig):
    """A ViT's shape, and the ResNet's. `patch_size` is in pixels as everywhere: the ResNet's stride times the patch cut from its map."""

    any_patch = False
    stages: tuple[int, ...] = (3, 4, 9)
    """Blocks in each stage of the ResNet; empty for its stem alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stem:
            raise VitralError(f"stem={self.stem}: a hybrid has a ResNet before its patches; choose one of the two")
        if len(self.stages) > 4 or min(self.stages, default=1) < 1:
            raise VitralError(f"stages={self.stages}: up to four stages with at least one block each")
        if self.patch_size % self.stride:
            raise VitralError(f"patch_size={self.patch_size}: must be a multiple of {self.stride}, the ResNet's stride")

    @property
    def stride(self) -> int:
        """Of the ResNet's last map: 4 after the stem and the first stage, twice that after each further one."""
        return 4 * 2 ** max(0, len(self.stages) - 1)


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1, each with its norm, and a shortcut: [B, C, h, w] -> [B, D, h / stride, w / stride]."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, first: bool) -> None:
        super().__init__()
        middle = out_channels // 4
        self.conv1 = StdConv2d(in_channels, middle, 1)
        self.norm1 = GroupNormRelu(middle)
        self.conv2 = StdConv2d(middle, middle, 3, stride)
        self.norm2 = GroupNormRelu(middle)
        self.conv3 = StdConv2d(middle, out_channels, 1)
        self.norm3 = GroupNormRelu(out_channels, relu=False)
        self.downsample: nn.Module = nn.Identity()
        if first:
            conv, norm = StdConv2d(in_channels, out_channels, 1, stride), GroupNormRelu(out_channels, relu=False)
            self.downsample = nn.Sequential(OrderedDict(conv=conv, norm=norm))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.conv1(x))
        y = self.norm2(self.conv2(y))
        y = self.norm3(self.conv3(y))
        return F.relu(y + self.downsample(x))


def stem(in_channels: int) -> nn.Sequential:
    """Images to a quarter of their size: [B, C, H, W] -> [B, 64, ceil(H/4), ceil(W/4)]."""
    conv, norm = StdConv2d(in_channels, WIDTH, 7, stride=2), GroupNormRelu(WIDTH)
    return nn.Sequential(OrderedDict(conv=conv, norm=norm, pool=MaxPoolSame()))


class Stage(nn.Module):
    """Blocks of one width, the first of which halves the map unless `stride` is 1."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, depth: int) -> None:
        super().__init__()
        first = Bottleneck(in_channels, out_channels, stride, first=True)
        rest = (Bottleneck(out_channels, out_channels, 1, first=False) for _ in range(depth - 1))
        self.blocks = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class Backbone(nn.Module):
    """The ResNet without its head: [B, C, H, W] -> [B, 256 · 2^(stages - 1), ceil(H / stride), ceil(W / stride)]."""

    def __init__(self, in_channels: int, depths: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = stem(in_channels)
        widths = [WIDTH, *(4 * WIDTH * 2**i for i in range(len(depths)))]
        self.stages = nn.Sequential(
            *(Stage(widths[i], widths[i + 1], 1 if i == 0 else 2, depth) for i, depth in enumerate(depths))
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.stages(self.stem(images))


class HybridEmbed(PatchEmbed):
    """[B, C, H, W] -> [B, N, D]: the patches of a ResNet's map, each through one linear layer."""

    def __init__(self, config: HybridConfig) -> None:
        patch, stages = config.patch_size // config.stride, len(config.stages)
        super().__init__((patch, patch), WIDTH * 2 ** (stages + 1) if stages else WIDTH, config.dim)
        self.in_channels = config.in_channels
        self.pixels = config.patch_size
        self.backbone = Backbone(config.in_channels, config.stages) if stages else stem(config.in_channels)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tokens for an image of this size; the ResNet pads, and so do its patches."""
        return -(-height // self.pixels), -(-width // self.pixels)

    def forward(self, images: Tensor) -> Tensor:
        check_channels(images, self.in_channels)
        return super().forward(self.backbone(images.contiguous(memory_format=torch.channels_last)))


class HybridTransformer(VisionTransformer):
    """A ViT with as many tokens as its `patch_size` in pixels gives, embedded by a ResNet: [B, C, H, W] -> logits [B, K]."""

    def __init__(self, config: HybridConfig) -> None:
        super().__init__(config)
        self.config: HybridConfig = config
        self.patch_embed: HybridEmbed = HybridEmbed(config)
        self.initialise_embedding()

    def grid_of(self, images: Tensor) -> tuple[int, int]:
        return self.patch_embed.grid(*images.shape[2:])  # the ResNet pads what is smaller

    def ordered_blocks(self) -> list[nn.Module]:
        return [*(m for m in self.patch_embed.modules() if isinstance(m, Bottleneck)), *super().ordered_blocks()]

    def layer_numbers(self) -> dict[str, int]:
        layers = super().layer_numbers()  # the patches follow the ResNet
        return layers | {f"patch_embed.proj.{name}": layers["blocks.0.norm1.weight"] - 1 for name in ("weight", "bias")}

    @torch.no_grad()
    def initialise_embedding(self) -> None:
        """As in the paper's code: LeCun-normal convolutions, and each block of the ResNet begun as its shortcut."""
        for module in self.patch_embed.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            elif isinstance(module, Bottleneck):
                nn.init.zeros_(module.norm3.weight)
        nn.init.zeros_(self.patch_embed.proj.bias)  # type: ignore[arg-type]
