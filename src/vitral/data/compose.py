"""Several training images with their objects in one: mosaic, and objects pasted from another image.

Mosaic: four images, each at half its size (YOLOv4, https://arxiv.org/abs/2004.10934, section 3.3), so that a step sees more and smaller objects.
Copy-paste: each object of another image with a chance of one half, laid over the image; what it covers is no longer seen (https://arxiv.org/abs/2012.07177).
Both come after every other augmentation, and are pure functions of what they join and of uniform numbers derived from (seed, epoch, sample).

Axes: C channels, H W pixels, n objects of an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitral.data.augment import resize
from vitral.data.things import LEAST_SEEN, LEAST_SIDE, Things, box_of
from vitral.data.view import View
from vitral.randomness import uniforms

PARTNERS = 4  # images at most that an image is joined with: three of a mosaic, one that is pasted from
OBJECTS = 64  # of the image that is pasted from, whose chances differ; those after them have these chances again
CHOSEN = 0.5  # probability that an object is pasted


class Sample(NamedTuple):
    """An augmented image [C, H, W], and its objects."""

    pixels: Tensor
    things: Things
    """Of this image alone."""


@dataclass(frozen=True)
class Compose:
    """mosaic: probability of one, in the first `until` epochs. paste: probability that objects are pasted. size: images of the split."""

    mosaic: float
    until: float
    paste: float
    size: int
    interpolation: str

    def partners(self, seed: int, epoch: int, occasions: NDArray[np.int64]) -> list[list[int]]:
        """For each sample the images that it is joined with: none, one that is pasted from, three of a mosaic, or these and then that."""
        drawn = uniforms(seed, "compose", epoch, occasions, 2 + PARTNERS)
        joined = []
        for row in drawn:
            images = (row[2:] * self.size).astype(np.int64).tolist()
            mosaic = row[0] < self.mosaic and epoch < self.until
            joined.append([*(images[:3] if mosaic else []), *(images[3:] if row[1] < self.paste else [])])
        return joined

    def __call__(self, samples: Sequence[Sample], seed: int, epoch: int, occasion: int) -> Sample:
        """One image of several: the first, then its partners."""
        own = samples[0]
        if len(samples) >= PARTNERS:
            own = mosaic(samples[:PARTNERS], self.interpolation)
        if len(samples) in (2, 1 + PARTNERS):
            chances = uniforms(seed, "paste", epoch, np.array([occasion]), OBJECTS)[0]
            own = pasted(own, samples[-1], chances)
        return own


def mosaic(parts: Sequence[Sample], interpolation: str) -> Sample:
    """Four samples of one size, each at half of it: upper left, upper right, lower left, lower right."""
    C, H, W = parts[0].pixels.shape
    whole = torch.zeros(C, H, W, dtype=parts[0].pixels.dtype)
    classes: list[Tensor] = []
    boxes: list[Tensor] = []
    masks: list[NDArray[np.uint8]] = []
    crowds: list[Tensor] = []
    masked = parts[0].things.masks is not None
    for k, (pixels, things) in enumerate(parts):
        top, left = (k // 2) * (H // 2), (k % 2) * (W // 2)
        h, w = H // 2 if k < 2 else H - H // 2, W - W // 2 if k % 2 else W // 2
        whole[:, top : top + h, left : left + w] = resize(pixels, h, w, interpolation)
        by = torch.tensor([w / W, h / H] * 2)
        moved, shift = View(H, W).resized(h, w), torch.tensor([left / W, top / H] * 2)
        crowds.append(things.crowds[0] * by + shift)
        if things.masks is None:
            own = things.boxes[0] * by + shift
            kept = ((own[:, 2:] - own[:, :2]) * torch.tensor([W, H]) >= LEAST_SIDE).all(-1)
            classes.append(things.classes[0][kept])
            boxes.append(own[kept])
            continue
        for index, mask in zip(things.classes[0].tolist(), things.masks[0].numpy(), strict=True):
            placed = np.zeros((H, W), np.uint8)
            placed[top : top + h, left : left + w] = moved.nearest(mask, 0)
            _keep(placed, index, classes, boxes, masks)
    return Sample(whole, _things(classes, boxes, masks if masked else None, torch.cat(crowds), (H, W)))


def pasted(own: Sample, other: Sample, chances: NDArray[np.float64]) -> Sample:
    """A sample with the objects of another over it whose chance is below `CHOSEN`; of what lies under them the rest is kept if it is still seen."""
    assert own.things.masks is not None, "what has no mask is not pasted"
    assert other.things.masks is not None
    number = np.arange(len(other.things.classes[0])) % OBJECTS
    chosen = np.flatnonzero(chances[number] < CHOSEN)
    if not len(chosen):
        return own
    laid = other.things.masks[0].numpy()[chosen]
    over = torch.from_numpy(laid.any(0))
    classes: list[Tensor] = []
    boxes: list[Tensor] = []
    masks: list[NDArray[np.uint8]] = []
    for index, mask in zip(own.things.classes[0].tolist(), own.things.masks[0].numpy(), strict=True):
        left = mask * ~over.numpy()
        if left.sum() >= LEAST_SEEN * mask.sum():
            _keep(left, index, classes, boxes, masks)
    for index, mask in zip(other.things.classes[0][chosen].tolist(), laid, strict=True):
        _keep(mask, index, classes, boxes, masks)
    pixels = torch.where(over, other.pixels, own.pixels)
    return Sample(pixels, _things(classes, boxes, masks, own.things.crowds[0], tuple(pixels.shape[1:])))


def _keep(
    mask: NDArray[np.uint8], index: int, classes: list[Tensor], boxes: list[Tensor], masks: list[NDArray[np.uint8]]
) -> None:
    """Add an object of which enough is left, its box around its mask [H, W]."""
    x0, y0, x1, y1 = box_of(mask > 0)
    if min(x1 - x0, y1 - y0) < LEAST_SIDE:
        return
    H, W = mask.shape
    classes.append(torch.tensor([index]))
    boxes.append(torch.tensor([[x0 / W, y0 / H, x1 / W, y1 / H]]))
    masks.append(mask.astype(np.uint8))


def _things(
    classes: list[Tensor],
    boxes: list[Tensor],
    masks: list[NDArray[np.uint8]] | None,
    crowds: Tensor,
    size: tuple[int, ...],
) -> Things:
    """Of one image."""
    drawn = None
    if masks is not None:
        drawn = (torch.from_numpy(np.stack(masks) if masks else np.zeros((0, *size), np.uint8)),)
    return Things(
        (torch.cat([torch.zeros(0, dtype=torch.int64), *classes]),),
        (torch.cat([torch.zeros(0, 4), *boxes]).float(),),
        drawn,
        (crowds.float(),),
    )


def together(parts: Sequence[Things]) -> Things:
    """A batch of the objects of single images."""
    masks = None if parts[0].masks is None else tuple(each.masks[0] for each in parts if each.masks is not None)
    classes, boxes, crowds = (
        tuple(getattr(each, name)[0] for each in parts) for name in ("classes", "boxes", "crowds")
    )
    return Things(classes, boxes, masks, crowds)
