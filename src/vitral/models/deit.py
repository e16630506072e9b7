"""DeiT: the ViT trained on ImageNet alone, its distilled form, and DeiT III.

Training data-efficient image transformers & distillation through attention, https://arxiv.org/abs/2012.12877: a distillation token stands beside
the class token, each has a head, and their mean answers. DeiT III, https://arxiv.org/abs/2204.07118: layer scale, and positions for the
patches only. Parameter names are timm's, but that the two heads are `head.cls` and `head.dist`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitral.layers.attention import Attention
from vitral.layers.block import Block, drop_path_rates
from vitral.layers.initialise import truncated_normal
from vitral.layers.mlp import Mlp
from vitral.layers.patch import PatchEmbed, prepend
from vitral.layers.pool import keep_some
from vitral.layers.position import Grid, resize_positions
from vitral.models.common import CLASS_TOKEN, DISTILLATION_TOKEN, Each, ImageModel, ModelConfig, Reader, ignore


@dataclass(frozen=True, kw_only=True)
class DeiTConfig(ModelConfig):
    """Everything that decides a DeiT's shape."""

    any_patch = True
    patch_size: int = 16
    dim: int = 192
    depth: int = 12
    num_heads: int = 3
    mlp_ratio: float = 4.0
    distilled: bool = False
    """A distillation token after the class token, with a head of its own."""
    teacher_head: bool = True
    """False: the distillation token is there, but the class token answers alone."""
    layer_scale: float | None = None
    class_position: bool = True
    """DeiT III gives the class token no position."""
    dropout: float = 0.0
    drop_path: float = 0.0
    drop_path_uniform: bool = False
    """The same stochastic depth in every block, as in DeiT III."""
    patch_drop: float = 0.0
    norm_eps: float = 1e-6


class TwoHeads(nn.Module):
    """[B, 2D], the class and the distillation token, to the mean of two linear classifiers [B, K]; section 4 of the paper."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.cls = nn.Linear(dim, num_classes)
        self.dist = nn.Linear(dim, num_classes)

    def both(self, representation: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of each head, for distillation: (from the class token, from the distillation token)."""
        of_class, of_teacher = representation.chunk(2, dim=-1)
        return self.cls(of_class), self.dist(of_teacher)

    def forward(self, representation: Tensor) -> Tensor:
        of_class, of_teacher = self.both(representation)
        return (of_class + of_teacher) / 2


class DeiT(ImageModel):
    """[B, C, H, W] -> [B, K]. The representation of a distilled model is the class and the distillation token, [B, 2D]."""

    config: DeiTConfig
    droppable = plain = True

    def __init__(self, config: DeiTConfig) -> None:
        super().__init__(config)
        self.patch_size = config.patch_size
        self.num_prefix = 1 + config.distilled
        D, K = config.dim, config.num_classes

        self.patch_embed = PatchEmbed((config.patch_size, config.patch_size), config.in_channels, D)
        self.grid = self.patch_embed.grid(*config.image_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, D))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, D)) if config.distilled else None
        self.placed = self.num_prefix if config.class_position else 0  # prefix tokens that have a position
        self.pos_embed = nn.Parameter(torch.zeros(1, self.placed + self.grid[0] * self.grid[1], D))
        self.blocks = nn.ModuleList(
            Block(
                D,
                Attention(D, config.num_heads, config.dropout),
                Mlp(D, round(D * config.mlp_ratio), dropout=config.dropout),
                drop_path=rate,
                eps=config.norm_eps,
                layer_scale=config.layer_scale,
            )
            for rate in drop_path_rates(config.drop_path, config.depth, config.drop_path_uniform)
        )
        self.norm = nn.LayerNorm(D, eps=config.norm_eps)
        self.answering = 1 + (config.distilled and config.teacher_head)  # prefix tokens that the head reads
        self.head = nn.Identity() if not K else TwoHeads(D, K) if self.answering == 2 else nn.Linear(D, K)
        self.strides = [config.patch_size] * min(4, config.depth)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """As in the paper's code: weights, tokens and positions from a truncated normal of deviation 0.02; biases 0."""
        truncated_normal(self, self.cls_token, self.dist_token, self.pos_embed)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images)  # [B, 1 or 2 + h*w, D]
        if self.training and self.config.patch_drop:
            tokens = keep_some(tokens, self.num_prefix, self.config.patch_drop)
        tokens = self.encode(tokens, self.grid_of(images))  # [B, 1 or 2 + h*w, D]
        representation = self.pool(tokens)  # [B, D] or, distilled, [B, 2D]
        return self.head(representation)  # [B, K]

    def both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The two logits [B, K] of a distilled model: from the class token, and from the distillation token."""
        if not isinstance(self.head, TwoHeads):
            return super().both(images)
        tokens = self.embed(images)
        if self.training and self.config.patch_drop:
            tokens = keep_some(tokens, self.num_prefix, self.config.patch_drop)
        return self.head.both(self.pool(self.encode(tokens, self.grid_of(images))))

    def embed(self, images: Tensor) -> Tensor:
        tokens = self.patch_embed(images)  # [B, h*w, D]
        grid, rule = self.grid_of(images), self.config.position_resize
        positions = resize_positions(self.pos_embed, self.grid, grid, rule, prefix=self.placed)
        positions = positions.to(tokens.dtype)
        if self.placed:
            return prepend(tokens, self.cls_token, self.dist_token) + positions  # [B, 1 or 2 + h*w, D]
        return prepend(tokens + positions, self.cls_token, self.dist_token)

    def encode(self, tokens: Tensor, grid: Grid, each: Each = ignore) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens)
            each(tokens)
        return self.norm(tokens)

    def pool(self, tokens: Tensor) -> Tensor:
        return tokens[:, : self.answering].flatten(1)  # [B, D] or, distilled, [B, 2D]

    @property
    def reader(self) -> Reader:
        return "cls_dist" if self.answering == 2 else "cls"

    @property
    def prefix_names(self) -> tuple[str, ...]:
        return (CLASS_TOKEN, DISTILLATION_TOKEN)[: self.num_prefix]

    def grids(self) -> dict[str, tuple[tuple[int, int], int]]:
        return {"pos_embed": (self.grid, self.placed)}
