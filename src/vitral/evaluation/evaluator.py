"""The contract of every task's scores: an evaluator collects outputs batch by batch, and one of its scores is the headline."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np


class Scores(ABC):
    """All scores of one model on one split."""

    HEADLINE: ClassVar[str]
    """The field of the score by which models are compared: a share of 1, higher is better."""
    TITLE: ClassVar[str]
    """Its name in text."""

    images: int
    loss: float

    @property
    def headline(self) -> float | None:
        """The headline's value; None if it is undefined on this split."""
        value: float | None = getattr(self, self.HEADLINE)
        return value

    @abstractmethod
    def line(self) -> str:
        """A few words for the training log."""

    @abstractmethod
    def brief(self) -> dict[str, object]:
        """The scores that a model file keeps."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """For `json.dumps`: shares in 0..1, intervals as [low, high]."""

    @abstractmethod
    def table(self) -> str:
        """Class by class, for a person: aligned columns."""

    @abstractmethod
    def summary(self) -> str:
        """A few lines for a person."""

    def spread(self, outputs: np.ndarray, targets: np.ndarray) -> dict[str, object]:
        """Further figures on the distribution of the outputs that these scores are of; none by default."""
        return {}


class Evaluator(ABC):
    """Collects a model's outputs and their targets, and scores them at the end."""

    scores: ClassVar[type[Scores]]

    def __init__(self, labels: list[str]) -> None:
        self.labels = labels

    @abstractmethod
    def add(self, outputs: np.ndarray, targets: np.ndarray) -> None:
        """A batch in the split's order: outputs [B, K] and the values of its targets."""

    @abstractmethod
    def result(self) -> Scores:
        """The scores of all that was added; VitralError without images."""

    @staticmethod
    def right(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray | None:
        """bool [n]: which of the answers that outputs [n, K] give are wholly right; None for a task without such answers."""
        return None


class Gathering(Evaluator):
    """An evaluator that scores all outputs at once."""

    def __init__(self, labels: list[str]) -> None:
        super().__init__(labels)
        self.outputs: list[np.ndarray] = []
        self.targets: list[np.ndarray] = []

    def add(self, outputs: np.ndarray, targets: np.ndarray) -> None:
        self.outputs.append(outputs)
        self.targets.append(targets)

    def result(self) -> Scores:
        return self.score(np.concatenate(self.outputs), np.concatenate(self.targets))

    @abstractmethod
    def score(self, outputs: np.ndarray, targets: np.ndarray) -> Scores:
        """The scores of outputs [n, K]."""
