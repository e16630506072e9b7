"""Swin Transformer V2: cosine attention, a continuous position bias, and norms at the end of each residual branch.

Swin Transformer V2: Scaling Up Capacity and Resolution, https://arxiv.org/abs/2111.09883. Windows, stages and the contract are
those of `swin.py`. Parameter names are those of timm 0.9 and later, but for its `head.fc`, here `head`.

Axes: B batch, h w map, a b window, n windows in a map, N = a*b tokens of a window, H heads, D width, d = D / H.
"""

import math
import sys
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.errors import VitralError
from vitral.layers.attention import attend
from vitral.layers.block import Block, drop_path
from vitral.layers.initialise import truncated_normal
from vitral.layers.position import Grid, relative_index
from vitral.models.swin import (
    SwinConfig,
    WindowedAttention,
    Windows,
    WindowTransformer,
    fitted_windows,
    masked_bias,
    two_by_two,
)

SHARPEST = math.log(100)  # the logit scale's upper bound: temperature 0.01


@dataclass(frozen=True, kw_only=True)
class SwinV2Config(SwinConfig):
    """Everything that decides a Swin Transformer V2's shape."""

    image_size: tuple[int, int] = (256, 256)
    window: tuple[int, int] = (8, 8)
    pretrained_windows: tuple[int, ...] = (0, 0, 0, 0)
    """The window's side in pre-training, a stage each, where it was another: the position bias reads offsets in its units. 0 for none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not any(self.pretrained_windows):
            object.__setattr__(self, "pretrained_windows", (0,) * len(self.depths))
        if len(self.pretrained_windows) != len(self.depths) or min(self.pretrained_windows) < 0:
            raise VitralError(
                f"pretrained_windows={self.pretrained_windows}: give one side, or 0, for each of {len(self.depths)} stages"
            )


def log_offsets(window: Grid, pretrained: int = 0) -> Tensor:
    """[(2a-1)(2b-1), 2]: every offset (rows, columns) in a window, scaled to ±8 at the (pre-trained) window's edge, in logarithms.

    Section 3.3, equation 4, in the units of the paper's code: sign(x) log2(1 + |x|) / log2(8).
    """
    sides = [torch.arange(1 - a, a).float() * (8 / max(1, (pretrained or a) - 1)) for a in window]
    offsets = torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1).flatten(0, 1)
    return offsets.sign() * torch.log2(1 + offsets.abs()) / 3


class CosineWindowAttention(WindowedAttention):
    """Attention inside windows whose logits are scaled cosines plus a bias computed from the offset: [B, h, w, D] -> [B, h, w, D]."""

    relative_index: Tensor
    offsets: Tensor

    def __init__(self, dim: int, num_heads: int, windows: Windows, qkv_bias: bool, pretrained: int) -> None:
        super().__init__(dim, num_heads)
        self.windows = windows
        self.logit_scale = nn.Parameter(torch.zeros(num_heads, 1, 1))
        self.cpb_mlp = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, num_heads, bias=False))
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None  # none for k
        self.proj = nn.Linear(dim, dim)
        self.register_buffer("relative_index", relative_index(*windows.window), persistent=False)
        self.register_buffer("offsets", log_offsets(windows.window, pretrained), persistent=False)

    def table(self) -> Tensor:
        """For each offset what is added to the logits, between 0 and 16: [(2a-1)(2b-1), H]."""
        return 16 * self.cpb_mlp(self.offsets).sigmoid()

    def bias(self) -> Tensor:
        """[1, H, N, N]."""
        return self.table().T[None, :, self.relative_index]

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """With a `mask` (of `Windows.mask`) the windows are shifted."""
        B, h, w, D = x.shape
        tokens = self.windows.cut(x, mask is not None)  # [B*n, N, D]
        qkv_bias = None
        if self.q_bias is not None and self.v_bias is not None:
            qkv_bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(tokens, self.qkv.weight, qkv_bias).unflatten(-1, (3, self.num_heads, D // self.num_heads))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B*n, H, N, d]
        scale = self.logit_scale.clamp(max=SHARPEST).exp()  # [H, 1, 1]
        q, k = F.normalize(q, dim=-1) * scale, F.normalize(k, dim=-1)
        bias = masked_bias(self.bias(), mask, B)
        mixed = attend(q.to(v.dtype), k.to(v.dtype), v, bias=bias, scale=1.0, recorder=self.recorder)  # [B*n, H, N, d]
        return self.windows.join(self.proj(mixed.transpose(1, 2).flatten(2)), h, w, mask is not None)


class ResPostNormBlock(Block):
    """Each residual branch ends with its norm (section 3.2)."""

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        x = x + drop_path(self.norm1(self.attn(x, *context)), self.drop_path, self.training)
        return x + drop_path(self.norm2(self.mlp(x)), self.drop_path, self.training)


class PatchMergingV2(nn.Module):
    """[B, h, w, D] -> [B, h/2, w/2, 2*D], the norm last."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.reduction(two_by_two(x)))


class SwinTransformerV2(WindowTransformer):
    """[B, C, H, W] -> [B, K]."""

    config: SwinV2Config

    block = ResPostNormBlock
    merging = PatchMergingV2

    def attention(self, i: int, windows: Windows) -> CosineWindowAttention:
        c = self.config
        return CosineWindowAttention(c.dim * 2**i, c.num_heads[i], windows, c.qkv_bias, c.pretrained_windows[i])

    def windows(self, i: int) -> Windows:
        """The windows of stage `i`. Hugging Face shrinks and shifts them by the configured map's height, whatever map it then meets."""
        if self.config.windowing == "hf":
            side, a = self.config.side(i)[0], self.config.window[0]
            unshifted = sys.maxsize if side <= a else 0
            return Windows((min(side, a),) * 2, (unshifted,) * 2, together=True, pad_first=True)
        return fitted_windows(self.config, i)

    @torch.no_grad()
    def initialise(self) -> None:
        """As in the paper's code: linear layers N(0, 0.02) truncated, biases 0, temperature 1/10, and each block starts as the identity,
        its norms at 0; the embedding as PyTorch draws it."""
        truncated_normal(self)
        self.patch_embed.proj.reset_parameters()
        for module in self.modules():
            if isinstance(module, ResPostNormBlock):
                nn.init.zeros_(module.norm1.weight)
                nn.init.zeros_(module.norm2.weight)
            elif isinstance(module, CosineWindowAttention):
                nn.init.constant_(module.logit_scale, math.log(10))
                for bias in (module.q_bias, module.v_bias):
                    if bias is not None:
                        nn.init.zeros_(bias)

    def offset_biases(self) -> dict[str, Tensor]:
        layers = [(n, m) for n, m in self.named_modules() if isinstance(m, CosineWindowAttention)]
        return {name: m.table().T.unflatten(1, [2 * side - 1 for side in m.windows.window]) for name, m in layers}
