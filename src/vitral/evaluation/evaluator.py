"""What every task's scores have in common: they are gathered batch by batch, and one of them is the headline."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np


class Scores(ABC):
    """All scores of one model on one split."""

    HEADLINE: ClassVar[str]
    """The field of the score that one model is preferred to another by: a share of 1, higher is better."""
    TITLE: ClassVar[str]
    """What that score is called in text."""

    images: int
    loss: float

    @property
    def headline(self) -> float | None:
        """The headline's value; None if it is undefined on this split."""
        value: float | None = getattr(self, self.HEADLINE)
        return value

    @abstractmethod
    def line(self) -> str:
        """A few words for a person who watches training."""

    @abstractmethod
    def brief(self) -> dict[str, object]:
        """What a model file remembers of its scores."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """For `json.dumps`: shares in 0..1, intervals as [low, high]."""

    @abstractmethod
    def table(self) -> str:
        """In detail for a person: aligned columns."""

    @abstractmethod
    def summary(self) -> str:
        """A few lines for a person."""

    def spread(self, outputs: np.ndarray, targets: np.ndarray) -> dict[str, object]:
        """How the answers behind these scores are spread, where there is something to say of it."""
        return {}


class Evaluator(ABC):
    """Gathers a model's outputs and what they should have been, and scores them in the end."""

    scores: ClassVar[type[Scores]]

    def __init__(self, labels: list[str]) -> None:
        self.labels = labels

    @abstractmethod
    def add(self, outputs: np.ndarray, targets: np.ndarray) -> None:
        """Of a batch in the split's order, [B, K], and what its targets hold."""

    @abstractmethod
    def result(self) -> Scores:
        """The scores of all that was added; VitralError if that is nothing."""


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
