"""Looking at a model while it computes: the output of each block, and the attention of each layer with the places of its tokens.

Everything is handed out at once and nothing kept, so that a large batch of a large model fits; hooks are gone when the block ends.
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
from vitral.layers.attention import AttentionLayer
from vitral.models.common import ImageModel, covering

Size = tuple[int, int]


@dataclass(frozen=True)
class Tokens:
    """What a block gives."""

    patches: Tensor
    """[B, h*w, D]"""
    prefix: Tensor
    """[B, P, D]: class, distillation and register tokens; P may be 0."""
    grid: Size


@dataclass(frozen=True)
class Places:
    """Where the tokens of an attention layer are in the image: pixel (row, column) of their centres, NaN for what has no place."""

    queries: Tensor
    """float32 [n, Q, 2]"""
    keys: Tensor
    """float32 [n, K, 2]"""
    allowed: Tensor | None = None
    """bool [n, Q, K]: whether the query may read the key; None where each may read all."""

    def even(self) -> Tensor:
        """float32 [n, 1, Q, K]: the attention of a head that reads alike all that it may."""
        n, Q, K = len(self.keys), self.queries.shape[1], self.keys.shape[1]
        shape = (n, 1, Q, K)
        may = torch.ones(shape, device=self.keys.device) if self.allowed is None else self.allowed[:, None].float()
        return may / may.sum(-1, keepdim=True)


def named_blocks(model: ImageModel) -> list[tuple[str, nn.Module]]:
    """The blocks that change the patches, in the order of computation. Class attention changes the class token alone."""
    blocks = [block for stage in model.blocks_by_stage() for block in stage]
    names = {module: name for name, module in model.named_modules()}
    return [(names[block], block) for block in blocks]


def named_attention(model: ImageModel) -> list[tuple[str, AttentionLayer]]:
    """The attention layers in the order of computation."""
    return [(name, m) for name, m in model.named_modules() if isinstance(m, AttentionLayer)]


@contextmanager
def watching(
    model: ImageModel,
    tokens: Callable[[int, Tokens], None],
    attention: Callable[[int, Tensor, Places], None],
) -> Iterator[None]:
    """Call `tokens(i, ...)` with what enters the first block (i = 0) and with what block i - 1 gives, and `attention(i, probabilities
    [B*n, heads, Q, K], places)` for each attention layer, in every forward pass of the model inside the `with`."""
    current: list[Tensor] = []  # the images that are being read
    layers = [m for _, m in named_attention(model)]

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


def split_tokens(x: Tensor, model: ImageModel, images: Tensor) -> Tokens:
    """A block's tokens [B, P + h*w, D] or map [B, h, w, D] for these images."""
    if x.ndim == 4:
        return Tokens(x.flatten(1, 2), x[:, 0, :0], (x.shape[1], x.shape[2]))
    h, w = covering(images, model.patch_size)
    first = x.shape[1] - h * w  # not `num_prefix`: a CaiT's trunk has no class token yet
    return Tokens(x[:, first:], x[:, :first], (h, w))


def places(layer: AttentionLayer, inputs: tuple[Tensor, ...], model: ImageModel, images: Tensor) -> Places:
    """The places of a layer's queries and keys, from what it was called with for these images."""
    shifted = len(inputs) > 1  # windows are, where a mask is given
    geometry = geometry_of(model, layer, inputs[0], shifted, images)
    (h, w), device = geometry.grid, images.device
    sides = [(np.arange(n) + 0.5) * geometry.stride for n in (h, w)]  # the middle of each row and column
    if isinstance(geometry, Windowed):
        centres = np.append(_pairs(*sides), [[np.nan, np.nan]], axis=0)  # the last for padding, whose slot is -1
        keys = _tensor(centres[geometry.slots], device)  # [n, N, 2]
        return Places(keys, keys, inputs[1][:, 0] == 0 if shifted else None)
    if isinstance(geometry, Reduced):
        reduced = _pairs(geometry.rows @ sides[0], geometry.columns @ sides[1])  # the middle of what a key comes from
        return Places(_tensor(_pairs(*sides)[None], device), _tensor(reduced[None], device))
    prefix = np.full((geometry.num_prefix, 2), np.nan)
    keys = _tensor(np.concatenate([prefix, _pairs(*sides)])[None], device)  # [1, N, 2]
    return Places(keys[:, :1] if isinstance(geometry, ClassOnly) else keys, keys)


def _pairs(rows: Floats, columns: Floats) -> Floats:
    """[h] and [w] to [h * w, 2], row by row."""
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)


def _tensor(values: Floats, device: torch.device) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(device)
