"""The table of methods: what each is asked, what it finds, and for which families it is undefined. Axes: h w grid, C channels, H W pixels."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from vitral.errors import VitralError
from vitral.explain import features, gradients, perturbation
from vitral.explain.attention import LayerChoice, attention_words, final_reader, read_attention, read_square, squares
from vitral.explain.capture import Pass, explainable
from vitral.explain.geometry import Floats, Geometry, in_words
from vitral.explain.maps import Query, rollout
from vitral.layers.attention import attention_layers
from vitral.models.common import ImageModel


@dataclass(frozen=True)
class Question:
    """What a method is asked: of a model, one image [C, H, W] and a pass over it."""

    model: ImageModel
    image: Tensor
    seen: Pass
    target: int
    """Index of the class that the map is about."""
    name: str
    """The class in words."""
    independent: bool
    """Whether the labels are independent of each other, as in `vitral.answers.Answers`."""
    layer: LayerChoice | None
    head: int | None
    query: Query | None

    @property
    def geometry(self) -> list[Geometry]:
        return [layer.geometry for layer in self.seen.layers]

    @property
    def arrays(self) -> list[Floats]:
        return [layer.array() for layer in self.seen.layers]

    @property
    def reader(self) -> str:
        """Who reads after the last layer."""
        last = self.geometry[-1]
        return in_words(final_reader(last, self.query), last.prefix)

    def patch_layer(self) -> int | None:
        """The layer as a number: blocks have no mean."""
        if self.layer == "mean":
            raise VitralError("layer mean: this method shows one layer; give its number")
        return self.layer


class Found(NamedTuple):
    """values [h, w] on squares of `stride` pixels, and what they are, for people."""

    values: Floats
    stride: int
    words: str
    floor: float | None = None
    colours: Floats | None = None


def _attention(q: Question) -> Found:
    layer = -1 if q.layer is None else q.layer
    values = read_attention(q.arrays, q.geometry, layer, q.head, q.query)
    stride = q.geometry[-1 if layer == "mean" else layer].stride
    return Found(values, stride, attention_words(q.geometry, layer, q.head, q.query))


def _squared(q: Question, square: Floats, words: str) -> Found:
    last = q.geometry[-1]
    return Found(read_square(square, last, q.query), last.stride, words)


def _rollout(q: Question) -> Found:
    return _squared(q, rollout(squares(q.geometry, q.arrays)), f"rollout through all layers: what {q.reader} reads")


def _gradient_rollout(q: Question) -> Found:
    words = f"gradient rollout: what of the attention of {q.reader} speaks for {q.name}"
    return _squared(q, gradients.gradient_rollout(q.seen, q.target), words)


def _relevance(q: Question) -> Found:
    return _squared(q, gradients.relevance(q.seen, q.target), f"relevance to {q.name}, through {q.reader}")


def _grad_cam(q: Question) -> Found:
    values, stride = gradients.grad_cam(q.seen, q.target)
    return Found(
        values, stride, f"Grad-CAM: which of the patches, as they are last read, speak for {q.name}", floor=0.0
    )


def _legrad(q: Question) -> Found:
    values = gradients.legrad(q.model, q.seen, q.target)
    return Found(values, q.geometry[-1].stride, f"LeGrad: where more attention would speak for {q.name}")


def _cell(q: Question) -> int:
    return perturbation.cell_side(q.model.strides, (q.image.shape[1], q.image.shape[2]))


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
    return Found(values, q.seen.features[-1].stride, f"logit lens: how each patch of layer {layer} says {q.name}")


def _similarity(q: Question) -> Found:
    last = q.seen.features[-1]
    if q.query is not None and not isinstance(q.query, tuple):
        raise VitralError(f"query {q.query}: similarity is to the whole image, or to a patch by its row and column")
    patch = q.query
    to = "what the head reads of the image" if patch is None else in_words(patch)
    return Found(features.similarity(q.model, q.seen, patch), last.stride, f"similarity of each patch to {to}")


def _pca(q: Question) -> Found:
    colours, layer = features.principal_components(q.model, q.seen, q.patch_layer())
    words = f"principal components of the patches of layer {layer} as red, green and blue"
    return Found(colours[..., 0], q.seen.features[layer + 1].stride, words, colours=colours)


class Method(NamedTuple):
    """How a map is found."""

    title: str
    """What people call it, at the beginning of a line."""
    function: Callable[[Question], Found]
    about: str
    takes: frozenset[str]
    """Of target, layer, head and query those that it can be asked for."""
    gradients: bool = False

    @property
    def said(self) -> str:
        """The title inside a sentence: integrated gradients, but Grad-CAM."""
        return self.title if self.title[1:] != self.title[1:].lower() else self.title.lower()


METHODS: dict[str, Method] = {
    "attention": Method(
        "Attention", _attention, "what a layer's tokens read of each patch", frozenset({"layer", "head", "query"})
    ),
    "rollout": Method("Rollout", _rollout, "attention followed through all layers", frozenset({"query"})),
    "gradient_rollout": Method(
        "Gradient rollout",
        _gradient_rollout,
        "rollout of the attention that speaks for the class",
        frozenset({"target", "query"}),
        True,
    ),
    "relevance": Method(
        "Relevance",
        _relevance,
        "what of each patch reached the class's logit through attention",
        frozenset({"target", "query"}),
        True,
    ),
    "grad_cam": Method(
        "Grad-CAM",
        _grad_cam,
        "the patches as last read, weighted by what the class makes of their channels",
        frozenset({"target"}),
        True,
    ),
    "legrad": Method(
        "LeGrad", _legrad, "how the class would rise with each layer's attention", frozenset({"target"}), True
    ),
    "integrated_gradients": Method(
        "Integrated gradients",
        _integrated_gradients,
        "what pixels add to the class's logit, from the mean colour on",
        frozenset({"target"}),
    ),
    "occlusion": Method(
        "Occlusion", _occlusion, "how far the class falls when a square is covered", frozenset({"target"})
    ),
    "logit_lens": Method(
        "Logit lens", _logit_lens, "the class, read from each patch alone", frozenset({"target", "layer"})
    ),
    "similarity": Method(
        "Similarity", _similarity, "likeness of each patch to the whole, or to one patch", frozenset({"query"})
    ),
    "pca": Method(
        "PCA", _pca, "the patches' first three principal components as a colour picture", frozenset({"layer"})
    ),
}


def titled(name: str) -> str:
    """A method's name as people write it; what is no method's as it is."""
    return METHODS[name].title if name in METHODS else name


def in_titles(sentence: str) -> str:
    """A sentence that names methods as options do, with the words that people use."""
    return re.sub(r"[a-z]+_[a-z]+", lambda found: METHODS[found[0]].said if found[0] in METHODS else found[0], sentence)


FOLLOWED = ("rollout", "gradient_rollout", "relevance", "legrad")  # through all layers


def undefined(model: ImageModel, method: str) -> str | None:
    """Why there is no such map of this model, in one sentence; None where there is one.

    Raises:
        VitralError: no such method.
    """
    if method not in METHODS:
        raise VitralError(f"method {method!r}: choose one of {', '.join(METHODS)}")
    kind, whole = type(model).__name__, model.backbone
    if not explainable(model):
        return f"{kind} neither answers nor reads an image as a whole, so there is nothing to explain"
    if "target" in METHODS[method].takes and not model.num_classes:
        *others, last = (
            m for m, other in METHODS.items() if "target" not in other.takes and undefined(model, m) is None
        )
        instead = f"{', '.join(others)} or {last}"
        return f"this {kind} has no classes, so {method} has nothing to be about; fine-tune it, or choose {instead}"
    if method in ("attention", *FOLLOWED):
        if not attention_layers(whole):
            return f"{kind} has no attention; choose grad_cam, integrated_gradients, occlusion, similarity or pca"
        if method in FOLLOWED and whole.pyramid:
            return (
                f"{method} follows the same patches through all layers, and {kind} merges them from stage to stage; "
                "choose attention, grad_cam, integrated_gradients or occlusion"
            )
    return None
