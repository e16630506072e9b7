"""Results of the tests of a map as HTML, so that a notebook shows them when they are the last line of a cell. Colours suit light and dark."""

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from vitral.explain.counterfactual import Counterfactual
    from vitral.explain.faithfulness import Faithfulness

WIDTH, HEIGHT, LEFT, TOP = 260, 130, 34, 22
MAP, OTHERS = "#d98b1f", "#5b8fb9"
CELL = 14


def curves_html(found: "Faithfulness") -> str:
    """Deletion and insertion as curves, the map's beside the random orders and the centre, above the areas and the verdict."""
    charts = "".join(
        _chart(
            f"{title}: {area:.3f}",
            found.map.shares,
            [getattr(curves, name) for curves in found.random],
            getattr(found.centre, name),
            getattr(found.map, name),
        )
        for title, name, area in (
            ("deletion, lower is better", "deleted", found.deletion),
            ("insertion, higher is better", "inserted", found.insertion),
        )
    )
    return (
        f'<figure style="margin:0">{charts}<pre style="white-space:pre-wrap">{html.escape(str(found))}</pre></figure>'
    )


def patches_html(found: "Counterfactual") -> str:
    """The grid of patches, those that change the answer filled, above the words."""
    h, w = found.grid
    cells = "".join(
        f'<rect x="{column * CELL}" y="{row * CELL}" width="{CELL - 1}" height="{CELL - 1}" '
        f'fill="{MAP if found.mask[row, column] else "#8888"}"/>'
        for row in range(h)
        for column in range(w)
    )
    grid = f'<svg width="{w * CELL}" height="{h * CELL}" role="img" aria-label="the patches">{cells}</svg>'
    return f'<figure style="margin:0">{grid}<pre style="white-space:pre-wrap">{html.escape(str(found))}</pre></figure>'


def _chart(
    title: str,
    shares: NDArray[np.float64],
    random: Sequence[NDArray[np.float64]],
    centre: NDArray[np.float64],
    own: NDArray[np.float64],
) -> str:
    """One panel: probability (0 to 1) against the share of the patches (0 to 1)."""

    def points(values: NDArray[np.float64]) -> str:
        return " ".join(
            f"{LEFT + x * WIDTH:.1f},{TOP + (1 - y) * HEIGHT:.1f}" for x, y in zip(shares, values, strict=True)
        )

    def line(values: NDArray[np.float64], style: str) -> str:
        return f'<polyline points="{points(values)}" fill="none" {style}/>'

    axes = "".join(
        f'<text x="{LEFT - 6}" y="{TOP + (1 - share) * HEIGHT + 4:.0f}" text-anchor="end">{share:.0%}</text>'
        f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{TOP + (1 - share) * HEIGHT}" y2="{TOP + (1 - share) * HEIGHT}" stroke="#8885"/>'
        for share in (0.0, 0.5, 1.0)
    )
    drawn = [line(values, f'stroke="{OTHERS}" stroke-opacity="0.4"') for values in random]
    drawn.append(line(centre, 'stroke="#888" stroke-dasharray="4 3"'))
    drawn.append(line(own, f'stroke="{MAP}" stroke-width="2.5"'))
    key = f'<tspan fill="{MAP}">the map</tspan> <tspan fill="{OTHERS}">random orders</tspan> <tspan>centre (dashed)</tspan>'
    return (
        f'<svg width="{LEFT + WIDTH + 20}" height="{TOP + HEIGHT + 24}" role="img" aria-label="{html.escape(title)}" '
        f'font-family="sans-serif" font-size="11" fill="currentColor"><text x="{LEFT}" y="12">{html.escape(title)}</text>'
        f'{axes}{"".join(drawn)}<text x="{LEFT}" y="{TOP + HEIGHT + 16}">{key}</text></svg>'
    )
