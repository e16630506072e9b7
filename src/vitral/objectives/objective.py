"""What every objective gives the loop."""

from abc import ABC, abstractmethod
from typing import Protocol

from torch import Tensor, nn

from vitral.data.loader import Batch
from vitral.models.common import ImageModel


class Together(Protocol):
    """What processes that share a batch can do with what each has of it."""

    def add(self, tensor: Tensor) -> None:
        """In place, the sum over all processes."""

    def join(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes, one after another along the first dimension."""

    def total(self, value: float) -> float:
        """The sum over all processes."""


class Objective(ABC):
    """(model, batch) -> named losses. `model` is what is trained: the image model, or a module that holds it and what the objective adds.

    The batch's views are normalised. Random numbers come from the samples' keys (`noise`), so a sample's loss does not depend on its micro-batch.
    """

    @abstractmethod
    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """`loss`, the mean over the batch, is minimised; `correct`, where there is one, counts top-1 hits; the others are logged."""

    def count(self, batch: Batch) -> float | None:
        """Of what the loss is the mean over the whole batch of a step, however it is cut: how many there are in a batch. Then `loss` and the others
        of a part are sums over `Batch.whole`, and add up. None: of images, of which each part gives its own mean.
        """
        return None

    def begun(self, model: nn.Module) -> None:  # noqa: B027
        """Called as a step begins, and again where it is repeated because memory ran out: sums over the batch start from 0."""

    def gathered(self, model: nn.Module, together: Together) -> None:  # noqa: B027
        """Called before `stepped` where several processes share a batch: sums over the batch, beside gradients, become those of all processes."""

    def stepped(self, model: nn.Module, share: float) -> None:  # noqa: B027
        """Called after each optimiser step; share: of the budget that is spent, 0 to 1."""

    @abstractmethod
    def result(self, model: nn.Module) -> ImageModel:
        """The image model that is saved."""

    def pictures(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Images for the report, in the order in which it shows them: name -> normalised images [B, C, H, W]."""
        return {}
