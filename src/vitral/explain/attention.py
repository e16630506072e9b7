"""All attention of one forward pass over one image, in arrays: by layer and head, drawn as a whole, saved.

Axes: H heads, N tokens, h w grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from vitral.drawing.colours import shown
from vitral.drawing.figure import grid_figure
from vitral.errors import VitralError
from vitral.explain.geometry import Floats, Geometry, Reader, Tokens, weights
from vitral.explain.maps import Query
from vitral.layers.attention import check_layer

LayerChoice = int | Literal["mean"]


@dataclass(frozen=True)
class AttentionMaps:
    """`layers` holds a float32 array for each layer: [H, N, N] between N = num_prefix + h * w tokens, or in another family what
    `geometry` says of the layer."""

    layers: list[np.ndarray]
    geometry: list[Geometry]
    logits: np.ndarray
    num_prefix: int
    grid: tuple[int, int]
    """Of the last layer."""
    box: tuple[int, int, int, int]
    """Top, left, height, width of the model's view in the picture."""
    size: tuple[int, int]
    """Height and width of the view in the model's pixels."""
    picture: np.ndarray
    """uint8 [h, w, 3], in its own size and shape."""
    label: str
    probability: float

    def heads(self, query: Query | None = None) -> Floats:
        """[layers, heads, h, w]: the attention of `query` to each patch."""
        check_alike(self.geometry, self.layers)
        return np.stack([g.read(layer, query) for g, layer in zip(self.geometry, self.layers, strict=True)])

    def figure(self, title: str, query: Query | None = None) -> Image.Image:
        """The grid of layers x heads, as the model saw the picture, with its padding."""
        height, width = self.box[2:]
        geometry = self.geometry[-1]
        taller, wider = extent(geometry.grid, geometry.stride, self.size)
        picture = shown(self.picture, self.box, (round(height * taller) - height, round(width * wider) - width))
        return grid_figure(picture, self.heads(query), title, asking=query if isinstance(query, tuple) else None)

    def save(self, path: Path) -> None:
        """The raw arrays: attention [layers, heads, N, N] (attention_0 and on where the layers' shapes differ), logits [K], grid,
        num_prefix and the picture."""
        if len({layer.shape for layer in self.layers}) == 1:
            arrays = {"attention": np.stack(self.layers)}
        else:
            arrays = {f"attention_{i}": layer for i, layer in enumerate(self.layers)}
        arrays |= {"logits": self.logits, "grid": np.array(self.grid), "num_prefix": np.array(self.num_prefix)}
        save_arrays(path, arrays | {"picture": self.picture})


def save_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write named arrays as .npz; a VitralError where the file has another ending or cannot be written."""
    if path.suffix != ".npz":
        raise VitralError(f"{path}: arrays are written as .npz; choose that ending")
    try:
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        raise VitralError(f"{path}: cannot be written ({error.strerror}); choose another place") from error


def extent(grid: tuple[int, int], stride: int, size: tuple[int, int]) -> tuple[float, float]:
    """Height and width of a grid of squares of `stride` pixels over those of a view of `size` pixels."""
    return grid[0] * stride / size[0], grid[1] * stride / size[1]


def check_alike(geometry: Sequence[Geometry], layers: Sequence[Floats]) -> None:
    """A VitralError unless the layers have a common grid and as many heads each, so that they have a mean and a common picture."""
    if len({(type(g), g.grid, g.own, a.shape[-3]) for g, a in zip(geometry, layers, strict=True)}) > 1:
        raise VitralError(f"this model's layers differ in their tokens; choose one layer, 0 to {len(layers) - 1}")


def read_attention(
    layers: Sequence[Floats], geometry: Sequence[Geometry], layer: LayerChoice, head: int | None, query: Query | None
) -> Floats:
    """[h, w]: the attention of `query` to each patch, in one layer or the mean of all, and in one head or the mean of all."""
    if layer == "mean":
        check_alike(geometry, layers)
        return np.mean([read_attention(layers, geometry, i, head, query) for i in range(len(layers))], axis=0)
    i = check_layer(layer, len(layers))
    maps = geometry[i].read(layers[i], query)  # [H, h, w]
    if head is None:
        return maps.mean(axis=0)
    if not -len(maps) <= head < len(maps):
        raise VitralError(f"head {head}: a layer has {len(maps)} heads, numbered 0 to {len(maps) - 1}")
    return maps[head]


def squares(geometry: Sequence[Geometry], values: Sequence[Floats]) -> list[Floats]:
    """Values of each layer's attention, [H, Q, K], as a matrix between all tokens of the model, [H, N, N]."""
    last = geometry[-1]
    tokens = last.num_prefix + last.grid[0] * last.grid[1]
    placed = []
    for each, value in zip(geometry, values, strict=True):
        if not isinstance(each, Tokens):
            raise VitralError("only layers with the same tokens can be followed through; choose attention")
        placed.append(each.square(value, tokens))
    return placed


def final_reader(last: Geometry, query: Query | None) -> Reader:
    """The query after all layers: any token may be, although the last layers of a CaiT have the class token as their only query."""
    return last.reader(query) if query in (None, "cls") or isinstance(query, int) else query


def read_square(square: Floats, last: Geometry, query: Query | None) -> Floats:
    """[N, N] between all tokens to [h, w]: the row of `query`, by default of what the head reads, at the patches."""
    asking = weights(final_reader(last, query), last.num_prefix, last.grid)
    return (asking @ square)[last.num_prefix :].reshape(last.grid)


def attention_words(geometry: Sequence[Geometry], layer: LayerChoice, head: int | None, query: Query | None) -> str:
    """What such a map shows, for people."""
    which = "mean of layers" if layer == "mean" else f"layer {check_layer(layer, len(geometry))}"
    reader = geometry[-1 if layer == "mean" else layer].words(query)
    return f"attention of {reader}, {which}, {'mean of heads' if head is None else f'head {head}'}"
