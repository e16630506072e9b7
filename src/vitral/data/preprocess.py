"""From a decoded image to what the model reads: the one path that training's evaluation, prediction, export and serving share."""

import dataclasses
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from vitral.data import steps as named
from vitral.data.bands import check_shown, to_rgb
from vitral.data.resample import INTERPOLATIONS, Pixels
from vitral.data.steps import CenterCrop, Pad, Resize, ReverseChannels, Step
from vitral.data.values import Reading, reading
from vitral.data.view import View
from vitral.errors import VitralError

if TYPE_CHECKING:
    from torch import Tensor

Kind = TypeVar("Kind", "Tensor", Pixels)
"""A tensor or an array: what is given is what comes back. Arrays need no PyTorch."""
RESIZES = ("crop", "squash", "pad", "steps")


@dataclass(frozen=True)
class Preprocess:
    """Resize, crop and normalise; every field travels with the weights in the model file."""

    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    """Of the pixels, which lie in 0..1; other scales, as of a `rescale_factor`, are expressed in these two."""
    std: tuple[float, ...]
    resize: str = "crop"
    """crop: resize so that the model's view is the centre `crop_fraction` of the image; squash: resize both sides, ratio given up; pad: the whole
    image in its proportions, the mean colour around it; steps: as `steps` say, which then are another library's."""
    crop_fraction: float = 1.0
    interpolation: str = "bicubic"
    bit_depth: int = 8
    min_size: int = 1
    """Images with a shorter side than this (one patch) are refused."""
    steps: tuple[Step, ...] = ()
    """In order, from the decoded image to `height` x `width`; unless `resize` is steps they follow from the fields above."""
    value_range: tuple[float, float] | None = None
    """The values that are black and white in files of more than 8 bits, as `DataOptions` has it."""
    page: str | None = None
    """Of files with several pages the one that is read, or all, as `DataOptions` has it."""
    show_bands: tuple[int, int, int] | None = None
    """Bands, from 1, that pictures for people show as red, green and blue."""

    def __post_init__(self) -> None:
        for name, allowed in (("resize", RESIZES), ("interpolation", INTERPOLATIONS)):
            if getattr(self, name) not in allowed:
                raise VitralError(f"preprocessing: {name}={getattr(self, name)!r}; choose one of {', '.join(allowed)}")
        if not (len(self.mean) == len(self.std) == self.channels):
            raise VitralError(
                f"preprocessing: {self.channels} channels need as many means and deviations, not {self.mean} and {self.std}"
            )
        if not 0 < self.crop_fraction <= 1:
            raise VitralError(f"preprocessing: crop_fraction={self.crop_fraction}: a share lies above 0, up to 1")
        if not all(s > 0 for s in self.std):
            raise VitralError(f"preprocessing: std {self.std}: deviations must be above 0")
        if bool(self.steps) != (self.resize == "steps"):
            raise VitralError(
                f"preprocessing: resize={self.resize!r} with steps {self.steps}: steps are for resize=steps"
            )
        if self.show_bands is not None:
            check_shown(self.show_bands, self.channels)

    @classmethod
    def of_steps(
        cls,
        size: tuple[int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        steps: tuple[Step, ...],
        *,
        bit_depth: int = 8,
        min_size: int = 1,
    ) -> "Preprocess":
        """With another library's steps, to the height and width of `size`."""
        filters = [step.interpolation for step in steps if isinstance(step, Resize)]
        return cls(
            *size, len(mean), mean, std, "steps", interpolation=(*filters, "bicubic")[0], bit_depth=bit_depth, min_size=min_size, steps=steps
        )  # fmt: skip

    @property
    def plan(self) -> tuple[Step, ...]:
        """The steps, written out."""
        if self.resize == "steps":
            return self.steps
        how = self.interpolation
        if self.resize == "squash":
            return (Resize("exact", self.height, self.width, how, arithmetic="torch"),)
        if self.resize == "pad":
            whole = Resize("fit", self.height, self.width, how, arithmetic="torch")
            return whole, CenterCrop(self.height, self.width, fill=self.fill)
        whole = Resize("share", self.height, self.width, how, self.crop_fraction, arithmetic="torch")
        return whole, CenterCrop(self.height, self.width)

    @property
    def fill(self) -> tuple[float, ...]:
        """The mean colour in whole levels, on the 0..255 scale: what stands around a padded image."""
        return tuple(float(round(255 * m)) for m in self.mean)

    @property
    def reading(self) -> Reading:
        """How files are read where they do not say it themselves."""
        return reading(self.value_range, self.page)

    def shown(self, pixels: "Tensor | Pixels") -> np.ndarray:
        """[C, h, w] on the 0..255 scale, for people: uint8 [h, w, 3]. Pictures of other channels than the model's are shown by their first ones."""
        return to_rgb(pixels, self.show_bands if len(pixels) == self.channels else None)

    @property
    def hint(self) -> int:
        """The shorter side that an image is resized to at least, for decoders that can shrink as they decode."""
        sides = [max(s.height, s.width) / s.fraction for s in self.plan if isinstance(s, Resize)]
        return round(max(sides, default=max(self.height, self.width)))

    def sized(self, height: int, width: int) -> "Preprocess":
        """The same for a model of another image size: what steps resize and crop to grows and shrinks with it."""
        by = height / self.height, width / self.width
        return replace(self, height=height, width=width, steps=tuple(step.scaled(*by) for step in self.steps))

    def keeping_shape(self, patch: int) -> "Preprocess":
        """The whole image in its own shape, at about as many pixels as now; sides are multiples of `patch`."""
        arithmetic = "pillow" if self.resize == "steps" else "torch"
        whole = Resize("area", self.height, self.width, self.interpolation, multiple=patch, arithmetic=arithmetic)
        others = tuple(step for step in self.steps if isinstance(step, ReverseChannels))
        return replace(self, resize="steps", steps=(whole, *others))

    @property
    def one_size(self) -> bool:
        """Whether all images come out in one size."""
        return any(
            isinstance(step, CenterCrop | Pad) or (isinstance(step, Resize) and step.rule == "exact")
            for step in self.plan
        )

    def check(self, height: int, width: int, name: str) -> None:
        """A VitralError where an image is smaller than one patch, or of a shape that the steps cannot bring to the model's."""
        if min(height, width) < self.min_size:
            raise VitralError(
                f"{name}: {height}x{width} pixels are fewer than one {self.min_size}x{self.min_size} patch; "
                "leave the image out or use a model with smaller patches"
            )
        view = View(height, width)
        for step in self.plan:
            if isinstance(step, Resize) and min(step.size(view.height, view.width)) < 1:
                raise VitralError(
                    f"{name}: {height}x{width} pixels are too long and thin: resized in proportion no pixel of the short side "
                    "is left; crop the image or leave it out"
                )
            try:
                view = step.follow(view)
            except VitralError as error:
                raise VitralError(f"{name}: {error}; leave the image out") from error

    def view(self, image: Kind) -> Kind:
        """The pixels that the model sees: [C, h, w] to [C, height, width], still on the 0..255 scale."""
        if isinstance(image, np.ndarray):
            return named.run(self.plan, image)
        import torch

        return torch.from_numpy(named.run(self.plan, image.numpy()))

    def follow(self, view: View) -> View:
        """The view of what `view` makes of an image."""
        for step in self.plan:
            view = step.follow(view)
        return view

    def where(self, h: int, w: int) -> View:
        """Where the model's pixels lie in an image of h x w."""
        return self.follow(View(h, w))

    def box(self, h: int, w: int) -> tuple[int, int, int, int]:
        """Top, left, height, width of what the model sees, in pixels of an image of h x w; beyond it where the view is padded."""
        return self.where(h, w).box()

    def moments(self) -> tuple[Pixels, Pixels]:
        """Mean and deviation on the 0..255 scale: float32 [C, 1, 1]."""
        mean, std = (np.array(v, np.float32)[:, None, None] * np.float32(255) for v in (self.mean, self.std))
        return mean, std

    def normalise(self, pixels: Kind) -> Kind:
        """[..., C, H, W] on the 0..255 scale to float32 with the training data's mean and deviation removed."""
        mean, std = self.moments()
        if isinstance(pixels, np.ndarray):
            return (pixels.astype(np.float32) - mean) / std
        import torch

        return (pixels.float() - torch.from_numpy(mean).to(pixels.device)) / torch.from_numpy(std).to(pixels.device)

    def restore(self, inputs: "Tensor") -> "Tensor":
        """The inverse of `normalise`, rounded: [..., C, H, W] to uint8."""
        import torch

        mean, std = (torch.from_numpy(v).to(inputs.device) for v in self.moments())
        return (inputs.float() * std + mean).round().clamp(0, 255).to(torch.uint8)

    def __call__(self, image: Kind) -> Kind:
        """A decoded image [C, h, w] to the model's input [C, height, width]."""
        return self.normalise(self.view(image))

    def to_json(self) -> dict[str, object]:
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**fields, "steps": [named.to_json(step) for step in self.steps]}

    @classmethod
    def from_json(cls, stored: dict[str, object]) -> "Preprocess":
        """Of what `to_json` wrote, now or before there were steps."""
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
        written = values.pop("steps", ())
        assert isinstance(written, tuple)
        return cls(**values, steps=tuple(named.from_json(step) for step in written))  # type: ignore[arg-type]
