"""From a model's outputs to an answer for an image, in the form of its task."""

from vitral.answers.answer import Answer, Answers
from vitral.answers.classes import ClassAnswers, LabelAnswers, Prediction
from vitral.answers.maps import MapAnswers, Segmentation
from vitral.answers.objects import Detection, FoundObject, ObjectAnswers

__all__ = ["ANSWERS", "Answer", "Answers", "Detection", "FoundObject", "Prediction", "Segmentation"]

ANSWERS: dict[str, type[Answers]] = {
    "classify": ClassAnswers,
    "multilabel": LabelAnswers,
    "semantic": MapAnswers,
    "detect": ObjectAnswers,
    "instance": ObjectAnswers,
}
