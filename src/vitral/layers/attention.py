"""Multi-head self-attention, and the one function through which all attention in vitral goes.

Attention Is All You Need, https://arxiv.org/abs/1706.03762, section 3.2; An Image is Worth 16x16 Words, https://arxiv.org/abs/2010.11929,
appendix A. Axes: B batch, H heads, N tokens, D width, d = D / H width of a head.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.errors import VitralError

Recorder = Callable[[Tensor], None]
HeadMix = Callable[[Tensor], Tensor]
Attend = Callable[..., Tensor]
"""Of queries, keys, values and `recorder`, as `attend`."""
EXPLICIT_UP_TO = 1024**2  # queries times keys
TRAINED_EXPLICITLY_UP_TO = 32**2


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Tensor | None = None,
    scale: float | None = None,
    mix: tuple[HeadMix, HeadMix] | None = None,
    recorder: Recorder | None = None,
) -> Tensor:
    """softmax(scale · q kᵀ + bias) v for queries [B, H, Q, d], keys and values [B, H, N, d]; returns [B, H, Q, d].

    Without a recorder the fused kernel runs. With one the softmax is explicit, `recorder` receives the probabilities
    [B, H, Q, N] (still attached to the graph), and the result agrees with the fused one to rounding.

    Args:
        bias: added to the logits, broadcastable to [B, H, Q, N]: relative positions, masks of windows.
        scale: 1 / √d unless given.
        mix: talking heads (https://arxiv.org/abs/2003.02436): functions of [B, H, Q, N], one on the logits and one on the probabilities.
    """
    if recorder is None and mix is None and not _explicit_is_better(q, k):
        return F.scaled_dot_product_attention(q, k, v, None if bias is None else bias.to(q.dtype), scale=scale)
    logits = q * (q.shape[-1] ** -0.5 if scale is None else scale) @ k.transpose(-2, -1)  # [B, H, Q, N]
    if mix is not None:
        logits = mix[0](logits)
    if bias is not None:
        logits = logits + bias.to(logits.dtype)
    probabilities = logits.softmax(-1)  # [B, H, Q, N]
    if recorder is not None:
        recorder(probabilities)
    return (probabilities if mix is None else mix[1](probabilities)) @ v


def _explicit_is_better(q: Tensor, k: Tensor) -> bool:
    """Where two products and a softmax beat the fused kernel on a processor (benchmarks/LOG.md): in bfloat16, and in training on few tokens, as the
    kernel's backward pass takes long to start. In an exported graph they are what other engines look for and fuse themselves.
    """
    if torch.compiler.is_exporting():
        return True
    limit = EXPLICIT_UP_TO if q.dtype == torch.bfloat16 else TRAINED_EXPLICITLY_UP_TO if q.requires_grad else 0
    return q.device.type == "cpu" and q.shape[-2] * k.shape[-2] <= limit


def attend_within(
    counts: Sequence[int], q: Tensor, k: Tensor, v: Tensor, *, recorder: Recorder | None = None
) -> Tensor:
    """`attend` where the tokens of several images stand one after the other, so many of each: an image's queries see its own keys only."""
    assert recorder is None, "attention is recorded of one image at a time"
    images = zip(*(each.split(counts, dim=2) for each in (q, k, v)), strict=True)
    return torch.cat([attend(*image) for image in images], dim=2)


class AttentionLayer(nn.Module):
    """Base of the modules that call `attend` once in their forward and pass `self.recorder` to it, so that attention can be recorded.

    They take tokens or a map, and with shifted windows their mask as a second argument.
    """

    class_only: ClassVar[bool] = False
    """Whether the first token is the only query."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise VitralError(f"width {dim} does not divide into {num_heads} heads; choose a divisor as num_heads")
        self.num_heads = num_heads
        self.recorder: Recorder | None = None

    def heads(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, H, N, d]."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def slots(self, grid: tuple[int, int], shifted: bool) -> Tensor | None:
        """Of attention inside windows: for each token of each window its index in the map, row by row, [n, N]; -1 for padding."""
        return None

    def spans(self, side: int) -> list[tuple[int, int]] | None:
        """Of attention to a reduced map: for each key along an axis of `side` places the range [from, to) that it is reduced from."""
        return None


class Attention(AttentionLayer):
    """Self-attention of all tokens to all tokens: [B, N, D] -> [B, N, D]."""

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0, qkv_bias: bool = True) -> None:
        super().__init__(dim, num_heads)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.dropout = dropout  # after the output projection only: the paper has none on q, k, v (appendix B.1)

    def forward(self, x: Tensor, attend: Attend = attend) -> Tensor:
        B, N, D = x.shape
        qkv = self.qkv(x).view(B, N, 3, self.num_heads, D // self.num_heads)  # [B, N, 3, H, d]
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, H, N, d]
        mixed = attend(q, k, v, recorder=self.recorder)  # [B, H, N, d]
        x = self.proj(mixed.transpose(1, 2).reshape(B, N, D))
        return F.dropout(x, self.dropout, self.training)


@contextmanager
def recording(model: nn.Module, layers: Sequence[int] | None = None) -> Iterator[dict[int, Tensor]]:
    """Record attention inside the `with`: yields {layer: [B, H, Q, N]}, filled by each forward pass.

    layers: numbers of attention layers from 0, negative ones from the end; None for all. A VitralError if the model has no such layer.
    """
    modules = [module for _, module in attention_layers(model)]
    wanted = range(len(modules)) if layers is None else [check_layer(layer, len(modules)) for layer in layers]
    maps: dict[int, Tensor] = {}
    try:
        for layer in wanted:
            modules[layer].recorder = partial(maps.__setitem__, layer)
        yield maps
    finally:
        for module in modules:
            module.recorder = None


def check_layer(layer: int, depth: int, what: str = "attention layers") -> int:
    """`layer` as an index from 0, or a VitralError where the model has no such layer."""
    if not -depth <= layer < depth:
        raise VitralError(f"layer {layer}: the model has {depth} {what}, numbered 0 to {depth - 1}")
    return layer % depth


def attention_layers(model: nn.Module) -> list[tuple[str, AttentionLayer]]:
    """Name and module of each attention layer of the model, in the order of computation."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, AttentionLayer)]
