"""The Vision Transformer: an image is cut into patches, each patch is a token, and a Transformer encoder reads the tokens.

An Image is Worth 16x16 Words, https://arxiv.org/abs/2010.11929. Optional beyond it: drop path, layer scale, register tokens
(https://arxiv.org/abs/2309.16588), patches by convolutions (https://arxiv.org/abs/2106.14881). Parameter names are timm's.

Axes: B batch, C channels, H W pixels, h w grid of patches, N tokens (prefix + h*w), D width, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.errors import VitralError
from vitral.layers.attention import Attention
from vitral.layers.block import Block, drop_path_rates
from vitral.layers.described import EdgesAndColours
from vitral.layers.mlp import ACTIVATIONS, Mlp
from vitral.layers.patch import ConvStem, PatchEmbed, prepend
from vitral.layers.pool import POOLS, keep_some, pool
from vitral.layers.position import POSITIONS, Grid, LearnedPositions2d, resize_positions, sincos2d
from vitral.models.common import CLASS_TOKEN, Each, Maskable, ModelConfig, ignore, to_map


@dataclass(frozen=True, kw_only=True)
class ViTConfig(ModelConfig):
    """Everything that decides a ViT's shape."""

    any_patch = True
    patch_size: int = 16
    dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    position: str = "learned"
    """learned, learned2d, sincos2d or none"""
    pooling: str = "cls"
    """cls (the class token) or mean (over the patch tokens)"""
    class_token: bool = True
    fc_norm: bool = False
    """The final norm after the pooling instead of before it, as in MAE's fine-tuning."""
    num_registers: int = 0
    representation_dim: int = 0
    """Width of the tanh layer before the head that the paper uses in pre-training; 0 for none."""
    dropout: float = 0.0
    drop_path: float = 0.0
    """Stochastic depth of the last block; it grows linearly from 0 at the first."""
    drop_path_uniform: bool = False
    """The same stochastic depth in every block."""
    patch_drop: float = 0.0
    """Share of the patches that are left out in training: FLIP, https://arxiv.org/abs/2212.00794."""
    stem: tuple[int, ...] = ()
    """Widths of the 3x3 convolutions that replace the linear patches, of stride 2 where the width changes; none in the paper."""
    beside: str = "none"
    """edges: a linear classifier on edges and colours answers beside the Transformer in use. none in the paper."""
    layer_scale: float | None = None
    pre_norm: bool = True
    """False: norms after the residual additions and none at the end, as in the original Transformer."""
    activation: str = "gelu"
    qkv_bias: bool = True
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        self.choose("position", POSITIONS)
        self.choose("pooling", POOLS)
        self.choose("activation", tuple(ACTIVATIONS))
        self.choose("beside", ("none", "edges"))
        if self.pooling == "cls" and not self.class_token:
            raise VitralError("pooling='cls' needs the class token; set class_token=True or pooling='mean'")


class VisionTransformer(Maskable):
    """forward = head(pool(encode(embed(images), grid))): [B, C, H, W] -> logits [B, K]."""

    config: ViTConfig
    droppable = plain = True
    without_positions = "this model was made without positions (position = none)"

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config)
        self.patch_size = config.patch_size
        self.num_prefix = int(config.class_token) + config.num_registers
        self.dim = D = config.dim

        self.patch_embed: PatchEmbed | ConvStem
        if config.stem:
            self.patch_embed = ConvStem(config.stem, config.patch_size, config.in_channels, D)
        else:
            self.patch_embed = PatchEmbed((config.patch_size, config.patch_size), config.in_channels, D)
        self.grid = self.patch_embed.grid(*config.image_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, D)) if config.class_token else None
        self.reg_token = nn.Parameter(torch.zeros(1, config.num_registers, D)) if config.num_registers else None
        self.pos_embed: nn.Parameter | LearnedPositions2d | None = None
        if config.position == "learned":  # one row for the class token, none for registers
            self.pos_embed = nn.Parameter(torch.zeros(1, config.class_token + self.grid[0] * self.grid[1], D))
        elif config.position == "learned2d":
            self.pos_embed = LearnedPositions2d(self.grid, D)

        hidden = round(D * config.mlp_ratio)
        self.blocks = nn.ModuleList(
            Block(
                D,
                Attention(D, config.num_heads, config.dropout, config.qkv_bias),
                Mlp(D, hidden, config.activation, config.dropout),
                drop_path=rate,
                pre_norm=config.pre_norm,
                eps=config.norm_eps,
                layer_scale=config.layer_scale,
            )
            for rate in drop_path_rates(config.drop_path, config.depth, config.drop_path_uniform)
        )
        norm: nn.Module = nn.LayerNorm(D, eps=config.norm_eps) if config.pre_norm else nn.Identity()
        self.norm: nn.Module = nn.Identity() if config.fc_norm else norm
        self.fc_norm: nn.Module = norm if config.fc_norm else nn.Identity()
        R = config.representation_dim
        self.pre_logits = nn.Sequential(nn.Linear(D, R), nn.Tanh()) if R else nn.Identity()
        self.head = nn.Linear(R or D, config.num_classes) if config.num_classes else nn.Identity()
        if config.beside == "edges" and config.num_classes:
            self.beside = EdgesAndColours(config.in_channels, config.num_classes)
        self.finer = self.patch_embed.finer if isinstance(self.patch_embed, ConvStem) else {}
        """Strides and widths of the stem's maps that are finer than the patches."""
        self.strides = [*self.finer, config.patch_size] if self.finer else [config.patch_size] * min(4, config.depth)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """As in the paper's code: Xavier-uniform encoder with MLP biases near 0, LeCun-normal embedding, positions N(0, 0.02), zero head."""
        for module in self.blocks.modules():
            if isinstance(module, Attention):
                for projection in (*module.qkv.weight.chunk(3), module.proj.weight):
                    nn.init.xavier_uniform_(projection)
                if module.qkv.bias is not None:
                    nn.init.zeros_(module.qkv.bias)
                nn.init.zeros_(module.proj.bias)
            elif isinstance(module, Mlp):
                for linear in (module.fc1, module.fc2):
                    nn.init.xavier_uniform_(linear.weight)
                    nn.init.normal_(linear.bias, std=1e-6)
        for layer in (*self.patch_embed.modules(), *self.pre_logits.children()):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        for name, table in self.named_parameters():
            if name.startswith("pos_embed") or name == "reg_token":
                nn.init.normal_(table, std=0.02)
        if isinstance(self.head, nn.Linear):
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images)  # [B, N, D]
        if self.training and self.config.patch_drop:
            tokens = keep_some(tokens, self.num_prefix, self.config.patch_drop)  # [B, fewer, D]
        tokens = self.encode(tokens, self.grid_of(images))  # [B, N, D]
        representation = self.pool(tokens)  # [B, D]
        logits = self.head(representation)  # [B, K]
        return logits if self.training else self.joined(logits, images)  # each learns by itself

    @property
    def widths(self) -> list[int]:
        return [*self.finer.values(), *[self.dim] * (len(self.strides) - len(self.finer))]

    def features(self, images: Tensor) -> list[Tensor]:
        """Those of up to four depths; behind a stem of convolutions its finer maps and the last one."""
        if not self.finer:
            return super().features(images)
        finer: list[Tensor] = []
        grid = self.grid_of(images)
        last = to_map(self.encode(self.embed(images, finer=finer), grid), grid)
        return [*finer, last]

    def embed(
        self,
        images: Tensor,
        replace: Callable[[Tensor], Tensor] | None = None,
        finer: list[Tensor] | None = None,
    ) -> Tensor:
        """Images [B, C, H, W] to tokens [B, N, D]: patches with positions, then the class and register tokens before them.

        `replace` may change the embedded patches [B, h*w, D] before they get positions, as masked pre-training does. `finer`: as in `ConvStem`.
        """
        tokens = self.patch_embed(images) if finer is None else self.patch_embed(images, finer)  # [B, h*w, D]
        if replace is not None:
            tokens = replace(tokens)
        patches, first = self.positions(self.grid_of(images))
        if patches is not None:
            tokens = tokens + patches.to(tokens.dtype)
        cls = self.cls_token if self.cls_token is None or first is None else self.cls_token + first
        return F.dropout(prepend(tokens, cls, self.reg_token), self.config.dropout, self.training)

    def positions(self, grid: tuple[int, int]) -> tuple[Tensor | None, Tensor | None]:
        """Positions of the patches [1, h*w, D] and of the class token [1, 1, D] for any grid; None where there are none."""
        if self.config.position == "sincos2d":
            table = sincos2d(*grid, self.config.dim)[None]
            return table.to(self.patch_embed.proj.weight.device), None
        if self.pos_embed is None:
            return None, None
        if isinstance(self.pos_embed, LearnedPositions2d):
            return resize_positions(self.pos_embed(), self.grid, grid, self.config.position_resize), None
        first = int(self.config.class_token)
        patches = resize_positions(self.pos_embed[:, first:], self.grid, grid, self.config.position_resize)
        return patches, self.pos_embed[:, :first] if first else None

    def encode(self, tokens: Tensor, grid: Grid, each: Each = ignore) -> Tensor:
        """Tokens [B, N, D] through every block and the final norm."""
        for block in self.blocks:
            tokens = block(tokens)
            each(tokens)
        return self.norm(tokens)

    def pool(self, tokens: Tensor) -> Tensor:
        """Encoded tokens [B, N, D] to the representation that the head reads, [B, D] (or [B, representation_dim])."""
        return self.pre_logits(self.fc_norm(pool(tokens, self.config.pooling, self.num_prefix)))

    @property
    def prefix_names(self) -> tuple[str, ...]:
        registers = (f"register {i + 1}" for i in range(self.config.num_registers))
        return (*(CLASS_TOKEN,) * self.config.class_token, *registers)

    def position_vectors(self) -> dict[str, tuple[Tensor, Grid]]:
        patches, _ = self.positions(self.grid)
        return {} if patches is None else {"positions": (patches[0], self.grid)}

    def grids(self) -> dict[str, tuple[tuple[int, int], int]]:
        return {"pos_embed": (self.grid, int(self.config.class_token))} if self.config.position == "learned" else {}
