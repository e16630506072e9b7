"""Head importance: the model's scores with one head's output set to zero, for each head in turn.

Are Sixteen Heads Really Better than One? https://arxiv.org/abs/1905.10650, section 2.3 and 3.1. Axes: B images, K classes, D width, d = D / H.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.layers.attention import AttentionLayer, attention_layers
from vitral.models.common import ImageModel, evaluating

Labelled = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class HeadScores:
    """The model's scores without each head of a layer."""

    layer: str
    loss: NDArray[np.float64]
    """[H], mean cross-entropy in nats (of several labels an image, the mean over labels of the binary one)."""
    accuracy: NDArray[np.float64]
    """[H], share of images with the right answer (of several labels: with all labels right)."""


@dataclass(frozen=True)
class Heads:
    """Scores of the whole model, and without each head."""

    images: int
    loss: float
    accuracy: float
    layers: list[HeadScores]


@contextmanager
def without_head(layer: AttentionLayer, head: int) -> Iterator[None]:
    """The head's output is 0 inside the `with`, before the output projection mixes the heads."""

    def drop(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        mixed = inputs[0].clone()  # [..., H * d], head after head
        width = mixed.shape[-1] // layer.num_heads
        mixed[..., head * width : (head + 1) * width] = 0
        return (mixed,)

    handle = layer.get_submodule("proj").register_forward_pre_hook(drop)
    try:
        yield
    finally:
        handle.remove()


def head_importance(
    model: ImageModel, batches: Labelled, *, independent: bool, progress: Callable[[int, int], None] | None = None
) -> Heads:
    """Scores over batches of inputs [B, C, H, W] and targets on the CPU, without each head in turn: one pass over the batches for each.

    independent: whether each label is a yes or no of its own, as in `vitral.answers.Answers`; targets are then float [B, K], else int64 [B].
    The model is left as it was.
    """
    layers = attention_layers(model)
    total, done = 1 + sum(layer.num_heads for _, layer in layers), 0

    def scored() -> tuple[float, float]:
        nonlocal done
        result = _score(model, batches, independent)
        done += 1
        if progress:
            progress(done, total)
        return result

    found = []
    with torch.inference_mode(), evaluating(model):
        loss, accuracy = scored()
        for name, layer in layers:
            scores = []
            for head in range(layer.num_heads):
                with without_head(layer, head):
                    scores.append(scored())
            both = np.array(scores)  # [H, 2]
            found.append(HeadScores(name, both[:, 0], both[:, 1]))
    return Heads(sum(len(images) for images, _ in batches), loss, accuracy, found)


def _score(model: ImageModel, batches: Labelled, independent: bool) -> tuple[float, float]:
    """Mean loss and accuracy."""
    loss = right = 0.0
    for images, targets in batches:
        logits = model(images).cpu().double()
        if independent:
            loss += float(F.binary_cross_entropy_with_logits(logits, targets.double(), reduction="none").mean(1).sum())
            right += int(((logits >= 0) == (targets > 0.5)).all(1).sum())
        else:
            loss += float(F.cross_entropy(logits, targets, reduction="sum"))
            right += int((logits.argmax(1) == targets).sum())
    count = sum(len(images) for images, _ in batches)
    return loss / count, right / count
