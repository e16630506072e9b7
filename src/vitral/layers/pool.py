"""Tokens to one vector an image: the class token, or the mean of the patches (https://arxiv.org/abs/2010.11929, appendix D.3)."""

import torch
from torch import Tensor

POOLS = ("cls", "mean")


def pool(tokens: Tensor, how: str, num_prefix: int) -> Tensor:
    """[B, N, D] -> [B, D]: the first token ("cls") or the mean over the patch tokens, prefix tokens left out ("mean")."""
    return tokens[:, 0] if how == "cls" else tokens[:, num_prefix:].mean(dim=1)


def keep_some(tokens: Tensor, num_prefix: int, dropped: float) -> Tensor:
    """[B, prefix + n, D] -> [B, prefix + fewer, D]: of every sample a random 1 - `dropped` of its patches, at least one, in random order."""
    prefix, patches = tokens[:, :num_prefix], tokens[:, num_prefix:]
    keep = max(1, round(patches.shape[1] * (1 - dropped)))
    chosen = torch.rand(patches.shape[:2], device=tokens.device).argsort(dim=1)[:, :keep]  # [B, keep]
    kept = patches.gather(1, chosen[..., None].expand(-1, -1, patches.shape[2]))
    return torch.cat([prefix, kept], dim=1)
