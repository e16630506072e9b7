"""A predictor's answers on a whole split, and their scores."""

from typing import Any

import numpy as np

from vitral.data.sources import DataSet, Split
from vitral.errors import VitralError
from vitral.evaluation.answers import in_use, over
from vitral.evaluation.metrics import Evaluation, score
from vitral.evaluation.multilabel import MultiLabelEvaluation, score_labels
from vitral.predict import Predictor

Scores = Evaluation | MultiLabelEvaluation


def split_logits(
    predictor: Predictor, split: Split, *, batch_size: int = 256, precision: str = "fp32", **options: Any
) -> np.ndarray:
    """float32 [n, K] in the split's order, computed on the model's device in evaluation mode. options: those of `over`."""
    with in_use(predictor.model, precision) as device:
        return over(split, predictor.card.preprocess, predictor.model, device, batch_size=batch_size, **options)


def match_targets(
    split: Split, data_labels: list[str], labels: list[str], name: str, *, multi_label: bool = False
) -> np.ndarray:
    """The split's targets as positions in the model's `labels`, or where an image can have several as [n, K] in their order.

    A class that the model does not know is an error, and so are data with several labels an image for a model with one, and the reverse.
    """
    if multi_label != (split.targets.ndim == 2):
        several, one = ("model", "data") if multi_label else ("data", "model")
        remedy = "a table and --label-separator" if multi_label else "data with one"
        raise VitralError(
            f"{name}: an image can have several labels in the {several} and one in the {one}; evaluate on {remedy}"
        )
    unknown = [label for label in data_labels if label not in labels]
    if unknown:
        raise VitralError(
            f"{name}: its classes {', '.join(map(repr, unknown[:8]))} are not among the model's ({', '.join(labels[:8])}"
            f"{', ...' if len(labels) > 8 else ''}); evaluate on data with the model's classes"
        )
    position = np.array([labels.index(label) for label in data_labels], np.int64)
    if not multi_label:
        return position[split.targets]
    targets = np.zeros((len(split), len(labels)), np.float32)
    targets[:, position] = split.targets
    return targets


def evaluate(
    predictor: Predictor, split: Split, data_labels: list[str], *, name: str | None = None, **options: object
) -> tuple[Scores, np.ndarray]:
    """Scores on a split of a data set with `data_labels`, and the logits [n, K] behind them.

    name: what to call the data in an error; default the split's. options: as in `split_logits`.
    """
    predictor.check_head()
    multi_label = predictor.card.multi_label
    targets = match_targets(split, data_labels, predictor.labels, name or split.name, multi_label=multi_label)
    logits = split_logits(predictor, split, **options)  # type: ignore[arg-type]
    return score_split(logits, targets, predictor), logits


def score_split(logits: np.ndarray, targets: np.ndarray, predictor: Predictor) -> Scores:
    """Logits [n, K] and targets, as `match_targets` gives them, to the scores of the predictor's kind."""
    return (score_labels if predictor.card.multi_label else score)(logits, targets, predictor.labels)


def merged(data: DataSet) -> Split:
    """All images of the data set as one split."""
    parts = list(data.splits.values())
    return Split(
        "all",
        [name for part in parts for name in part.names],
        np.concatenate([part.targets for part in parts]),
        parts[0].images,
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.contents for part in parts]),
    )
