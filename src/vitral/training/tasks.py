"""For each task learned from labels: the options it refuses, and its objective."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from vitral.data.sources import DataSet
from vitral.errors import VitralError
from vitral.objectives.classify import Classify, balanced_weights
from vitral.objectives.objective import Objective
from vitral.objectives.options import ClassifyOptions


@dataclass(frozen=True)
class Learning:
    """objective: made from options and data. settle: raises VitralError for options without meaning for the task; returns reasons to log."""

    objective: Callable[[ClassifyOptions, DataSet], Objective]
    settle: Callable[[ClassifyOptions], list[str]]


def _classes(options: ClassifyOptions, data: DataSet) -> Classify:
    weights = None
    if options.class_weights == "balanced":
        counts = data.splits["train"].targets.counts(len(data.labels))
        weights = balanced_weights(torch.from_numpy(counts).float())
    return Classify(options.smoothing, options.loss or "ce", weights, binarise=options.binarise)


def _label_sets(options: ClassifyOptions, data: DataSet) -> Classify:
    return Classify(options.smoothing, "bce", independent=True, binarise=options.binarise)


def _settle_label_sets(options: ClassifyOptions) -> list[str]:
    for name, value, fine, instead in (
        ("loss", options.loss, (None, "bce"), "bce"),
        ("class_weights", options.class_weights, ("none",), "none"),
        ("sampling", options.sampling, ("uniform",), "uniform"),
        ("teacher", options.teacher, (None,), "no teacher"),
    ):
        if value not in fine:
            raise VitralError(
                f"{name} {value}: needs one class an image, and these images can have several labels; choose {instead}"
            )
    return ["loss bce, a yes or no for each label: an image can have several labels, or none"]


LEARNING = {
    "classify": Learning(_classes, lambda options: []),
    "multilabel": Learning(_label_sets, _settle_label_sets),
}
