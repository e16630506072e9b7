"""A family that no room has heard of, with names of its own: what adding one takes is this file and a row of the zoo."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitral.layers.attention import Attention
from vitral.layers.block import Block
from vitral.layers.mlp import Mlp
from vitral.layers.patch import PatchEmbed
from vitral.layers.position import Grid, resize_positions
from vitral.models.common import Each, ImageModel, ModelConfig, ignore


@dataclass(frozen=True, kw_only=True)
class ToyConfig(ModelConfig):
    any_patch = True
    patch_size: int = 4
    dim: int = 16
    depth: int = 3
    num_heads: int = 2


class Toy(ImageModel):
    """[B, C, H, W] -> [B, K]: a mark before the patches, which the head reads."""

    config: ToyConfig
    num_prefix = 1

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.patch_size, D = config.patch_size, config.dim
        self.strides = [config.patch_size] * min(4, config.depth)
        self.cut = PatchEmbed((config.patch_size, config.patch_size), config.in_channels, D)
        self.grid = self.cut.grid(*config.image_size)
        self.mark = nn.Parameter(torch.randn(1, 1, D))
        self.where = nn.Parameter(torch.randn(1, self.grid[0] * self.grid[1], D))
        self.trunk = nn.ModuleList(Block(D, Attention(D, config.num_heads), Mlp(D, 2 * D)) for _ in range(config.depth))
        self.last = nn.LayerNorm(D)
        self.head = nn.Linear(D, config.num_classes) if config.num_classes else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.represent(images))

    def embed(self, images: Tensor) -> Tensor:
        positions = resize_positions(self.where, self.grid, self.grid_of(images), self.config.position_resize)
        return torch.cat([self.mark.expand(len(images), -1, -1), self.cut(images) + positions], dim=1)

    def encode(self, tokens: Tensor, grid: Grid, each: Each = ignore) -> Tensor:
        for block in self.trunk:
            tokens = block(tokens)
            each(tokens)
        return self.last(tokens)

    def pool(self, tokens: Tensor) -> Tensor:
        return tokens[:, 0]

    def blocks_by_stage(self) -> list[list[nn.Module]]:
        return [list(self.trunk)]

    @property
    def final_norm(self) -> nn.Module:
        return self.last

    @property
    def prefix_names(self) -> tuple[str, ...]:
        return ("mark",)

    def embedding_parameters(self) -> set[str]:
        return {"mark", "where", "cut.proj.weight", "cut.proj.bias"}

    def grids(self) -> dict[str, tuple[Grid, int]]:
        return {"where": (self.grid, 0)}
