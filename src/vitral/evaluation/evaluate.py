"""A predictor's outputs on a split, and their scores."""

from typing import Any

import numpy as np

from vitral.data.sources import DataSet, Split
from vitral.data.targets import TARGETS
from vitral.errors import VitralError
from vitral.evaluation.evaluator import Evaluator, Scores
from vitral.evaluation.metrics import ClassEvaluator
from vitral.evaluation.multilabel import LabelEvaluator
from vitral.evaluation.outputs import outputs
from vitral.predict import Predictor

EVALUATORS: dict[str, type[Evaluator]] = {"classify": ClassEvaluator, "multilabel": LabelEvaluator}


def headlines() -> dict[str, str]:
    """Each task's headline score: its key in metrics.jsonl and scores.json -> its title for charts."""
    titles = {kind.scores.HEADLINE: kind.scores.TITLE for kind in EVALUATORS.values()}
    return {key: title.capitalize() if title.islower() else title for key, title in titles.items()}


def split_logits(predictor: Predictor, split: Split, *, batch_size: int = 256, **options: Any) -> np.ndarray:
    """float32 [n, K] in the split's order. options: those of `outputs`."""
    return outputs(predictor, split, predictor.model, batch_size=batch_size, **options)


def match_targets(split: Split, data_labels: list[str], predictor: Predictor, name: str) -> np.ndarray:
    """The split's targets in the order of the model's labels.

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
    return split.targets.reordered(position, len(labels)).values


def evaluate(
    predictor: Predictor, split: Split, data_labels: list[str], *, name: str | None = None, **options: object
) -> tuple[Scores, np.ndarray]:
    """Scores on a split of a data set with these labels, and the outputs [n, K] behind them.

    name: of the data, for errors; the split's by default. options: as in `split_logits`.
    """
    predictor.check_head()
    targets = match_targets(split, data_labels, predictor, name or split.name)
    found = split_logits(predictor, split, **options)  # type: ignore[arg-type]
    return score_split(found, targets, predictor), found


def score_split(outputs: np.ndarray, targets: np.ndarray, predictor: Predictor) -> Scores:
    """Outputs [n, K] and targets from `match_targets` to the scores of the predictor's task."""
    evaluator = EVALUATORS[predictor.card.task](predictor.labels)
    evaluator.add(outputs, targets)
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
