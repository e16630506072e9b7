"""One pass of a model over one image, with all that maps are made of: attention with its geometry, the tokens between blocks, the answer.

Axes: B = 1 image, H heads, Q queries, K keys, T tokens, P prefix tokens, h w grid, D width.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vitral.explain.geometry import (
    CLASS_TOKEN,
    DISTILLATION_TOKEN,
    ClassOnly,
    Floats,
    Geometry,
    Reader,
    Reduced,
    Tokens,
    Windowed,
    blocks_of,
    pools_of,
)
from vitral.layers.attention import AttentionLayer, recording
from vitral.models.beit import Beit
from vitral.models.cait import CaiT
from vitral.models.common import ImageModel
from vitral.models.deit import DeiT
from vitral.models.dino import Dino
from vitral.models.mae import MaskedAutoencoder
from vitral.models.pvt import POOLED, PyramidVisionTransformer, PyramidVisionTransformerV2, ReducedAttention
from vitral.models.resnet import ResNet
from vitral.models.swin import WindowAttention, WindowTransformer
from vitral.models.swinv2 import CosineWindowAttention
from vitral.models.vit import VisionTransformer

Plain = VisionTransformer | DeiT | Beit | Dino  # families whose every layer lets all tokens attend to all
Flat = Plain | CaiT  # all layers have the same grid of patches
Pyramid = WindowTransformer | PyramidVisionTransformer | PyramidVisionTransformerV2 | ResNet
Explainable = Flat | Pyramid


@dataclass(frozen=True)
class Layer:
    """One attention layer. attention: [n, H, Q, K] of n windows, attached to the graph; n is 1 where there are none."""

    attention: Tensor
    geometry: Geometry

    def array(self, values: Tensor | None = None) -> Floats:
        """The attention, or something in its shape such as its gradient, as `Geometry` reads it: [H, Q, K], or [n, H, N, N]."""
        chosen = (self.attention if values is None else values).detach().float().cpu().numpy()
        return chosen if isinstance(self.geometry, Windowed) else chosen[0]


@dataclass(frozen=True)
class Features:
    """What a block gave: tokens [1, P + h*w, D], a map [1, h, w, D], or from a ResNet [1, D, h, w]; attached to the graph."""

    tokens: Tensor
    grid: tuple[int, int]
    stride: int
    num_prefix: int
    channels_first: bool

    def patches(self, values: Tensor | None = None) -> Tensor:
        """[h, w, D] of the places, or of something in the tokens' shape such as their gradient."""
        chosen = self.tokens if values is None else values
        if chosen.ndim == 3:
            return chosen[0, self.num_prefix :].unflatten(0, self.grid)  # [h*w, D] -> [h, w, D]
        return chosen[0].permute(1, 2, 0) if self.channels_first else chosen[0]


@dataclass(frozen=True)
class Pass:
    """layers: all attention layers in order. features: what goes into the first block, then what each block gives."""

    logits: Tensor
    """[1, K]"""
    representation: Tensor
    """What the head reads, [1, R]."""
    layers: list[Layer]
    features: list[Features]
    last_read: Features
    """The patches as they are last read: by the head, or where it reads a class token alone by the last attention; after that reader's norm."""
    class_tokens: list[Tensor]
    """What each block of class attention gives, [1, 1, D], in a CaiT."""
    last_stage: int
    """Index of the first of `features` that is as wide as what the head's norm takes: 0 but in a pyramid."""


def seen(model: ImageModel) -> ImageModel:
    """The part of a model that reads whole images: of a masked autoencoder the encoder."""
    return model.encoder if isinstance(model, MaskedAutoencoder) else model


def own_reader(model: Explainable) -> Reader:
    """Which tokens the head reads."""
    if isinstance(model, DeiT):
        return "cls_dist" if model.answering == 2 else "cls"
    if isinstance(model, VisionTransformer | Beit | Dino):
        pooling: Reader = model.config.pooling  # type: ignore[assignment]
        return pooling
    return "cls" if isinstance(model, CaiT | PyramidVisionTransformer) else "mean"


def prefix_names(model: Explainable) -> tuple[str, ...]:
    """What the tokens before the patches are, in their order; a CaiT has its class token in its last layers only, a PVT in its last stage."""
    if isinstance(model, DeiT):
        return (CLASS_TOKEN, DISTILLATION_TOKEN)[: model.num_prefix]
    classes = int(model.config.class_token) if isinstance(model, VisionTransformer) else min(1, model.num_prefix)
    registers = model.num_prefix - classes
    return (*(CLASS_TOKEN,) * classes, *(f"register {i + 1}" for i in range(registers)))


def stages(model: Explainable) -> list[list[nn.Module]]:
    """The blocks over patches of each stage; all of them are one stage but in a pyramid."""
    if isinstance(model, WindowTransformer):
        return [list(stage.blocks) for stage in model.layers]  # type: ignore[arg-type]
    if isinstance(model, PyramidVisionTransformer):
        return [list(model.get_submodule(f"block{i + 1}").children()) for i in range(4)]
    if isinstance(model, PyramidVisionTransformerV2):
        return [list(stage.blocks) for stage in model.stages]  # type: ignore[arg-type]
    if isinstance(model, ResNet):
        return [list(model.get_submodule(f"layer{i + 1}").children()) for i in range(4)]
    return [list(model.blocks)]


def final_norm(model: Explainable) -> nn.Module | None:
    """The norm after the last block; a ResNet has none."""
    if isinstance(model, ResNet):
        return None
    return model.stages[-1].get_submodule("norm") if isinstance(model, PyramidVisionTransformerV2) else model.norm


def finish(model: Explainable, tokens: Tensor) -> Tensor:
    """Tokens of the last block, in the model's own layout, through the norm after it."""
    norm = final_norm(model)
    return tokens if norm is None else norm(tokens)


def patch_representations(model: Explainable, features: Features) -> Tensor:
    """[h*w, R]: what the head would read if every token were that patch's, so that class tokens, means and two heads are all served."""
    each = features.patches().flatten(0, 1)  # [h*w, D]
    if isinstance(model, Flat | PyramidVisionTransformer):
        return model.pool(finish(model, each[:, None].expand(-1, model.num_prefix + 1, -1)))
    return model.pool(finish(model, each[:, None, None]))


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every module is in the mode that it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def in_float32(model: ImageModel) -> ImageModel:
    """The model itself, or a float32 copy of one that has other numbers: gradients of half precision are noise."""
    if all(p.dtype == torch.float32 for p in model.parameters()):
        return model
    return copy.deepcopy(model).float()


def capture(
    model: Explainable,
    images: Tensor,
    gradients: bool = False,
    receive: Callable[[Layer], None] | None = None,
) -> Pass:
    """Images [1, C, H, W] through the model, whatever its parameters' `requires_grad`; with `gradients` the graph is kept.

    receive: gets each attention layer as soon as it is computed, in place of `Pass.layers`, so that no two need be in memory together.
    """
    assert len(images) == 1, "one image a pass"
    layers: list[Layer] = []
    met: dict[nn.Module, tuple[Tensor, bool]] = {}  # attention layer -> its input, and whether windows are shifted
    outputs: dict[int, Tensor] = {}
    read: list[Tensor] = []
    class_tokens: list[Tensor] = []
    encoded: list[Tensor] = []
    norm = final_norm(model)
    blocks = [block for stage in stages(model) for block in stage]
    class_blocks = list(model.blocks_token_only) if isinstance(model, CaiT) else []

    with ExitStack() as stack:
        stack.enter_context(untouched(model))
        stack.enter_context(torch.set_grad_enabled(gradients))
        attention = [m for m in model.modules() if isinstance(m, AttentionLayer)]

        def recorded(i: int, probabilities: Tensor) -> None:
            given = Layer(probabilities, geometry_of(model, attention[i], *met[attention[i]], images))
            (receive or layers.append)(given)

        stack.enter_context(recording(model, receive=recorded))
        hooks = [
            layer.register_forward_pre_hook(lambda m, x: met.__setitem__(m, (x[0], len(x) > 1))) for layer in attention
        ]
        hooks.append(blocks[0].register_forward_pre_hook(lambda _, x: outputs.__setitem__(0, x[0])))
        hooks += [
            block.register_forward_hook(lambda *given, i=i: outputs.__setitem__(i, given[2]))
            for i, block in enumerate(blocks, start=1)
        ]
        hooks += [b.register_forward_hook(lambda *given: class_tokens.append(given[2])) for b in class_blocks]
        hooks.append(model.head.register_forward_pre_hook(lambda _, x: read.append(x[0])))
        if norm is not None:
            hooks.append(norm.register_forward_hook(lambda *given: encoded.append(given[2])))
        for hook in hooks:
            stack.callback(hook.remove)
        if gradients:
            images = images.clone().requires_grad_(True)  # so that the graph begins here in a frozen model too
        logits = model(images)

    if own_reader(model) in ("cls", "cls_dist"):
        last_read = met[attention[-1]][0]
    else:
        last_read = outputs[len(blocks)] if norm is None else encoded[0]

    return Pass(
        logits=logits,
        representation=read[0],
        layers=layers,
        features=[_features(model, outputs[i], images) for i in range(len(blocks) + 1)],
        last_read=_features(model, last_read, images),
        class_tokens=class_tokens,
        last_stage=len(blocks) - len(stages(model)[-1]) + 1 if isinstance(model, Pyramid) else 0,
    )


def _grid(model: Explainable, x: Tensor, images: Tensor) -> tuple[tuple[int, int], int]:
    """The grid of tokens or of a map [B, h, w, D], and its stride in pixels."""
    size = images.shape[2:]
    if x.ndim == 4:
        grid = (x.shape[1], x.shape[2])
        return grid, next(s for s in model.strides if tuple(-(-side // s) for side in size) == grid)
    if isinstance(model, PyramidVisionTransformer):
        stride = model.strides[-1]
        return (-(-size[0] // stride), -(-size[1] // stride)), stride
    assert isinstance(model, Flat)
    return model.patch_embed.grid(size[0], size[1]), model.patch_size


def _features(model: Explainable, x: Tensor, images: Tensor) -> Features:
    channels_first = isinstance(model, ResNet)
    grid, stride = _grid(model, x.permute(0, 2, 3, 1) if channels_first else x, images)
    return Features(x, grid, stride, x.shape[1] - grid[0] * grid[1] if x.ndim == 3 else 0, channels_first)


def geometry_of(model: Explainable, layer: AttentionLayer, x: Tensor, shifted: bool, images: Tensor) -> Geometry:
    """Of a layer that met tokens [1, T, D] or a map [1, h, w, D]."""
    grid, stride = _grid(model, x, images)
    if isinstance(layer, WindowAttention | CosineWindowAttention):
        places = torch.arange(1, 1 + grid[0] * grid[1]).reshape(1, *grid, 1)  # from 1: padding is 0
        slots = layer.windows.cut(places, shifted)[..., 0].numpy() - 1  # [n, N]
        return Windowed(grid, stride, (), "mean", slots)
    if isinstance(layer, ReducedAttention) and x.ndim == 4:
        shares: Sequence[Floats] = [
            pools_of(side, POOLED) if layer.linear else blocks_of(side, layer.reduction) for side in grid
        ]
        return Reduced(grid, stride, (), "mean", np.asarray(shares[0]), np.asarray(shares[1]))
    names = prefix_names(model)
    if isinstance(model, CaiT):
        return (
            Tokens(grid, stride, (), "mean")
            if x.shape[1] == grid[0] * grid[1]
            else ClassOnly(grid, stride, names, "cls")
        )
    return Tokens(grid, stride, names, own_reader(model))
