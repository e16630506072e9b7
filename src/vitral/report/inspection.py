"""An inspection as one page: figure 7 of the ViT paper (https://arxiv.org/abs/2010.11929) and more, of any model.

What this model or these data do not have is listed at the end with the reason.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import numpy as np

from vitral.drawing.colours import colourise, evenness, normalise
from vitral.drawing.heat import Pixels, exact_picture, mosaic
from vitral.errors import counted
from vitral.explain.inspection.inspect import Inspection
from vitral.explain.inspection.weights import Filters, OffsetBias, Positions
from vitral.report.frame import tiles, write_page
from vitral.report.inspection_charts import (
    cka_cards,
    elsewhere_cards,
    heads_sections,
    norms_cards,
    reading_cards,
    similarity_cards,
)
from vitral.report.parts import card, escape, pair, percent, table

T = TypeVar("T")
TILE = 96  # pixels that a small picture may be wide
PARTS = {
    "positions": "Similarity of positions",
    "offset_biases": "Bias by offset",
    "attention": "Attention distance and entropy",
    "layers": "Norms and similarity of tokens",
    "cka": "Similarity of layers",
    "heads": "Importance of heads",
}


def write_inspection_page(path: Path, found: Inspection, name: str, command: str) -> Path:
    """Write the page, whole or not at all; returns its path. name: of the model, for the heading."""
    diagonal = math.hypot(*found.image_size)
    weights = [_filters(found.filters), *_made(found.positions, _positions), *_made(found.offset_biases, _biases)]
    deep = [
        *_made(found.attention, elsewhere_cards), *_made(found.layers, norms_cards), *_made(found.layers, similarity_cards),
        *_made(found.cka, cka_cards),
    ]  # fmt: skip
    body = [
        f"<header><h1>Inside {escape(name)}</h1><p class=soft>{escape(_subtitle(found))}</p></header>",
        _tiles(found),
        pair(weights),
        pair(_made(found.attention, partial(reading_cards, diagonal=diagonal))),
        *_made(found.heads, heads_sections),
        pair(deep),
        _missing(found),
        f"<section><h2>How it was made</h2><pre>{escape(command)}</pre></section>",
    ]
    return write_page(path.parent, f"Inside {name}", body, path.name)


def _made(part: T | str, make: Callable[[T], list[str]]) -> list[str]:
    """The cards that are made of a part of the inspection; none of one that is missing, where a string says why."""
    return [] if isinstance(part, str) else make(part)


def _subtitle(found: Inspection) -> str:
    images = f"{counted(found.images, 'image')} of the {found.split} split" if found.images else "without images"
    return f"{found.model}: {found.parameters:,} parameters; {images}"


def _tiles(found: Inspection) -> str:
    numbers = []
    if not isinstance(found.heads, str):
        of = f"accuracy on {counted(found.heads.images, 'image')}, with all heads"
        numbers.append((percent(found.heads.accuracy), of))
    if not isinstance(found.attention, str):
        far = [float(one.distance.mean()) for one in found.attention if one.distance is not None]
        numbers.append((f"{far[0]:.0f} → {far[-1]:.0f} px", "mean attention distance in the first and last layer"))
    if not isinstance(found.layers, str):
        if math.isfinite(alike := found.layers[-1].similarity):
            numbers.append((f"{alike:.2f}", "mean cosine of two patches in the last layer"))
        if found.layers[-1].share:
            numbers.append((percent(found.layers[-1].share), "of the last layer's patches have an outlying norm"))
    return tiles(numbers or [(f"{found.parameters:,}", "parameters")], {})


def about_filters(found: Filters) -> tuple[str, str]:
    """The title of `filter_mosaic`, and what to see in it."""
    if found.shares is None:
        return (
            "Filters of the first convolution",
            f"{len(found.pictures)} of {counted(found.total, 'filter')}. Grey is 0; each is divided by its largest weight.",
        )
    return (
        "What the patch embedding looks for",
        f"The first {len(found.pictures)} principal components of its {counted(found.total, 'filter')} explain "
        f"{percent(float(found.shares.sum()))} of their variance, the first alone {percent(float(found.shares[0]))}. "
        "A trained model shows smooth waves and edges; noise means that it has learned little from pixels. "
        "Grey is 0; each is divided by its largest weight (as figure 7, left, of the ViT paper).",
    )


def filter_mosaic(found: Filters) -> Pixels:
    """All filters as one picture, [H, W, 4]."""
    columns = min(len(found.pictures), 7 if len(found.pictures) <= 28 else 8)
    return mosaic([_weights(one) for one in found.pictures.numpy()], columns)


def _filters(found: Filters) -> str:
    title, words = about_filters(found)
    return card(title, exact_picture(filter_mosaic(found), "the first layer's filters", 440), words)


def _weights(one: np.ndarray) -> Pixels:
    """[p, q, C] to uint8 [p, q, 3], 0 as middle grey; channels that are no colours are averaged."""
    colours = one if one.shape[-1] == 3 else one.mean(-1, keepdims=True).repeat(3, -1)
    largest = np.abs(colours).max()
    return np.rint(127.5 + 127.5 * colours / (largest if largest > 0 else 1.0)).astype(np.uint8)


def _positions(found: Sequence[Positions]) -> list[str]:
    cards = []
    for one in found:
        a, b, h, w = one.similarity.shape
        if h * w == 1:
            continue  # nothing to compare it with
        values = one.similarity.numpy()
        low = float(values.min())
        even = evenness(values, "{:.2f}".format)
        drawn = [colourise(tile) for tile in normalise(values, floor=low).reshape(a * b, h, w)]
        shown = exact_picture(mosaic(drawn, b, gap=max(1, w // 7)), f"similarity of {one.name}", TILE * b)
        asked = "each patch" if (a, b) == (h, w) else f"{a} x {b} patches"
        words = (
            f"A small picture for {asked} of the {h} x {w}, at its place: the cosine of its position embedding with those of all "
            f"patches, {even or f'from {low:.2f} (dark) to 1 (light, itself)'}. "
        )
        learned = "Crosses and blobs show that the model knows rows, columns and neighbours (as figure 7, centre, of the ViT paper)."
        words += "The model cannot tell places apart by them." if even else learned
        several = f": {one.name}" if len(found) > 1 else ""
        cards.append(card(f"Similarity of positions{several}", shown, words))
    return cards


def bias_mosaics(found: Sequence[OffsetBias]) -> Iterator[tuple[str, int, Pixels, str]]:
    """For layers of one window size: the name of the first, the number of heads, one picture [H, W, 4], and what to see in it."""
    for (heads, h, w), group in groupby(found, lambda one: tuple(one.values.shape)):
        layers = list(group)
        values = np.concatenate([one.values.numpy() for one in layers])  # [layers * heads, 2h - 1, 2w - 1]
        low, high = float(values.min()), float(values.max())
        drawn = [colourise(tile) for tile in normalise(values)]
        last = f" to {layers[-1].name}" if len(layers) > 1 else ""
        words = (
            f"{layers[0].name + last}: a row for each layer, a column for each of {counted(heads, 'head')}. The middle of a picture is the "
            f"patch itself, the rest its neighbours up to {(h - 1) // 2} x {(w - 1) // 2} away; the bias added to the attention logit "
            f"goes from {low:.2f} (dark) to {high:.2f} (light)."
        )
        yield layers[0].name, heads, mosaic(drawn, heads, gap=max(1, w // 7)), words


def _biases(found: Sequence[OffsetBias]) -> list[str]:
    return [
        card("Bias by offset", exact_picture(pixels, f"bias by offset of {name}", TILE * heads), words)
        for name, heads, pixels, words in bias_mosaics(found)
    ]


def _missing(found: Inspection) -> str:
    rows = [[escape(PARTS[name]), escape(why)] for name, why in found.missing().items()]
    if not isinstance(found.attention, str) and any(one.distance is None for one in found.attention):
        names = ", ".join(one.name for one in found.attention if one.distance is None)
        rows.append(
            ["Attention distance in " + escape(names), "only the class token attends there, and it has no place"]
        )
    return f"<section><h2>Not shown</h2>{table(['what', 'why'], rows, names=2)}</section>" if rows else ""
