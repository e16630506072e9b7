"""Answers to whole images: the most probable class, or all labels that it has.

Axes: B images, K outputs, one for each label.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitral.answers.answer import Answer, Answers
from vitral.answers.squash import sigmoid, softmax
from vitral.data.preprocess import Kind
from vitral.data.view import Placed
from vitral.errors import VitralError


@dataclass(frozen=True)
class Prediction(Answer):
    """The most probable class of one image, and the `top` ones as (label, probability), best first."""

    label: str
    probability: float
    top: list[tuple[str, float]]
    labels: list[tuple[str, float]] | None = None
    """If an image can have several labels: those with a probability of 0.5 or more, best first; else None."""

    def line(self, top_k: int) -> str:
        if self.labels is None:
            return _shares(self.top[:top_k])
        others = _shares(self.top[len(self.labels) : top_k])
        return (_shares(self.labels) or "none") + (f"  ({others})" if others else "")

    def cells(self, top_k: int, separator: str) -> list[str]:
        ranked = [x for label, p in self.top[:top_k] for x in (label, f"{p:.6f}")]
        if self.labels is None:
            return ranked
        return [separator.join(x for x, _ in self.labels), separator.join(f"{p:.6f}" for _, p in self.labels), *ranked]

    def to_json(self) -> dict[str, object]:
        top, labels = ([{"label": label, "probability": p} for label, p in r or []] for r in (self.top, self.labels))
        own = {"label": self.label, "probability": self.probability} if self.labels is None else {"labels": labels}
        return {**own, "top": top}

    def _repr_html_(self) -> str:
        """The top classes as bars, for notebooks."""
        rows = "".join(
            f'<tr><td style="text-align:left">{html.escape(label)}</td><td>{probability:.1%}</td>'
            f'<td style="text-align:left;width:200px"><div style="width:{100 * probability:.1f}%;height:8px;background:#d98b1f"></div></td></tr>'
            for label, probability in self.top
        )
        return f"<table><caption>{html.escape(self.name)}</caption>{rows}</table>"


class ClassAnswers(Answers):
    """One class an image: a softmax over the classes."""

    def __call__(
        self, outputs: Kind, names: Sequence[str], top_k: int, placed: Sequence[Placed] = ()
    ) -> list[Prediction]:
        return self.told(np.asarray(outputs), np.asarray(self.probabilities(outputs)), names, top_k)

    def told(self, order: np.ndarray, probabilities: np.ndarray, names: Sequence[str], top_k: int) -> list[Prediction]:
        """order [B, K]: what the labels are ranked by; outputs say it finer than probabilities [B, K], which end at 1."""
        ranked = self._ranked(order, probabilities, min(top_k, len(self.labels)))
        return [Prediction(name, *each[0], each) for name, each in zip(names, ranked, strict=True)]

    def _ranked(self, order: np.ndarray, probabilities: np.ndarray, count: int) -> list[list[tuple[str, float]]]:
        """For each image the first labels in this order, best first, and their probabilities."""
        classes = np.argsort(-order, axis=1, kind="stable")[:, :count]  # [B, count]
        values = np.take_along_axis(probabilities, classes, 1)
        return [
            [(self.labels[k], p) for k, p in zip(*row, strict=True)]
            for row in zip(classes.tolist(), values.tolist(), strict=True)
        ]

    def probabilities(self, outputs: Kind) -> Kind:
        return softmax(outputs)

    def columns(self, top_k: int, separator: str) -> list[str]:
        return ["label", "probability", *_numbered(2, min(top_k, len(self.labels)))]


class LabelAnswers(ClassAnswers):
    """Several labels an image, or none: a sigmoid for each."""

    independent = True
    squash = "sigmoid"

    def told(self, order: np.ndarray, probabilities: np.ndarray, names: Sequence[str], top_k: int) -> list[Prediction]:
        yes = (probabilities >= 0.5).sum(-1).tolist()
        ranked = self._ranked(order, probabilities, min(max(top_k, *yes), len(self.labels)))
        return [
            Prediction(name, *each[0], each[:top_k], each[:count])
            for name, each, count in zip(names, ranked, yes, strict=True)
        ]

    def probabilities(self, outputs: Kind) -> Kind:
        return sigmoid(outputs)

    def columns(self, top_k: int, separator: str) -> list[str]:
        if label := next((x for x in self.labels if separator in x), None):
            raise VitralError(
                f"label {label!r}: contains {separator!r}, which separates labels in CSV; use --format jsonl"
            )
        return ["labels", "probabilities", *_numbered(1, min(top_k, len(self.labels)))]


def _numbered(first: int, last: int) -> list[str]:
    return [f"{what}_{i}" for i in range(first, last + 1) for what in ("label", "probability")]


def _shares(ranked: list[tuple[str, float]]) -> str:
    return "  ".join(f"{label} {p:.1%}" for label, p in ranked)
