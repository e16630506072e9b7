"""Random chains of pixel operations: RandAugment, 3-Augment and colour jitter.

Each is a pure function of an image [C, h, w] (numpy, 0..255, uint8 or float32) and of its numbers in [0, 1).
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vitral.data import operations as op
from vitral.data.view import View

OPERATIONS = (
    "AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd", "Color", "Contrast", "Brightness",
    "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY",
)  # fmt: skip
OPERATION_DRAWS = 5  # which operation, whether, which way, and two for its strength
TOP = 10.0  # the magnitude that the ranges below belong to


@dataclass(frozen=True)
class RandAugment:
    """`operations` of the fifteen in a row (https://arxiv.org/abs/1909.13719), as in timm's `rand-m9-mstd0.5-inc1`.

    Each is applied with `probability`, at a strength from N(magnitude, std^2) clipped to 0..10, or to 0..magnitude if that is higher. Increasing: a
    larger magnitude is a stronger change; else posterize and solarize weaken with it, and the enhancing operations go from 0.1 through 1 (no change)
    to 1.9, as in the paper's code. Resampling is bilinear; timm chooses bilinear or bicubic at random.
    """

    operations: int
    probability: float
    magnitude: float
    std: float
    increasing: bool
    fill: np.ndarray
    """float32 [C, 1, 1]: the colour of pixels from outside the image."""

    @property
    def draws(self) -> int:
        return self.operations * OPERATION_DRAWS

    def __call__(self, image: np.ndarray, u: np.ndarray) -> np.ndarray:
        for name, magnitude, sign in self.chosen(u):
            image = operate(name, image, magnitude, sign, self.increasing, self.fill)
        return image

    def follow(self, view: View, u: np.ndarray) -> View:
        """The view after the operations."""
        for name, magnitude, sign in self.chosen(u):
            if (matrix := move(name, view.height, view.width, magnitude, sign)) is not None:
                a, b, c, d, e, f = matrix  # of (x, y)
                view = view.moved(((e, d, f), (b, a, c)))
        return view

    def chosen(self, u: np.ndarray) -> Iterator[tuple[str, float, int]]:
        """The operations to apply, each with its magnitude and its direction, 1 or -1."""
        for which, whether, way, a, b in u.reshape(-1, OPERATION_DRAWS).tolist():
            if whether < self.probability:
                yield OPERATIONS[int(which * len(OPERATIONS))], self.strength(a, b), 1 if way < 0.5 else -1

    def strength(self, a: float, b: float) -> float:
        """A normally distributed magnitude (Box and Muller 1958), clipped."""
        normal = math.sqrt(-2 * math.log(1 - a)) * math.cos(2 * math.pi * b)
        return min(max(0.0, self.magnitude + self.std * normal), max(TOP, self.magnitude))


def move(name: str, h: int, w: int, magnitude: float, sign: int) -> op.Affine | None:
    """The affine map by which an operation of RandAugment moves the pixels of an h x w image; None if it moves none."""
    m = sign * magnitude / TOP
    match name:
        case "Rotate":
            return op.rotation(h, w, 30 * m)
        case "ShearX":
            return 1, 0.3 * m, 0, 0, 1, 0
        case "ShearY":
            return 1, 0, 0, 0.3 * m, 1, 0
        case "TranslateX":
            return op.translation(0.45 * m * w, 0)
        case "TranslateY":
            return op.translation(0, 0.45 * m * h)
    return None


def operate(
    name: str, image: np.ndarray, magnitude: float, sign: int, increasing: bool, fill: np.ndarray
) -> np.ndarray:
    """One of RandAugment's operations. sign: 1 or -1, for operations with two directions. Ranges: timm's auto_augment.py."""
    if (matrix := move(name, image.shape[1], image.shape[2], magnitude, sign)) is not None:
        return op.warp(image, matrix, fill)
    m = magnitude / TOP
    match name:
        case "AutoContrast":
            return op.autocontrast(image)
        case "Equalize":
            return op.equalize(image)
        case "Invert":
            return op.invert(image)
        case "Posterize":
            return op.posterize(image, 4 - int(4 * m) if increasing else int(4 * m))
        case "Solarize":
            return op.solarize(image, 256 - int(256 * m) if increasing else int(256 * m))
        case "SolarizeAdd":
            return op.solarize_add(image, int(110 * m))
    enhance = {"Color": op.saturate, "Contrast": op.contrast, "Brightness": op.brighten, "Sharpness": op.sharpen}[name]
    values = op.floats(image)
    enhance(values, max(0.1, 1 + sign * 0.9 * m) if increasing else 0.1 + 1.8 * m)
    return op.restore(values, image.dtype)


THREE_DRAWS = 2


def three_augment(image: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Grey, solarized from 128 on, or blurred by 0.1 to 2 pixels: one of these, equally likely (DeiT III, https://arxiv.org/abs/2204.07118)."""
    choice = int(u[0] * 3)
    if choice == 0:
        return op.grey(image)
    return op.solarize(image, 128) if choice == 1 else op.blur(image, 0.1 + 1.9 * float(u[1]))


JITTERS = (op.brighten, op.contrast, op.saturate)
ORDERS = tuple(itertools.permutations(range(len(JITTERS))))
JITTER_DRAWS = len(JITTERS) + 1


def jitter(image: np.ndarray, amount: float, u: np.ndarray) -> np.ndarray:
    """Brightness, contrast and saturation by factors in 1 -/+ amount, in random order (torchvision's ColorJitter); rounded once, at the end."""
    factors = 1 + amount * (2 * u[:-1] - 1)
    values = op.floats(image)
    for place, k in enumerate(ORDERS[int(u[-1] * len(ORDERS))]):
        if place:
            np.clip(values, 0, 255, out=values)
        JITTERS[k](values, float(factors[k]))
    return op.restore(values, image.dtype)
