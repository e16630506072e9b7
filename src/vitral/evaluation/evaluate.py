"""A predictor's outputs on a split, and their scores."""

from dataclasses import replace
from typing import Any

import numpy as np

from vitral.data.dataset import DataSet, Split
from vitral.data.targets import TARGETS
from vitral.errors import VitralError
from vitral.evaluation.evaluator import Evaluator, Kept, Scores
from vitral.evaluation.metrics import ClassEvaluator
from vitral.evaluation.multilabel import LabelEvaluator
from vitral.evaluation.objects import ObjectEvaluator
from vitral.evaluation.outputs import answered
from vitral.evaluation.segments import SegmentEvaluator
from vitral.evaluation.semantic import MapEvaluator
from vitral.predict import Predictor

EVALUATORS: dict[str, type[Evaluator]] = {
    "classify": ClassEvaluator,
    "multilabel": LabelEvaluator,
    "semantic": MapEvaluator,
    "detect": ObjectEvaluator,
    "instance": ObjectEvaluator,
    "panoptic": SegmentEvaluator,
}


def headlines() -> dict[str, str]:
    """Each task's headline score: its key in metrics.jsonl and scores.json -> its title for charts."""
    titles = {kind.scores.HEADLINE: kind.scores.TITLE for kind in EVALUATORS.values()}
    return {key: title.capitalize() if title.islower() else title for key, title in titles.items()}


def matched(split: Split, data_labels: list[str], predictor: Predictor, name: str) -> Split:
    """The split with its targets in the order of the model's labels.

    Raises:
        VitralError: the model lacks one of the classes, or was trained for another task.
    """
    task, labels = predictor.card.task, predictor.labels
    if task != split.targets.task:
        raise VitralError(
            f"{name}: an image has {split.targets.each} in the data, and {TARGETS[task].each} in the model; evaluate on data of the model's task "
            "(--task, --label-separator)"
        )
    unknown = [label for label in data_labels if label not in labels]
    if unknown:
        raise VitralError(
            f"{name}: its classes {', '.join(map(repr, unknown[:8]))} are not among the model's ({', '.join(labels[:8])}"
            f"{', ...' if len(labels) > 8 else ''}); evaluate on data with the model's classes"
        )
    position = np.array([labels.index(label) for label in data_labels], np.int64)
    return replace(split, targets=split.targets.reordered(position, len(labels)))


def evaluate(
    predictor: Predictor,
    split: Split,
    data_labels: list[str],
    *,
    name: str | None = None,
    report: bool = True,
    **options: Any,
) -> tuple[Scores, Evaluator]:
    """Scores on a split of a data set with `data_labels`, and the evaluator that they come from, with what it kept.

    name: of the data, for errors; default the split's. report: with what only a report shows, see `Evaluator.glance`. options: as in `answered`.
    """
    evaluator = gathered(predictor, split, data_labels, name=name, **options)
    return evaluator.result() if report else evaluator.glance(), evaluator


def gathered(
    predictor: Predictor, split: Split, data_labels: list[str], *, name: str | None = None, **options: Any
) -> Evaluator:
    """The evaluator of `evaluate` with all outputs, before it scores them."""
    predictor.check_head()
    split = matched(split, data_labels, predictor, name or split.name)
    evaluator = EVALUATORS[predictor.card.task](predictor.labels)
    for outputs, targets in answered(predictor, split, **options):
        evaluator.add(outputs, targets)
    return evaluator


def score_kept(kept: Kept, task: str, labels: list[str]) -> Scores:
    """The scores of what an evaluator kept."""
    evaluator = EVALUATORS[task](labels)
    evaluator.take(kept)
    return evaluator.result()


def merged(data: DataSet) -> Split:
    """All images of the data set as one split."""
    parts = list(data.splits.values())
    return Split(
        "all",
        [name for part in parts for name in part.names],
        type(parts[0].targets).joined([part.targets for part in parts]),
        parts[0].images,
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.contents for part in parts]),
    )
