"""An inspection as one page: the figures of the Vision Transformer paper (https://arxiv.org/abs/2010.11929, figure 7) and more, of one's own model.

What the model or the data do not give has a line of its own that says why.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from vitral.drawing.colours import colourise, evenness, normalise
from vitral.drawing.heat import Pixels, exact_picture, mosaic
from vitral.errors import counted
from vitral.explain.inspection.inspect import Inspection
from vitral.explain.inspection.weights import Filters, OffsetBias, Positions
from vitral.report.frame import tiles, write_page
from vitral.report.inspection_charts import (
    cka_card,
    elsewhere_card,
    heads_section,
    norms_cards,
    reading_cards,
    similarity_card,
)
from vitral.report.parts import escape, percent, table

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
    """Write the page, whole or not at all; returns its path. name: what to call the model."""
    cards = [_filters(found.filters), *_positions(found.positions), *_biases(found.offset_biases)]
    body = [
        f"<header><h1>Inside {escape(name)}</h1><p class=soft>{escape(_subtitle(found))}</p></header>",
        _tiles(found),
        _pair(cards),
        _pair(reading_cards(found.attention, math.hypot(*found.image_size))),
        heads_section(found.heads),
        _pair(
            [
                elsewhere_card(found.attention),
                *norms_cards(found.layers),
                similarity_card(found.layers),
                cka_card(found.cka),
            ]
        ),
        _missing(found),
        f"<section><h2>How it was made</h2><pre>{escape(command)}</pre></section>",
    ]
    return write_page(path.parent, f"Inside {name}", body, path.name)


def _pair(cards: Sequence[str]) -> str:
    shown = [card for card in cards if card]
    return f"<div class=pair>{''.join(shown)}</div>" if shown else ""


def _subtitle(found: Inspection) -> str:
    looked = f"looked at {counted(found.images, 'image')} of the {found.split} split" if found.images else "no images"
    return f"{found.model}: {found.parameters:,} parameters; {looked}"


def _tiles(found: Inspection) -> str:
    numbers = []
    if not isinstance(found.heads, str):
        of = f"right on {counted(found.heads.images, 'image')}, all heads at work"
        numbers.append((percent(found.heads.accuracy), of))
    if not isinstance(found.attention, str):
        far = [float(one.distance.mean()) for one in found.attention if one.distance is not None]
        numbers.append((f"{far[0]:.0f} → {far[-1]:.0f} px", "mean attention distance, first and last layer"))
    if not isinstance(found.layers, str):
        if math.isfinite(alike := found.layers[-1].similarity):
            numbers.append((f"{alike:.2f}", "mean cosine between two patches in the last layer"))
        if found.layers[-1].share:
            numbers.append((percent(found.layers[-1].share), "of the last layer's patches have an outlying norm"))
    return tiles(numbers or [(f"{found.parameters:,}", "parameters")], {})


def about_filters(found: Filters) -> tuple[str, str]:
    """A title and what to see in `filter_mosaic`, for people."""
    if found.shares is None:
        return (
            "Filters of the first convolution",
            f"{len(found.pictures)} of {counted(found.total, 'filter')}. Grey is 0; each is scaled by its own largest weight.",
        )
    return (
        "What the patch embedding looks for",
        f"The first {len(found.pictures)} principal components of its {counted(found.total, 'filter')} explain "
        f"{percent(float(found.shares.sum()))} of their variance, the first of them {percent(float(found.shares[0]))}. "
        "Smooth waves and edges are what a trained model shows; noise means that it has learned little from pixels. "
        "Grey is 0; each is scaled by its own largest weight (as figure 7, left, of the ViT paper).",
    )


def filter_mosaic(found: Filters) -> Pixels:
    """All filters as one picture, [H, W, 4]."""
    columns = min(len(found.pictures), 7 if len(found.pictures) <= 28 else 8)
    return mosaic([_weights(one) for one in found.pictures.numpy()], columns)


def _filters(found: Filters) -> str:
    title, words = about_filters(found)
    shown = exact_picture(filter_mosaic(found), "the first layer's filters", 440)
    return f"<section><h3>{title}</h3>{shown}<p class=soft style='margin-top:10px'>{words}</p></section>"


def _weights(one: np.ndarray) -> Pixels:
    """[p, q, C] to uint8 [p, q, 3], 0 as middle grey. More channels than colours are averaged."""
    colours = one if one.shape[-1] == 3 else one.mean(-1, keepdims=True).repeat(3, -1)
    largest = np.abs(colours).max()
    return np.rint(127.5 + 127.5 * colours / (largest if largest > 0 else 1.0)).astype(np.uint8)


def _positions(found: Sequence[Positions] | str) -> list[str]:
    if isinstance(found, str):
        return []
    cards = []
    for one in found:
        a, b, h, w = one.similarity.shape
        if h * w == 1:
            continue  # one place, alike to itself
        values = one.similarity.numpy()
        low = float(values.min())
        even = evenness(values, "{:.2f}".format)
        drawn = [colourise(tile) for tile in normalise(values, floor=low).reshape(a * b, h, w)]
        shown = exact_picture(mosaic(drawn, b, gap=max(1, w // 7)), f"similarity of {one.name}", TILE * b)
        asked = "each patch" if (a, b) == (h, w) else f"{a} x {b} patches"
        words = (
            f"Of {escape(one.name)}: one small picture for {asked} of the {h} x {w}, at its place; it shows the cosine of its position with "
            f"those of all patches, {even or f'from {low:.2f} (dark) to 1 (light, itself)'}. "
        )
        words += (
            "The model does not tell places apart by them."
            if even
            else "Crosses and blobs around each place say that the model knows rows, columns and neighbours (as figure 7, centre, of the ViT paper)."
        )
        cards.append(
            f"<section><h3>Similarity of positions</h3>{shown}<p class=soft style='margin-top:10px'>{words}</p></section>"
        )
    return cards


def bias_mosaics(found: Sequence[OffsetBias]) -> Iterator[tuple[str, int, Pixels, str]]:
    """For the layers that share a window: the first one's name, the number of heads, one picture [H, W, 4], and what to see in it."""
    for (heads, h, w), group in groupby(found, lambda one: tuple(one.values.shape)):
        layers = list(group)
        values = np.concatenate([one.values.numpy() for one in layers])  # [layers * heads, 2h - 1, 2w - 1]
        low, high = float(values.min()), float(values.max())
        drawn = [colourise(tile) for tile in normalise(values)]
        last = f" to {layers[-1].name}" if len(layers) > 1 else ""
        words = (
            f"{layers[0].name + last}: a row for each layer from the first, a column for each of {counted(heads, 'head')}. The middle of "
            f"a picture is a patch itself, the rest its neighbours up to {(h - 1) // 2} x {(w - 1) // 2} away; what is added to the logit runs "
            f"from {low:.2f} (dark) to {high:.2f} (light)."
        )
        yield layers[0].name, heads, mosaic(drawn, heads, gap=max(1, w // 7)), words


def _biases(found: Sequence[OffsetBias] | str) -> list[str]:
    if isinstance(found, str):
        return []
    cards = []
    for name, heads, pixels, words in bias_mosaics(found):
        shown = exact_picture(pixels, f"bias by offset of {name}", TILE * heads)
        cards.append(
            f"<section><h3>Bias by offset</h3>{shown}<p class=soft style='margin-top:10px'>{escape(words)}</p></section>"
        )
    return cards


def _missing(found: Inspection) -> str:
    rows = [[escape(PARTS[name]), escape(why)] for name, why in found.missing().items()]
    if not isinstance(found.attention, str) and any(one.distance is None for one in found.attention):
        names = ", ".join(one.name for one in found.attention if one.distance is None)
        rows.append(["Attention distance in " + escape(names), "only the class token asks there, and it has no place"])
    return (
        f"<section><h2>What is not here, and why</h2>{table(['what', 'why'], rows, names=2)}</section>" if rows else ""
    )
