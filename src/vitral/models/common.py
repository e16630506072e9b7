"""What every family has: a dataclass that decides its shape, and the contract image -> tokens -> representation -> logits.

Axes everywhere: B batch, C channels, H W pixels, h w grid, N tokens, D width, K classes.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Self

from torch import Tensor, nn

from vitral.errors import VitralError
from vitral.layers.attention import attention_layers, recording
from vitral.layers.position import RESIZES

RATES = ("dropout", "drop_path", "patch_drop")
POSITIVE = ("image_size", "patch_size", "in_channels", "dim", "depth", "num_heads", "dims", "depths", "window")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that decides a model's shape. `image_size` is (height, width) in pixels and may be given as one number."""

    image_size: tuple[int, int] = (224, 224)
    in_channels: int = 3
    num_classes: int = 1000
    """0 leaves the head out: the model then returns the representation."""
    position_resize: str = "timm"
    """Whose rule brings learned positions to the grid of an image of another size: timm, hf, torchvision, jax or dinov2."""

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, list):
                object.__setattr__(self, f.name, tuple(value))
            elif f.name == "image_size" and isinstance(value, int):
                object.__setattr__(self, f.name, (value, value))
        self.choose("position_resize", RESIZES)
        for name in POSITIVE:
            value = getattr(self, name, 1)
            if min(value if isinstance(value, tuple) else (value,)) < 1:
                raise VitralError(f"{name}={value}: must be at least 1")
        for name in RATES:
            if not 0 <= getattr(self, name, 0) < 1:
                raise VitralError(f"{name}={getattr(self, name)}: must be in [0, 1)")

    def choose(self, name: str, allowed: tuple[str, ...]) -> None:
        """Refuse a value of field `name` that is not among `allowed`."""
        if getattr(self, name) not in allowed:
            raise VitralError(f"{name}={getattr(self, name)!r}: choose one of {', '.join(allowed)}")

    def arguments(self) -> dict[str, object]:
        """The fields as a plain dictionary, ready for JSON."""
        return {f.name: list(v) if isinstance(v := getattr(self, f.name), tuple) else v for f in fields(self)}


class ImageModel(nn.Module, ABC):
    """The contract of every family: forward = head(pool(encode(embed(images)))), images [B, C, H, W] to logits [B, K].

    Attributes beside the methods: `patch_size`, `num_prefix` (tokens before those of the patches), `image_size`, `num_classes`,
    `head`, and `strides`, the pixel strides of the maps that `features` gives.
    """

    config: ModelConfig
    patch_size: int
    num_prefix: int
    strides: list[int]
    head: nn.Module

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        self.num_classes = config.num_classes

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] to logits [B, K]: embed, encode, pool, head."""

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] to tokens [B, N, D], or to a map [B, h, w, D] in a pyramid."""

    @abstractmethod
    def encode(self, tokens: Tensor) -> Tensor:
        """Tokens through every block and the final norm."""

    @abstractmethod
    def pool(self, tokens: Tensor) -> Tensor:
        """Encoded tokens to the representation that the head reads, [B, D]."""

    @abstractmethod
    def features(self, images: Tensor) -> list[Tensor]:
        """Maps [B, h, w, D] for dense tasks, finest first; their pixel strides are `self.strides`."""

    def represent(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] to what the head reads, [B, D]: for probes and for models without a head."""
        return self.pool(self.encode(self.embed(images)))

    def train(self, mode: bool = True) -> Self:
        """Batch norms whose weights are frozen stay as in use: their statistics are part of what must not change."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
                module.eval()
        return self

    def grids(self) -> dict[str, tuple[tuple[int, int], int]]:
        """For each learned table of positions [1, prefix + h*w, D] its name in the state dict, its grid (h, w) and its prefix rows."""
        return {}

    def bias_tables(self) -> dict[str, tuple[int, int]]:
        """For each table of relative offsets [(2h-1)(2w-1) + extra, H] its name in the state dict and its window (h, w)."""
        return {}

    def forward_with_attention(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits [B, K], and for each attention layer the probabilities [B, heads, queries, keys] that produced them."""
        if not (layers := attention_layers(self)):
            raise VitralError(f"{type(self).__name__} has no attention to show; choose a Transformer")
        with recording(self) as maps:
            logits = self(images)
        return logits, [maps[layer] for layer, _ in layers]


def evenly(depth: int, count: int) -> list[int]:
    """The indices of `count` of `depth` blocks, evenly spaced and ending with the last."""
    return [depth * (i + 1) // count - 1 for i in range(count)]


def to_map(tokens: Tensor, num_prefix: int, grid: tuple[int, int]) -> Tensor:
    """Tokens [B, prefix + h*w, D] to the map of the patches [B, h, w, D]."""
    return tokens[:, num_prefix:].unflatten(1, grid)
