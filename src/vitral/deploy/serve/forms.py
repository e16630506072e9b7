"""Answers of each task in the forms that programs of others expect: the table has a row for a task.

Hugging Face's are those of its inference API (https://huggingface.co/docs/inference-providers/tasks/index): image classification, object detection,
image segmentation. Tensors are those of the Open Inference Protocol. Axes: K classes, n objects or segments, h w of the original.
"""

import io
import json
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitral.answers import Answer

Json = dict[str, Any]
Tensors = dict[str, NDArray[Any]]
FREE = -1
"""Of a shape: a side that differs from image to image."""


@dataclass(frozen=True)
class Form:
    """hub: an answer as a list for JSON. tensors: of an answer and the model's labels. declared: of each tensor datatype and shape, for one image."""

    hub: Callable[[Any], list[Json]]
    tensors: Callable[[Any, list[str]], Tensors]
    declared: Callable[[int], dict[str, tuple[str, list[int]]]]
    """Of the number of labels."""
    applied: str | None = None
    """What makes scores of logits, where Hugging Face's parameter function_to_apply may say it."""
    brief: Callable[[Any, int], Answer] = lambda answer, count: answer
    """The answer with so many classes at most, where it ranks them all."""


def _classes(answer: Any) -> list[Json]:
    return [{"label": label, "score": score} for label, score in answer.top]


def _first(answer: Any, count: int) -> Answer:
    return replace(answer, top=answer.top[:count])


def _probabilities(answer: Any, labels: list[str]) -> Tensors:
    by_label = dict(answer.top)
    return {"probabilities": np.array([by_label.get(label, np.nan) for label in labels], np.float32)}


def _regions(answer: Any) -> list[Json]:
    """A mask for each class that is there; its score is its share of the picture, as the map itself has none."""
    place = {label: k for k, label in enumerate(answer.labels)}
    return [
        {"label": label, "score": share, "mask": _mask(answer.map == place[label])} for label, share in answer.shares
    ]


def _map(answer: Any, labels: list[str]) -> Tensors:
    return {"map": answer.map.astype(np.int32)}


def _boxes(answer: Any) -> list[Json]:
    sides = ("xmin", "ymin", "xmax", "ymax")
    return [
        {"label": each.label, "score": each.score, "box": dict(zip(sides, map(round, each.box), strict=True))}
        for each in answer.objects
    ]


def _masks(answer: Any) -> list[Json]:
    return [{"label": each.label, "score": each.score, "mask": _mask(each.mask)} for each in answer.objects]


def _objects(answer: Any, labels: list[str]) -> Tensors:
    return {
        "boxes": np.array([each.box for each in answer.objects], np.float32).reshape(-1, 4),
        "scores": np.array([each.score for each in answer.objects], np.float32),
        "classes": np.array([each.index for each in answer.objects], np.int64),
    }


def _shapes(answer: Any, labels: list[str]) -> Tensors:
    masks = [each.mask for each in answer.objects]
    stacked = np.stack(masks) if masks else np.zeros((0, answer.height, answer.width), bool)
    return _objects(answer, labels) | {"masks": stacked}


def _segments(answer: Any) -> list[Json]:
    return [
        {"label": each.label, "score": each.score, "mask": _mask(answer.map == each.id)} for each in answer.segments
    ]


def _laid_out(answer: Any, labels: list[str]) -> Tensors:
    return {
        "map": answer.map.astype(np.int32),
        "segments": np.array([each.id for each in answer.segments], np.int32),
        "scores": np.array([each.score for each in answer.segments], np.float32),
        "classes": np.array([each.index for each in answer.segments], np.int64),
    }


def _mask(mask: NDArray[np.bool_]) -> str:
    """White where the mask is, as PNG in base64."""
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG")
    return b64encode(buffer.getvalue()).decode()


def _declared_classes(count: int) -> dict[str, tuple[str, list[int]]]:
    return {"probabilities": ("FP32", [count])}


def _declared_map(count: int) -> dict[str, tuple[str, list[int]]]:
    return {"map": ("INT32", [FREE, FREE])}


def _declared_objects(count: int) -> dict[str, tuple[str, list[int]]]:
    return {"boxes": ("FP32", [FREE, 4]), "scores": ("FP32", [FREE]), "classes": ("INT64", [FREE])}


def _declared_shapes(count: int) -> dict[str, tuple[str, list[int]]]:
    return _declared_objects(count) | {"masks": ("BOOL", [FREE, FREE, FREE])}


def _declared_segments(count: int) -> dict[str, tuple[str, list[int]]]:
    parts = {"segments": ("INT32", [FREE]), "scores": ("FP32", [FREE]), "classes": ("INT64", [FREE])}
    return _declared_map(count) | parts


FORMS = {
    "classify": Form(_classes, _probabilities, _declared_classes, "softmax", _first),
    "multilabel": Form(_classes, _probabilities, _declared_classes, "sigmoid", _first),
    "semantic": Form(_regions, _map, _declared_map),
    "detect": Form(_boxes, _objects, _declared_objects),
    "instance": Form(_masks, _shapes, _declared_shapes),
    "panoptic": Form(_segments, _laid_out, _declared_segments),
}


def as_tensors(task: str, answers: Sequence[Any], labels: list[str], most: int) -> dict[str, list[Any]]:
    """Of each image what the protocol's outputs hold, `answer` (JSON as text, of so many classes at most) first."""
    form = FORMS[task]
    tensors: dict[str, list[Any]] = {"answer": [json.dumps(form.brief(each, most).to_json()) for each in answers]}
    for answer in answers:
        for key, value in form.tensors(answer, labels).items():
            tensors.setdefault(key, []).append(value)
    return tensors
