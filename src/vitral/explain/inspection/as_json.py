"""An inspection as plain values for `json.dumps`: every number that the report draws."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vitral.explain.inspection.heads import Heads
from vitral.explain.inspection.images import QUANTILES, LayerAttention, LayerTokens
from vitral.explain.inspection.inspect import Inspection

DIGITS = 6  # significant ones of a number in an array


def as_json(found: Inspection) -> dict[str, Any]:
    """Missing results are null, with their sentence under "missing". Undefined numbers are null."""
    return {
        "architecture": found.architecture,
        "model": found.model,
        "parameters": found.parameters,
        "image_size": list(found.image_size),
        "images": found.images,
        "split": found.split,
        "missing": found.missing(),
        "filters": {
            "kind": "filters" if found.filters.shares is None else "principal components",
            "total": found.filters.total,
            "values": _plain(found.filters.pictures),
            "explained": None if found.filters.shares is None else _plain(found.filters.shares),
        },
        "positions": None if isinstance(found.positions, str) else [
            {"name": one.name, "rows": one.rows, "columns": one.columns, "cosine": _plain(one.similarity)}
            for one in found.positions
        ],
        "offset_biases": None if isinstance(found.offset_biases, str) else [
            {"layer": one.name, "bias": _plain(one.values)} for one in found.offset_biases
        ],
        "attention": None if isinstance(found.attention, str) else [attention_numbers(one) for one in found.attention],
        "layers": None if isinstance(found.layers, str) else [layer_numbers(one) for one in found.layers],
        "cka": None if isinstance(found.cka, str) else _plain(found.cka),
        "heads": None if isinstance(found.heads, str) else _heads(found.heads),
    }  # fmt: skip


def attention_numbers(one: LayerAttention) -> dict[str, Any]:
    return {
        "layer": one.name,
        "distance_pixels": _plain(one.distance),
        "uniform_distance_pixels": _plain(one.uniform),
        "to_other_tokens": _plain(one.elsewhere),
        "entropy_nats": _plain(one.entropy),
        "largest_entropy_nats": _plain(one.most),
    }


def layer_numbers(one: LayerTokens) -> dict[str, Any]:
    return {
        "layer": one.name,
        "norms": {f"{q:g}": _plain(value) for q, value in zip(QUANTILES, one.norms, strict=True)},
        "prefix_norms": _plain(one.prefix),
        "cut": _plain(one.cut),
        "share_above_cut": one.share,
        "where_above_cut": _plain(one.where),
        "token_similarity": _plain(one.similarity),
        "similarity_to_layer_before": _plain(one.step),
    }


def _heads(heads: Heads) -> dict[str, Any]:
    layers = [{"layer": one.layer, "loss": _plain(one.loss), "accuracy": _plain(one.accuracy)} for one in heads.layers]
    return {"images": heads.images, "loss": heads.loss, "accuracy": heads.accuracy, "without": layers}


def _plain(values: NDArray[np.float64] | Tensor | float | None) -> Any:
    """Nested lists; None for what is not a number."""
    if values is None:
        return None
    array = np.asarray(values, np.float64)
    if array.ndim:
        return [_plain(each) for each in array]
    return float(f"{array:.{DIGITS}g}") if np.isfinite(array) else None
