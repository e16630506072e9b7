"""The Transformer encoder block, wired from modules that it is given.

Pre-norm as in https://arxiv.org/abs/2010.11929, equations 2 and 3; post-norm as in https://arxiv.org/abs/1706.03762, section 3.1.
"""

import torch
from torch import Tensor, nn


def drop_path(x: Tensor, rate: float, training: bool) -> Tensor:
    """Stochastic depth (https://arxiv.org/abs/1603.09382): zero a residual branch for whole samples, rescale the rest."""
    if rate == 0.0 or not training:
        return x
    keep = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) >= rate  # [B, 1, 1]
    return x * keep.to(x.dtype) / (1 - rate)


class Block(nn.Module):
    """[B, N, D] -> [B, N, D]: attention and MLP, each with a layer norm and a residual connection."""

    def __init__(
        self,
        dim: int,
        attention: nn.Module,
        mlp: nn.Module,
        *,
        drop_path: float = 0.0,
        pre_norm: bool = True,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = mlp
        self.drop_path = drop_path
        self.pre_norm = pre_norm

    def forward(self, x: Tensor) -> Tensor:
        if self.pre_norm:
            x = x + drop_path(self.attn(self.norm1(x)), self.drop_path, self.training)
            return x + drop_path(self.mlp(self.norm2(x)), self.drop_path, self.training)
        x = self.norm1(x + drop_path(self.attn(x), self.drop_path, self.training))
        return self.norm2(x + drop_path(self.mlp(x), self.drop_path, self.training))
