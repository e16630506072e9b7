"""Answers for the viewer's inspect mode: what is inside a model, and what it does with one picture, layer by layer.

The measures are those of `vitral.explain.inspection`, the texts those of the inspection's page. Axes: h w grid.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from vitral.deploy.viewer.pack import packed
from vitral.drawing.figure import data_url
from vitral.explain.attention import extent
from vitral.explain.inspection.as_json import attention_numbers, layer_numbers
from vitral.explain.inspection.images import LayerTokens
from vitral.explain.inspection.inspect import Inspection, inspect_image
from vitral.explain.inspection.measures import CUT_LEAST
from vitral.explain.inspection.weights import OffsetBias, Positions
from vitral.models.common import ImageModel
from vitral.report.inspection import about_filters, bias_mosaics, filter_mosaic
from vitral.report.inspection_charts import ABOUT_ENTROPY, about_distance, about_norms

if TYPE_CHECKING:
    from vitral.deploy.viewer.session import Session

SHOWN = ("positions", "offset_biases", "attention", "layers")


def inspection(session: "Session", model: int, image: str) -> dict[str, Any]:
    """Positions and norms as packed maps, weights as data URLs, numbers by layer; in "missing" the reasons for what the model does not have."""
    predictor = session.models[model]
    found = inspect_image(predictor, session.images.get(image).data)
    whole = predictor.model.backbone
    title, words = about_filters(found.filters)
    missing = found.missing()
    return {
        "missing": {name: missing[name] for name in SHOWN if name in missing},
        "words": _words(found),
        "filters": {"title": title, "words": words, "picture": data_url(filter_mosaic(found.filters))},
        "positions": None if isinstance(found.positions, str) else [
            _positions(one, whole, found.image_size) for one in found.positions
        ],
        "biases": None if isinstance(found.offset_biases, str) else _biases(found.offset_biases),
        "diagonal": math.hypot(*found.image_size),
        "attention": None if isinstance(found.attention, str) else [attention_numbers(one) for one in found.attention],
        "layers": None if isinstance(found.layers, str) else [layer_numbers(one) for one in found.layers],
        "norms": None if isinstance(found.layers, str) else [
            _norms(one, whole, found.image_size) for one in found.layers
        ],
    }  # fmt: skip


def _words(found: Inspection) -> dict[str, str]:
    """What to see in each chart."""
    words = {"distance": about_distance(math.hypot(*found.image_size)), "entropy": ABOUT_ENTROPY}
    if not isinstance(found.layers, str):
        words["norms"] = about_norms(found.layers)
        if all(one.where.size < CUT_LEAST for one in found.layers):
            words["norms"] = f"With fewer than {CUT_LEAST} patches, outlying norms cannot be told from chance."
    return words


def _positions(found: Positions, model: ImageModel, size: tuple[int, int]) -> dict[str, Any]:
    """The cosines of a x b places with all places, stacked as one packed map [a * b * h, w]."""
    a, b, h, w = found.similarity.shape
    stacked = packed(np.asarray(found.similarity, np.float64).reshape(a * b * h, w), form="{:.2f}".format)
    return {
        "name": found.name,
        "rows": found.rows,
        "columns": found.columns,
        "grid": [h, w],
        "extent": _extent(model, (h, w), size),
        **{name: stacked[name] for name in ("low", "high", "data", "even")},
    }


def _biases(found: list[OffsetBias]) -> list[dict[str, Any]]:
    return [
        {"name": name, "heads": heads, "words": words, "picture": data_url(pixels)}
        for name, heads, pixels, words in bias_mosaics(found)
    ]


def _norms(found: LayerTokens, model: ImageModel, size: tuple[int, int]) -> dict[str, Any]:
    """A layer's norms as a map, and the numbers, row by row, of the patches with an outlying norm."""
    h, w = found.norm.shape
    return {
        "name": found.name,
        "map": packed(found.norm, _extent(model, (h, w), size)),
        "outlying": np.flatnonzero(found.where).tolist(),
    }


def _extent(model: ImageModel, grid: tuple[int, int], size: tuple[int, int]) -> tuple[float, float]:
    """The extent of a grid with one of the model's strides; it may reach beyond the view."""
    strides = (model.patch_size, *model.token_strides)
    stride = next(s for s in strides if (-(-size[0] // s), -(-size[1] // s)) == grid)
    return extent(grid, stride, size)
