"""Random numbers that depend on a sample's key alone, not on its micro-batch, process or device."""

import torch
from torch import Tensor

from vitral.randomness import keyed


def noise(keys: Tensor, purpose: str, count: int, device: torch.device) -> Tensor:
    """float32 [B, count], uniform in [0, 1], for samples with these keys [B]; each purpose has its own numbers."""
    return torch.from_numpy(keyed(keys.numpy(), purpose, count)).float().to(device)
