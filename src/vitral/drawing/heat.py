"""Arrays as pictures: heat maps as inline SVG, and mosaics of small pictures as PNG. Colours rise evenly in lightness and suit light and dark."""

import html
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vitral.drawing.charts import text
from vitral.drawing.colours import colourise
from vitral.drawing.figure import data_url

WIDTH, LEFT, TOP, BOTTOM = 460, 54, 14, 42
BAR, BAR_LEFT, BAR_STEPS = 12, 382, 32  # the scale of colours beside a map
TALLEST = 30.0
NAMED = 15  # ticks along a side
Pixels = NDArray[np.uint8]


def heat_map(
    title: str,
    rows: Sequence[Sequence[float]],
    x_label: str,
    y_label: str,
    form: Callable[[float], str],
    limits: tuple[float, float] | None = None,
) -> str:
    """An SVG with a cell for each value, row 0 at the bottom, rows of any length; what is not a number has no cell. "" without a number.

    form: a value as text, in the scale and under the pointer. limits: the values of the darkest and the lightest colour; default those that occur.
    """
    finite = [value for row in rows for value in row if math.isfinite(value)]
    if not finite:
        return ""
    low, high = limits or (min(finite), max(finite))
    columns = max(len(row) for row in rows)
    cell_w, cell_h = (BAR_LEFT - 24 - LEFT) / columns, min(TALLEST, 300 / len(rows))
    bottom = TOP + cell_h * len(rows)

    def colour(value: float) -> str:
        share = (value - low) / (high - low) if high > low else 0.5
        return "#" + bytes(colourise(np.array(share)).tolist()).hex()

    parts = []
    for i, row in enumerate(rows):
        y = bottom - (i + 1) * cell_h
        for j, value in enumerate(row):
            if math.isfinite(value):
                said = html.escape(f"{y_label} {i}, {x_label} {j}: {form(value)}")
                parts.append(
                    f'<rect x="{LEFT + j * cell_w:.2f}" y="{y:.2f}" width="{cell_w + 0.3:.2f}" height="{cell_h + 0.3:.2f}" '
                    f'fill="{colour(value)}"><title>{said}</title></rect>'
                )
    parts += [text(LEFT - 8, bottom - (i + 0.5) * cell_h + 4, str(i), "tick", "end") for i in _some(len(rows))]
    parts += [text(LEFT + (j + 0.5) * cell_w, bottom + 16, str(j), "tick", "middle") for j in _some(columns)]
    parts.append(text((LEFT + BAR_LEFT - 24) / 2, bottom + 36, x_label, "tick", "middle"))
    middle = (TOP + bottom) / 2
    parts.append(f'<g transform="translate(14 {middle:.1f}) rotate(-90)">{text(0, 0, y_label, "tick", "middle")}</g>')
    parts.append(_scale(low, high, bottom, colour, form))
    return (
        f'<svg viewBox="0 0 {WIDTH} {bottom + BOTTOM:.0f}" role="img" aria-label="{html.escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def _scale(low: float, high: float, bottom: float, colour: Callable[[float], str], form: Callable[[float], str]) -> str:
    tall = (bottom - TOP) / BAR_STEPS
    parts = [
        f'<rect x="{BAR_LEFT}" y="{bottom - (i + 1) * tall:.2f}" width="{BAR}" height="{tall + 0.3:.2f}" '
        f'fill="{colour(low + (high - low) * (i + 0.5) / BAR_STEPS)}"/>'
        for i in range(BAR_STEPS)
    ]
    right = BAR_LEFT + BAR + 6
    if high > low:
        parts.append(text(right, TOP + 9, form(high), "tick"))
    return "".join([*parts, text(right, bottom, form(low), "tick")])


def _some(count: int) -> range:
    """Numbers for ticks, not too many."""
    return range(0, count, -(-count // NAMED))


def mosaic(tiles: Sequence[Pixels], columns: int, gap: int = 1) -> Pixels:
    """Pictures [h, w, 3] of one size, row by row with a transparent gap between them: [H, W, 4]."""
    h, w = tiles[0].shape[:2]
    rows = -(-len(tiles) // columns)
    whole = np.zeros((rows * (h + gap) - gap, columns * (w + gap) - gap, 4), np.uint8)
    for k, tile in enumerate(tiles):
        y, x = (k // columns) * (h + gap), (k % columns) * (w + gap)
        whole[y : y + h, x : x + w, :3] = tile
        whole[y : y + h, x : x + w, 3] = 255
    return whole


def exact_picture(pixels: Pixels, words: str, widest: int = 1000) -> str:
    """[h, w, 3 or 4] as a data URL without loss, as wide as there is room (up to `widest` pixels), each pixel a sharp square."""
    style = f"display:block;width:100%;max-width:{widest}px;margin:10px auto 0;image-rendering:pixelated"
    return f'<img alt="{html.escape(words)}" style="{style}" src="{data_url(pixels)}">'
