"""The Transformer encoder block, wired from modules that it is given.

Pre-norm as in https://arxiv.org/abs/2010.11929, equations 2 and 3; post-norm as in https://arxiv.org/abs/1706.03762, section 3.1.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def drop_path(x: Tensor, rate: float, training: bool) -> Tensor:
    """Stochastic depth (https://arxiv.org/abs/1603.09382): zero a residual branch for whole samples, rescale the rest."""
    if rate == 0.0 or not training:
        return x
    keep = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) >= rate  # [B, 1, 1]
    return x * keep.to(x.dtype) / (1 - rate)


def drop_path_rates(last: float, depth: int, uniform: bool = False) -> list[float]:
    """Rates that grow linearly from 0 at the first block to `last` at the last, or are `last` in every block."""
    return [last if uniform else last * i / max(1, depth - 1) for i in range(depth)]


class LayerScale(nn.Module):
    """A learned factor for each channel of a residual branch, small at first: https://arxiv.org/abs/2103.17239, section 2.1."""

    def __init__(self, dim: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), initial))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """Attention and MLP, each with a layer norm and a residual connection: [B, N, D] -> [B, N, D], or maps [B, h, w, D] alike.

    Whatever else the block is called with goes to the attention.
    """

    def __init__(
        self,
        dim: int,
        attention: nn.Module,
        mlp: nn.Module,
        *,
        drop_path: float = 0.0,
        pre_norm: bool = True,
        eps: float = 1e-6,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = attention
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = mlp
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.drop_path = drop_path
        self.pre_norm = pre_norm
        self.recompute = False
        """Keep no activations for the backward pass, but compute them again."""

    def forward(self, x: Tensor, *context: Any) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self.residuals, x, *context, use_reentrant=False)
        return self.residuals(x, *context)

    def residuals(self, x: Tensor, *context: Any) -> Tensor:
        return self.mlp_half(self.attention_half(x, *context))

    def attention_half(self, x: Tensor, *context: Any) -> Tensor:
        """The first half: attention and its residual."""
        if self.pre_norm:
            return x + drop_path(self.ls1(self.attn(self.norm1(x), *context)), self.drop_path, self.training)
        return self.norm1(x + drop_path(self.ls1(self.attn(x, *context)), self.drop_path, self.training))

    def mlp_half(self, x: Tensor) -> Tensor:
        """The second half: the MLP and its residual."""
        if self.pre_norm:
            return x + drop_path(self.ls2(self.mlp(self.norm2(x))), self.drop_path, self.training)
        return self.norm2(x + drop_path(self.ls2(self.mlp(x)), self.drop_path, self.training))
