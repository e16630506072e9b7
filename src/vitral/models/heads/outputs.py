"""What the heads of dense tasks answer for a batch of images: tensors of a model in PyTorch, numpy arrays of any other engine.

Axes: B images, Q objects or queries, K classes, C width of a pixel's vector, h w the head's own grid.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Constant = int | float | frozenset | None
"""What holds for all images alike."""


@dataclass(frozen=True, eq=False)
class ByImage:
    """Tensors whose first axis is the batch, moved, cast and sliced together; None stays None."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def tensors(self) -> "dict[str, Tensor]":
        """What there is of each image, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if not isinstance(value, Constant | tuple)}

    def constants(self) -> dict[str, Any]:
        """What holds for all images alike, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None and isinstance(value, Constant)}

    def __getitem__(self, images: slice) -> Self:
        return self._each(lambda tensor: tensor[images])

    def to(self, device: "torch.device | str") -> Self:
        return self._each(lambda tensor: tensor.to(device))

    def float(self) -> Self:
        return self._each(lambda tensor: tensor.float())

    def _each(self, change: "Callable[[Tensor], Tensor]") -> Self:
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                changed[field.name] = tuple(each._each(change) for each in value)
            elif not isinstance(value, Constant):
                changed[field.name] = change(value)
        return replace(self, **changed)


@dataclass(frozen=True, eq=False)
class Maps(ByImage):
    """A class for each place."""

    logits: "Tensor"
    """[B, K, h, w]; the cells cover the input from its upper left corner, and may reach beyond it."""
    stride: int
    """Pixels of a cell's side."""

    def at_pixels(self, height: int, width: int) -> "Tensor":
        """[B, K, height, width]: the logits under each pixel of the input, linear between the middles of cells."""
        from torch.nn import functional as F

        whole = [side * self.stride for side in self.logits.shape[2:]]
        enlarged = F.interpolate(self.logits, whole, mode="bilinear", align_corners=False)
        return enlarged[:, :, :height, :width]


@dataclass(frozen=True, eq=False)
class Found(ByImage):
    """Objects: each has a class, a box and perhaps a mask."""

    logits: "Tensor"
    """[B, Q, K], before a sigmoid for each class."""
    boxes: "Tensor"
    """[B, Q, 4]: x0, y0, x1, y1 as shares of the input's width and height."""
    masks: "Tensor | None" = None
    """[B, Q, h, w], before the sigmoid; in training left to `kernels` and `pixels`. The cells cover the input from its upper left corner, and may
    reach beyond it."""
    stride: float = 0.0
    """Pixels of a mask's cell."""
    repeated: bool = False
    """Whether several answers may mean the same object, so that of those of one class which overlap only the best counts."""
    stuff: frozenset[int] = frozenset()
    """Classes that cannot be counted, by number: all that is found of one is one segment, and its boxes mean nothing."""
    earlier: tuple["Found", ...] = ()
    """In training: what the dense stage and then each decoder layer but the last found."""
    centres: "Tensor | None" = None
    """[B, Q, 2]: in training, of the dense stage: the middle of the place that answers, x and y as shares of the input."""
    kernels: "Tensor | None" = None
    """[B, Q, C]: in training; a mask's logits are kernel · pixels, and a loss computes only those that it needs."""
    pixels: "Tensor | None" = None
    """[B, C, h, w]: in training, the same for every stage."""
