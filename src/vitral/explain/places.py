"""Answers that are places, asked about one at a time: an object, a segment, or a class at a place or wherever it was answered.

`ask` turns a model whose answers are many into one with a single logit, that of the place, which every method of `methods.py` can be about; and it
says which tokens gave that answer. A query of a decoder is asked again in a changed image, and not the one that would be chosen there.

Axes: B images, Q answers, K classes, C channels, h w the head's cells.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vitral.answers.maps import MapAnswers
from vitral.answers.objects import Box, ObjectAnswers
from vitral.data.view import Placed
from vitral.errors import VitralError, counted, some
from vitral.explain.asked import Asked, Place
from vitral.explain.perturbation import log_odds
from vitral.models.common import ImageModel
from vitral.models.heads.dense import Dense
from vitral.models.heads.outputs import Maps
from vitral.models.heads.query import QueryHead
from vitral.predict import Predictor

Spot = tuple[float, float]
"""x and y in pixels of the upright picture."""


def ask(
    predictor: Predictor,
    model: ImageModel,
    batch: Tensor,
    placed: Placed,
    number: int | None,
    at: Spot | None,
    target: int | str | None,
) -> Place:
    """The place that was asked about.

    Args:
        model: the predictor's, in float32.
        batch: the image as the model sees it, [1, C, H, W].
        number: of an object or a segment, as the answer lists them.
        at: a spot of the picture, instead of a number.
        target: the class, by default the one that was answered.

    Raises:
        VitralError: there is no such object, spot or class.
    """
    if at is not None and not (0 <= at[0] < placed.width and 0 <= at[1] < placed.height):
        raise VitralError(
            f"at {at[0]:g}, {at[1]:g}: the picture is {placed.width} pixels wide and {placed.height} high; give x and y inside"
        )
    height, width = batch.shape[2:]
    whole = model.backbone.strides[-1]
    images = F.pad(batch, (0, -width % whole, 0, -height % whole)) if isinstance(model, Dense) else batch

    def outputs(images: Tensor) -> Any:
        return model.answered(images, (height, width)) if isinstance(model, Dense) else model(images)

    with torch.no_grad():
        chosen: list[Tensor] = []
        if isinstance(model.head, QueryHead):
            chosen = _watched(model.head, outputs, images)
        found = outputs(images).float().to("cpu")
    if isinstance(predictor.answers, MapAnswers):
        if number is not None:
            raise VitralError(
                "object: this model answers a class for each pixel; choose a place with at, or a class with target"
            )
        return _ask_map(predictor, model, images, outputs, found, placed, at, target)
    assert isinstance(predictor.answers, ObjectAnswers)
    return _ask_object(predictor, model, images, outputs, found, placed, number, at, target, chosen)


def _watched(head: QueryHead, outputs: Callable[[Tensor], Any], images: Tensor) -> list[Tensor]:
    """[1, Q]: the places that become queries in this image."""
    seen: list[Tensor] = []
    handle = head.dense.register_forward_hook(lambda *given: seen.append(head.best(given[2])))
    try:
        outputs(images)
    finally:
        handle.remove()
    return seen


def _ask_object(
    predictor: Predictor, model: ImageModel, images: Tensor, outputs: Callable[[Tensor], Any], found: Any, placed: Placed,
    number: int | None, at: Spot | None, target: int | str | None, chosen: list[Tensor],
) -> Place:  # fmt: skip
    answers = predictor.answers
    assert isinstance(answers, ObjectAnswers)
    listed = answers.rows(found, placed)
    what = answers.noun
    if not listed:
        raise VitralError(
            f"nothing is found from a score of {answers.threshold:.0%}, so there is nothing to ask about; lower the threshold"
        )
    if at is not None:
        inside = [k for k, each in enumerate(listed) if each.holds(*at)]
        if not inside:
            raise VitralError(
                f"at {at[0]:g}, {at[1]:g}: no {what} lies there; there {'is' if len(listed) == 1 else 'are'} {counted(len(listed), what)}"
            )
        number = inside[0]
    number = 0 if number is None else number
    if not 0 <= number < len(listed):
        raise VitralError(f"{what} {number}: {counted(len(listed), what)} found, numbered from 0; choose one of them")
    one = listed[number]
    index = one.index if target is None else class_of(predictor.labels, target)
    region = token = None
    if chosen:
        region = _cell(model, int(chosen[0][0, one.row]), images)
    else:
        token = model.answer_token(one.row)

    def logit(images: Tensor) -> Tensor:
        if not chosen:
            return outputs(images).logits[:, one.row, index, None]
        assert isinstance(model.head, QueryHead)
        model.head.chosen = chosen[0]
        try:
            return outputs(images).logits[:, one.row, index, None]
        finally:
            model.head.chosen = None

    x0, y0, x1, y1 = one.box
    y, x = placed.view.seen(np.array(((y0 + y1) / 2, (x0 + x1) / 2))).tolist()
    score = float(found.logits[0, one.row, index].sigmoid())
    return Place(
        Asked(model, logit),
        images,
        f"{what} {number}",
        predictor.labels[index],
        index,
        score,
        one.box,
        one.row,
        region,
        token,
        (y, x),
    )


def _cell(model: ImageModel, place: int, images: Tensor) -> NDArray[np.float64]:
    """The square of a place of the memory that answered by itself."""
    assert isinstance(model.head, QueryHead)
    stride = int(model.head.neck.stride)
    columns = -(-images.shape[3] // stride)
    row, column = divmod(place, columns)
    region = np.zeros(tuple(images.shape[2:]))
    region[row * stride : (row + 1) * stride, column * stride : (column + 1) * stride] = 1
    return region


def _ask_map(
    predictor: Predictor, model: ImageModel, images: Tensor, outputs: Callable[[Tensor], Any], found: Maps, placed: Placed,
    at: Spot | None, target: int | str | None,
) -> Place:  # fmt: skip
    logits, stride, labels = found.logits[0], found.stride, predictor.labels  # [K, h, w]
    cells_of = np.zeros(tuple(logits.shape[1:]), bool)
    classes = logits.argmax(0).numpy()  # [h, w]
    seen_h, seen_w = (-(-side // stride) for side in (placed.view.height, placed.view.width))
    box: Box | None = None
    if at is not None:
        y, x = placed.view.seen(np.array((at[1], at[0]))).tolist()
        row, column = (min(max(0, int(v // stride)), side - 1) for v, side in ((y, seen_h), (x, seen_w)))
        cells_of[row, column] = True
        index = int(classes[row, column]) if target is None else class_of(labels, target)
        corners = placed.view.original(np.array([(row, column), (row + 1, column + 1)], float) * stride)
        (y0, x0), (y1, x1) = corners.clip(0, (placed.height, placed.width)).tolist()
        box, name = (x0, y0, x1, y1), f"the place at {at[0]:g}, {at[1]:g}"
    else:
        shown = classes[:seen_h, :seen_w]
        counts = np.bincount(shown.ravel(), minlength=len(labels))
        index = int(counts.argmax()) if target is None else class_of(labels, target)
        if not counts[index]:
            there = some([labels[k] for k in np.argsort(-counts, kind="stable").tolist() if counts[k]])
            raise VitralError(
                f"target {labels[index]}: is nowhere in the answer; choose one of {there}, or a place with at"
            )
        cells_of[:seen_h, :seen_w] = shown == index
        name = "all that was answered so"
        y, x = (float(np.median(each) + 0.5) * stride for each in np.nonzero(cells_of))
    places = torch.from_numpy(cells_of)

    def logit(images: Tensor) -> Tensor:
        each = outputs(images).logits[:, :, places.to(images.device)]  # [B, K, places]
        return log_odds(each.transpose(1, 2), index, False).mean(1, keepdim=True)

    share = float(logits.softmax(0)[index][places].mean())
    region = cells_of.repeat(stride, 0).repeat(stride, 1).astype(np.float64)[: images.shape[2], : images.shape[3]]
    return Place(Asked(model, logit), images, name, labels[index], index, share, box, -1, region, None, (y, x))


def class_of(labels: list[str], target: int | str) -> int:
    """Index of a class that is named or numbered."""
    if isinstance(target, str):
        if target in labels:
            return labels.index(target)
        if not target.isdecimal():
            known = some(list(map(repr, labels)))
            raise VitralError(f"target {target!r}: the model has no such class; choose one of {known}")
    index = int(target)
    if not 0 <= index < len(labels):
        raise VitralError(f"target {index}: the model has {len(labels)} classes, numbered 0 to {len(labels) - 1}")
    return index
