"""From a model's outputs to an answer for an image, in the form of its task."""

from collections.abc import Callable

from vitral.answers.answer import Answer, Answers
from vitral.answers.classes import ClassAnswers, LabelAnswers, Prediction

__all__ = ["ANSWERS", "Answer", "Answers", "Prediction"]


def _maps(labels: list[str]) -> Answers:
    from vitral.answers.maps import MapAnswers

    return MapAnswers(labels)


def _objects(labels: list[str]) -> Answers:
    from vitral.answers.objects import ObjectAnswers

    return ObjectAnswers(labels)


def _segments(labels: list[str]) -> Answers:
    from vitral.answers.panoptic import PanopticAnswers

    return PanopticAnswers(labels)


ANSWERS: dict[str, Callable[[list[str]], Answers]] = {
    "classify": ClassAnswers,
    "multilabel": LabelAnswers,
    "semantic": _maps,
    "detect": _objects,
    "instance": _objects,
    "panoptic": _segments,
}
"""Task -> what makes its answers, from the labels. Those of places are imported when they are made."""
