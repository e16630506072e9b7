"""Explanations of a model's answer for one image: one call for every method of `methods.py`.

Attention shows where information came from, not what it was used for; most other methods are about one class, `target`.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vitral.checkpoints.card import ModelCard
from vitral.data.decode import PageOf, decode
from vitral.data.preprocess import Preprocess
from vitral.errors import VitralError
from vitral.explain.attention import AttentionMaps, LayerChoice, extent
from vitral.explain.capture import capture, in_float32
from vitral.explain.figure import Explanation
from vitral.explain.maps import Query
from vitral.explain.methods import FOLLOWED, METHODS, Question, undefined
from vitral.explain.places import Spot, ask, class_of
from vitral.models.common import ImageModel
from vitral.models.zoo import family_of
from vitral.predict import ImageLike, Predictor, load

__all__ = ["METHODS", "AttentionMaps", "attention_maps", "explain", "undefined", "visualize_attention"]


def _defined(model: ImageModel, method: str) -> ImageModel:
    if (why := undefined(model, method)) is not None:
        raise VitralError(why)
    return in_float32(model.backbone)


def _check_options(method: str, given: dict[str, object]) -> None:
    """A VitralError for options that a method does not take."""
    for name, value in given.items():
        if value is None or name in METHODS[method].takes:
            continue
        if method in FOLLOWED and name in ("layer", "head"):
            raise VitralError(f"{method} goes through all layers and heads; leave layer and head out, or use attention")
        raise VitralError(f"{method} takes no {name}; leave it out ({method} is {METHODS[method].about})")


def _picture(predictor: Predictor, image: ImageLike, pixels: Tensor) -> np.ndarray:
    """The picture for people, uint8 [h, w, 3]: a file in its own colours, even if the model reads it in grey."""
    steps = predictor.card.preprocess
    if isinstance(image, str | Path | bytes | PageOf | Image.Image):
        pixels = decode(image, reading=steps.reading)
    return steps.shown(pixels)


def _best(predictor: Predictor, logits: Tensor) -> tuple[str, float]:
    """The most probable class and its probability; "" and 0 without labels."""
    if not predictor.labels:
        return "", 0.0
    probabilities = predictor.probabilities(logits.detach().float())[0]
    best = int(probabilities.argmax())
    return predictor.labels[best], float(probabilities[best])


def attention_maps(predictor: Predictor, image: ImageLike) -> AttentionMaps:
    """One forward pass with all attention recorded."""
    model, steps = _defined(predictor.model, "attention"), predictor.card.preprocess
    pixels = predictor.decode(image)
    batch = steps(pixels)[None].to(next(model.parameters()).device)  # [1, C, H, W]
    found = capture(model, batch)
    picture = _picture(predictor, image, pixels)
    label, probability = _best(predictor, found.logits)
    return AttentionMaps(
        layers=[layer.array() for layer in found.layers],
        geometry=[layer.geometry for layer in found.layers],
        logits=found.logits[0].float().cpu().numpy(),
        num_prefix=model.num_prefix,
        grid=found.layers[-1].geometry.grid,
        box=steps.box(*picture.shape[:2]),
        size=(batch.shape[2], batch.shape[3]),
        picture=picture,
        label=label,
        probability=probability,
    )


def explain(
    predictor: Predictor,
    image: ImageLike,
    method: str = "attention",
    layer: LayerChoice | None = None,
    head: int | None = None,
    query: Query | None = None,
    *,
    target: int | str | None = None,
    object: int | None = None,
    at: Spot | None = None,
) -> Explanation:
    """The map of one of `METHODS`.

    Args:
        layer: of attention (default the last; "mean" for all), logit_lens and pca (default the last).
        head: of attention; default the mean of all.
        query: whose attention is shown: "cls", "mean" over the patches, a patch's (row, column), or the number of a token before the patches
            (0 the class token, then distillation or registers); default: the tokens that the head reads.
        target: the class, by its label or its index, that the map is about; default the most probable. attention, rollout, similarity and pca
            are about no class.
        object: of a model that finds objects or segments the number of one, from 0, as its answer lists them; default: the surest.
        at: x and y in pixels of the upright picture: the object or segment there, or of a model that answers maps the class of that place;
            default there: all places of `target`, or of the commonest class.

    Raises:
        VitralError: the method does not exist, is undefined for the model, or does not take an option that was given; or there is no such
            class, layer, head, query, object or place.
    """
    _check_options(method, {"layer": layer, "head": head, "query": query})
    if not predictor.answers.of_whole:
        return _explain_place(predictor, image, method, layer, head, query, target, object, at)
    if object is not None or at is not None:
        raise VitralError(
            "object, at: are for models that answer places, and this one says one thing of an image; leave them out"
        )
    model, steps = _defined(predictor.model, method), predictor.card.preprocess
    pixels = predictor.decode(image)
    batch = steps(pixels)[None].to(next(model.parameters()).device)  # [1, C, H, W]
    found = capture(model, batch, METHODS[method].gradients)
    chosen = 0
    if predictor.labels:
        chosen = int(found.logits[0].argmax()) if target is None else class_of(predictor.labels, target)
    name = predictor.labels[chosen] if "target" in METHODS[method].takes else ""
    with torch.set_grad_enabled(METHODS[method].gradients):
        values, stride, words, floor, colours = METHODS[method].function(
            Question(model, batch[0], found, chosen, name, predictor.answers.independent, layer, head, query)
        )
    picture = _picture(predictor, image, pixels)
    return Explanation(
        picture,
        values,
        words,
        *_best(predictor, found.logits),
        steps.box(*picture.shape[:2]),
        query if isinstance(query, tuple) else None,
        target=name,
        floor=floor,
        extent=extent((values.shape[0], values.shape[1]), stride, (batch.shape[2], batch.shape[3])),
        colours=colours,
    )


def _explain_place(
    predictor: Predictor, image: ImageLike, method: str, layer: LayerChoice | None, head: int | None, query: Query | None,
    target: int | str | None, number: int | None, at: Spot | None,
) -> Explanation:  # fmt: skip
    """`explain` of one of the places that a model answers."""
    if (why := undefined(predictor.model, method)) is not None:
        raise VitralError(why)
    if target is not None and query is not None and "target" not in METHODS[method].takes:
        raise VitralError(f"target {target}: {method} of a query is about no class; leave one of them out")
    model, steps = in_float32(predictor.model), predictor.card.preprocess
    pixels = predictor.decode(image)
    batch = steps(pixels)[None].to(next(model.parameters()).device)  # [1, C, H, W]
    place = ask(predictor, model, batch, predictor.placed(pixels), number, at, target)
    if (why := undefined(place.model, method)) is not None:
        raise VitralError(why)
    if place.region is None and place.token is None and method in ("attention", *FOLLOWED):
        raise VitralError(
            f"the queries of {type(model).__name__} join its last blocks, so {method} has not the same tokens in all layers; choose grad_cam, "
            "integrated_gradients, occlusion, similarity or pca"
        )
    found = capture(place.model, place.images, METHODS[method].gradients)
    with torch.set_grad_enabled(METHODS[method].gradients):
        values, stride, words, floor, colours = METHODS[method].function(
            Question(place.model, place.images[0], found, 0, place.label, True, layer, head, query, place)
        )
    picture = _picture(predictor, image, pixels)
    return Explanation(
        picture,
        values,
        words if place.name in words else f"{words}; {place.name}",
        place.label,
        place.probability,
        steps.box(*picture.shape[:2]),
        query if isinstance(query, tuple) else None,
        target=place.label,
        floor=floor,
        extent=extent((values.shape[0], values.shape[1]), stride, (batch.shape[2], batch.shape[3])),
        colours=colours,
        place=place.box,
    )


def visualize_attention(
    model: Predictor | nn.Module | str | Path,
    image: ImageLike,
    layer_idx: LayerChoice = -1,
    head_idx: int | None = None,
    query: Query | None = None,
) -> Explanation:
    """Attention over the image, by default of the tokens that the head reads, for a notebook, `.save(path)`, `.map` or `.grid`.

    A bare module has no labels and no preprocessing: classes are numbered, images resized to its size and scaled to -1..1; a float tensor
    [C, H, W] is used as its input without preprocessing.
    """
    if isinstance(model, str | Path):
        model = load(model)
    if isinstance(model, nn.Module):
        if not isinstance(model, ImageModel):
            raise VitralError(f"{type(model).__name__}: not a model of vitral's; create it with vitral.create_model")
        size = model.image_size
        if isinstance(image, Tensor) and image.is_floating_point():
            image = image[0] if image.ndim == 4 and len(image) == 1 else image
            size = (image.shape[-2], image.shape[-1])
            image = (image + 1) * 127.5  # which the preprocessing undoes
        model = _bare(model, size)
    return explain(model, image, "attention", layer_idx, head_idx, query)


def _bare(model: ImageModel, size: tuple[int, int]) -> Predictor:
    config = model.config
    half, labels = (0.5,) * config.in_channels, [str(k) for k in range(config.num_classes)]
    steps = Preprocess(*size, config.in_channels, half, half, min_size=model.patch_size)
    return Predictor(model, ModelCard(family_of(config), config.arguments(), labels, steps))
