"""What a model does with images, layer by layer: attention distance and entropy of its heads, and norms and similarity of its tokens.

Distances: figure 7 (right) of https://arxiv.org/abs/2010.11929. High norms: https://arxiv.org/abs/2309.16588. CKA: https://arxiv.org/abs/1905.00414.
Axes: B images, H heads, Q queries, K keys, N tokens, h w grid, L layers.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitral.explain.inspection import measures
from vitral.explain.inspection.watch import BlockOutput, Places, Size, named_blocks, watching
from vitral.layers.attention import attention_layers
from vitral.models.common import ImageModel, evaluating

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.99, 1.0)
LEAST_FOR_CKA = 4  # images of a batch, for the unbiased estimate
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LayerAttention:
    """One attention layer, the mean over the images."""

    name: str
    distance: Floats | None
    """[H], the mean attention distance in pixels; None where no patch is a query (class attention)."""
    uniform: float | None
    """`distance` of uniform attention."""
    elsewhere: Floats | None
    """[H], the share of the patches' attention that goes to class, register and padding tokens."""
    entropy: Floats
    """[H], in nats."""
    most: float
    """`entropy` of uniform attention: the logarithm of the number of keys, unless some are masked."""


@dataclass(frozen=True)
class LayerTokens:
    """The input of the first block, or the output of a block."""

    name: str
    norms: Floats
    """Of the patch tokens of all images, at QUANTILES."""
    prefix: Floats
    """[P], the mean norm of each class, distillation and register token."""
    cut: float | None
    """The norm from which tokens are artefacts; None where there are none."""
    share: float
    """Of the patches above the cut."""
    where: Floats
    """[h, w], the share of images in which the patch there is above the cut."""
    norm: Floats
    """[h, w], the mean norm of the patch there."""
    similarity: float
    """The mean cosine between two patches of an image; NaN where there is one."""
    step: float | None
    """The mean cosine of a patch with itself in the layer before; None where that has another shape."""


@dataclass(frozen=True)
class Seen:
    """The results of a pass over images."""

    images: int
    attention: list[LayerAttention]
    layers: list[LayerTokens]
    cka: Floats | None
    """[L, L] between `layers`; None where no batch had four images."""


class _Tally:
    """Sums over batches, without keeping their tensors."""

    def __init__(self) -> None:
        self.images = 0
        self.sums: dict[tuple[str, int], Tensor] = {}
        self.constant: dict[tuple[str, int], float] = {}
        self.norms: dict[int, list[Tensor]] = {}
        self.grids: dict[int, Size] = {}
        self.before: Tensor | None = None
        self.grams: list[Tensor] = []
        self.independence: list[Tensor] = []

    def add(self, what: str, layer: int, value: Tensor) -> None:
        """A sum over images."""
        self.sums[what, layer] = self.sums.get((what, layer), 0.0) + value.cpu().double()

    def mean(self, what: str, layer: int) -> Floats:
        return (self.sums[what, layer] / self.images).numpy()

    def attention(self, i: int, probabilities: Tensor, places: Places) -> None:
        probabilities, both = probabilities.float(), (places.queries, places.keys)
        B = len(probabilities) // len(places.keys)
        if ("most", i) not in self.constant:
            even = places.even()
            self.constant["uniform", i] = float(measures.attention_distance(even, *both))
            self.constant["most", i] = float(measures.attention_entropy(even, places.queries))
        self.add("distance", i, B * measures.attention_distance(probabilities, *both))
        self.add("elsewhere", i, B * measures.attention_elsewhere(probabilities, *both))
        self.add("entropy", i, B * measures.attention_entropy(probabilities, places.queries))

    def tokens(self, i: int, tokens: BlockOutput) -> None:
        patches, prefix = tokens.patches.float(), tokens.prefix.float()
        self.grids[i] = tokens.grid
        self.norms.setdefault(i, []).append(patches.norm(dim=-1).cpu())
        self.add("prefix", i, prefix.norm(dim=-1).sum(0))
        self.add("similarity", i, measures.token_similarity(patches).sum())
        if self.before is not None and i > 0 and self.before.shape == patches.shape:
            self.add("step", i, measures.step_similarity(self.before, patches).sum())
        self.before = patches
        if len(patches) >= LEAST_FOR_CKA:
            self.grams.append(measures.gram(torch.cat([prefix, patches], dim=1)))

    def end_batch(self, images: int) -> None:
        self.images += images
        if self.grams:
            self.independence.append(measures.hsic(torch.stack(self.grams)))
        self.grams, self.before = [], None


def look_at_images(model: ImageModel, batches: Iterable[Tensor]) -> Seen:
    """One pass over batches of inputs [B, C, H, W], all of one size, in evaluation mode; the model is left as it was."""
    tally = _Tally()
    with torch.inference_mode(), evaluating(model), watching(model, tally.tokens, tally.attention):
        for images in batches:
            model(images)
            tally.end_batch(len(images))
    attention = [_attention(tally, i, name) for i, (name, _) in enumerate(attention_layers(model))]
    names = ["embedding", *(name for name, _ in named_blocks(model))]
    layers = [_layer(tally, i, name) for i, name in enumerate(names) if i in tally.norms]
    cka = measures.cka(torch.stack(tally.independence).mean(0)).cpu().numpy() if tally.independence else None
    return Seen(tally.images, attention, layers, cka)


def _attention(tally: _Tally, i: int, name: str) -> LayerAttention:
    uniform, entropy, most = tally.constant["uniform", i], tally.mean("entropy", i), tally.constant["most", i]
    if math.isnan(uniform):  # no patch is a query
        return LayerAttention(name, None, None, None, entropy, most)
    return LayerAttention(name, tally.mean("distance", i), uniform, tally.mean("elsewhere", i), entropy, most)


def _layer(tally: _Tally, i: int, name: str) -> LayerTokens:
    norms = torch.cat(tally.norms[i]).double().numpy()  # [n, h*w]
    cut = measures.high_norm_cut(norms)
    high = norms > (math.inf if cut is None else cut)
    return LayerTokens(
        name,
        np.quantile(norms, QUANTILES),
        tally.mean("prefix", i),
        cut,
        float(high.mean()),
        high.mean(axis=0).reshape(tally.grids[i]),  # [h*w] -> [h, w]
        norms.mean(axis=0).reshape(tally.grids[i]),
        float(tally.mean("similarity", i)),
        float(tally.mean("step", i)) if ("step", i) in tally.sums else None,
    )
