"""The objects of a batch as tensors of one shape, and their masks at the points where the mask losses look.

Axes: B images, M most objects of an image (the others are padded), P points, H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vitral.data.things import Things
from vitral.randomness import keyed

POINTS = 256  # of each object: half of them around it, half anywhere
AROUND = 1.2  # sides of its box


@dataclass(frozen=True, eq=False)
class Truth:
    """What a batch's images hold."""

    classes: Tensor
    """int64 [B, M]"""
    boxes: Tensor
    """[B, M, 4], shares of the input"""
    real: Tensor
    """bool [B, M]: not padding"""
    crowds: Tensor
    """[B, m, 4]; padding is empty"""
    points: Tensor | None = None
    """[B, M, P, 2]: x and y as shares of the input; None where no masks are learned"""
    inside: Tensor | None = None
    """[B, M, P]: 1 where a point lies in its object, else 0"""
    masked: Tensor | None = None
    """bool [B, M]: has a mask, which no object has that covers no pixel"""

    @classmethod
    def of(cls, things: Things, keys: Tensor) -> "Truth":
        """keys: int64 [B], of the samples, which their points come from."""
        classes, boxes, crowds = (_padded(each) for each in (things.classes, things.boxes, things.crowds))
        counts = torch.tensor([len(each) for each in things.classes], device=boxes.device)
        real = torch.arange(classes.shape[1], device=boxes.device) < counts[:, None]
        if things.masks is None:
            return cls(classes, boxes, real, crowds)
        points = _points(boxes, keys)
        inside, masked = boxes.new_zeros(points.shape[:3]), torch.zeros_like(real)
        for b, masks in enumerate(things.masks):
            inside[b, : len(masks)] = at(masks, points[b, : len(masks)])
            masked[b, : len(masks)] = masks.flatten(1).any(1)
        return cls(classes, boxes, real, crowds, points, inside, masked)


def at(masks: Tensor, points: Tensor) -> Tensor:
    """Masks [n, H, W] at points [n, P, 2]: 1 or 0, [n, P]."""
    H, W = masks.shape[1:]
    x, y = (points[..., 0] * W).long().clamp(0, W - 1), (points[..., 1] * H).long().clamp(0, H - 1)
    return masks[torch.arange(len(masks), device=masks.device)[:, None], y, x].float()


def _points(boxes: Tensor, keys: Tensor) -> Tensor:
    """[B, M, P, 2]: for each of the boxes [B, M, 4]; an image's points lie the same way around all of them."""
    drawn = torch.from_numpy(keyed(keys.numpy(), "points", 2 * POINTS)).float().to(boxes.device)
    around, anywhere = drawn.view(-1, 1, 2, POINTS // 2, 2).unbind(2)  # [B, 1, P/2, 2]
    start, end = boxes[:, :, None].split(2, -1)  # [B, M, 1, 2]
    around = ((start + end) / 2 + (end - start) * AROUND * (around - 0.5)).clamp(0, 1)
    return torch.cat([around, anywhere.expand_as(around)], 2)


def _padded(parts: Sequence[Tensor]) -> Tensor:
    """Tensors [n, ...] of B images as one [B, M, ...] with zeros for what is missing; M is 1 or more."""
    whole = parts[0].new_zeros(len(parts), max(1, *map(len, parts)), *parts[0].shape[1:])
    for row, part in zip(whole, parts, strict=True):
        row[: len(part)] = part
    return whole
