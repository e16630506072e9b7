"""The parts of Big Transfer's ResNets: weight standardisation, group norm with ReLU, and TensorFlow's SAME padding.

Weight Standardization, https://arxiv.org/abs/1903.10520; Big Transfer, https://arxiv.org/abs/1912.11370. The epsilons and names are timm's.
"""

from torch import Tensor, nn
from torch.nn import functional as F


def pad_same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Maps [B, C, H, W] padded so that a window gives ceil(H / stride) rows; an odd remainder goes to the bottom and the right."""
    H, W = x.shape[2:]
    down = max((-(-H // stride) - 1) * stride + kernel - H, 0)
    right = max((-(-W // stride) - 1) * stride + kernel - W, 0)
    if not (down or right):
        return x
    return F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2), value=value)


class StdConv2d(nn.Conv2d):
    """A SAME-padded convolution without bias, the weights of each output channel standardised over their fan-in."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, eps: float = 1e-8) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, bias=False)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight.flatten(1)  # [D, C*p*p]; a layer norm without factors is (w - mean) / sqrt(variance + eps)
        weight = F.layer_norm(rows, rows.shape[1:], eps=self.eps).view_as(self.weight)
        return F.conv2d(pad_same(x, self.kernel_size[0], self.stride[0]), weight, None, self.stride)


class GroupNormRelu(nn.GroupNorm):
    """Group norm of 32 groups, and ReLU unless switched off."""

    def __init__(self, channels: int, relu: bool = True) -> None:
        super().__init__(32, channels, eps=1e-5)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return F.relu(x) if self.relu else x


class MaxPoolSame(nn.Module):
    """Max pooling 3x3 with stride 2: [B, C, H, W] -> [B, C, ceil(H/2), ceil(W/2)]."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(pad_same(x, 3, 2, -float("inf")), 3, 2)
