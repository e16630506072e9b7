"""The results of faithfulness and counterfactuals as HTML for notebooks. Colours suit light and dark."""

import html
from typing import TYPE_CHECKING

import numpy as np

from vitral.drawing.charts import Series, line_chart, standing_alone
from vitral.drawing.figure import data_url
from vitral.drawing.heat import mosaic

if TYPE_CHECKING:
    from vitral.explain.counterfactual import Counterfactual
    from vitral.explain.faithfulness import Faithfulness

CELL = 14  # pixels of a patch
CHANGED, OTHER = (217, 139, 31), (136, 136, 136)


def curves_html(found: "Faithfulness") -> str:
    """Deletion and insertion as curves, the map's beside the random orders and the centre, above the areas and the verdict."""
    charts = ""
    for title, name, area in (
        ("deletion, lower is better", "deleted", found.deletion),
        ("insertion, higher is better", "inserted", found.insertion),
    ):
        orders = [*found.random, found.centre, found.map]
        names = ["random orders", *[""] * (len(found.random) - 1), "centre", "the map"]
        kinds = [*"b" * len(found.random), "c", "a"]
        series = [
            Series(said, list(zip(order.shares, getattr(order, name), strict=True)), kind, dashed=kind == "c")
            for order, said, kind in zip(orders, names, kinds, strict=True)
        ]
        chart = line_chart(title, series, "share of the patches", lambda v, digits: f"{v:.{digits}%}", (0.0, 1.0))
        charts += f'<div style="display:inline-block;width:340px">{title}: {area:.3f}{chart}</div>'
    return f'<figure style="margin:0">{standing_alone(charts)}{_words(found)}</figure>'


def patches_html(found: "Counterfactual") -> str:
    """The grid of patches, those that change the answer coloured, above the words."""
    cells = [np.full((CELL - 1, CELL - 1, 3), CHANGED if each else OTHER, np.uint8) for each in found.mask.ravel()]
    grid = f'<img alt="the patches" src="{data_url(mosaic(cells, found.grid[1]))}">'
    return f'<figure style="margin:0">{grid}{_words(found)}</figure>'


def _words(found: object) -> str:
    return f'<pre style="white-space:pre-wrap">{html.escape(str(found))}</pre>'
