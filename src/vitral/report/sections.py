"""What the report of a task shows of its scores and of single images: one class for each task."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from vitral.data.dataset import Split
from vitral.evaluation.evaluator import Kept
from vitral.predict import Predictor
from vitral.report.examples import example, galleries
from vitral.report.verdict import Verdict

WRONG, RIGHT = 12, 6
"""Images of each kind that a report shows at most."""


def examples(badness: np.ndarray, correct: np.ndarray) -> list[int]:
    """Which images a report shows: the worst mistakes, then right answers from all over the split.

    badness, correct: [n]; of two mistakes the one with more badness comes first.
    """
    order = np.argsort(-badness, kind="stable")
    good = np.flatnonzero(correct)
    spread = good[np.linspace(0, len(good) - 1, min(RIGHT, len(good))).round().astype(np.int64)]
    return [int(i) for i in (*order[~correct[order]][:WRONG], *spread)]


class Sections(ABC):
    """A task's part of a report."""

    @abstractmethod
    def counted(self, scores: Any) -> str:
        """The number of classes, such as 10 classes."""

    @abstractmethod
    def tiles(self, scores: Any, baselines: Mapping[str, float]) -> list[tuple[str, str]]:
        """(figure, what it is), the headline first. baselines: name -> headline on the same images of methods without training."""

    @abstractmethod
    def body(self, scores: Any) -> str:
        """HTML: the scores in detail."""

    @abstractmethod
    def pictures(self, predictor: Predictor, split: Split, kept: Kept) -> str:
        """HTML: single images, the worst mistakes first. kept: what the evaluator kept of the split."""


class WholeSections(Sections):
    """Of a task with one answer an image, whose attention is shown over it."""

    def pictures(self, predictor: Predictor, split: Split, kept: Kept) -> str:
        outputs, targets = kept["logits"], kept["targets"]
        return galleries([
            example(predictor, split, i, self.verdict(outputs[i], targets[i], predictor.labels))
            for i in self.choose(outputs, targets)
        ])  # fmt: skip

    @abstractmethod
    def choose(self, outputs: np.ndarray, targets: np.ndarray) -> list[int]:
        """Indices of the images to show, the worst mistakes first. outputs: [n, ...]. targets: [n, ...]."""

    @abstractmethod
    def verdict(self, output: np.ndarray, target: np.ndarray, labels: list[str]) -> Verdict:
        """One image, from its output [...] and target [...]."""
