"""The steps from a decoded image to the pixels that a model sees, each with every rule that changes a pixel.

A step changes an image [C, h, w] and says where the result lies in the original (`follow`). They stand in a model file as a list of
{"step": name, its fields}. The rules are those of torchvision, timm (https://github.com/huggingface/pytorch-image-models, timm/data/transforms.py)
and Transformers (https://github.com/huggingface/transformers, image_transforms.py), and our own.
"""

import dataclasses
import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from vitral.data.resample import ARITHMETICS, INTERPOLATIONS, Pixels, Region, resize
from vitral.data.view import View
from vitral.errors import VitralError

RULES = ("exact", "share", "shortest", "within", "cover", "fit", "area")
HALVES = ("down", "even")


def _check(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise VitralError(f"preprocessing: {name}={value!r}; choose one of {', '.join(allowed)}")


@dataclass(frozen=True)
class Resize:
    """To a size that follows from the image's:

    exact: `height` x `width`, the proportions given up.
    share: in proportion, so that `height` x `width` are `fraction` of the smallest size that covers them; sides rounded. Our own rule.
    shortest: in proportion, the shorter side `height`, the longer cut to whole pixels (torchvision, Transformers); where the longer would be
        over `longest`, that decides.
    within: in proportion, as large as fits in `height` x `width`, sides cut to whole pixels (Transformers' max_height, max_width).
    cover, fit: in proportion, the smallest that covers and the largest that fits in `height` x `width`; sides rounded (timm).
    area: in proportion, with as many pixels as `height` x `width`; sides rounded to multiples of `multiple`. Our own rule.
    """

    rule: str
    height: int
    width: int
    interpolation: str
    fraction: float = 1.0
    longest: int = 0
    """0: no limit."""
    multiple: int = 1
    """Of shortest: both sides are then cut down to multiples of it (YOLOS's processor). Of area: rounded to them."""
    arithmetic: str = "pillow"
    rounded: bool = True
    """Off: values between the 256 levels, and beyond them, stay."""

    def __post_init__(self) -> None:
        _check("resize", self.rule, RULES)
        _check("interpolation", self.interpolation, INTERPOLATIONS)
        _check("arithmetic", self.arithmetic, ARITHMETICS)
        if not (self.height > 0 and self.width > 0):
            raise VitralError(f"preprocessing: a resize to {self.height}x{self.width}: sides must be above 0")
        if not 0 < self.multiple <= self.height:
            raise VitralError(f"preprocessing: a resize to multiples of {self.multiple}: give 1 to {self.height}")

    def size(self, h: int, w: int) -> tuple[int, int]:
        """Height and width that an image of h x w gets."""
        if self.rule == "exact":
            return self.height, self.width
        if self.rule == "share":
            factor = max(self.height / h, self.width / w) / self.fraction
            return max(self.height, round(h * factor)), max(self.width, round(w * factor))
        if self.rule == "shortest":
            height, width = self._shortest(h, w)
            return height - height % self.multiple, width - width % self.multiple
        if self.rule == "within":
            scale = min(self.height / h, self.width / w)
            return int(h * scale), int(w * scale)
        if self.rule == "area":
            scale, least = math.sqrt(self.height * self.width / (h * w)), self.multiple
            return max(least, round(h * scale / least) * least), max(least, round(w * scale / least) * least)
        ratios = h / self.height, w / self.width
        ratio = max(ratios) if self.rule == "fit" else min(ratios)
        return round(h / ratio), round(w / ratio)

    def _shortest(self, h: int, w: int) -> tuple[int, int]:
        short, long, side, exact = min(h, w), max(h, w), self.height, float(self.height)
        if self.longest and long / short * side > self.longest:
            exact = self.longest * short / long
            side = round(exact)
        other = long if short == side else int(exact * long / short)
        return (side, other) if h <= w else (other, side)

    def follow(self, view: View) -> View:
        return view.resized(*self.size(view.height, view.width))

    def apply(self, image: Pixels, region: Region | None = None) -> Pixels:
        """The resized image, or a region of it."""
        height, width = self.size(image.shape[1], image.shape[2])
        return resize(
            image, height, width, self.interpolation, region, arithmetic=self.arithmetic, rounded=self.rounded
        )

    def scaled(self, by_height: float, by_width: float) -> "Resize":
        sides = max(1, round(self.height * by_height)), max(1, round(self.width * by_width))
        return replace(self, height=sides[0], width=sides[1], longest=round(self.longest * by_height))


@dataclass(frozen=True)
class CenterCrop:
    """The middle `height` x `width`, padded where the image is smaller: the odd pixel of padding comes after it, at the bottom and the right.

    half: how half a pixel before the crop is rounded: down (Transformers), or to the even number (torchvision, timm).
    fill: of the padding, on the 0..255 scale, one value for each channel, or one for all.
    """

    height: int
    width: int
    half: str = "down"
    fill: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        _check("half", self.half, HALVES)
        if not (self.height > 0 and self.width > 0):
            raise VitralError(f"preprocessing: a crop of {self.height}x{self.width}: sides must be above 0")

    def box(self, h: int, w: int) -> Region:
        """Top, left, height and width of the crop in an image of h x w; top and left are below 0 where it is padded."""
        top, left = (self._start(size, own) for size, own in ((h, self.height), (w, self.width)))
        return top, left, self.height, self.width

    def _start(self, size: int, own: int) -> int:
        if own > size:
            return -((own - size) // 2)
        return (size - own) // 2 if self.half == "down" else round((size - own) / 2)

    def follow(self, view: View) -> View:
        return view.cropped(*self.box(view.height, view.width))

    def needs(self, h: int, w: int) -> Region:
        """The part of an image of h x w that the crop shows."""
        top, left, height, width = self.box(h, w)
        bottom, right = min(h, top + height), min(w, left + width)
        top, left = max(0, top), max(0, left)
        return top, left, bottom - top, right - left

    def apply(self, image: Pixels, whole: tuple[int, int] | None = None) -> Pixels:
        """The crop of an image, or where `whole` is given of one of that size, of which `image` is the part that `needs` asks for."""
        h, w = whole or (image.shape[1], image.shape[2])
        if whole is None:
            top, left, height, width = self.needs(h, w)
            image = image[:, top : top + height, left : left + width]
        top, left = (max(0, -start) for start in self.box(h, w)[:2])
        return padded(image, top, left, self.height, self.width, self.fill)

    def scaled(self, by_height: float, by_width: float) -> "CenterCrop":
        return replace(self, height=round(self.height * by_height), width=round(self.width * by_width))


@dataclass(frozen=True)
class Pad:
    """To `height` x `width`, at the bottom and the right, with `fill` as in `CenterCrop`; what is larger is refused."""

    height: int
    width: int
    fill: tuple[float, ...] = (0.0,)

    def follow(self, view: View) -> View:
        if view.height > self.height or view.width > self.width:
            raise VitralError(
                f"an image that is {view.height}x{view.width} pixels by then cannot be padded to {self.height}x{self.width}"
            )
        return view.cropped(0, 0, self.height, self.width)

    def apply(self, image: Pixels) -> Pixels:
        return padded(image, 0, 0, self.height, self.width, self.fill)

    def scaled(self, by_height: float, by_width: float) -> "Pad":
        return replace(self, height=round(self.height * by_height), width=round(self.width * by_width))


@dataclass(frozen=True)
class AsIs:
    """The image in its own size."""

    def follow(self, view: View) -> View:
        return view

    def apply(self, image: Pixels) -> Pixels:
        return image

    def scaled(self, by_height: float, by_width: float) -> Self:
        return self


@dataclass(frozen=True)
class ReverseChannels(AsIs):
    """Red, green, blue to blue, green, red."""

    def apply(self, image: Pixels) -> Pixels:
        return np.ascontiguousarray(image[::-1])


Step = Resize | CenterCrop | Pad | ReverseChannels | AsIs
STEPS: dict[str, type[Step]] = {
    "resize": Resize,
    "center_crop": CenterCrop,
    "pad": Pad,
    "reverse_channels": ReverseChannels,
    "as_is": AsIs,
}


def padded(image: Pixels, top: int, left: int, height: int, width: int, fill: tuple[float, ...]) -> Pixels:
    """[C, h, w] at `top` and `left` of [C, height, width], the rest filled; float32 where the fill is between two levels."""
    h, w = image.shape[1:]
    if (h, w) == (height, width):
        return image
    whole = all(value == round(value) for value in fill) and image.dtype == np.uint8
    around = np.empty((len(image), height, width), np.uint8 if whole else np.float32)
    around[:] = np.array(fill, np.float32)[:, None, None]
    around[:, top : top + h, left : left + w] = image
    return around


def run(steps: tuple[Step, ...], image: Pixels) -> Pixels:
    """All steps; of a resize that a crop follows only what the crop shows is made."""
    whole = None  # the size of the image of which only a part was made
    for step, after in zip(steps, (*steps[1:], None), strict=True):
        if isinstance(step, CenterCrop):
            image, whole = step.apply(image, whole), None
        elif isinstance(step, Resize) and isinstance(after, CenterCrop):
            whole = step.size(image.shape[1], image.shape[2])
            image = step.apply(image, after.needs(*whole))
        else:
            image = step.apply(image)
    return image


def to_json(step: Step) -> dict[str, object]:
    name = next(name for name, kind in STEPS.items() if type(step) is kind)
    return {"step": name, **dataclasses.asdict(step)}


def from_json(stored: dict[str, object]) -> Step:
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
    name = str(values.pop("step"))
    if name not in STEPS:
        raise VitralError(f"preprocessing: step {name!r} is not known here; upgrade with pip install -U vitral")
    return STEPS[name](**values)  # type: ignore[arg-type]
