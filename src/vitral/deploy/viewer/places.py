"""What a model whose answers are places finds in a picture, as the page lists it: objects, segments, or the classes of a map, each with its place.

Axes: h w of the picture, K classes.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vitral.answers.answer import Answer
from vitral.answers.maps import Segmentation
from vitral.answers.objects import Detection
from vitral.answers.panoptic import Panoptic
from vitral.data.view import Placed
from vitral.deploy.viewer.pack import packed
from vitral.errors import VitralError
from vitral.predict import Predictor

LISTED = 40
"""Objects or classes, the surest first."""
FINE = 96
"""Squares of a place's longer side, over the model's view."""


def listed(predictor: Predictor, pixels: Tensor) -> dict[str, object]:
    """Of a picture [C, h, w], for JSON: `places`, what is found (object, segment or class), and `top`, the places: `index` is their number, of
    a class among the labels, and `p` the score, of a class its share of the picture.
    """
    placed = predictor.placed(pixels)
    answer: Answer = predictor.answered(
        predictor.outputs(predictor.card.preprocess(pixels)[None]), ["picture"], [placed]
    )[0]
    if isinstance(answer, Segmentation):
        indices = {label: k for k, label in enumerate(answer.labels)}
        rows = [(indices[label], label, share, answer.map == indices[label]) for label, share in answer.shares]
        noun = "class"
    elif isinstance(answer, Panoptic):
        rows = [(k, each.label, each.score, answer.map == each.id) for k, each in enumerate(answer.segments)]
        noun = "segment"
    else:
        assert isinstance(answer, Detection)
        rows = [
            (
                k,
                each.label,
                each.score,
                _inside(each.box, placed) if each.mask is None or not each.mask.any() else each.mask,
            )
            for k, each in enumerate(answer.objects)
        ]
        noun = "object"
    boxes = [each.box for each in answer.objects] if isinstance(answer, Detection) else None
    top = [
        {
            "index": index, "label": label, "p": p, "box": boxes[k] if boxes else _box(mask),
            "place": packed(_seen(mask, placed)),
        }
        for k, (index, label, p, mask) in enumerate(rows[:LISTED])
    ]  # fmt: skip
    return {"independent": True, "places": noun, "top": top}


def _inside(box: tuple[float, float, float, float], placed: Placed) -> NDArray[np.bool_]:
    """[h, w]: where a box lies."""
    x0, y0, x1, y1 = box
    xs, ys = np.arange(placed.width) + 0.5, np.arange(placed.height) + 0.5
    return ((ys >= y0) & (ys < y1))[:, None] & ((xs >= x0) & (xs < x1))


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _seen(mask: NDArray[np.bool_], placed: Placed) -> NDArray[np.float64]:
    """A mask [h, w] on a grid over the model's view."""
    height, width = placed.view.height, placed.view.width
    fit = FINE / max(height, width)
    return placed.view.resized(max(1, round(height * fit)), max(1, round(width * fit))).nearest(
        mask.astype(np.float64), 0
    )


WHOLE = "This model answers places in a picture, and this mode is for models with one answer a picture."


def modes(predictor: Predictor) -> dict[str, str]:
    """Why modes of the page are not for this model, by name."""
    try:
        predictor.check_whole()
    except VitralError:
        return dict.fromkeys(("mask", "compare", "inspect", "neighbours"), WHOLE)
    return {}
