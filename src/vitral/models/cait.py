"""CaiT: a deep trunk without a class token, then a few layers in which only the class token attends to the patches.

Going deeper with Image Transformers, https://arxiv.org/abs/2103.17239: layer scale (section 2), class attention (section 3), talking heads
(https://arxiv.org/abs/2003.02436). Parameter names are timm's, but for layer scale: `ls1.gamma` for `gamma_1`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.layers.attention import AttentionLayer, attend
from vitral.layers.block import Block, LayerScale
from vitral.layers.initialise import truncated_normal
from vitral.layers.mlp import Mlp
from vitral.layers.patch import PatchEmbed
from vitral.layers.position import Grid, resize_positions
from vitral.models.common import Each, ImageModel, ModelConfig, ignore


@dataclass(frozen=True, kw_only=True)
class CaiTConfig(ModelConfig):
    """Everything that decides a CaiT's shape."""

    any_patch = True
    patch_size: int = 16
    dim: int = 192
    depth: int = 24
    num_heads: int = 4
    mlp_ratio: float = 4.0
    class_depth: int = 2
    """Layers of class attention after the trunk."""
    layer_scale: float = 1e-5
    """Initial value: 1e-5 up to 24 layers, 1e-6 for 36 and 48 (section 2.1 and the paper's code)."""
    dropout: float = 0.0
    drop_path: float = 0.0
    """The same for every block of the trunk (appendix A.1); none in class attention."""
    norm_eps: float = 1e-6


class TalkingHeadAttention(AttentionLayer):
    """Self-attention whose heads are mixed before and after the softmax: [B, N, D] -> [B, N, D]."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__(dim, num_heads)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj_l = nn.Linear(num_heads, num_heads)
        self.proj_w = nn.Linear(num_heads, num_heads)
        self.proj = nn.Linear(dim, dim)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.heads(part) for part in self.qkv(x).chunk(3, dim=-1))  # each [B, H, N, d]
        talk = (lambda a: mix_heads(a, self.proj_l)), (lambda a: mix_heads(a, self.proj_w))
        mixed = attend(q, k, v, mix=talk, recorder=self.recorder)  # [B, H, N, d]
        return F.dropout(self.proj(mixed.transpose(1, 2).flatten(2)), self.dropout, self.training)


def mix_heads(attention: Tensor, mix: nn.Linear) -> Tensor:
    """[B, H, N, N] -> [B, H, N, N]: each head a weighted sum of all, which is a convolution of size 1."""
    return F.conv2d(attention, mix.weight[:, :, None, None], mix.bias)


class ClassAttention(AttentionLayer):
    """The class token attends to itself and the patches: [B, 1 + N, D] -> [B, 1, D]; equations 4 to 6."""

    class_only = True

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__(dim, num_heads)
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(self.q(x[:, :1])), self.heads(self.k(x)), self.heads(self.v(x))  # [B, H, 1 or N, d]
        mixed = attend(q, k, v, recorder=self.recorder)  # [B, H, 1, d]
        return F.dropout(self.proj(mixed.transpose(1, 2).flatten(2)), self.dropout, self.training)


class ClassBlock(nn.Module):
    """(class token [B, 1, D], patches [B, N, D]) -> class token; the patches stay as they are."""

    def __init__(self, dim: int, attention: ClassAttention, mlp: nn.Module, eps: float, layer_scale: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = attention
        self.ls1 = LayerScale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = mlp
        self.ls2 = LayerScale(dim, layer_scale)

    def forward(self, cls: Tensor, patches: Tensor) -> Tensor:
        cls = cls + self.ls1(self.attn(self.norm1(torch.cat([cls, patches], dim=1))))
        return cls + self.ls2(self.mlp(self.norm2(cls)))


class CaiT(ImageModel):
    """[B, C, H, W] -> [B, K]. `embed` gives patch tokens only; `encode` puts the class token before them (num_prefix = 1)."""

    config: CaiTConfig
    num_prefix = 1

    def __init__(self, config: CaiTConfig) -> None:
        super().__init__(config)
        self.patch_size = config.patch_size
        D, H, hidden = config.dim, config.num_heads, round(config.dim * config.mlp_ratio)

        self.patch_embed = PatchEmbed((config.patch_size, config.patch_size), config.in_channels, D)
        self.grid = self.patch_embed.grid(*config.image_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid[0] * self.grid[1], D))
        self.blocks = nn.ModuleList(
            Block(
                D,
                TalkingHeadAttention(D, H, config.dropout),
                Mlp(D, hidden, dropout=config.dropout),
                drop_path=config.drop_path,
                eps=config.norm_eps,
                layer_scale=config.layer_scale,
            )
            for _ in range(config.depth)
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, D))
        self.blocks_token_only = nn.ModuleList(
            ClassBlock(
                D,
                ClassAttention(D, H, config.dropout),
                Mlp(D, hidden, dropout=config.dropout),
                config.norm_eps,
                config.layer_scale,
            )
            for _ in range(config.class_depth)
        )
        self.norm = nn.LayerNorm(D, eps=config.norm_eps)
        self.head = nn.Linear(D, config.num_classes) if config.num_classes else nn.Identity()
        self.strides = [config.patch_size] * min(4, config.depth)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """As in the paper's code: weights, token and positions from a truncated normal of deviation 0.02; biases 0."""
        truncated_normal(self, self.cls_token, self.pos_embed)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images)  # [B, h*w, D]
        tokens = self.encode(tokens, self.grid_of(images))  # [B, 1 + h*w, D]
        representation = self.pool(tokens)  # [B, D]
        return self.head(representation)  # [B, K]

    def embed(self, images: Tensor) -> Tensor:
        tokens = self.patch_embed(images)  # [B, h*w, D]
        positions = resize_positions(self.pos_embed, self.grid, self.grid_of(images), self.config.position_resize)
        tokens = tokens + positions.to(tokens.dtype)
        return F.dropout(tokens, self.config.dropout, self.training)

    def encode(self, tokens: Tensor, grid: Grid, each: Each = ignore) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens)  # [B, h*w, D]
            each(tokens)
        cls = self.cls_token.to(tokens.dtype).expand(tokens.shape[0], -1, -1)  # [B, 1, D]
        for block in self.blocks_token_only:
            cls = block(cls, tokens)
        return self.norm(torch.cat([cls, tokens], dim=1))  # [B, 1 + h*w, D]

    def pool(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0]  # [B, D]

    @property
    def class_blocks(self) -> list[nn.Module]:
        return list(self.blocks_token_only)

    def grids(self) -> dict[str, tuple[tuple[int, int], int]]:
        return {"pos_embed": (self.grid, 0)}
