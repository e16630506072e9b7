"""Convolution that works around a fault of oneDNN."""

import torch
from torch import Tensor, nn


class Conv2d(nn.Conv2d):
    """On a processor, computed in float32 where the kernel is larger than the map.

    oneDNN's bfloat16 gradient of such a kernel holds memory that was never written (torch 2.13; a 3x3 kernel of stride 2 on a 1x1 map), and
    training on small images ends in inf or nan.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cpu and min(x.shape[2:]) < max(self.kernel_size):
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        return super().forward(x)
