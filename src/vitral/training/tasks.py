"""How each task is learned from labels: which options it refuses, and its objective."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from vitral.data.sources import DataSet
from vitral.errors import VitralError
from vitral.objectives.classify import Classify, balanced_weights
from vitral.objectives.objective import Objective
from vitral.training.options import ObjectiveOptions


@dataclass(frozen=True)
class Learning:
    """objective: from the options and the data. settle: refuses options that mean nothing for the task; returns what to say of the others."""

    objective: Callable[[ObjectiveOptions, DataSet], Objective]
    settle: Callable[[ObjectiveOptions], list[str]]


def _classes(options: ObjectiveOptions, data: DataSet) -> Classify:
    weights = None
    if options.class_weights == "balanced":
        counts = data.splits["train"].targets.counts(len(data.labels))
        weights = balanced_weights(torch.from_numpy(counts).float())
    return Classify(options.smoothing, options.loss or "ce", weights, binarise=options.binarise)


def _label_sets(options: ObjectiveOptions, data: DataSet) -> Classify:
    return Classify(options.smoothing, "bce", independent=True, binarise=options.binarise)


def _settle_label_sets(options: ObjectiveOptions) -> list[str]:
    for name, value, fine, instead in (
        ("loss", options.loss, (None, "bce"), "bce"),
        ("class_weights", options.class_weights, ("none",), "none"),
        ("sampling", options.sampling, ("uniform",), "uniform"),
        ("teacher", options.teacher, (None,), "no teacher"),
    ):
        if value not in fine:
            raise VitralError(
                f"{name} {value}: is for images of one class, and these can have several labels; choose {instead}"
            )
    return ["a yes or no for each label (bce): an image can have several labels, or none"] if options.labelled else []


LEARNING = {
    "classify": Learning(_classes, lambda options: []),
    "multilabel": Learning(_label_sets, _settle_label_sets),
}
