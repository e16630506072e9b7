"""The initialisation that DeiT, CaiT, BEiT, Swin, PVT and DINO share: truncated normals of deviation 0.02, biases 0, norms 1."""

import torch
from torch import nn


@torch.no_grad()
def truncated_normal(model: nn.Module, *tables: nn.Parameter | None, std: float = 0.02) -> None:
    """Draw the linear layers of `model`, and then `tables` (tokens, positions; None is left out), from N(0, std) cut at two units.

    Biases become 0, norms 1 and 0.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    for table in tables:
        if table is not None:
            nn.init.trunc_normal_(table, std=std)
