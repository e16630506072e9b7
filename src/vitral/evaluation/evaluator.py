"""Scores and evaluators, a pair for each task: the evaluator takes outputs batch by batch, and one of the scores is the headline."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np


class Scores(ABC):
    """All scores of one model on one split."""

    HEADLINE: ClassVar[str]
    """The field by which models are compared: a share of 1, higher is better."""
    TITLE: ClassVar[str]
    """The headline's name in text."""

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

    def chosen(self) -> dict[str, object]:
        """What a model takes over from its validation images, such as the score from which something counts as found; nothing by default."""
        return {}

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """All scores for `json.dumps`: shares in 0..1, intervals as [low, high]."""

    @abstractmethod
    def table(self) -> str:
        """The scores by class, in aligned columns."""

    @abstractmethod
    def summary(self) -> str:
        """The scores in a few lines of text."""

    def spread(self, outputs: np.ndarray, targets: np.ndarray) -> dict[str, object]:
        """Figures on the distribution of the outputs; none by default."""
        return {}


Kept = dict[str, np.ndarray]
"""Arrays by name, as they are stored in a file."""


class Evaluator(ABC):
    """Takes a model's outputs and targets batch by batch, and scores them."""

    scores: ClassVar[type[Scores]]

    def __init__(self, labels: list[str]) -> None:
        self.labels = labels

    @abstractmethod
    def add(self, outputs: Any, targets: Any) -> None:
        """A batch in the split's order: the model's outputs, float32 on the CPU, and what `Targets.truth` has of its images."""

    @abstractmethod
    def kept(self) -> Kept:
        """What was taken of all that was added: enough for the scores and the report, and small."""

    @abstractmethod
    def take(self, kept: Kept) -> None:
        """Add what another evaluator of this kind kept."""

    @abstractmethod
    def result(self) -> Scores:
        """The scores of all batches. Raises VitralError without images."""

    def glance(self) -> Scores:
        """As `result`, where that takes long without intervals and what else only a report shows: for validations."""
        return self.result()

    @staticmethod
    def right(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray | None:
        """bool [n]: whether the answer of each row of outputs [n, K] is entirely right; None for a task where that has no meaning."""
        return None

    def spread(self) -> dict[str, object]:
        """Further figures on how the outputs are distributed; none by default."""
        return {}


class Gathering(Evaluator):
    """An evaluator that scores all outputs [n, K] at once: kept are logits [n, K] and the values of the targets [n, ...]."""

    def __init__(self, labels: list[str]) -> None:
        super().__init__(labels)
        self.outputs: list[np.ndarray] = []
        self.targets: list[np.ndarray] = []

    def add(self, outputs: Any, targets: Any) -> None:
        self.outputs.append(np.asarray(outputs))
        self.targets.append(np.asarray(targets))

    def kept(self) -> Kept:
        return {"logits": np.concatenate(self.outputs), "targets": np.concatenate(self.targets)}

    def take(self, kept: Kept) -> None:
        self.add(kept["logits"], kept["targets"])

    def result(self) -> Scores:
        return self.score(*self.kept().values())

    def spread(self) -> dict[str, object]:
        return self.result().spread(*self.kept().values())

    @abstractmethod
    def score(self, outputs: np.ndarray, targets: np.ndarray) -> Scores:
        """The scores of outputs [n, K]."""
