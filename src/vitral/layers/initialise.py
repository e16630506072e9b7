"""The initialisation that DeiT, CaiT, BEiT, Swin, PVT and DINO share: truncated normals of deviation 0.02, biases 0, norms 1."""

import torch
from torch import nn


@torch.no_grad()
def truncated_normal(model: nn.Module, std: float = 0.02) -> None:
    """Every linear layer below `model` N(0, std) cut at two units with bias 0; norms at 1 and 0."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
