"""What the report of a task shows of its scores and of single images: one class for each task."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class Verdict(NamedTuple):
    """One image's truth and answer, for a person."""

    label: str
    predicted: str
    probability: float | None
    """Of what was predicted, or of `furthest`."""
    furthest: str | None = None
    """Of several answers the one that is furthest from the truth."""


class Sections(ABC):
    """A task's part of a report."""

    @abstractmethod
    def counted(self, scores: Any) -> str:
        """How many things were told apart."""

    @abstractmethod
    def tiles(self, scores: Any, baselines: Mapping[str, float]) -> list[tuple[str, str]]:
        """(figure, what it is), the headline first. baselines: by name, the share of right answers of what needs no training."""

    @abstractmethod
    def body(self, scores: Any) -> str:
        """HTML: all that the scores say in detail."""

    @abstractmethod
    def choose(self, outputs: np.ndarray, targets: np.ndarray) -> list[int]:
        """Which images are shown, the worst mistakes first, from outputs [n, ...] and targets [n, ...]."""

    @abstractmethod
    def verdict(self, output: np.ndarray, target: np.ndarray, labels: list[str]) -> Verdict:
        """Of one image."""
