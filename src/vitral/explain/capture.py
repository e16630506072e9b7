"""One recorded forward pass over one image: attention with its geometry, the tokens between blocks, and the answer.

Axes: B = 1 image, H heads, Q queries, K keys, T tokens, P prefix tokens, h w grid, D width.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from vitral.explain.geometry import ClassOnly, Floats, Geometry, Reduced, Tokens, Windowed, shares
from vitral.layers.attention import AttentionLayer, attention_layers
from vitral.layers.query import CrossAttention
from vitral.models.common import ImageModel, covering, evaluating


@dataclass(frozen=True)
class RecordedLayer:
    """One attention layer. attention: [n, H, Q, K] of n windows (1 where there are none), attached to the graph."""

    attention: Tensor
    geometry: Geometry

    def array(self, values: Tensor | None = None) -> Floats:
        """The attention, or something in its shape such as its gradient, as `Geometry` reads it: [H, Q, K], or [n, H, N, N]."""
        chosen = (self.attention if values is None else values).detach().float().cpu().numpy()
        return chosen if isinstance(self.geometry, Windowed) else chosen[0]


@dataclass(frozen=True)
class Features:
    """The output of a block: tokens [1, P + h*w, D] or a map [1, h, w, D], attached to the graph."""

    tokens: Tensor
    grid: tuple[int, int]
    stride: int
    num_prefix: int

    def patches(self, values: Tensor | None = None) -> Tensor:
        """The patches [h, w, D] of the tokens, or of something in their shape such as their gradient."""
        chosen = self.tokens if values is None else values
        return chosen[0] if chosen.ndim == 4 else chosen[0, self.num_prefix :].unflatten(0, self.grid)


@dataclass(frozen=True)
class Pass:
    """layers: all attention layers in order. features: the input of the first block, then the output of each block."""

    logits: Tensor
    """[1, K]"""
    representation: Tensor
    """What the head reads, [1, R]."""
    layers: list[RecordedLayer]
    features: list[Features]
    last_read: Features
    """The patches where they are used last, after that norm: the head's input, or the last attention's if the head reads a class token only."""
    class_tokens: list[Tensor]
    """The outputs of a CaiT's blocks of class attention, [1, 1, D]."""
    last_stage: int
    """Index of the first of `features` as wide as the final norm: 0 except in a pyramid."""
    crossed: list[Tensor] = field(default_factory=list)
    """What the queries of a decoder read of its memory, layer by layer: [1, H, Q, N], attached to the graph."""


def explainable(model: ImageModel) -> bool:
    """Whether the model's backbone has blocks whose outputs can be explained."""
    return any(model.backbone.blocks_by_stage())


def patch_representations(model: ImageModel, features: Features) -> Tensor:
    """[h*w, R]: for each patch the head's input if every token were that patch's, so that class tokens, means and two heads all work."""
    each = features.patches().flatten(0, 1)  # [h*w, D]
    alike = each[:, None, None] if features.tokens.ndim == 4 else each[:, None].expand(-1, model.num_prefix + 1, -1)
    return model.pool(model.final_norm(alike))


def in_float32(model: ImageModel) -> ImageModel:
    """The model itself, or a float32 copy of one that has other numbers: gradients of half precision are noise."""
    if all(p.dtype == torch.float32 for p in model.parameters()):
        return model
    return copy.deepcopy(model).float()


@contextmanager
def followed(
    model: ImageModel,
    block: Callable[[int, Tensor], None],
    attention: Callable[[int, Tensor, tuple[Tensor, ...]], None],
) -> Iterator[None]:
    """Inside, each forward pass calls `block(i, x)` with the input of the first block (i = 0) and the output of block i - 1, and
    `attention(i, probabilities, inputs)` with the probabilities and the inputs of each attention layer."""
    layers = [layer for _, layer in attention_layers(model.backbone)]
    blocks = [each for stage in model.blocks_by_stage() for each in stage]

    def asked(i: int, layer: AttentionLayer, inputs: tuple[Tensor, ...]) -> None:
        layer.recorder = lambda probabilities: attention(i, probabilities, inputs)

    handles = [each.register_forward_pre_hook(partial(asked, i)) for i, each in enumerate(layers)]
    handles += [each.register_forward_pre_hook(lambda _, inputs: block(0, inputs[0])) for each in blocks[:1]]
    handles += [
        each.register_forward_hook(lambda *given, i=i: block(i, given[2])) for i, each in enumerate(blocks, start=1)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for layer in layers:
            layer.recorder = None


def capture(
    model: ImageModel, images: Tensor, gradients: bool = False, receive: Callable[[RecordedLayer], None] | None = None
) -> Pass:
    """Images [1, C, H, W] through the model, whatever its parameters' `requires_grad`; with `gradients` the graph is kept.

    receive: gets each attention layer as soon as it is computed, instead of `Pass.layers`, so that not all are in memory at once.
    """
    assert len(images) == 1, "one image a pass"
    layers: list[RecordedLayer] = []
    outputs: list[Tensor] = []
    last_asked: list[Tensor] = []  # what the last attention layer was called with
    read: list[Tensor] = []
    class_tokens: list[Tensor] = []
    encoded: list[Tensor] = []
    crossed: list[Tensor] = []
    attention = [layer for _, layer in attention_layers(model.backbone)]

    def recorded(i: int, probabilities: Tensor, inputs: tuple[Tensor, ...]) -> None:
        last_asked[:] = inputs[:1]
        geometry = geometry_of(model, attention[i], inputs[0], len(inputs) > 1, images)
        (receive or layers.append)(RecordedLayer(probabilities, geometry))

    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        stack.enter_context(torch.set_grad_enabled(gradients))
        stack.enter_context(followed(model, lambda _, x: outputs.append(x), recorded))
        hooks = [b.register_forward_hook(lambda *given: class_tokens.append(given[2])) for b in model.class_blocks]
        hooks.append(model.head.register_forward_pre_hook(lambda _, x: read.append(x[0])))
        hooks.append(model.final_norm.register_forward_hook(lambda *given: encoded.append(given[2])))
        for hook in hooks:
            stack.callback(hook.remove)
        for layer in decoder_reads(model):
            layer.recorder = crossed.append
            stack.callback(setattr, layer, "recorder", None)
        if gradients:
            images = images.clone().requires_grad_(True)  # so that the graph begins here in a frozen model too
        logits = model(images)

    *_, last_stage = model.blocks_by_stage()
    return Pass(
        logits=logits,
        representation=read[0],
        layers=layers,
        features=[_features(model, x, images) for x in outputs],
        last_read=_features(model, (last_asked if model.reader in ("cls", "cls_dist") else encoded)[0], images),
        class_tokens=class_tokens,
        last_stage=len(outputs) - len(last_stage) if model.backbone.pyramid else 0,
        crossed=crossed,
    )


def decoder_reads(model: ImageModel) -> list[CrossAttention]:
    """The cross-attention of a decoder's layers, in their order; none where a model has no decoder."""
    own = set(model.backbone.modules()) if model.backbone is not model else set()
    return [each for _, each in attention_layers(model) if isinstance(each, CrossAttention) and each not in own]


def _grid(model: ImageModel, x: Tensor, images: Tensor) -> tuple[tuple[int, int], int]:
    """The grid of tokens or of a map [B, h, w, D], and its stride in pixels."""
    if x.ndim == 3:
        grid = covering(images, model.patch_size) if model.backbone.pyramid else model.grid_of(images)
        return grid, model.patch_size
    grid = (x.shape[1], x.shape[2])
    return grid, next(stride for stride in model.token_strides if covering(images, stride) == grid)


def _features(model: ImageModel, x: Tensor, images: Tensor) -> Features:
    grid, stride = _grid(model, x, images)
    return Features(x, grid, stride, x.shape[1] - grid[0] * grid[1] if x.ndim == 3 else 0)


def geometry_of(model: ImageModel, layer: AttentionLayer, x: Tensor, shifted: bool, images: Tensor) -> Geometry:
    """Of a layer whose input is tokens [1, T, D] or a map [1, h, w, D]."""
    grid, stride = _grid(model, x, images)
    if x.ndim == 4:
        if (slots := layer.slots(grid, shifted)) is not None:  # [n, N]
            return Windowed(grid, stride, (), "mean", slots.numpy())
        rows, columns = (layer.spans(side) for side in grid)
        if rows is not None and columns is not None:
            return Reduced(grid, stride, (), "mean", shares(rows, grid[0]), shares(columns, grid[1]))
    elif x.shape[1] > grid[0] * grid[1]:
        kind = ClassOnly if layer.class_only else Tokens
        return kind(grid, stride, model.prefix_names, "cls" if layer.class_only else model.reader)
    return Tokens(grid, stride, (), "mean")
