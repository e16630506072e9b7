"""The report of a model with several labels an image: each label is scored by itself, so there is no confusion matrix."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vitral.data.targets import in_words
from vitral.drawing.charts import reliability_chart
from vitral.errors import counted
from vitral.evaluation.multilabel import MultiLabelEvaluation, sigmoid
from vitral.evaluation.words import OF_YES, calibration_words
from vitral.report.parts import calibration_cards, escape, meter, percent, table
from vitral.report.sections import WholeSections, examples
from vitral.report.verdict import Verdict


class LabelSections(WholeSections):
    """Several labels an image, or none."""

    def counted(self, scores: MultiLabelEvaluation) -> str:
        return counted(len(scores.classes), "label")

    def tiles(self, scores: MultiLabelEvaluation, baselines: Mapping[str, float]) -> list[tuple[str, str]]:
        low, high = scores.exact_match_interval
        return [
            (percent(scores.map), "mAP: mean average precision of the labels"),
            (percent(scores.micro_f1), "micro F1, over all answers"),
            (percent(scores.macro_f1), "macro F1, over the labels"),
            (f"{scores.exact_match:.2%}", f"images with all labels right, 95 % interval {low:.2%} to {high:.2%}"),
            (f"{scores.ece:.2%}", "expected calibration error"),
        ]

    def body(self, scores: MultiLabelEvaluation) -> str:
        """A row a label, the lowest average precision first and labels of no image last; then the calibration."""
        rows = []
        for row in sorted(scores.classes, key=lambda row: (row.support == 0, row.average_precision or 0.0)):
            interval = "" if row.recall_interval is None else "{:.0%} to {:.0%}".format(*row.recall_interval)
            cells = [f"{row.support:,}", f"{row.predicted:,}", percent(row.precision), percent(row.recall), interval]
            rows.append([escape(row.label), meter(row.average_precision), *cells, percent(row.f1)])
        heads = ["label", "average precision", "images", "predicted for", "precision", "recall", "recall, 95 %", "F1"]
        absent = "" if all(row.support for row in scores.classes) else " Averages are over the labels that occur."
        diagram = reliability_chart(
            "Reliability diagram", scores.reliability, axis="probability of yes", counted="answers", right="yes"
        )
        words = f"Of the probabilities of yes: {calibration_words(scores.reliability, OF_YES)}."
        return (
            "<section><h2>Labels</h2><p class=soft>Lowest average precision first. A label is predicted from a probability of 50 %; "
            f"average precision needs no such threshold.{absent}</p>{table(heads, rows)}</section>"
            + calibration_cards(
                diagram,
                f"Each label is a question with the answer yes or no. {words} The loss is {scores.loss:.4f}.",
                "Answers are grouped by their probability of yes. On the dashed line the label is there as often as that says. "
                "Faint bars hold few answers and so say little.",
            )
        )

    def choose(self, outputs: NDArray[np.floating], targets: NDArray[np.floating]) -> list[int]:
        correct = ((outputs >= 0) == (targets > 0.5)).all(axis=1)  # 0 is yes
        return examples(_wrongness(outputs, targets).max(axis=1), correct)

    def verdict(self, output: NDArray[np.floating], target: NDArray[np.floating], labels: list[str]) -> Verdict:
        label, predicted = (in_words([labels[k] for k in np.flatnonzero(yes)]) for yes in (target > 0.5, output >= 0))
        k = int(_wrongness(output, target).argmax())
        answer = labels[k] if output[k] >= 0 else f"no {labels[k]}"
        return Verdict(label, predicted, float(sigmoid(np.abs(output))[k]), answer)


def _wrongness(logits: NDArray[np.floating], targets: NDArray[np.floating]) -> NDArray[np.floating]:
    """How far each logit lies on the wrong side of 0, of the shape of both."""
    return np.where(targets > 0.5, -logits, logits)
