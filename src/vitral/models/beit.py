"""BEiT: a ViT whose positions are a relative bias on the attention, with layer scale and, fine-tuned, the mean of the patches.

BEiT: BERT Pre-Training of Image Transformers, https://arxiv.org/abs/2106.08254; BEiT v2, https://arxiv.org/abs/2208.06366, has the same encoder.
Keys have no bias. Parameter names are timm's, but for layer scale: `ls1.gamma` for `gamma_1`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.layers.attention import AttentionLayer, attend
from vitral.layers.block import Block, drop_path_rates
from vitral.layers.initialise import truncated_normal
from vitral.layers.mlp import Mlp
from vitral.layers.patch import PatchEmbed, prepend
from vitral.layers.pool import POOLS, pool
from vitral.layers.position import Grid, relative_index, resize_bias_table, resize_positions
from vitral.models.common import Each, Maskable, ModelConfig, ignore

RELATIVE = ("layer", "shared", "none")


@dataclass(frozen=True, kw_only=True)
class BeitConfig(ModelConfig):
    """Everything that decides a BEiT's shape."""

    any_patch = True
    patch_size: int = 16
    dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    relative: str = "layer"
    """A bias table for each layer, one shared by all (as in pre-training), or none."""
    absolute: bool = False
    """Learned positions added to the tokens, too."""
    layer_scale: float | None = 0.1
    """Initial value: 0.1 for B, 1e-5 for L; None for no layer scale."""
    pooling: str = "mean"
    """mean (of the patches, then a norm) or cls (a norm, then the class token)"""
    dropout: float = 0.0
    drop_path: float = 0.0
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        self.choose("relative", RELATIVE)
        self.choose("pooling", POOLS)


def class_index(grid: Grid, device: torch.device) -> Tensor:
    """[1 + h*w, 1 + h*w]: for each (query, key) the row of a table [(2h-1)(2w-1) + 3, H], the class token first.

    The last three rows are for class to patch, patch to class, and class to class.
    """
    last = (2 * grid[0] - 1) * (2 * grid[1] - 1) + 2
    index = torch.full((1 + grid[0] * grid[1],) * 2, last, device=device)
    index[0, 1:] = last - 2
    index[1:, 0] = last - 1
    index[1:, 1:] = relative_index(*grid)
    return index


class RelativeBias(nn.Module):
    """The table that all layers share in pre-training."""

    def __init__(self, grid: Grid, num_heads: int) -> None:
        super().__init__()
        self.relative_position_bias_table = new_table(grid, num_heads)


def new_table(grid: Grid, num_heads: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros((2 * grid[0] - 1) * (2 * grid[1] - 1) + 3, num_heads))


class BeitAttention(AttentionLayer):
    """Self-attention with a relative bias [1, H, N, N], from its own table or a shared one: [B, N, D] -> [B, N, D]."""

    def __init__(self, dim: int, num_heads: int, dropout: float, grid: Grid | None) -> None:
        super().__init__(dim, num_heads)
        self.relative_position_bias_table = new_table(grid, num_heads) if grid else None
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.dropout = dropout

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        qkv = F.linear(x, self.qkv.weight, torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias]))
        q, k, v = (self.heads(part) for part in qkv.chunk(3, dim=-1))  # each [B, H, N, d]
        mixed = attend(q, k, v, bias=bias, recorder=self.recorder)  # [B, H, N, d]
        return F.dropout(self.proj(mixed.transpose(1, 2).flatten(2)), self.dropout, self.training)


class Beit(Maskable):
    """[B, C, H, W] -> [B, K]."""

    config: BeitConfig
    num_prefix = 1
    without_positions = "nothing is added to the tokens: positions are a bias on the attention, by offset"

    def __init__(self, config: BeitConfig) -> None:
        super().__init__(config)
        self.patch_size = config.patch_size
        self.dim, H = config.dim, config.num_heads
        D = self.dim

        self.patch_embed = PatchEmbed((config.patch_size, config.patch_size), config.in_channels, D)
        self.grid = self.patch_embed.grid(*config.image_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, D))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid[0] * self.grid[1], D)) if config.absolute else None
        self.rel_pos_bias = RelativeBias(self.grid, H) if config.relative == "shared" else None
        own = self.grid if config.relative == "layer" else None
        self.blocks = nn.ModuleList(
            Block(
                D,
                BeitAttention(D, H, config.dropout, own),
                Mlp(D, round(D * config.mlp_ratio), dropout=config.dropout),
                drop_path=rate,
                eps=config.norm_eps,
                layer_scale=config.layer_scale,
            )
            for rate in drop_path_rates(config.drop_path, config.depth)
        )
        mean = config.pooling == "mean"
        self.norm = nn.Identity() if mean else nn.LayerNorm(D, eps=config.norm_eps)
        self.fc_norm = nn.LayerNorm(D, eps=config.norm_eps) if mean else nn.Identity()
        self.head = nn.Linear(D, config.num_classes) if config.num_classes else nn.Identity()
        self.strides = [config.patch_size] * min(4, config.depth)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """As in the paper's code: truncated normals of deviation 0.02, tables at 0, and the output of layer l divided by sqrt(2 l)."""
        truncated_normal(self, self.cls_token, self.pos_embed)
        for layer, block in enumerate(self.blocks, start=1):
            for name, parameter in block.named_parameters():
                if name in ("attn.proj.weight", "mlp.fc2.weight"):
                    parameter.div_((2 * layer) ** 0.5)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images)  # [B, 1 + h*w, D]
        tokens = self.encode(tokens, self.grid_of(images))  # [B, 1 + h*w, D]
        representation = self.pool(tokens)  # [B, D]
        return self.head(representation)  # [B, K]

    def embed(self, images: Tensor, replace: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """`replace` may change the embedded patches [B, h*w, D] before they get positions, as masked pre-training does."""
        tokens = self.patch_embed(images)  # [B, h*w, D]
        if replace is not None:
            tokens = replace(tokens)
        tokens = prepend(tokens, self.cls_token)
        if self.pos_embed is not None:
            grid, rule = self.grid_of(images), self.config.position_resize
            positions = resize_positions(self.pos_embed, self.grid, grid, rule, prefix=1)
            tokens = tokens + positions.to(tokens.dtype)
        return F.dropout(tokens, self.config.dropout, self.training)

    def encode(self, tokens: Tensor, grid: Grid, each: Each = ignore) -> Tensor:
        for block, bias in zip(self.blocks, self.biases(grid), strict=True):
            tokens = block(tokens, bias)  # [B, 1 + h*w, D]
            each(tokens)
        return self.norm(tokens)

    def biases(self, grid: Grid) -> Sequence[Tensor | None]:
        """For each layer the bias on its attention, [1, H, 1 + h*w, 1 + h*w], or None."""
        if self.config.relative == "none":
            return [None] * len(self.blocks)
        tables = [p for name, p in self.named_parameters() if name.endswith("relative_position_bias_table")]
        index = class_index(grid, tables[0].device)
        biases = [resize_bias_table(table, self.grid, grid)[index].permute(2, 0, 1)[None] for table in tables]
        return [*biases] if len(biases) > 1 else [*biases] * len(self.blocks)

    def pool(self, tokens: Tensor) -> Tensor:
        return self.fc_norm(pool(tokens, self.config.pooling, self.num_prefix))  # [B, D]

    def layer_numbers(self) -> dict[str, int]:
        layers = super().layer_numbers()  # a bias that all layers share is of the last
        return layers | {name: max(layers.values()) for name in layers if name.startswith("rel_pos_bias.")}

    def grids(self) -> dict[str, tuple[tuple[int, int], int]]:
        return {"pos_embed": (self.grid, 1)} if self.config.absolute else {}

    def bias_tables(self) -> dict[str, tuple[int, int]]:
        return {name: self.grid for name, _ in self.named_parameters() if name.endswith("relative_position_bias_table")}
