"""Answers that are places, asked about one at a time: an object, a segment, or a class at a place or wherever it was answered.

`ask` turns a model whose answers are many into one with a single logit, that of the place, which every method of `methods.py` can be about; and it
says which tokens gave that answer. A query of a decoder is asked again in a changed image, and not the one that would be chosen there.

Axes: B images, Q answers, K classes, H heads, N = h*w places of the memory, C channels, P prefix tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.answers.maps import MapAnswers
from vitral.answers.objects import Box, ObjectAnswers
from vitral.data.view import Placed
from vitral.errors import VitralError, counted, some
from vitral.explain.attention import LayerChoice, check_alike
from vitral.explain.capture import Pass, decoder_reads
from vitral.explain.geometry import Floats, Geometry
from vitral.explain.perturbation import log_odds
from vitral.layers.attention import check_layer
from vitral.layers.position import Grid
from vitral.models.common import Each, ImageModel, Reader, covering, ignore
from vitral.models.heads.dense import Dense
from vitral.models.heads.outputs import Maps
from vitral.models.heads.query import QueryHead
from vitral.predict import Predictor

Spot = tuple[float, float]
"""x and y in pixels of the upright picture."""


class Asked(ImageModel):
    """A model of places as one with a single logit: images [B, C, H, W] -> [B, 1]."""

    def __init__(self, model: ImageModel, ask: Callable[[Tensor], Tensor]) -> None:
        super().__init__(model.config)
        self.whole, self.ask = model, ask
        self.num_classes = 1
        self.patch_size, self.num_prefix, self.strides, self.head = (
            model.patch_size, model.num_prefix, model.strides, model.head,
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        return self.ask(images)

    @property
    def token_strides(self) -> list[int]:
        return self.whole.token_strides

    @property
    def backbone(self) -> ImageModel:
        return self.whole.backbone

    def embed(self, images: Tensor) -> Tensor:
        return self.whole.embed(images)

    def encode(self, tokens: Tensor, grid: Grid, each: Each = ignore) -> Tensor:
        return self.whole.encode(tokens, grid, each)

    def pool(self, tokens: Tensor) -> Tensor:
        """The patch itself of one patch [B, P + 1, D] or [B, 1, 1, D]: no token stands for the whole image."""
        return tokens[:, -1] if tokens.ndim == 3 else tokens[:, -1, -1]

    def grid_of(self, images: Tensor) -> Grid:
        return self.whole.grid_of(images)

    def blocks_by_stage(self) -> list[list[nn.Module]]:
        return self.whole.blocks_by_stage()

    @property
    def class_blocks(self) -> list[nn.Module]:
        return self.whole.class_blocks

    @property
    def final_norm(self) -> nn.Module:
        return self.whole.final_norm

    @property
    def reader(self) -> Reader:
        """All patches: a head over maps reads them after the last norm."""
        return "mean"

    @property
    def prefix_names(self) -> tuple[str, ...]:
        return self.whole.prefix_names


@dataclass(frozen=True)
class Place:
    """What is asked about."""

    model: Asked
    images: Tensor
    """[1, C, H, W]: the image, padded to whole cells."""
    name: str
    """In words, without its class."""
    label: str
    index: int
    """Of the class."""
    probability: float
    box: Box | None
    """Around it, x0, y0, x1, y1 in pixels of the picture; None for a class wherever it was answered."""
    row: int
    """Of the model's answers; -1 of a map's."""
    region: NDArray[np.float64] | None
    """[H, W]: 1 where the tokens lie that gave the answer, or became the query that did; None where no tokens of patches did."""
    token: int | None
    """The prefix token that gave it, if one did."""
    middle: tuple[float, float]
    """y and x in the model's pixels."""

    @property
    def queried(self) -> bool:
        """Whether a query of a decoder gave it."""
        return bool(decoder_reads(self.model.whole))

    def asking(self, geometry: Geometry) -> NDArray[np.float64]:
        """[P + h*w], summing to one: the weight of each token in the answer."""
        weights = np.zeros(geometry.num_prefix + geometry.grid[0] * geometry.grid[1])
        if self.token is not None:
            weights[self.token] = 1
        else:
            assert self.region is not None, "its tokens are known"
            weights[geometry.num_prefix :] = cells(self.region, geometry.grid, geometry.stride).ravel()
        return weights / weights.sum()

    def patch(self, grid: Grid, stride: int) -> tuple[int, int]:
        """Row and column of the patch in its middle."""
        y, x = self.middle
        return min(grid[0] - 1, int(y // stride)), min(grid[1] - 1, int(x // stride))


def cells(region: NDArray[np.float64], grid: Grid, stride: int) -> Floats:
    """A region [H, W] in the squares of a grid, [h, w]: the share of each that it covers."""
    h, w = grid
    padded = np.zeros((h * stride, w * stride))
    part = region[: h * stride, : w * stride]
    padded[: part.shape[0], : part.shape[1]] = part
    return padded.reshape(h, stride, w, stride).mean((1, 3))


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


def attention(place: Place, seen: Pass, layer: LayerChoice | None, head: int | None) -> tuple[Floats, int, str]:
    """([h, w], its stride, what it shows): what the place's query reads of the memory in a layer of the decoder, by default the last; of a place
    without a query what its tokens read in a layer of the backbone. The mean of all heads, or one of them.
    """
    layer = -1 if layer is None else layer
    if not place.queried:
        geometry = [each.geometry for each in seen.layers]
        arrays = [each.array() for each in seen.layers]
        if layer == "mean":
            check_alike(geometry, arrays)
        chosen = range(len(arrays)) if layer == "mean" else [check_layer(layer, len(arrays))]
        maps = np.mean([geometry[i].places(geometry[i].keys(arrays[i], place.asking(geometry[i]))) for i in chosen], 0)
        stride, what = geometry[chosen[-1]].stride, "layer"
    else:
        read = [each[0, :, place.row].detach().float().cpu().numpy() for each in seen.crossed]  # [H, N] each
        chosen = range(len(read)) if layer == "mean" else [check_layer(layer, len(read), "decoder layers")]
        stride = int(_query_head(place).neck.stride)
        maps = np.mean([read[i] for i in chosen], 0)
        maps, what = maps.reshape(len(maps), *covering(place.images, stride)), "decoder layer"  # [H, h, w]
    if head is not None and not -len(maps) <= head < len(maps):
        raise VitralError(f"head {head}: a layer has {len(maps)} heads, numbered 0 to {len(maps) - 1}")
    which = f"mean of {what}s" if layer == "mean" else f"{what} {chosen[0]}"
    words = f"attention of {place.name}, {which}, {'mean of heads' if head is None else f'head {head}'}"
    return maps.mean(0) if head is None else maps[head], stride, words


def read_square(
    place: Place, seen: Pass, square: Floats, brought: Floats, last: Geometry, *, weighted: bool
) -> NDArray[np.float64]:
    """[P + h*w]: the part of each token in the answer, from a matrix between all tokens [T, T], row by what it was made of.

    Of the tokens that gave the answer what others `brought` them [T, T], and of a query also what it read of the memory, summed over the decoder's
    layers. weighted: that times its gradient, where positive, and of all queries, since they read each other
    (https://arxiv.org/abs/2103.15679, section 3.3).
    """
    found = place.asking(last) @ brought
    if not place.queried:
        return found
    if weighted:
        gradients = torch.autograd.grad(seen.logits[0, 0], seen.crossed)
        parts = [
            (read * each).clamp(min=0)[0].mean(0).sum(0) for read, each in zip(seen.crossed, gradients, strict=True)
        ]
    else:
        parts = [read[0, :, place.row].mean(0) for read in seen.crossed]  # [N] each
    memory = torch.stack(parts).sum(0).detach().double().cpu().numpy()
    assert len(memory) == last.grid[0] * last.grid[1], "the memory of a plain ViT has its grid"
    return found + np.pad(memory, (last.num_prefix, 0)) @ square


def _query_head(place: Place) -> QueryHead:
    head = place.model.head
    assert isinstance(head, QueryHead), "only these have queries that read"
    return head
