"""Pyramid Vision Transformers: four stages of Transformer blocks on ever smaller and wider maps, for dense tasks too.

Attention over a fine map is affordable because keys and values come from a reduced one. Version 1, https://arxiv.org/abs/2102.12122,
cuts patches, learns positions, and has a class token in the last stage; parameter names are those of its release. Version 2,
https://arxiv.org/abs/2106.13797, overlaps the patches, has its positions from convolutions inside the MLPs, and no class token; names are
timm's. Deviations: maps that a patch does not tile are padded at the bottom and the right (the release drops what is left over), and
so are maps smaller than the reduction of their keys; positions are resized as timm resizes a ViT's.

Axes: B batch, C channels, H W pixels, h w grid of a stage, N tokens (h*w), M tokens of the reduced map, D width, K classes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.errors import VitralError
from vitral.layers.attention import AttentionLayer, attend
from vitral.layers.block import Block, drop_path_rates
from vitral.layers.conv import Conv2d
from vitral.layers.initialise import truncated_normal
from vitral.layers.mlp import Mlp
from vitral.layers.patch import PatchEmbed, check_channels, prepend
from vitral.layers.position import Grid, resize_positions
from vitral.models.common import Each, ImageModel, ModelConfig, ignore

STRIDES = (4, 8, 16, 32)
POOLED = 7  # rows and columns of the map that linear attention pools to


@dataclass(frozen=True, kw_only=True)
class PvtConfig(ModelConfig):
    """Everything that decides the shape of a PVT; the tuples have a value for each of the four stages."""

    dims: tuple[int, ...] = (64, 128, 320, 512)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    num_heads: tuple[int, ...] = (1, 2, 5, 8)
    mlp_ratios: tuple[float, ...] = (8, 8, 4, 4)
    sr_ratios: tuple[int, ...] = (8, 4, 2, 1)
    """Height and width of a stage's map over those of the map that its keys and values come from."""
    drop_path: float = 0.0
    """Stochastic depth of the last block; it grows linearly from 0 at the first."""
    qkv_bias: bool = True
    norm_eps: float = 1e-6
    conv_norm_eps: float = 1e-5
    """Of the norms after patch embeddings and reductions: 1e-5 in the releases and timm, 1e-6 in Transformers."""

    @property
    def token_width(self) -> int:
        return self.dims[-1]

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("dims", "depths", "num_heads", "mlp_ratios", "sr_ratios"):
            value = getattr(self, name)
            if len(value) != len(STRIDES) or min(value) <= 0:
                raise VitralError(f"{name}={value}: must be four positive numbers, one a stage")


@dataclass(frozen=True, kw_only=True)
class PvtV2Config(PvtConfig):
    """Everything that decides the shape of a PVT v2."""

    linear: bool = False
    """Pool keys and values to 7x7 at any size, so that attention is linear in the number of pixels (PVTv2-Li)."""


class ReducedAttention(AttentionLayer):
    """Attention of each place to a reduced map: [B, h, w, D] -> [B, h, w, D], and without reduction [B, N, D] -> [B, N, D].

    Spatial reduction is PVT's, section 3.3, a convolution as wide as its stride; with `linear` it is PVT v2's, section 3.1.
    """

    def __init__(self, dim: int, num_heads: int, reduction: int, linear: bool, qkv_bias: bool, eps: float) -> None:
        super().__init__(dim, num_heads)
        self.reduction = reduction
        self.linear = linear
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        if linear or reduction > 1:
            side = 1 if linear else reduction
            self.sr = Conv2d(dim, dim, kernel_size=side, stride=side)
            self.norm = nn.LayerNorm(dim, eps=eps)

    def reduce(self, x: Tensor) -> Tensor:
        """The map [B, h, w, D] to the tokens that keys and values come from, [B, M, D]."""
        if not self.linear and self.reduction == 1:
            return x.flatten(1, -2)
        x = x.permute(0, 3, 1, 2)  # [B, D, h, w]
        if self.linear:
            x = self.sr(F.adaptive_avg_pool2d(x, POOLED))
            return F.gelu(self.norm(x.flatten(2).transpose(1, 2)))
        h, w = x.shape[2:]
        if h < self.reduction or w < self.reduction:
            x = F.pad(x, (0, max(self.reduction - w, 0), 0, max(self.reduction - h, 0)))
        return self.norm(self.sr(x).flatten(2).transpose(1, 2))

    def spans(self, side: int) -> list[tuple[int, int]]:
        if self.linear:  # as PyTorch bounds adaptive averages
            return [(i * side // POOLED, -(-(i + 1) * side // POOLED)) for i in range(POOLED)]
        r = self.reduction  # what is left over at the end has no key
        return [(i * r, min(side, (i + 1) * r)) for i in range(max(1, side // r))]

    def forward(self, x: Tensor) -> Tensor:
        q = self.heads(self.q(x).flatten(1, -2))  # [B, H, N, d]
        k, v = self.kv(self.reduce(x)).chunk(2, dim=-1)  # each [B, M, D]
        mixed = attend(q, self.heads(k), self.heads(v), recorder=self.recorder)  # [B, H, N, d]
        return self.proj(mixed.transpose(1, 2).reshape(x.shape))


class ConvMlp(nn.Module):
    """PVT v2's MLP: a 3x3 depth-wise convolution between its layers carries position. [B, h, w, D] -> [B, h, w, D]."""

    def __init__(self, dim: int, hidden: int, relu: bool) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.dwconv = Conv2d(hidden, hidden, kernel_size=3, padding=1, groups=hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.relu = relu  # before the convolution, in the linear variant only

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)  # [B, h, w, hidden]
        if self.relu:
            x = F.relu(x)
        x = self.dwconv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.fc2(F.gelu(x))


class NormedPatches(PatchEmbed):
    """Patches through one linear layer and a norm: [B, C, H, W] -> [B, h, w, D]."""

    def __init__(self, patch: int, in_channels: int, dim: int, eps: float) -> None:
        super().__init__((patch, patch), in_channels, dim)
        self.norm = nn.LayerNorm(dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        h, w = (-(-side // p) for side, p in zip(x.shape[2:], self.patch, strict=True))
        return self.norm(super().forward(x)).unflatten(1, (h, w))


class OverlappingPatches(nn.Module):
    """A convolution nearly twice as wide as its stride, and a norm: [B, C, H, W] -> [B, h, w, D]."""

    def __init__(self, kernel: int, stride: int, in_channels: int, dim: int, eps: float) -> None:
        super().__init__()
        self.proj = Conv2d(in_channels, dim, kernel, stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class PyramidVisionTransformer(ImageModel):
    """PVT v1: forward = head(pool(encode(embed(images), grid))), [B, C, H, W] -> logits [B, K].

    Maps are [B, h, w, D] in stages 1 to 3; in stage 4 and after it tokens [B, 1 + h*w, D], the class token first (`num_prefix` 1).
    `patch_size` is the stride of the last map.
    """

    config: PvtConfig
    pyramid = True

    def __init__(self, config: PvtConfig) -> None:
        super().__init__(config)
        self.config = c = config
        if c.sr_ratios[-1] != 1:
            raise VitralError(f"sr_ratios={c.sr_ratios}: the last must be 1, for the class token is no part of a map")
        self.patch_size = STRIDES[-1]
        self.num_prefix = 1
        self.strides = list(STRIDES)
        self.stage_grids = [(-(-c.image_size[0] // s), -(-c.image_size[1] // s)) for s in STRIDES]

        rates = iter(drop_path_rates(c.drop_path, sum(c.depths)))
        for i, (dim, depth) in enumerate(zip(c.dims, c.depths, strict=True)):
            first = i == 0
            tokens = self.stage_grids[i][0] * self.stage_grids[i][1] + (i == 3)
            blocks = nn.ModuleList(
                Block(
                    dim,
                    ReducedAttention(dim, c.num_heads[i], c.sr_ratios[i], False, c.qkv_bias, c.conv_norm_eps),
                    Mlp(dim, round(dim * c.mlp_ratios[i])),
                    drop_path=next(rates),
                    eps=c.norm_eps,
                )
                for _ in range(depth)
            )
            patches = NormedPatches(4 if first else 2, c.in_channels if first else c.dims[i - 1], dim, c.conv_norm_eps)
            self.add_module(f"patch_embed{i + 1}", patches)
            self.register_parameter(f"pos_embed{i + 1}", nn.Parameter(torch.zeros(1, tokens, dim)))
            self.add_module(f"block{i + 1}", blocks)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.dims[-1]))
        self.norm = nn.LayerNorm(c.dims[-1], eps=c.norm_eps)
        self.head = nn.Linear(c.dims[-1], c.num_classes) if c.num_classes else nn.Identity()
        self.initialise()

    @property
    def widths(self) -> list[int]:
        return list(self.config.dims)

    @torch.no_grad()
    def initialise(self) -> None:
        """As in the release: truncated normals of deviation 0.02; patch embeddings and reductions as PyTorch has convolutions."""
        truncated_normal(self)
        for name, table in self.named_parameters():
            if name == "cls_token" or name.startswith("pos_embed"):
                nn.init.trunc_normal_(table, std=0.02)

    def layer_numbers(self) -> dict[str, int]:
        layers = super().layer_numbers()  # the class token and the positions come with the patches of their stage
        stages = {"cls_token": 4} | {f"pos_embed{i}": i for i in (2, 3, 4)}
        return layers | {name: layers[f"patch_embed{i}.proj.weight"] for name, i in stages.items()}

    def grids(self) -> dict[str, tuple[tuple[int, int], int]]:
        return {f"pos_embed{i + 1}": (grid, int(i == 3)) for i, grid in enumerate(self.stage_grids)}

    def patches(self, i: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """The patches of stage `i` (from 0), [B, C, H, W] -> [B, h, w, D], and their positions [1, h*w (+ 1 for the class), D]."""
        x = self.get_submodule(f"patch_embed{i + 1}")(x)
        positions = self.get_parameter(f"pos_embed{i + 1}")
        grid, rule = (x.shape[1], x.shape[2]), self.config.position_resize
        return x, resize_positions(positions, self.stage_grids[i], grid, rule, prefix=int(i == 3)).to(x.dtype)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images)  # [B, h, w, D]
        tokens = self.encode(tokens, self.grid_of(images))  # [B, 1 + h*w, D]
        representation = self.pool(tokens)  # [B, D]
        return self.head(representation)  # [B, K]

    def embed(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] to the first stage's patches with their positions, [B, h, w, D]."""
        x, positions = self.patches(0, images)
        return x + positions.unflatten(1, x.shape[1:3])

    def encode(self, tokens: Tensor, grid: Grid, each: Each = ignore) -> Tensor:
        """The embedded map [B, h, w, D] through the four stages and the final norm: tokens [B, 1 + h*w, D] of the last."""
        x = tokens
        for i, blocks in enumerate(self.blocks_by_stage()):
            if i > 0:
                x, positions = self.patches(i, x.permute(0, 3, 1, 2))
                if i < 3:
                    x = x + positions.unflatten(1, x.shape[1:3])
                else:
                    x = prepend(x.flatten(1, 2), self.cls_token) + positions
            for block in blocks:
                x = block(x)
            each(x)
        return self.norm(x)

    def blocks_by_stage(self) -> list[list[nn.Module]]:
        return [list(self.get_submodule(f"block{i + 1}").children()) for i in range(len(STRIDES))]

    def pool(self, tokens: Tensor) -> Tensor:
        """The class token: [B, 1 + h*w, D] -> [B, D]."""
        return tokens[:, 0]


class Stage(nn.Module):
    """One stage of PVT v2: a smaller map unless it is the first, blocks, a norm. [B, h, w, C] -> [B, h/2, w/2, D]."""

    def __init__(self, config: PvtV2Config, i: int, drop_paths: list[float]) -> None:
        super().__init__()
        c, dim = config, config.dims[i]
        self.downsample = OverlappingPatches(3, 2, c.dims[i - 1], dim, c.conv_norm_eps) if i > 0 else None
        self.blocks = nn.ModuleList(
            Block(
                dim,
                ReducedAttention(dim, c.num_heads[i], c.sr_ratios[i], c.linear, c.qkv_bias, c.conv_norm_eps),
                ConvMlp(dim, round(dim * c.mlp_ratios[i]), relu=c.linear),
                drop_path=rate,
                eps=c.norm_eps,
            )
            for rate in drop_paths
        )
        self.norm = nn.LayerNorm(dim, eps=c.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        if self.downsample is not None:
            x = self.downsample(x.permute(0, 3, 1, 2))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class PyramidVisionTransformerV2(ImageModel):
    """PVT v2: forward = head(pool(encode(embed(images), grid))), maps [B, h, w, D] throughout. `patch_size` is the last map's stride."""

    pyramid = True
    config: PvtV2Config
    without_positions = "PVT v2 has no positions: the convolutions inside its MLPs carry them"

    def __init__(self, config: PvtV2Config) -> None:
        super().__init__(config)
        self.config = c = config
        self.patch_size = STRIDES[-1]
        self.num_prefix = 0
        self.strides = list(STRIDES)

        rates = iter(drop_path_rates(c.drop_path, sum(c.depths)))
        self.patch_embed = OverlappingPatches(7, 4, c.in_channels, c.dims[0], c.conv_norm_eps)
        self.stages = nn.ModuleList(
            Stage(c, i, [next(rates) for _ in range(depth)]) for i, depth in enumerate(c.depths)
        )
        self.head = nn.Linear(c.dims[-1], c.num_classes) if c.num_classes else nn.Identity()
        self.initialise()

    @property
    def widths(self) -> list[int]:
        return list(self.config.dims)

    @torch.no_grad()
    def initialise(self) -> None:
        """As in the release: truncated normals of deviation 0.02, convolutions N(0, 2 / fan-out) with bias 0."""
        truncated_normal(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.weight[:, 0].numel() / module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images)  # [B, h, w, D]
        tokens = self.encode(tokens, self.grid_of(images))  # [B, h', w', D']
        representation = self.pool(tokens)  # [B, D']
        return self.head(representation)  # [B, K]

    def embed(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] to overlapping patches, [B, h, w, D]."""
        check_channels(images, self.config.in_channels)
        return self.patch_embed(images)

    def encode(self, tokens: Tensor, grid: Grid, each: Each = ignore) -> Tensor:
        """The embedded map [B, h, w, D] through the four stages, each with its norm."""
        for stage in self.stages:
            tokens = stage(tokens)
            each(tokens)
        return tokens

    @property
    def final_norm(self) -> nn.Module:
        return self.stages[-1].get_submodule("norm")

    def blocks_by_stage(self) -> list[list[nn.Module]]:
        return [list(stage.get_submodule("blocks").children()) for stage in self.stages]

    def pool(self, tokens: Tensor) -> Tensor:
        """[B, h, w, D] -> the mean over the map, [B, D]."""
        return tokens.mean(dim=(1, 2))
