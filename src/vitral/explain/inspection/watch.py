"""Following a model's forward pass: the output of each block, and the attention of each layer with the places of its tokens.

Everything is passed on at once and nothing kept, so that a large batch of a large model fits in memory.
Axes: B images, C channels, H W pixels, h w grid, N tokens, D width, n windows of an image, Q queries, K keys.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vitral.explain.capture import followed, geometry_of
from vitral.explain.geometry import ClassOnly, Floats, Reduced, Windowed
from vitral.layers.attention import AttentionLayer, attention_layers
from vitral.models.common import ImageModel, covering

Size = tuple[int, int]


@dataclass(frozen=True)
class BlockOutput:
    """The tokens that a block gives."""

    patches: Tensor
    """[B, h*w, D]"""
    prefix: Tensor
    """[B, P, D]: class, distillation and register tokens; P may be 0."""
    grid: Size


@dataclass(frozen=True)
class Places:
    """Where the tokens of an attention layer are in the image: pixel (row, column) of their centres, NaN for those without a place."""

    queries: Tensor
    """float32 [n, Q, 2]"""
    keys: Tensor
    """float32 [n, K, 2]"""
    allowed: Tensor | None = None
    """bool [n, Q, K]: False where the key is masked for the query; None without a mask."""

    def even(self) -> Tensor:
        """float32 [n, 1, Q, K]: uniform attention to all keys that are not masked."""
        n, Q, K = len(self.keys), self.queries.shape[1], self.keys.shape[1]
        shape = (n, 1, Q, K)
        may = torch.ones(shape, device=self.keys.device) if self.allowed is None else self.allowed[:, None].float()
        return may / may.sum(-1, keepdim=True)


def named_blocks(model: ImageModel) -> list[tuple[str, nn.Module]]:
    """The blocks that update the patches, in the order of computation; not those of class attention."""
    blocks = [block for stage in model.blocks_by_stage() for block in stage]
    names = {module: name for name, module in model.named_modules()}
    return [(names[block], block) for block in blocks]


@contextmanager
def watching(
    model: ImageModel, tokens: Callable[[int, BlockOutput], None], attention: Callable[[int, Tensor, Places], None]
) -> Iterator[None]:
    """Inside, each forward pass calls `tokens(i, ...)` with the input of the first block (i = 0) and the output of block i - 1, and
    `attention(i, probabilities [B*n, heads, Q, K], places)` for each attention layer."""
    current: list[Tensor] = []  # the images of this forward pass
    layers = [m for _, m in attention_layers(model)]

    def block(i: int, x: Tensor) -> None:
        tokens(i, split_tokens(x, model, current[0]))

    def asked(i: int, probabilities: Tensor, inputs: tuple[Tensor, ...]) -> None:
        attention(i, probabilities, places(layers[i], inputs, model, current[0]))

    opened = model.register_forward_pre_hook(lambda _, inputs: current.__setitem__(slice(None), inputs[:1]))
    try:
        with followed(model, block, asked):
            yield
    finally:
        opened.remove()
        current.clear()


def split_tokens(x: Tensor, model: ImageModel, images: Tensor) -> BlockOutput:
    """A block's tokens [B, P + h*w, D] or map [B, h, w, D] for these images."""
    if x.ndim == 4:
        return BlockOutput(x.flatten(1, 2), x[:, 0, :0], (x.shape[1], x.shape[2]))
    h, w = covering(images, model.patch_size)
    first = x.shape[1] - h * w  # not `num_prefix`: a CaiT's trunk has no class token yet
    return BlockOutput(x[:, first:], x[:, :first], (h, w))


def places(layer: AttentionLayer, inputs: tuple[Tensor, ...], model: ImageModel, images: Tensor) -> Places:
    """The places of a layer's queries and keys, from its inputs for these images."""
    shifted = len(inputs) > 1  # windows with a mask
    geometry = geometry_of(model, layer, inputs[0], shifted, images)
    (h, w), device = geometry.grid, images.device
    sides = [(np.arange(n) + 0.5) * geometry.stride for n in (h, w)]  # the middle of each row and column
    if isinstance(geometry, Windowed):
        centres = np.append(_pairs(*sides), [[np.nan, np.nan]], axis=0)  # the last for padding, whose slot is -1
        keys = _tensor(centres[geometry.slots], device)  # [n, N, 2]
        return Places(keys, keys, inputs[1][:, 0] == 0 if shifted else None)
    if isinstance(geometry, Reduced):
        reduced = _pairs(
            geometry.rows @ sides[0], geometry.columns @ sides[1]
        )  # the middle of what a key is reduced from
        return Places(_tensor(_pairs(*sides)[None], device), _tensor(reduced[None], device))
    prefix = np.full((geometry.num_prefix, 2), np.nan)
    keys = _tensor(np.concatenate([prefix, _pairs(*sides)])[None], device)  # [1, N, 2]
    return Places(keys[:, :1] if isinstance(geometry, ClassOnly) else keys, keys)


def _pairs(rows: Floats, columns: Floats) -> Floats:
    """[h] and [w] to [h * w, 2], row by row."""
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)


def _tensor(values: Floats, device: torch.device) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(device)
