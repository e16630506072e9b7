"""Boxes x0, y0, x1, y1 in torch: area, and overlap with other boxes. Axes: n and m boxes."""

import torch
from torch import Tensor

EPS = 1e-7


def area(boxes: Tensor) -> Tensor:
    """[..., 4] -> [...]"""
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def intersection(a: Tensor, b: Tensor) -> Tensor:
    """Areas that boxes [..., 4] share with those that they are broadcast to."""
    return area(torch.cat([torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])], -1))


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes that are broadcast to each other; 0 where both are empty."""
    shared = intersection(a, b)
    return shared / (area(a) + area(b) - shared).clamp(min=EPS)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """IoU less the share of the smallest box around both that neither covers, -1 to 1: https://arxiv.org/abs/1902.09630."""
    shared = intersection(a, b)
    union = area(a) + area(b) - shared
    around = area(torch.cat([torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])], -1))
    return shared / union.clamp(min=EPS) - (around - union) / around.clamp(min=EPS)
