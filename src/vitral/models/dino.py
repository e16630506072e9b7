"""DINOv2 and DINOv3: plain ViTs with layer scale and registers, trained without labels, that people fine-tune today.

DINOv2, https://arxiv.org/abs/2304.07193: learned positions, SwiGLU in the giant; registers, https://arxiv.org/abs/2309.16588.
DINOv3, https://arxiv.org/abs/2508.10104: rotary positions of the patches in every layer, keys without bias. Names are timm's VisionTransformer's.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitral.errors import VitralError
from vitral.layers.attention import AttentionLayer, attend
from vitral.layers.block import Block, drop_path_rates
from vitral.layers.initialise import truncated_normal
from vitral.layers.mlp import Mlp, SwiGlu
from vitral.layers.patch import PatchEmbed, prepend
from vitral.layers.position import Grid, resize_positions
from vitral.models.common import Each, ImageModel, ModelConfig, ignore

POSITIONS = ("learned", "rotary")
POOLINGS = ("cls", "mean", "cls_mean")


@dataclass(frozen=True, kw_only=True)
class DinoConfig(ModelConfig):
    """Everything that decides a DINO ViT's shape."""

    num_classes: int = 0
    any_patch = True
    patch_size: int = 14
    dim: int = 384
    depth: int = 12
    num_heads: int = 6
    hidden: int = 1536
    """Width inside the MLP (of each half in SwiGLU)."""
    swiglu: bool = False
    num_registers: int = 0
    position: str = "learned"
    """learned (DINOv2) or rotary (DINOv3)"""
    class_position: bool = True
    """Whether the learned table has a row for the class token."""
    rotary_base: float = 100.0
    qkv_bias: bool = True
    key_bias: bool = True
    layer_scale: float = 1e-5
    """Initial value."""
    pooling: str = "cls"
    """What the head reads: cls, mean (of the patches), or cls_mean (both, 2 D wide, as the papers' linear probe)"""
    drop_path: float = 0.0
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        self.choose("position", POSITIONS)
        self.choose("pooling", POOLINGS)
        if self.position == "rotary" and self.dim // self.num_heads % 4:
            raise VitralError(f"rotary positions need a head width divisible by 4, not {self.dim // self.num_heads}")


def rotary(grid: Grid, width: int, base: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines [h*w, d] of each patch centre's (row, column) in [-1, 1] at d / 4 frequencies; DINOv3, section 3.2."""
    frequencies = base ** -torch.arange(0, 1, 4 / width, device=device)  # [d/4]
    row, column = ((torch.arange(n, device=device) + 0.5) / n * 2 - 1 for n in grid)
    centres = torch.stack(torch.meshgrid(row, column, indexing="ij"), dim=-1).flatten(0, 1)  # [h*w, 2]
    angles = (2 * math.pi * centres[:, :, None] * frequencies).flatten(1).tile(2)  # [h*w, d]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The last h*w tokens of [B, H, N, d] rotated by their angles; the prefix tokens stay as they are."""
    prefix, patches = x.split([x.shape[-2] - len(cos), len(cos)], dim=-2)
    first, second = patches.chunk(2, dim=-1)
    turned = patches * cos.to(x.dtype) + torch.cat([-second, first], dim=-1) * sin.to(x.dtype)
    return torch.cat([prefix, turned], dim=-2)


class DinoAttention(AttentionLayer):
    """Self-attention with optional rotary positions: [B, N, D] -> [B, N, D]."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool, key_bias: bool) -> None:
        super().__init__(dim, num_heads)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias and key_bias)
        keyless = qkv_bias and not key_bias
        self.q_bias = nn.Parameter(torch.zeros(dim)) if keyless else None
        self.v_bias = nn.Parameter(torch.zeros(dim)) if keyless else None
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, *angles: Tensor) -> Tensor:
        bias: Tensor | None = self.qkv.bias
        if self.q_bias is not None and self.v_bias is not None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = nn.functional.linear(x, self.qkv.weight, bias)
        q, k, v = (self.heads(part) for part in qkv.chunk(3, dim=-1))  # each [B, H, N, d]
        if angles:
            q, k = rotate(q, *angles), rotate(k, *angles)
        mixed = attend(q, k, v, recorder=self.recorder)  # [B, H, N, d]
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Dino(ImageModel):
    """[B, C, H, W] -> [B, K], or the representation where there are no classes."""

    config: DinoConfig

    def __init__(self, config: DinoConfig) -> None:
        super().__init__(config)
        self.patch_size = config.patch_size
        self.num_prefix = 1 + config.num_registers
        D = config.dim

        self.patch_embed = PatchEmbed((config.patch_size, config.patch_size), config.in_channels, D)
        self.grid = self.patch_embed.grid(*config.image_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, D))
        self.reg_token = nn.Parameter(torch.zeros(1, config.num_registers, D)) if config.num_registers else None
        rows = config.class_position + self.grid[0] * self.grid[1]
        learned = config.position == "learned"
        self.pos_embed: nn.Parameter | None = nn.Parameter(torch.zeros(1, rows, D)) if learned else None
        self.blocks = nn.ModuleList(
            Block(
                D,
                DinoAttention(D, config.num_heads, config.qkv_bias, config.key_bias),
                SwiGlu(D, config.hidden) if config.swiglu else Mlp(D, config.hidden),
                drop_path=rate,
                eps=config.norm_eps,
                layer_scale=config.layer_scale,
            )
            for rate in drop_path_rates(config.drop_path, config.depth)
        )
        self.norm = nn.LayerNorm(D, eps=config.norm_eps)
        width = D * (2 if config.pooling == "cls_mean" else 1)
        self.head = nn.Linear(width, config.num_classes) if config.num_classes else nn.Identity()
        self.strides = [config.patch_size] * min(4, config.depth)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """As in the papers' code: weights and positions from a truncated normal of deviation 0.02, tokens of 1e-6; biases 0."""
        truncated_normal(self)
        nn.init.normal_(self.cls_token, std=1e-6)
        if self.reg_token is not None:
            nn.init.normal_(self.reg_token, std=1e-6)
        if self.pos_embed is not None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images)  # [B, 1 + registers + h*w, D]
        tokens = self.encode(tokens, self.grid_of(images))  # [B, 1 + registers + h*w, D]
        representation = self.pool(tokens)  # [B, D] or [B, 2D]
        return self.head(representation)  # [B, K]

    def embed(self, images: Tensor) -> Tensor:
        tokens = self.patch_embed(images)  # [B, h*w, D]
        cls = self.cls_token.to(tokens.dtype)
        if self.pos_embed is not None:
            grid, placed = self.grid_of(images), int(self.config.class_position)
            positions = resize_positions(self.pos_embed, self.grid, grid, self.config.position_resize, prefix=placed)
            positions = positions.to(tokens.dtype)
            cls, tokens = (cls + positions[:, :1] if placed else cls), tokens + positions[:, placed:]
        return prepend(tokens, cls, self.reg_token)

    def encode(self, tokens: Tensor, grid: Grid, each: Each = ignore) -> Tensor:
        angles = self.angles(grid, tokens.device)
        for block in self.blocks:
            tokens = block(tokens, *angles)  # [B, 1 + registers + h*w, D]
            each(tokens)
        return self.norm(tokens)

    def angles(self, grid: Grid, device: torch.device) -> tuple[Tensor, ...]:
        """Rotary cosines and sines, or nothing."""
        if self.config.position != "rotary":
            return ()
        return rotary(grid, self.config.dim // self.config.num_heads, self.config.rotary_base, device)

    def pool(self, tokens: Tensor) -> Tensor:
        cls = tokens[:, 0]
        if self.config.pooling == "cls":
            return cls
        mean = tokens[:, self.num_prefix :].mean(dim=1)
        return mean if self.config.pooling == "mean" else torch.cat([cls, mean], dim=-1)

    def position_vectors(self) -> dict[str, tuple[Tensor, Grid]]:
        angles = self.angles(self.grid, torch.device("cpu"))
        return {"rotary positions": (torch.cat(angles, dim=-1), self.grid)} if angles else super().position_vectors()

    def grids(self) -> dict[str, tuple[tuple[int, int], int]]:
        return {} if self.pos_embed is None else {"pos_embed": (self.grid, int(self.config.class_position))}
