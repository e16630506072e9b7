"""ResNet: the convolutional baseline that every Vision Transformer paper compares itself with.

Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385, as torchvision and timm have it ("v1.5"): a bottleneck's
stride is in its 3x3 convolution, not in the first 1x1. Parameter names are theirs but for the head, which they call `fc`.

Axes: B batch, C channels, H W pixels, h w grid of a stage, D width, K classes. Maps are [B, h, w, D], as in
every pyramid, and [B, D, h, w] inside a block: the same memory, channels last, in which convolutions are fastest.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.errors import VitralError
from vitral.layers.conv import Conv2d
from vitral.layers.patch import check_channels
from vitral.layers.position import Grid
from vitral.models.common import Each, ImageModel, ModelConfig, ignore


@dataclass(frozen=True, kw_only=True)
class ResNetConfig(ModelConfig):
    """Everything that decides a ResNet's shape."""

    depths: tuple[int, ...] = (3, 4, 6, 3)
    bottleneck: bool = True
    """False: blocks of two 3x3 convolutions (ResNet-18 and 34)."""
    width: int = 64
    """Channels of the stem; those of the stages are width x (1, 2, 4, 8), and four times that in bottlenecks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.depths) != 4 or self.width < 1:
            raise VitralError(f"depths={self.depths}, width={self.width}: give four depths and a positive width")


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> Conv2d:
    return Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)


class Shortcut(nn.Sequential):
    """Where a block changes the shape of its map: a 1x1 convolution and its norm."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(conv(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: [B, h, w, C] -> [B, h / stride, w / stride, width]."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        changes = stride != 1 or in_channels != width
        self.downsample = Shortcut(in_channels, width, stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2)
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.downsample(x), inplace=True).permute(0, 2, 3, 1)


class Bottleneck(nn.Module):
    """1x1 to fewer channels, 3x3, 1x1 to four times as many, and a shortcut: [B, h, w, C] -> [B, h / stride, w / stride, 4 width]."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, 4 * width, 1)
        self.bn3 = nn.BatchNorm2d(4 * width)
        changes = stride != 1 or in_channels != 4 * width
        self.downsample = Shortcut(in_channels, 4 * width, stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2)
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + self.downsample(x), inplace=True).permute(0, 2, 3, 1)


class ResNet(ImageModel):
    """forward = head(pool(encode(embed(images), grid))): [B, C, H, W] -> logits [B, K]. `patch_size` is the stride of the last map."""

    config: ResNetConfig
    pyramid = True
    without_positions = "ResNet has no positions: its convolutions see where things are"

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__(config)
        self.config = config
        self.patch_size = 32
        self.num_prefix = 0
        self.strides = [4, 8, 16, 32]
        block = Bottleneck if config.bottleneck else BasicBlock

        self.conv1 = conv(config.in_channels, config.width, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(config.width)
        channels = config.width
        for i, depth in enumerate(config.depths):
            width, stage = config.width * 2**i, nn.Sequential()
            for j in range(depth):
                stage.append(block(channels, width, stride=2 if i > 0 and j == 0 else 1))
                channels = width * block.expansion
            self.add_module(f"layer{i + 1}", stage)
        self.norm = nn.Identity()  # each block ends with its own
        self.head = nn.Linear(channels, config.num_classes) if config.num_classes else nn.Identity()
        self.initialise()

    @property
    def widths(self) -> list[int]:
        expansion = Bottleneck.expansion if self.config.bottleneck else BasicBlock.expansion
        return [self.config.width * 2**i * expansion for i in range(len(self.config.depths))]

    @torch.no_grad()
    def initialise(self) -> None:
        """As timm: Kaiming-normal convolutions by fan-out, and each block begun as its shortcut (https://arxiv.org/abs/1706.02677, 5.1)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)
            elif isinstance(module, BasicBlock):
                nn.init.zeros_(module.bn2.weight)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images)  # [B, h, w, D]
        tokens = self.encode(tokens, self.grid_of(images))  # [B, h', w', D']
        representation = self.pool(tokens)  # [B, D']
        return self.head(representation)  # [B, K]

    def embed(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] through the stem, to a quarter of the size: [B, h, w, width]."""
        check_channels(images, self.config.in_channels)
        x = self.conv1(images.contiguous(memory_format=torch.channels_last))
        x = F.relu(self.bn1(x), inplace=True)
        return F.max_pool2d(x, 3, stride=2, padding=1).permute(0, 2, 3, 1)

    def encode(self, tokens: Tensor, grid: Grid, each: Each = ignore) -> Tensor:
        """The stem's map [B, h, w, width] through the four stages: [B, h/8, w/8, D]."""
        for blocks in self.blocks_by_stage():
            for block in blocks:
                tokens = block(tokens)
            each(tokens)
        return self.norm(tokens)

    def embedding_parameters(self) -> set[str]:
        return {name for name, _ in self.named_parameters() if name.startswith(("conv1.", "bn1."))}

    def blocks_by_stage(self) -> list[list[nn.Module]]:
        return [list(self.get_submodule(f"layer{i + 1}").children()) for i in range(len(self.config.depths))]

    def pool(self, tokens: Tensor) -> Tensor:
        """[B, h, w, D] -> the mean over the map, [B, D]."""
        return tokens.mean(dim=(1, 2))
