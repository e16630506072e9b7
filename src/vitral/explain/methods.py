"""The table of methods: what each computes, which options it takes, and for which models it is undefined. Axes: h w grid, C channels, H W pixels."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from vitral.errors import VitralError
from vitral.explain import asked, features, gradients, perturbation
from vitral.explain.asked import Asked, Place
from vitral.explain.attention import LayerChoice, attention_words, final_reader, read_attention, read_square, squares
from vitral.explain.capture import Pass, explainable
from vitral.explain.geometry import Floats, Geometry, in_words
from vitral.explain.maps import Query, rollout, stays
from vitral.layers.attention import attention_layers
from vitral.models.common import ImageModel


@dataclass(frozen=True)
class Question:
    """The inputs of a method: a model, one image [C, H, W], a recorded pass over it, and the options."""

    model: ImageModel
    image: Tensor
    seen: Pass
    target: int
    """Index of the class that the map is about."""
    name: str
    """The class's label."""
    independent: bool
    """Whether the labels are independent of each other, as in `vitral.answers.Answers`."""
    layer: LayerChoice | None
    head: int | None
    query: Query | None
    place: Place | None = None
    """What is asked of a model whose answers are places."""

    @property
    def asks_place(self) -> Place | None:
        """The place, unless it is told whose attention is shown."""
        return self.place if self.query is None else None

    @property
    def geometry(self) -> list[Geometry]:
        return [layer.geometry for layer in self.seen.layers]

    @property
    def arrays(self) -> list[Floats]:
        return [layer.array() for layer in self.seen.layers]

    @property
    def reader(self) -> str:
        """The reader after the last layer, for people."""
        if self.asks_place is not None:
            return self.asks_place.name
        last = self.geometry[-1]
        return in_words(final_reader(last, self.query), last.prefix)

    def patch_layer(self) -> int | None:
        """The layer as a number; a VitralError for "mean", which blocks have not."""
        if self.layer == "mean":
            raise VitralError("layer mean: this method shows one layer; give its number")
        return self.layer


class Found(NamedTuple):
    """values [h, w] on squares of `stride` pixels, and what they show, for people."""

    values: Floats
    stride: int
    words: str
    floor: float | None = None
    colours: Floats | None = None


def _attention(q: Question) -> Found:
    if q.asks_place is not None:
        return Found(*asked.attention(q.asks_place, q.seen, q.layer, q.head))
    layer = -1 if q.layer is None else q.layer
    values = read_attention(q.arrays, q.geometry, layer, q.head, q.query)
    stride = q.geometry[-1 if layer == "mean" else layer].stride
    return Found(values, stride, attention_words(q.geometry, layer, q.head, q.query))


def _squared(q: Question, square: Floats, words: str, stays: Floats, *, weighted: bool = True) -> Found:
    """stays: [T], the part of the diagonal that no attention brought, which would outshine all else where a patch asks for itself. weighted: whether
    what queries read of the memory counts by its part in the class.
    """
    last = q.geometry[-1]
    if q.asks_place is not None:
        row = asked.read_square(q.asks_place, q.seen, square, square - np.diag(stays), last, weighted=weighted)
        return Found(row[last.num_prefix :].reshape(last.grid), last.stride, words)
    return Found(read_square(square, last, q.query), last.stride, words)


def _rollout(q: Question) -> Found:
    layers = squares(q.geometry, q.arrays)
    return _squared(q, rollout(layers), f"rollout of {q.reader} through all layers", stays(layers), weighted=False)


def _gradient_rollout(q: Question) -> Found:
    words = f"gradient rollout of {q.reader}: attention that speaks for {q.name}"
    layers = gradients.weighted_attention(q.seen, q.target)  # as in https://github.com/jacobgil/vit-explain
    return _squared(q, rollout(layers), words, stays(layers))


def _relevance(q: Question) -> Found:
    square = gradients.relevance(gradients.weighted_attention(q.seen, q.target))
    return _squared(q, square, f"relevance to {q.name}, through {q.reader}", np.ones(len(square)))


def _grad_cam(q: Question) -> Found:
    values, stride = gradients.grad_cam(q.seen, q.target)
    return Found(values, stride, f"Grad-CAM: which patches, where they are used last, speak for {q.name}", floor=0.0)


def _legrad(q: Question) -> Found:
    values = gradients.legrad(q.model, q.seen, q.target)
    return Found(values, q.geometry[-1].stride, f"LeGrad: where more attention would speak for {q.name}")


def _cell(q: Question) -> int:
    return perturbation.cell_side(q.model.token_strides, (q.image.shape[1], q.image.shape[2]))


def _integrated_gradients(q: Question) -> Found:
    pixels, missed = gradients.integrated_gradients(q.model, q.image, q.target)
    words = f"integrated gradients: what the pixels add to {q.name}, against the mean colour"
    if missed > gradients.OFF:
        words += f" (rough: the sum is off by {missed:.0%})"
    return Found(perturbation.cell_sums(pixels, _cell(q)), _cell(q), words, floor=0.0)


def _occlusion(q: Question) -> Found:
    values = perturbation.occlusion(q.model, q.image, q.target, q.independent, _cell(q))
    return Found(values, _cell(q), f"occlusion: how far {q.name} falls when a square is covered", floor=0.0)


def _logit_lens(q: Question) -> Found:
    values, layer = features.logit_lens(q.model, q.seen, q.target, q.independent, q.patch_layer())
    return Found(values, q.seen.features[-1].stride, f"logit lens: {q.name} in each patch of layer {layer}")


def _similarity(q: Question) -> Found:
    last = q.seen.features[-1]
    if q.query is not None and not isinstance(q.query, tuple):
        raise VitralError(f"query {q.query}: similarity is to the whole image, or to a patch by its row and column")
    patch = q.query
    if q.asks_place is not None:
        patch = q.asks_place.patch(last.grid, last.stride)
    to = "what the head reads of the image" if patch is None else in_words(patch)
    return Found(features.similarity(q.model, q.seen, patch), last.stride, f"similarity of each patch to {to}")


def _pca(q: Question) -> Found:
    colours, layer = features.principal_components(q.model, q.seen, q.patch_layer())
    words = f"principal components of the patches of layer {layer} as red, green and blue"
    return Found(colours[..., 0], q.seen.features[layer + 1].stride, words, colours=colours)


class Method(NamedTuple):
    """A row of the table."""

    title: str
    """For people, at the beginning of a line."""
    function: Callable[[Question], Found]
    about: str
    takes: tuple[str, ...]
    """Of target, layer, head and query the options that it takes."""
    gradients: bool = False

    @property
    def said(self) -> str:
        """The title inside a sentence: integrated gradients, but Grad-CAM."""
        return self.title if self.title[1:] != self.title[1:].lower() else self.title.lower()


METHODS: dict[str, Method] = {
    "attention": Method("Attention", _attention, "the attention of a layer to each patch", ("layer", "head", "query")),
    "rollout": Method("Rollout", _rollout, "attention followed through all layers", ("query",)),
    "gradient_rollout": Method(
        "Gradient rollout", _gradient_rollout, "rollout of the attention that speaks for the class", ("target", "query"), True
    ),
    "relevance": Method(
        "Relevance", _relevance, "the patches' part in the class's logit, through attention", ("target", "query"), True
    ),
    "grad_cam": Method(
        "Grad-CAM", _grad_cam, "the last-used patches, weighted by the class's gradients", ("target",), True
    ),
    "legrad": Method("LeGrad", _legrad, "how the class would rise with each layer's attention", ("target",), True),
    "integrated_gradients": Method(
        "Integrated gradients", _integrated_gradients, "what pixels add to the class's logit", ("target",)
    ),
    "occlusion": Method("Occlusion", _occlusion, "how far the class falls when a square is covered", ("target",)),
    "logit_lens": Method("Logit lens", _logit_lens, "the class, read from each patch alone", ("target", "layer")),
    "similarity": Method("Similarity", _similarity, "likeness of each patch to the whole, or to one patch", ("query",)),
    "pca": Method("PCA", _pca, "the patches' first three principal components as a colour picture", ("layer",)),
}  # fmt: skip


def titled(name: str) -> str:
    """A method's title; any other name as it is."""
    return METHODS[name].title if name in METHODS else name


def in_titles(sentence: str) -> str:
    """A sentence with the methods' titles in place of their names as options."""
    return re.sub(r"[a-z]+_[a-z]+", lambda found: METHODS[found[0]].said if found[0] in METHODS else found[0], sentence)


ANSWERED_EARLY = ("legrad", "logit_lens")
FOLLOWED = ("rollout", "gradient_rollout", "relevance", "legrad")  # through all layers


def undefined(model: ImageModel, method: str) -> str | None:
    """Why a method is undefined for this model, in one sentence, or None; a VitralError where there is no such method."""
    if method not in METHODS:
        raise VitralError(f"method {method!r}: choose one of {', '.join(METHODS)}")
    kind, whole = type(model).__name__, model.backbone
    if not explainable(model):
        return f"{kind} has no encoder of whole images, so there is nothing to explain"
    if "target" in METHODS[method].takes and not model.num_classes:
        *others, last = (m for m in METHODS if "target" not in METHODS[m].takes and undefined(model, m) is None)
        instead = f"{', '.join(others)} or {last}"
        return f"this {kind} has no classes for {method} to be about; fine-tune it, or choose {instead}"
    if method in ANSWERED_EARLY and (model.backbone is not model or isinstance(model, Asked)):
        return (
            f"{method} reads an answer from tokens alone, as the head of a classifier can, and this head reads whole maps; choose "
            "relevance, grad_cam, integrated_gradients or occlusion"
        )
    if method in ("attention", *FOLLOWED):
        if not attention_layers(whole):
            return f"{kind} has no attention; choose grad_cam, integrated_gradients, occlusion, similarity or pca"
        if method in FOLLOWED and whole.pyramid:
            return (
                f"{method} follows the same patches through all layers, and {kind} merges them from stage to stage; "
                "choose attention, grad_cam, integrated_gradients or occlusion"
            )
    return None
