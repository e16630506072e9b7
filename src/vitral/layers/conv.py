"""Convolution, with a processor's fault worked round."""

import torch
from torch import Tensor, nn


class Conv2d(nn.Conv2d):
    """Computed in float32 on a processor where the kernel is larger than the map.

    There the gradient of the weights that oneDNN gives in bfloat16 is partly memory that was never written (torch 2.13; a 3x3 kernel of
    stride 2 on a 1x1 map), so that training small images ends in inf or nan.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cpu and min(x.shape[2:]) < max(self.kernel_size):
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        return super().forward(x)
