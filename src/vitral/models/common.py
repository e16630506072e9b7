"""What every family has: a dataclass that decides its shape, and the contract image -> tokens -> representation -> logits.

Axes everywhere: B batch, C channels, H W pixels, h w grid, N tokens, D width, K classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import chain, count
from typing import ClassVar, Literal, Self

from torch import Tensor, nn

from vitral.errors import VitralError
from vitral.layers.attention import attention_layers, recording
from vitral.layers.described import EdgesAndColours
from vitral.layers.patch import patch_grid
from vitral.layers.position import RESIZES, Grid

# What the head reads of the encoded tokens: one prefix token, the mean of the patches, or two of these.
Reader = Literal["cls", "mean", "cls_dist", "cls_mean"]
CLASS_TOKEN, DISTILLATION_TOKEN = "class token", "distillation token"
RATES = ("dropout", "drop_path", "patch_drop")
BESIDE = 0.5  # the weight of its logits beside those of edges and colours: of few images a Transformer is too sure (benchmarks/LOG.md)
POSITIVE = ("image_size", "patch_size", "in_channels", "dim", "depth", "num_heads", "dims", "depths", "window")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that decides a model's shape. `image_size` is (height, width) in pixels and may be given as one number."""

    image_size: tuple[int, int] = (224, 224)
    in_channels: int = 3
    num_classes: int = 1000
    """0 leaves the head out: the model then returns the representation."""
    answers: ClassVar[str] = "classify"
    """The task of the family's own head."""
    any_patch: ClassVar[bool] = False
    """Whether patches may have any size: small ones suit small images."""
    position_resize: str = "timm"
    """Whose rule resizes learned positions to the grid of an image of another size: timm, hf, torchvision, jax or dinov2."""

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

    @property
    def backbone(self) -> "ModelConfig":
        """The shape of `ImageModel.backbone`."""
        return self

    @property
    def token_width(self) -> int:
        """Width of the last tokens or map; 512 where the family has no one width."""
        return getattr(self, "dim", 512)

    def choose(self, name: str, allowed: tuple[str, ...]) -> None:
        """Refuse a value of field `name` that is not among `allowed`."""
        if getattr(self, name) not in allowed:
            raise VitralError(f"{name}={getattr(self, name)!r}: choose one of {', '.join(allowed)}")

    def arguments(self) -> dict[str, object]:
        """The fields as a plain dictionary, ready for JSON."""
        return {f.name: list(v) if isinstance(v := getattr(self, f.name), tuple) else v for f in fields(self)}


Each = Callable[[Tensor], object]


def ignore(_: Tensor) -> None:
    """The `each` of a caller who wants only what `encode` returns."""


class ImageModel(nn.Module, ABC):
    """The contract of every family: forward = head(pool(encode(embed(images), grid))), images [B, C, H, W] to logits [B, K].

    Attributes beside the methods: `patch_size` (of a pyramid the stride of the last map), `num_prefix` (tokens before those of the patches),
    `image_size`, `num_classes`, `head`, and `strides`, the pixel strides of the maps that `features` gives.
    """

    config: ModelConfig
    patch_size: int
    num_prefix: int
    strides: list[int]
    head: nn.Module
    pyramid: ClassVar[bool] = False
    """Whether maps shrink from stage to stage. If not, there is one stage, and every block sees the same patches."""
    droppable: ClassVar[bool] = False
    """Whether `encode` takes a subset of the embedded patches."""
    replaceable: ClassVar[tuple[str, ...]] = ("norm.", "fc_norm.", "pre_logits.", "reg_token", "beside.")
    """Prefixes of parameters that another pooling, representation, number of registers or classifier beside the model adds or removes."""
    plain: ClassVar[bool] = False
    """Whether `encode` is blocks of `Attention` and the final norm, and nothing else: what `models/plain.py` can run in other ways."""
    without_positions: ClassVar[str] = "this model has no positions"
    """Why `position_vectors` is empty, for people."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        self.num_classes = config.num_classes
        self.beside: EdgesAndColours | None = None
        """A classifier that is fitted before training, and whose logits are added to the head's in use."""

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] to logits [B, K]: embed, encode, pool, head."""

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] to tokens [B, N, D], or to a map [B, h, w, D] in a pyramid."""

    @abstractmethod
    def encode(self, tokens: Tensor, grid: Grid, each: Each = ignore) -> Tensor:
        """Tokens of a `grid` of patches (rows, columns) through every block and the final norm.

        each: is called with the output of each block, in a pyramid with the map of each stage.
        """

    @abstractmethod
    def pool(self, tokens: Tensor) -> Tensor:
        """Encoded tokens to the representation that the head reads, [B, D]."""

    def blocks_by_stage(self) -> list[list[nn.Module]]:
        """The blocks that update the patches, in the order of computation: one list for each stage of a pyramid, else one of all."""
        return [list(self.get_submodule("blocks").children())]

    @property
    def class_blocks(self) -> list[nn.Module]:
        """Blocks after these that update the class token only."""
        return []

    @property
    def final_norm(self) -> nn.Module:
        """The norm after the last block; may be an identity."""
        return self.get_submodule("norm")

    @property
    def reader(self) -> Reader:
        """Which of the encoded tokens the head reads: `pooling`, in the families that have a choice."""
        return getattr(self.config, "pooling", "cls" if self.num_prefix else "mean")

    @property
    def prefix_names(self) -> tuple[str, ...]:
        """Names of the `num_prefix` tokens before the patches, in order."""
        return (CLASS_TOKEN, *(f"register {i}" for i in range(1, self.num_prefix)))[: self.num_prefix]

    def answer_token(self, row: int) -> int | None:
        """Of a model with several answers an image, the prefix token that gives answer `row`; None where none does."""
        return None

    @property
    def widths(self) -> list[int]:
        """Widths of the maps that `features` gives; a pyramid says its own."""
        return [self.config.token_width] * len(self.strides)

    @property
    def token_strides(self) -> list[int]:
        """Pixels of a token's side: in each stage of a pyramid, else of a patch."""
        return self.strides if self.pyramid else [self.patch_size]

    @property
    def backbone(self) -> "ImageModel":
        """What is fine-tuned: the model itself, or the encoder of a model that is for pre-training only."""
        return self

    def joined(self, logits: Tensor, images: Tensor) -> Tensor:
        """Logits [B, K] of images in use: with those of what stands beside the model, if anything does."""
        return logits if self.beside is None else BESIDE * logits + self.beside(images)

    def both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Two logits [B, K]: those trained on labels, and those trained on a teacher; the same unless the family has a second head."""
        logits = self(images)
        return logits, logits

    def ordered_blocks(self) -> list[nn.Module]:
        """All blocks in the order of computation, each a layer of `layer_numbers`."""
        return [*chain(*self.blocks_by_stage()), *self.class_blocks]

    def layer_numbers(self) -> dict[str, int]:
        """The layer of every parameter: 0 for the embedding, 1, 2, ... for the blocks, then one for norm and head.

        What leads from one stage of a pyramid to the next belongs to the layer before it, as in BEiT's and SimMIM's code
        (https://arxiv.org/abs/2106.08254, https://arxiv.org/abs/2111.09886). A family that defines parameters in another order than it uses
        them overrides this.
        """
        names = {module: name for name, module in self.named_modules()}
        blocks = [f"{names[block]}." for block in self.ordered_blocks()]
        layers, before = {}, 0
        for name, _ in self.named_parameters():
            own = next((i for i, block in enumerate(blocks, start=1) if name.startswith(block)), None)
            before = own or before
            layers[name] = own or (before if before < len(blocks) else len(blocks) + 1)
        return layers

    def inner_parameters(self) -> set[str]:
        """Names of the parameters between the embedding and the final norm."""
        layers = self.layer_numbers()
        last = max(layers.values())
        return {name for name, layer in layers.items() if 0 < layer < last}

    def whole_matrices(self) -> set[str]:
        """Names of the parameters that Muon learns where it is chosen: the matrices between the embedding and the final norm."""
        inner = self.inner_parameters()
        return {name for name, p in self.named_parameters() if p.ndim == 2 and name in inner}

    def embedding_parameters(self) -> set[str]:
        """Names of the parameters that `embed` uses: the embedding, tokens and positions."""
        named = [name for name, _ in self.named_parameters()]
        return {name for name in named if "." not in name or name.startswith(("patch_embed", "pos_embed"))}

    def position_vectors(self) -> dict[str, tuple[Tensor, Grid]]:
        """For each table of positions its name, and the vectors of the patches [h*w, D] on the model's own grid (h, w)."""
        tables = self.grids().items()
        return {name: (self.get_parameter(name).detach()[0, prefix:], grid) for name, (grid, prefix) in tables}

    def offset_biases(self) -> dict[str, Tensor]:
        """For each attention layer with a bias by the offset between query and key its name and the bias [H, 2h - 1, 2w - 1]."""
        found = {}
        for name, (h, w) in self.bias_tables().items():
            size = 2 * h - 1, 2 * w - 1
            table = self.get_parameter(name).detach()[: size[0] * size[1]]  # BEiT's class token has further rows
            found[name.rpartition(".")[0]] = table.T.unflatten(1, size)
        return found

    def grid_of(self, images: Tensor) -> Grid:
        """Rows and columns of the tokens that `embed` makes of images [B, C, H, W]; an image smaller than a patch is refused."""
        stride = self.token_strides[0]
        return covering(images, stride) if self.pyramid else patch_grid((stride, stride), *images.shape[2:])

    def represent(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] to what the head reads, [B, D]: for probes and for models without a head."""
        return self.pool(self.encode(self.embed(images), self.grid_of(images)))

    def features(self, images: Tensor) -> list[Tensor]:
        """Maps [B, h, w, D] for dense tasks, finest first; their pixel strides are `self.strides`.

        Those of each stage of a pyramid, else of up to four evenly spaced blocks, or of a stem of convolutions and the last block; the last one is
        what `encode` returns.
        """
        stages, number, maps = self.blocks_by_stage(), count(), []
        depth = len(stages) if self.pyramid else sum(map(len, stages))
        before = evenly(depth, len(self.strides))[:-1]

        def each(tokens: Tensor) -> None:
            if next(number) in before:
                maps.append(tokens)

        maps.append(self.encode(self.embed(images), self.grid_of(images), each))
        return [to_map(each, covering(images, stride)) for each, stride in zip(maps, self.strides, strict=True)]

    def train(self, mode: bool = True) -> Self:
        """As in PyTorch, but batch norms with frozen weights stay in evaluation mode: their statistics must not change either."""
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
        if not attention_layers(self):
            raise VitralError(f"{type(self).__name__} has no attention to show; choose a Transformer")
        with recording(self) as maps:
            logits = self(images)
        return logits, [maps[layer] for layer in range(len(maps))]


class Maskable(ImageModel):
    """A model whose patches can be hidden before it encodes them: what masked pre-training needs."""

    dim: int
    """Width of its tokens."""
    fc_norm: nn.Module
    """The norm after pooling; an identity where `encode` ends with the norm."""

    @abstractmethod
    def embed(self, images: Tensor, replace: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Images [B, C, H, W] to tokens [B, N, D].

        replace: may change the embedded patches [B, h*w, D] before they get positions.
        """


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every module is in its mode of before."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def alone(model: ImageModel) -> Iterator[None]:
    """Without what stands beside the model inside: it knows the images that it was fitted to by heart."""
    beside, model.beside = model.beside, None
    try:
        yield
    finally:
        model.beside = beside


def evenly(depth: int, count: int) -> list[int]:
    """The indices of `count` of `depth` blocks, evenly spaced and ending with the last."""
    return [depth * (i + 1) // count - 1 for i in range(count)]


def covering(images: Tensor, stride: int) -> Grid:
    """Rows and columns of squares of `stride` pixels that cover images [B, C, H, W]."""
    return -(-images.shape[2] // stride), -(-images.shape[3] // stride)


def to_map(tokens: Tensor, grid: Grid) -> Tensor:
    """Tokens [B, prefix + h*w, D] to the map of the patches [B, h, w, D]; a map is returned as it is."""
    return tokens if tokens.ndim == 4 else tokens[:, tokens.shape[1] - grid[0] * grid[1] :].unflatten(1, grid)
