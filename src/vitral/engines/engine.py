"""What runs a model: from the pixels that it sees to its outputs."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from vitral.data.resample import Pixels
from vitral.errors import VitralError


class Engine(ABC):
    """Runs one model on images as its preprocessing leaves them, [B, C, H, W] on the 0..255 scale."""

    library: str
    """What runs the model, in words."""

    def computing(self, precision: str) -> AbstractContextManager[object]:
        """Inside, `__call__` computes in this precision: fp32, bf16 or fp16. Raises VitralError for another than the engine has."""
        if precision != "fp32":
            raise VitralError(f"precision {precision}: an exported file has its own; leave out --precision")
        return nullcontext()

    packs: bool = False
    """Whether `packed` is there: images of several shapes in one forward pass."""

    def packed(self, views: Sequence[Pixels]) -> Any:
        """As `__call__`, of images [C, H, W] of any shapes; where `packs` says so."""
        raise AssertionError(f"{self.library} takes images of one shape")

    @abstractmethod
    def __call__(self, pixels: Pixels) -> Any:
        """The model's outputs, float32 on the CPU: logits [B, K], or `Maps` or `Found`. Raises VitralError for images that it does not take."""
