"""Objects in pixels of the original image: from a query head's output to what was found, and to an answer for people.

Axes: Q answers of an image, K classes, n objects that are kept, h w of the original.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vitral.answers.answer import Answer, Answers
from vitral.answers.maps import at_original
from vitral.data.annotated import Box, Runs
from vitral.data.detections import Detections
from vitral.data.shapes import area_and_box, mask_of, runs_of
from vitral.data.view import Placed, View
from vitral.drawing.objects import Mark, marked
from vitral.models.heads.outputs import Found

MOST = 100
"""Objects of an image that are kept at most, the most probable ones."""
SURE = 0.4
"""Score from which an object is answered, unless another threshold is asked for."""
SAME = 0.6  # overlap from which two answers of a class mean the same object, where answers are repeated
MARGIN = 1  # pixels by which a mask may reach beyond its box


def detections(
    found: Found, placed: Sequence[Placed], threshold: float = 0.0, *, masks: bool = True
) -> list[Detections]:
    """What was found in each image, in its own pixels: the `MOST` best pairs of an answer and a class that score `threshold` or more.

    A mask ends at its box. Boxes are cut at the image's edges; those of which nothing is left are left out.
    """
    return [_detections(found[k : k + 1], one, threshold, masks) for k, one in enumerate(placed)]


def _detections(found: Found, placed: Placed, threshold: float, masks: bool) -> Detections:
    """found: of one image."""
    scores = found.logits[0].sigmoid().double()  # [Q, K]
    boxes = at_original_boxes(found.boxes[0], placed)  # [Q, 4]
    pairs = scores.flatten().topk(min(scores.numel(), 4 * MOST if found.repeated else MOST))
    rows, classes = (each.numpy() for each in (pairs.indices // scores.shape[1], pairs.indices % scores.shape[1]))
    sides = boxes[rows, 2:] - boxes[rows, :2]
    keep = (pairs.values.numpy() >= threshold) & (sides > 0).all(-1)
    rows, classes, values = rows[keep], classes[keep], pairs.values.numpy()[keep]
    if found.repeated:
        kept = suppressed(boxes[rows], classes)[:MOST]
        rows, classes, values = rows[kept], classes[kept], values[kept]
    shapes = None
    if masks and found.masks is not None:
        shapes = tuple(_mask(found.masks[0, row], found.stride, boxes[row], placed) for row in rows.tolist())
    return Detections(classes, values, boxes[rows], shapes)


def at_original_boxes(boxes: Tensor, placed: Placed) -> NDArray[np.float64]:
    """Boxes [Q, 4] as shares of the model's pixels -> pixels of the original, cut at its edges."""
    shares = boxes.double().numpy().reshape(-1, 2, 2)  # x and y of two corners
    corners = shares[..., ::-1] * (placed.view.height, placed.view.width)
    found = placed.view.original(corners)[..., ::-1].clip(0, (placed.width, placed.height))
    return np.concatenate([found.min(1), found.max(1)], -1)


def _mask(logits: Tensor, stride: float, box: NDArray[np.float64], placed: Placed) -> Runs:
    """A mask's logits [rows, columns] -> where they are positive inside the box, in the original."""
    left, top = (max(0, math.floor(edge) - MARGIN) for edge in box[:2].tolist())
    right, bottom = (
        min(side, math.ceil(edge) + MARGIN)
        for edge, side in zip(box[2:].tolist(), (placed.width, placed.height), strict=True)
    )
    (a, b, c), (d, e, f) = placed.view.rows
    moved = View(placed.view.height, placed.view.width, ((a, b, c + a * top), (d, e, f + e * left)))
    window = Placed(bottom - top, right - left, moved)
    mask = np.zeros((placed.height, placed.width), bool)
    mask[top:bottom, left:right] = torch.cat(
        [part[0] > 0 for part in at_original(logits[None], stride, window)]
    ).numpy()
    return runs_of(mask)


def suppressed(boxes: NDArray[np.float64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers of the boxes [n, 4], best first, that no better one of the same class overlaps by more than `SAME`."""
    low = np.maximum(boxes[:, None, :2], boxes[:, :2])
    shared = (np.minimum(boxes[:, None, 2:], boxes[:, 2:]) - low).clip(0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    overlap = shared / np.maximum(area[:, None] + area - shared, 1e-9)
    same = (overlap > SAME) & (classes[:, None] == classes)
    kept = np.ones(len(boxes), bool)
    for i in range(len(boxes)):
        if kept[i]:
            kept[i + 1 :] &= ~same[i, i + 1 :]
    return np.flatnonzero(kept)


@dataclass(frozen=True)
class FoundObject:
    """One object."""

    label: str
    index: int
    """Of the class among the model's labels."""
    score: float
    """0 to 1."""
    box: Box
    """x0, y0, x1, y1 in pixels of the upright original."""
    runs: Runs | None = field(default=None, repr=False)
    """Its mask, packed."""

    @cached_property
    def mask(self) -> NDArray[np.bool_] | None:
        """Bool [h, w] of the original; None where the model finds boxes only."""
        return None if self.runs is None else mask_of(self.runs, self.runs.height, self.runs.width)

    def to_json(self) -> dict[str, object]:
        found: dict[str, object] = {
            "label": self.label,
            "score": self.score,
            "box": [round(edge, 2) for edge in self.box],
        }
        if self.runs is not None:
            found["mask"] = {"size": [self.runs.height, self.runs.width], "counts": self.runs.counts.decode()}
        return found

    def to_coco(self) -> dict[str, object]:
        """As COCO's JSON has an annotation, with a score and without ids."""
        x0, y0, x1, y1 = self.box
        found: dict[str, object] = {
            "category_id": self.index + 1,
            "bbox": [round(side, 2) for side in (x0, y0, x1 - x0, y1 - y0)],
            "area": round((x1 - x0) * (y1 - y0), 2),
            "iscrowd": 0,
            "score": round(self.score, 6),
        }
        if self.runs is not None:
            size = [self.runs.height, self.runs.width]
            area = area_and_box(self.runs, *size)[0]
            found |= {"segmentation": {"size": size, "counts": self.runs.counts.decode()}, "area": area}
        return found


@dataclass(frozen=True)
class Detection(Answer):
    """The objects of an image, best first."""

    objects: tuple[FoundObject, ...]
    height: int
    """Of the upright original, pixels."""
    width: int

    def line(self, top_k: int) -> str:
        named = [f"{each.label} {each.score:.1%} at {_corners(each.box)}" for each in self.objects[:top_k]]
        more = len(self.objects) - len(named)
        return "  ".join(named) + (f"  and {more} more" if more else "") if named else "nothing found"

    def cells(self, top_k: int, separator: str) -> list[str]:
        """Of the best object."""
        return self.rows(top_k, separator)[0]

    def rows(self, top_k: int, separator: str) -> list[list[str]]:
        """Of each object, whatever top_k; an empty row where there is none."""
        return [[each.label, f"{each.score:.6f}", *(f"{edge:.2f}" for edge in each.box)] for each in self.objects] or [
            [""] * 6
        ]

    def pictures(self, image: NDArray[np.uint8]) -> dict[str, Image.Image]:
        """The objects drawn over the image."""
        marks = [Mark(f"{each.label} {each.score:.0%}", each.index, each.box, each.mask) for each in self.objects]
        return {".png": marked(image, marks, max(image.shape[:2]))}

    def texts(self) -> dict[str, str]:
        """YOLO's: class, middle x and y, width, height (shares of the image) and score of each object, a line each."""
        lines = []
        for each in self.objects:
            x0, y0, x1, y1 = each.box
            shares = (
                (x0 + x1) / 2 / self.width,
                (y0 + y1) / 2 / self.height,
                (x1 - x0) / self.width,
                (y1 - y0) / self.height,
            )
            lines.append(" ".join([str(each.index), *(f"{share:.6f}" for share in (*shares, each.score))]))
        return {".txt": "".join(f"{line}\n" for line in lines)}

    def record(self) -> dict[str, Any]:
        return {"height": self.height, "width": self.width, "objects": [each.to_coco() for each in self.objects]}

    def to_json(self) -> dict[str, object]:
        return {"height": self.height, "width": self.width, "objects": [each.to_json() for each in self.objects]}


class ObjectAnswers(Answers):
    """Objects that score `threshold` or more."""

    of_whole = False

    threshold: float = SURE

    def __call__(self, outputs: Found, names: Sequence[str], top_k: int, placed: Sequence[Placed]) -> list[Detection]:
        every = detections(outputs, placed, self.threshold)
        return [self.answer(one, name, place) for one, name, place in zip(every, names, placed, strict=True)]

    def answer(self, found: Detections, name: str, placed: Placed) -> Detection:
        """What was found, for people."""
        shapes = found.masks or (None,) * len(found)
        rows = zip(found.classes.tolist(), found.scores.tolist(), found.boxes.tolist(), shapes, strict=True)
        objects = (FoundObject(self.labels[k], k, score, tuple(box), runs) for k, score, box, runs in rows)
        return Detection(name, tuple(objects), placed.height, placed.width)

    def gathered(self, records: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, str]:
        """Beside the classes everything that was found as COCO's JSON, ids from 1."""
        images, found = [], []
        for number, (name, record) in enumerate(records, 1):
            images.append({"id": number, "file_name": name, "height": record["height"], "width": record["width"]})
            found += [each | {"image_id": number} for each in record["objects"]]
        categories = [{"id": k, "name": label} for k, label in enumerate(self.labels, 1)]
        annotations = [each | {"id": number} for number, each in enumerate(found, 1)]
        text = json.dumps({"images": images, "annotations": annotations, "categories": categories}, ensure_ascii=False)
        return super().gathered(records) | {"predictions.json": text}

    def probabilities(self, outputs: Any) -> Tensor:
        """[..., K]: a sigmoid for each class."""
        return outputs.sigmoid()

    def columns(self, top_k: int, separator: str) -> list[str]:
        return ["label", "score", "x0", "y0", "x1", "y1"]


def _corners(box: Box) -> str:
    x0, y0, x1, y1 = (round(edge) for edge in box)
    return f"({x0}, {y0}, {x1}, {y1})"
