"""Random numbers of the samples themselves: the same whatever micro-batch, process or device a sample is in."""

import torch
from torch import Tensor

from vitral.randomness import keyed


def noise(keys: Tensor, purpose: str, count: int, device: torch.device) -> Tensor:
    """float32 [B, count], uniform in [0, 1], for samples with these keys [B]; another purpose gives other numbers."""
    return torch.from_numpy(keyed(keys.numpy(), purpose, count)).float().to(device)
