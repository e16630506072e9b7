"""From a decoded image to what the model reads: the one path that training's evaluation, prediction, export and serving share."""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vitral.errors import VitralError

RESIZES = ("crop", "squash")
INTERPOLATIONS = ("bicubic", "bilinear")


def resize(image: Tensor, height: int, width: int, interpolation: str) -> Tensor:
    """[C, h, w] on the 0..255 scale (uint8 or float32) to [C, height, width] of the same kind, antialiased as Pillow does."""
    if image.shape[1:] == (height, width):
        return image
    resized = F.interpolate(image[None], (height, width), mode=interpolation, antialias=True, align_corners=False)[0]
    return resized if resized.dtype == torch.uint8 else resized.clamp(0, 255)


@dataclass(frozen=True)
class Preprocess:
    """Resize, crop and normalise; every field travels with the weights in the model file."""

    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str = "crop"
    """crop: resize so that the model's view is the centre `crop_fraction` of the image; squash: resize both sides, ratio given up."""
    crop_fraction: float = 1.0
    interpolation: str = "bicubic"
    bit_depth: int = 8
    min_size: int = 1
    """Images with a shorter side than this (one patch) are refused."""

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

    @property
    def hint(self) -> int:
        """The shorter side that an image is resized to at least, for decoders that can shrink as they decode."""
        return round(max(self.height, self.width) / self.crop_fraction)

    def check(self, height: int, width: int, name: str) -> None:
        """A VitralError where an image is smaller than one patch."""
        if min(height, width) < self.min_size:
            raise VitralError(
                f"{name}: {height}x{width} pixels are fewer than one {self.min_size}x{self.min_size} patch; "
                "leave the image out or use a model with smaller patches"
            )

    def view(self, image: Tensor) -> Tensor:
        """The pixels that the model sees: [C, h, w] to [C, height, width], still on the 0..255 scale."""
        if self.resize == "squash":
            return resize(image, self.height, self.width, self.interpolation)
        inner_h, inner_w, top, left = self._inner(*image.shape[1:])
        image = resize(image, inner_h, inner_w, self.interpolation)
        return image[:, top : top + self.height, left : left + self.width]

    def box(self, h: int, w: int) -> tuple[int, int, int, int]:
        """Top, left, height, width of what the model sees, in pixels of an image of h x w."""
        if self.resize == "squash":
            return 0, 0, h, w
        inner_h, inner_w, top, left = self._inner(h, w)
        top, bottom = round(top * h / inner_h), round((top + self.height) * h / inner_h)
        left, right = round(left * w / inner_w), round((left + self.width) * w / inner_w)
        return top, left, bottom - top, right - left

    def _inner(self, h: int, w: int) -> tuple[int, int, int, int]:
        """Height and width that the whole image is resized to, and the top and left of the centre crop in it."""
        factor = max(self.height / h, self.width / w) / self.crop_fraction
        inner_h, inner_w = max(self.height, round(h * factor)), max(self.width, round(w * factor))
        return inner_h, inner_w, (inner_h - self.height) // 2, (inner_w - self.width) // 2

    def normalise(self, pixels: Tensor) -> Tensor:
        """[..., C, H, W] on the 0..255 scale to float32 with the training data's mean and deviation removed."""
        mean = torch.tensor(self.mean, device=pixels.device).mul(255)[:, None, None]
        std = torch.tensor(self.std, device=pixels.device).mul(255)[:, None, None]
        return (pixels.float() - mean) / std

    def restore(self, inputs: Tensor) -> Tensor:
        """The inverse of `normalise`, rounded: [..., C, H, W] to uint8."""
        mean, std = (torch.tensor(v, device=inputs.device).mul(255)[:, None, None] for v in (self.mean, self.std))
        return (inputs.float() * std + mean).round().clamp(0, 255).to(torch.uint8)

    def __call__(self, image: Tensor) -> Tensor:
        """A decoded image [C, h, w] to the model's input [C, height, width]."""
        return self.normalise(self.view(image))

    def to_json(self) -> dict[str, object]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, object]) -> "Preprocess":
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
        return cls(**values)  # type: ignore[arg-type]
