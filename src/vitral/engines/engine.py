"""What runs a model: from the pixels that it sees to its outputs."""

from abc import ABC, abstractmethod
from typing import Any

from vitral.data.resample import Pixels


class Engine(ABC):
    """Runs one model on images as its preprocessing leaves them, [B, C, H, W] on the 0..255 scale."""

    probabilities: bool = False
    """Whether it gives probabilities, and not the outputs that these are made of."""

    @abstractmethod
    def __call__(self, pixels: Pixels) -> Any:
        """The model's outputs. Raises VitralError for images that it does not take."""
