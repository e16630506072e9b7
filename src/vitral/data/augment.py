"""Augmentation: each transform is a pure function of the image and of uniform numbers derived from (seed, epoch, sample index).

Images stay [C, h, w] on the 0..255 scale; uint8 stays uint8. A transform states how many numbers in [0, 1) it needs. Each has its own named stream of
them, so that adding a transform does not change the others.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vitral.data import resample, steps
from vitral.data.options import AugmentOptions
from vitral.data.policies import JITTER_DRAWS, THREE_DRAWS, RandAugment, jitter, three_augment
from vitral.data.preprocess import Preprocess
from vitral.data.steps import Resize
from vitral.data.view import Box, View
from vitral.randomness import keyed, uniforms


@dataclass(frozen=True)
class Transform:
    name: str
    draws: int
    apply: Callable[[Tensor, np.ndarray], Tensor]
    follow: Callable[[View, np.ndarray], View] = lambda view, u: view
    """From the view before to the view after; the default for transforms that move no pixels."""


def resize(image: Tensor, height: int, width: int, interpolation: str) -> Tensor:
    return torch.from_numpy(resample.resize(image.numpy(), height, width, interpolation))


CROP_TRIES = 10


def crop_box(
    h: int, w: int, scale: tuple[float, float], ratio: tuple[float, float], u: np.ndarray
) -> tuple[int, int, int, int]:
    """Top, left, height, width of an Inception crop (https://arxiv.org/abs/1409.4842): area uniform, aspect ratio log-uniform.

    The first of ten random boxes that fits; else the largest centred box of an allowed ratio.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for a, r in u[: 2 * CROP_TRIES].reshape(CROP_TRIES, 2).tolist():
        area = h * w * (scale[0] + a * (scale[1] - scale[0]))
        aspect = math.exp(low + r * (high - low))
        box_w, box_h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_w <= w and 0 < box_h <= h:
            return int(u[-2] * (h - box_h + 1)), int(u[-1] * (w - box_w + 1)), box_h, box_w
    box_w, box_h = min(w, max(1, round(h * ratio[1]))), min(h, max(1, round(w / ratio[0])))
    return (h - box_h) // 2, (w - box_w) // 2, box_h, box_w


WHOLE_RANGE = (0.08, 1.0)  # area of an Inception crop, as shares of the image's


def resized_crop(preprocess: Preprocess, options: AugmentOptions) -> Transform:
    scale = options.scale or WHOLE_RANGE

    H, W = preprocess.height, preprocess.width

    def apply(image: Tensor, u: np.ndarray) -> Tensor:
        top, left, h, w = crop_box(image.shape[1], image.shape[2], scale, options.ratio, u)
        return resize(image[:, top : top + h, left : left + w], H, W, preprocess.interpolation)

    def follow(view: View, u: np.ndarray) -> View:
        return view.cropped(*crop_box(view.height, view.width, scale, options.ratio, u)).resized(H, W)

    return Transform("resized_crop", 2 * CROP_TRIES + 2, apply, follow)


def framed_crop(preprocess: Preprocess, options: AugmentOptions) -> Transform:
    """An Inception crop of the evaluation view, which squashes or pads the image; area and ratio are measured there. The crop's centre lies in the
    image, so that no crop is padding alone.
    """
    scale = options.scale or WHOLE_RANGE
    H, W = preprocess.height, preprocess.width

    def box(h: int, w: int, u: np.ndarray) -> Box:
        """The crop in the coordinates of the h x w image; it may reach beyond it, into padding."""
        factor = max(h / H, w / W)
        frame = (h, w) if preprocess.resize == "squash" else (max(h, round(H * factor)), max(w, round(W * factor)))
        stretched = (frame[1] / frame[0]) / (W / H)
        ratio = (options.ratio[0] * stretched, options.ratio[1] * stretched)
        top, left, height, width = crop_box(*frame, scale, ratio, u)
        top, left = top - (frame[0] - h) // 2, left - (frame[1] - w) // 2
        return (
            min(max(top, -(height // 2)), h - (height + 1) // 2),
            min(max(left, -(width // 2)), w - (width + 1) // 2),
            height,
            width,
        )

    def placed(h: int, w: int, u: np.ndarray) -> tuple[Box, Box]:
        """The part of the h x w image inside the crop, and its place in the model's view: both (top, left, height, width)."""
        top, left, height, width = box(h, w, u)
        y, x = max(0, top), max(0, left)
        rows, columns = min(h, top + height) - y, min(w, left + width) - x
        down, right = round((y - top) * H / height), round((x - left) * W / width)
        high, wide = max(1, round(rows * H / height)), max(1, round(columns * W / width))
        return (y, x, rows, columns), (min(down, H - high), min(right, W - wide), high, wide)

    def apply(image: Tensor, u: np.ndarray) -> Tensor:
        (y, x, rows, columns), (down, right, high, wide) = placed(image.shape[1], image.shape[2], u)
        inside = resize(image[:, y : y + rows, x : x + columns], high, wide, preprocess.interpolation)
        return torch.from_numpy(steps.padded(inside.numpy(), down, right, H, W, preprocess.fill))

    def follow(view: View, u: np.ndarray) -> View:
        inside, (down, right, high, wide) = placed(view.height, view.width, u)
        return view.cropped(*inside).resized(high, wide).cropped(-down, -right, H, W)

    return Transform("resized_crop", 2 * CROP_TRIES + 2, apply, follow)


def padded_crop(preprocess: Preprocess, options: AugmentOptions) -> Transform:
    """The evaluation view, shifted by up to the padding in each direction; the border is filled with zeros."""
    H, W = preprocess.height, preprocess.width
    pad_h, pad_w = (max(1, round(side * options.padding)) if options.padding else 0 for side in (H, W))

    def start(u: np.ndarray) -> tuple[int, int]:
        return int(u[0] * (2 * pad_h + 1)), int(u[1] * (2 * pad_w + 1))

    def apply(image: Tensor, u: np.ndarray) -> Tensor:
        image, (top, left) = F.pad(preprocess.view(image), (pad_w, pad_w, pad_h, pad_h)), start(u)
        return image[:, top : top + H, left : left + W]

    def follow(view: View, u: np.ndarray) -> View:
        top, left = start(u)
        return preprocess.follow(view).cropped(top - pad_h, left - pad_w, H, W)

    return Transform("padded_crop", 2, apply, follow)


def jittered_crop(preprocess: Preprocess, options: AugmentOptions) -> Transform:
    """Scale jitter for dense tasks (https://arxiv.org/abs/2012.07177, section 3): the image in its proportions at a random factor of the size at
    which it just fits, of which a random window of the model's size is cut out, or which lies somewhere in it, padded.
    """
    H, W = preprocess.height, preprocess.width
    low, high = options.zoom

    def placed(h: int, w: int, u: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width of an image of h x w, and top and left of the window in it, below 0 where that is padded."""
        factor = min(H / h, W / w) * (low + float(u[0]) * (high - low))
        size = max(1, round(h * factor)), max(1, round(w * factor))
        top, left = (
            int(each * (own - side + 1)) if own >= side else -int(each * (side - own + 1))
            for each, own, side in zip(u[1:].tolist(), size, (H, W), strict=True)
        )
        return size, (top, left)

    def apply(image: Tensor, u: np.ndarray) -> Tensor:
        (h, w), (top, left) = placed(image.shape[1], image.shape[2], u)
        y, x = max(0, top), max(0, left)
        region = (y, x, min(h, top + H) - y, min(w, left + W) - x)
        inside = resample.resize(image.numpy(), h, w, preprocess.interpolation, region)
        return torch.from_numpy(steps.padded(inside, y - top, x - left, H, W, preprocess.fill))

    def follow(view: View, u: np.ndarray) -> View:
        size, (top, left) = placed(view.height, view.width, u)
        return view.resized(*size).cropped(top, left, H, W)

    return Transform("jittered_crop", 3, apply, follow)


MIRRORED = 4  # pixels


def reflected_crop(preprocess: Preprocess) -> Transform:
    """DeiT III's simple random crop (https://arxiv.org/abs/2204.07118, section 3.2): resize the shorter side to the model's, pad four pixels by
    reflection, cut out a box of the model's size at random.
    """
    H, W = preprocess.height, preprocess.width
    whole = Resize("share", H, W, preprocess.interpolation, arithmetic="torch")

    def start(h: int, w: int, u: np.ndarray) -> tuple[int, int]:
        y, x = u * (np.array((h, w)) - (H, W) + 2 * MIRRORED + 1)
        return int(y) - MIRRORED, int(x) - MIRRORED

    def apply(image: Tensor, u: np.ndarray) -> Tensor:
        h, w = whole.size(image.shape[1], image.shape[2])
        top, left = start(h, w, u)
        rows, columns = mirrored(top, H, h), mirrored(left, W, w)
        y, x = int(rows.min()), int(columns.min())
        region = y, x, int(rows.max()) + 1 - y, int(columns.max()) + 1 - x
        image = torch.from_numpy(whole.apply(image.numpy(), region))
        return image[:, rows - y][:, :, columns - x]

    def follow(view: View, u: np.ndarray) -> View:
        view = whole.follow(view)
        return view.cropped(*start(view.height, view.width, u), H, W)  # the reflected border lies outside the image

    return Transform("reflected_crop", 2, apply, follow)


def mirrored(start: int, count: int, side: int) -> Tensor:
    """Positions start, start + 1, ... on a side, reflected at its ends without repeating the outermost pixel: int64 [count]."""
    period = max(1, 2 * (side - 1))
    positions = torch.arange(start, start + count) % period
    return torch.minimum(positions, period - positions) if side > 1 else positions


def flip(axis: int, probability: float) -> Transform:
    return Transform(
        f"flip{axis}",
        1,
        lambda image, u: image.flip(axis) if u[0] < probability else image,
        lambda view, u: view.flipped(axis - 1) if u[0] < probability else view,
    )


def quarter_turn() -> Transform:
    return Transform(
        "quarter_turn",
        1,
        lambda image, u: torch.rot90(image, int(u[0] * 4), (1, 2)),
        lambda view, u: view.turned(int(u[0] * 4)),
    )


def brightness(amount: float) -> Transform:
    """Brightness scales the pixels, contrast their distance from the image's mean: together one linear map a * x + b."""

    def apply(image: Tensor, u: np.ndarray) -> Tensor:
        bright, contrast = (1 + amount * (2 * u - 1)).tolist()
        mean = image.float().mean() * bright
        changed = (image.float() * (bright * contrast) + mean * (1 - contrast)).clamp(0, 255)
        return changed.round().to(torch.uint8) if image.dtype == torch.uint8 else changed

    return Transform("brightness", 2, apply)


def of_pixels(change: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[Tensor, np.ndarray], Tensor]:
    """A change of numpy arrays as one of tensors."""
    return lambda image, u: torch.from_numpy(change(image.contiguous().numpy(), u))


def randaugment(options: AugmentOptions, mean: tuple[float, ...]) -> Transform:
    fill = np.rint(np.array(mean, np.float32) * 255)[:, None, None]
    policy = RandAugment(
        options.operations,
        options.operation_probability,
        options.magnitude,
        options.magnitude_std,
        options.increasing,
        fill,
    )
    return Transform("randaugment", policy.draws, of_pixels(policy), policy.follow)


def erase(probability: float, fill: str, preprocess: Preprocess) -> Transform:
    """Random erasing (https://arxiv.org/abs/1708.04896): 2 to 33 % of the area, aspect ratio 0.3 to 3.3, filled with the mean colour, or as in
    timm with normal noise of the data's mean and deviation.
    """
    mean, std = (torch.tensor(v)[:, None, None] * 255 for v in (preprocess.mean, preprocess.std))

    def apply(image: Tensor, u: np.ndarray) -> Tensor:
        if u[0] >= probability:
            return image
        top, left, h, w = crop_box(image.shape[1], image.shape[2], (0.02, 0.33), (0.3, 3.3), u[2:])
        box = mean
        if fill == "noise":
            chances = keyed(np.array([int(u[1] * 2**53)]), "erase", len(mean) * h * w)  # [1, C * h * w]
            normal = torch.special.ndtri(torch.from_numpy(chances)).float().reshape(len(mean), h, w)
            box = (mean + std * normal).clamp(0, 255)
        image = image.clone()
        image[:, top : top + h, left : left + w] = (box.round() if image.dtype == torch.uint8 else box).to(image.dtype)
        return image

    return Transform("erase", 2 + 2 * CROP_TRIES + 2, apply)


def colour_jitter(amount: float) -> Transform:
    return Transform("jitter", JITTER_DRAWS, of_pixels(lambda image, u: jitter(image, amount, u)))


def first_view(options: AugmentOptions, preprocess: Preprocess) -> Transform:
    """The transform to the model's size: a crop, or the evaluation view."""
    if options.crop == "resized":
        return resized_crop(preprocess, options)
    if options.crop == "framed":
        return framed_crop(preprocess, options)
    if options.crop == "padded":
        return padded_crop(preprocess, options)
    if options.crop == "reflected":
        return reflected_crop(preprocess)
    if options.crop == "jittered":
        return jittered_crop(preprocess, options)
    return Transform("view", 0, lambda image, u: preprocess.view(image), lambda view, u: preprocess.follow(view))


class Augmentation:
    """The chosen transforms in order; the first one brings the image to the model's size.

    `view` names the stream of random numbers: each view of an image needs its own name.
    """

    def __init__(self, options: AugmentOptions, preprocess: Preprocess, view: str = "augment") -> None:
        self.view = view
        steps = [
            first_view(options, preprocess),
            flip(2, options.hflip) if options.hflip else None,
            flip(1, options.vflip) if options.vflip else None,
            quarter_turn() if options.quarter_turns else None,
            brightness(options.brightness) if options.brightness else None,
            randaugment(options, preprocess.mean) if options.policy == "randaugment" else None,
            Transform("3augment", THREE_DRAWS, of_pixels(three_augment)) if options.policy == "3augment" else None,
            colour_jitter(options.jitter) if options.jitter else None,
            erase(options.erase, options.erase_with, preprocess) if options.erase else None,
        ]
        self.transforms = [step for step in steps if step is not None]
        # The smallest crop of a decoded image must still have the model's resolution.
        smallest = math.sqrt((options.scale or WHOLE_RANGE)[0]) if options.crop in ("resized", "framed") else 1.0
        smallest = 1 / options.zoom[1] if options.crop == "jittered" else smallest
        self.hint = math.ceil(preprocess.hint / smallest)

    def draw(self, seed: int, epoch: int, indices: np.ndarray) -> list[np.ndarray]:
        """For each transform, every sample's random numbers: float64 [len(indices), draws]."""
        return [uniforms(seed, f"{self.view}/{t.name}", epoch, indices, t.draws) for t in self.transforms]

    def __call__(self, image: Tensor, draws: list[np.ndarray]) -> Tensor:
        """Augment one image with its row of each transform's draws."""
        for transform, u in zip(self.transforms, draws, strict=True):
            image = transform.apply(image, u)
        return image

    def where(self, h: int, w: int, draws: list[np.ndarray]) -> View:
        """The view of the augmented pixels in the original image of h x w."""
        view = View(h, w)
        for transform, u in zip(self.transforms, draws, strict=True):
            view = transform.follow(view, u)
        return view
