"""Swin Transformer: attention inside windows, the windows shifted by half in every second block, a pyramid by merging patches.

Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, https://arxiv.org/abs/2103.14030; `swinv2.py` builds on this
file. Parameter names are those of timm 0.9 and later, but for its `head.fc`, here `head`. Deliberate deviation: maps that the windows
do not tile are padded (the paper's classifier refuses them; its detector pads).

Axes: B batch, C channels, H W pixels, h w map, a b window, n windows in a map, N = a*b tokens of a window, D width, K classes.
"""

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.errors import VitralError
from vitral.layers.attention import AttentionLayer, attend
from vitral.layers.block import Block, drop_path_rates
from vitral.layers.initialise import truncated_normal
from vitral.layers.mlp import Mlp
from vitral.layers.patch import PatchEmbed
from vitral.layers.position import Grid, relative_index
from vitral.models.common import Each, ImageModel, ModelConfig, ignore

MASKED = -100.0  # added to the logits of pairs from different regions: finite, as in the paper's code
WINDOWINGS = ("timm", "hf")


@dataclass(frozen=True, kw_only=True)
class SwinConfig(ModelConfig):
    """Everything that decides a Swin Transformer's shape; `depths` and `num_heads` have one entry a stage."""

    patch_size: int = 4
    dim: int = 96
    """Width of the first stage; each further stage doubles it."""
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window: tuple[int, int] = (7, 7)
    """(height, width) in tokens; may be given as one number."""
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    drop_path: float = 0.0
    """Stochastic depth of the last block; it grows linearly from 0 at the first, over all stages."""
    norm_eps: float = 1e-5
    """Of the blocks and the final norm; those of embedding and merging keep 1e-5."""
    windowing: str = "timm"
    """timm or hf: whose rule cuts a map that windows do not tile or that one window covers; elsewhere both are the same. See `Windows`."""

    def __post_init__(self) -> None:
        if isinstance(self.window, int):
            object.__setattr__(self, "window", (self.window, self.window))
        super().__post_init__()
        self.choose("windowing", WINDOWINGS)
        if len(self.depths) != len(self.num_heads):
            raise VitralError(f"depths={self.depths} and num_heads={self.num_heads}: give both one entry a stage")
        if len(self.window) != 2 or (self.windowing == "hf" and self.window[0] != self.window[1]):
            raise VitralError(f"window={self.window}: give one number, or with windowing='timm' (height, width)")

    @property
    def token_width(self) -> int:
        return self.dim * 2 ** (len(self.depths) - 1)

    def side(self, stage: int) -> Grid:
        """The map of a stage at the configured image size, rounded down: what timm and Hugging Face fit windows to."""
        h, w = (max(1, side // self.patch_size // 2**stage) for side in self.image_size)
        return h, w


@dataclass(frozen=True)
class Windows:
    """How a stage cuts its maps [B, h, w, D] into windows [B*n, N, D] and puts them together again.

    Sides that `window` does not tile are padded with zeros at the bottom and the right; padding is not masked, which timm and
    Hugging Face agree on. Every second block first moves the map up and left by half a window, where a side is longer than
    `unshifted`. They disagree beyond that:
      timm  each axis for itself; moves the map, then pads it, so that tokens from opposite edges can meet in one window
      hf    both axes or none (`together`); pads the map, then moves it (`pad_first`), as in the paper's code for detection
    """

    window: Grid
    unshifted: Grid
    together: bool
    pad_first: bool

    def shift(self, h: int, w: int) -> Grid:
        """Rows and columns by which the shifted blocks move a map."""
        down, right = (
            a // 2 if side > u else 0 for a, u, side in zip(self.window, self.unshifted, (h, w), strict=True)
        )
        return (0, 0) if self.together and not (down and right) else (down, right)

    def mask(self, h: int, w: int, device: torch.device) -> Tensor | None:
        """[n, 1, N, N]: 0 for pairs of tokens that are neighbours in the map, MASKED for those that the shift brought together."""
        if not any(shift := self.shift(h, w)):
            return None
        parts = []  # per axis the number of the region, 0 1 2: whole windows, the rest of the last one, what came round
        for side, a, s in zip((h, w), self.window, shift, strict=True):
            at = torch.arange(side := side + -side % a, device=device)
            parts.append((at >= side - a).long() + (at >= side - s).long())
        regions = partition((3 * parts[0][:, None] + parts[1])[None, ..., None], self.window)[..., 0]  # [n, N]
        return MASKED * (regions[:, None, :, None] != regions[:, None, None, :]).float()

    def cut(self, x: Tensor, shifted: bool) -> Tensor:
        """[B, h, w, D] -> [B*n, N, D]."""
        h, w = x.shape[1:3]
        down, right = self.shift(h, w) if shifted else (0, 0)
        if self.pad_first:
            x = moved(padded(x, self.window), -down, -right)
        else:
            x = padded(moved(x, -down, -right), self.window)
        return partition(x, self.window)

    def join(self, windows: Tensor, h: int, w: int, shifted: bool) -> Tensor:
        """[B*n, N, D] -> [B, h, w, D], the reverse of `cut`."""
        (a, b), D = self.window, windows.shape[-1]
        down, right = self.shift(h, w) if shifted else (0, 0)
        rows, columns = -(-h // a), -(-w // b)
        x = windows.reshape(-1, rows, columns, a, b, D).transpose(2, 3).reshape(-1, rows * a, columns * b, D)
        return moved(x, down, right)[:, :h, :w] if self.pad_first else moved(x[:, :h, :w], down, right)


def padded(x: Tensor, tile: Grid) -> Tensor:
    """Zeros at the bottom and the right of [B, h, w, D], so that `tile` tiles it."""
    down, right = -x.shape[1] % tile[0], -x.shape[2] % tile[1]
    return F.pad(x, (0, 0, 0, right, 0, down)) if down or right else x


def moved(x: Tensor, down: int, right: int) -> Tensor:
    """[B, h, w, D] rotated: what leaves at one edge comes back at the other."""
    return x.roll((down, right), (1, 2)) if down or right else x


def fitted_windows(config: SwinConfig, i: int) -> Windows:
    """timm's rule: on each axis the window shrinks to the configured map where that is smaller, and is not shifted where it covers it.

    timm runs at the configured size alone. Here the window stays as built, and is shifted on a larger map.
    """
    window, unshifted = [], []
    for side, a, pixels in zip(config.side(i), config.window, config.image_size, strict=True):
        window.append(min(side, a))
        # an odd side upstream makes the real map one longer than `side`: it still counts as covered
        unshifted.append(-(-pixels // (config.patch_size * 2**i)) if side <= a else a)
    return Windows((window[0], window[1]), (unshifted[0], unshifted[1]), together=False, pad_first=False)


def partition(x: Tensor, window: Grid) -> Tensor:
    """Maps [B, h, w, D] that the window tiles to windows [B*n, N, D], row by row."""
    B, h, w, D = x.shape
    a, b = window
    return x.reshape(B, h // a, a, w // b, b, D).transpose(2, 3).reshape(-1, a * b, D)


def masked_bias(bias: Tensor, mask: Tensor | None, batch: int) -> Tensor:
    """What is added to the logits of `batch` maps: bias [1, H, N, N], and in shifted blocks the mask [n, 1, N, N] for each map."""
    return bias if mask is None else (bias + mask).expand(batch, -1, -1, -1, -1).flatten(0, 1)  # [B*n, H, N, N]


class WindowedAttention(AttentionLayer):
    """What the attention of both versions shares: the windows in which it stays."""

    windows: Windows

    def slots(self, grid: Grid, shifted: bool) -> Tensor:
        places = torch.arange(1, 1 + grid[0] * grid[1]).reshape(1, *grid, 1)  # from 1: padding is 0
        return self.windows.cut(places, shifted)[..., 0] - 1


class WindowAttention(WindowedAttention):
    """Self-attention inside each window with a learned bias for each relative offset (section 3.2): [B, h, w, D] -> [B, h, w, D]."""

    relative_index: Tensor

    def __init__(self, dim: int, num_heads: int, windows: Windows, qkv_bias: bool) -> None:
        super().__init__(dim, num_heads)
        self.windows = windows
        a, b = windows.window
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * a - 1) * (2 * b - 1), num_heads))
        self.register_buffer("relative_index", relative_index(a, b), persistent=False)

    def bias(self) -> Tensor:
        """[1, H, N, N]."""
        return self.relative_position_bias_table.T[None, :, self.relative_index]

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """With a `mask` (of `Windows.mask`) the windows are shifted."""
        B, h, w, D = x.shape
        tokens = self.windows.cut(x, mask is not None)  # [B*n, N, D]
        qkv = self.qkv(tokens).unflatten(-1, (3, self.num_heads, D // self.num_heads))  # [B*n, N, 3, H, d]
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B*n, H, N, d]
        mixed = attend(q, k, v, bias=masked_bias(self.bias(), mask, B), recorder=self.recorder)  # [B*n, H, N, d]
        return self.windows.join(self.proj(mixed.transpose(1, 2).flatten(2)), h, w, mask is not None)


class MapEmbed(PatchEmbed):
    """Images [B, C, H, W] to a map of patches [B, h, w, D], normalised."""

    def __init__(self, patch: Grid, in_channels: int, dim: int) -> None:
        super().__init__(patch, in_channels, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(super().forward(images)).unflatten(1, self.grid(*images.shape[2:]))


def two_by_two(x: Tensor) -> Tensor:
    """[B, h, w, D] -> [B, h/2, w/2, 4*D]: four neighbours side by side, column by column; an odd side is padded with zeros."""
    x = padded(x, (2, 2))
    B, h, w, D = x.shape
    return x.reshape(B, h // 2, 2, w // 2, 2, D).permute(0, 1, 3, 4, 2, 5).flatten(3)


class PatchMerging(nn.Module):
    """[B, h, w, D] -> [B, h/2, w/2, 2*D]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(self.norm(two_by_two(x)))


class Stage(nn.Module):
    """Merging (from the second stage on), then blocks whose windows are shifted in every second one: [B, h, w, D] -> [B, h', w', D']."""

    def __init__(self, downsample: nn.Module, blocks: list[Block], windows: Windows) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)
        self.windows = windows

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        mask = self.windows.mask(x.shape[1], x.shape[2], x.device)  # once for all blocks
        for i, block in enumerate(self.blocks):
            x = block(x, mask) if i % 2 and mask is not None else block(x)
        return x


class WindowTransformer(ImageModel):
    """What both versions share: forward = head(pool(encode(embed(images), grid))) over maps, [B, C, H, W] -> [B, K]."""

    config: SwinConfig
    pyramid = True
    without_positions = "nothing is added to the tokens: positions are a bias on the attention, by offset"
    block: ClassVar[type[Block]]
    merging: ClassVar[type[nn.Module]]

    def __init__(self, config: SwinConfig) -> None:
        super().__init__(config)
        self.patch_size = config.patch_size
        self.num_prefix = 0
        self.strides = [config.patch_size * 2**i for i in range(len(config.depths))]

        self.patch_embed = MapEmbed((config.patch_size, config.patch_size), config.in_channels, config.dim)
        rates = drop_path_rates(config.drop_path, sum(config.depths))
        first = [sum(config.depths[:i]) for i in range(len(config.depths))]
        self.layers = nn.ModuleList(
            self.stage(i, rates[first[i] : first[i] + depth]) for i, depth in enumerate(config.depths)
        )
        width = config.dim * 2 ** (len(config.depths) - 1)
        self.norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.head = nn.Linear(width, config.num_classes) if config.num_classes else nn.Identity()
        self.initialise()

    @abstractmethod
    def attention(self, i: int, windows: Windows) -> WindowedAttention:
        """An attention layer of stage `i`."""

    @abstractmethod
    def windows(self, i: int) -> Windows:
        """How stage `i` cuts its maps."""

    @abstractmethod
    def initialise(self) -> None:
        """Initialise every parameter."""

    def stage(self, i: int, drop_path: list[float]) -> Stage:
        """Stage `i`, with one drop path rate for each of its blocks."""
        config, dim, windows = self.config, self.config.dim * 2**i, self.windows(i)
        mlp = partial(Mlp, dim, int(dim * config.mlp_ratio))
        blocks = [
            self.block(dim, self.attention(i, windows), mlp(), drop_path=rate, eps=config.norm_eps)
            for rate in drop_path
        ]
        return Stage(self.merging(dim // 2) if i else nn.Identity(), blocks, windows)

    @property
    def widths(self) -> list[int]:
        return [self.config.dim * 2**i for i in range(len(self.config.depths))]

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images)  # [B, h, w, D]
        tokens = self.encode(tokens, self.grid_of(images))  # [B, h', w', D']
        representation = self.pool(tokens)  # [B, D']
        return self.head(representation)  # [B, K]

    def embed(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] to a map of patches [B, h, w, D]."""
        return self.patch_embed(images)

    def encode(self, tokens: Tensor, grid: Grid, each: Each = ignore) -> Tensor:
        """A map [B, h, w, D] through every stage and the final norm, [B, h', w', D']."""
        for stage in self.layers:
            tokens = stage(tokens)
            each(tokens)
        return self.norm(tokens)

    def blocks_by_stage(self) -> list[list[nn.Module]]:
        return [list(stage.get_submodule("blocks").children()) for stage in self.layers]

    def pool(self, tokens: Tensor) -> Tensor:
        """The mean over the map: [B, h', w', D'] -> [B, D']."""
        return tokens.mean(dim=(1, 2))


class SwinTransformer(WindowTransformer):
    """[B, C, H, W] -> [B, K]."""

    block = Block
    merging = PatchMerging

    def attention(self, i: int, windows: Windows) -> WindowAttention:
        config = self.config
        return WindowAttention(config.dim * 2**i, config.num_heads[i], windows, config.qkv_bias)

    def windows(self, i: int) -> Windows:
        """The windows of stage `i`. Hugging Face keeps the whole window's table at any size; it fails on a map smaller than the window,
        which is padded here (and once it has met one that just fits, it never shifts again)."""
        if self.config.windowing == "hf":
            return Windows(self.config.window, self.config.window, together=True, pad_first=True)
        return fitted_windows(self.config, i)

    @torch.no_grad()
    def initialise(self) -> None:
        """As in the paper's code: linear layers and bias tables N(0, 0.02) truncated, biases 0; the embedding as PyTorch draws it."""
        truncated_normal(self)
        self.patch_embed.proj.reset_parameters()
        for name in self.bias_tables():
            nn.init.trunc_normal_(self.get_parameter(name), std=0.02)

    def bias_tables(self) -> dict[str, Grid]:
        return {
            f"{name}.relative_position_bias_table": module.windows.window
            for name, module in self.named_modules()
            if isinstance(module, WindowAttention)
        }
