"""What the loop asks of everything that can be learned."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from vitral.data.loader import Batch
from vitral.models.common import ImageModel


class Objective(ABC):
    """(model, batch) -> named losses. `model` is what is trained: the image model, or a module that holds it with what its task needs.

    The batch's views are normalised. Random numbers come from the batch's keys (`noise`), so that a sample's loss does not depend on the
    micro-batch it is in.
    """

    @abstractmethod
    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """`loss`, the mean over the batch, is minimised; `correct`, where there is one, counts top-1 hits; all others are told."""

    def stepped(self, model: nn.Module, share: float) -> None:  # noqa: B027
        """Called after each optimiser step; `share` of the budget, 0 to 1, is spent."""

    @abstractmethod
    def result(self, model: nn.Module) -> ImageModel:
        """The image model that the run is for, as it will be saved."""

    def pictures(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """What the model makes of the images, for the report: name -> normalised images [B, C, H, W]."""
        return {}
