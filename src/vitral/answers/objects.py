"""Objects in pixels of the original image: from a query head's output to what was found, and to an answer for people.

Axes: Q answers of an image, K classes, n objects that are kept, h w of the original.
"""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from vitral.answers.answer import Answer, Answers, Record
from vitral.answers.maps import at_original, part_of
from vitral.answers.squash import sigmoid
from vitral.data.annotated import Box, Object, Runs
from vitral.data.detections import Detections
from vitral.data.formats.yolo import row_of
from vitral.data.preprocess import Kind
from vitral.data.shapes import area_and_box, mask_of, runs_of
from vitral.data.tiles import Tile, cut_off
from vitral.data.view import Box as Region
from vitral.data.view import Placed
from vitral.drawing.objects import Mark, marked
from vitral.models.heads.outputs import Found

MOST = 100
"""Objects of an image that are kept at most, the most probable ones; of a model with more queries as many as those."""
READABLE = 320
"""Pixels of the longer side that a picture of objects has at least."""
SURE = 0.4
"""Score from which an object is answered, unless another threshold is asked for."""
SAME = 0.6  # overlap from which two answers of a class mean the same object, where answers are repeated
MOSTLY = 0.5  # of a part of an object
MARGIN = 1  # pixels by which a mask may reach beyond its box


def detections(
    found: Found, placed: Sequence[Placed], threshold: float = 0.0, *, masks: bool = True
) -> list[Detections]:
    """What was found in each image, in its own pixels: the best pairs of an answer and a class, of those that score `threshold` or more.

    A mask ends at its box. Boxes are cut at the image's edges; those of which nothing is left are left out.
    """
    return [_detections(found[k : k + 1], one, threshold, masks) for k, one in enumerate(placed)]


def _detections(found: Found, placed: Placed, threshold: float, masks: bool) -> Detections:
    """found: of one image."""
    rows, classes, values, boxes = selected(found, placed, threshold)
    shapes = None
    if masks and found.masks is not None:
        cells, pairs = np.asarray(found.masks[0], np.float32), zip(rows.tolist(), boxes, strict=True)
        shapes = tuple(_mask(cells[row], found.stride, box, placed) for row, box in pairs)
    return Detections(classes, values, boxes, shapes)


def selected(
    found: Found, placed: Placed, threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Of what was found in one image, best first: the answer's row, class and score [n], and the box [n, 4] in the image's own pixels."""
    scores = scored(found)  # [Q, K]
    boxes = at_original_boxes(found.boxes[0], placed)  # [Q, 4]
    most = max(MOST, len(scores))
    best = np.argsort(-scores, axis=None, kind="stable")[: 4 * most if found.repeated else most]
    rows, classes = best // scores.shape[1], best % scores.shape[1]
    values, sides = scores[rows, classes], boxes[rows, 2:] - boxes[rows, :2]
    keep = (values >= threshold) & (sides > 0).all(-1)
    rows, classes, values = rows[keep], classes[keep], values[keep]
    if found.repeated:
        kept = suppressed(boxes[rows], classes)[:most]
        rows, classes, values = rows[kept], classes[kept], values[kept]
    return rows, classes, values, boxes[rows]


def scored(found: Found) -> NDArray[np.float64]:
    """[Q, K]: the probability of each class, of the first image."""
    return sigmoid(np.asarray(found.logits[0], np.float32)).astype(np.float64)


def at_original_boxes(boxes: ArrayLike, placed: Placed) -> NDArray[np.float64]:
    """Boxes [Q, 4] as shares of the model's pixels -> pixels of the original, cut at its edges."""
    shares = np.asarray(boxes, np.float64).reshape(-1, 2, 2)  # x and y of two corners
    corners = shares[..., ::-1] * (placed.view.height, placed.view.width)
    found = placed.view.original(corners)[..., ::-1].clip(0, (placed.width, placed.height))
    return np.concatenate([found.min(1), found.max(1)], -1)


def _mask(logits: NDArray[np.float32], stride: float, box: NDArray[np.float64], placed: Placed) -> Runs:
    """A mask's logits [rows, columns] -> where they are positive inside the box, in the original."""
    left, top = (max(0, math.floor(edge) - MARGIN) for edge in box[:2].tolist())
    right, bottom = (
        min(side, math.ceil(edge) + MARGIN)
        for edge, side in zip(box[2:].tolist(), (placed.width, placed.height), strict=True)
    )
    window = part_of(placed, top, left, bottom - top, right - left)
    mask = np.zeros((placed.height, placed.width), bool)
    mask[top:bottom, left:right] = np.concatenate([part[0] > 0 for part in at_original(logits[None], stride, window)])
    return runs_of(mask)


def suppressed(
    boxes: NDArray[np.float64], classes: NDArray[np.int64], cut: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Numbers of the boxes [n, 4], best first, that no better one of the same class overlaps by more than `SAME`.

    cut: [n], of which only a part was seen: they go where a better one covers more than `MOSTLY` of them.
    """
    low = np.maximum(boxes[:, None, :2], boxes[:, :2])
    shared = (np.minimum(boxes[:, None, 2:], boxes[:, 2:]) - low).clip(0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    same = shared > SAME * (area[:, None] + area - shared)
    if cut is not None:
        same |= cut & (shared > MOSTLY * area)
    same &= classes[:, None] == classes
    kept = np.ones(len(boxes), bool)
    for i in range(len(boxes)):
        if kept[i]:
            kept[i + 1 :] &= ~same[i, i + 1 :]
    return np.flatnonzero(kept)


def seen_in_tiles(
    tiles: Iterable[Tile], size: tuple[int, int], threshold: float
) -> Iterator[tuple[Detections, NDArray[np.bool_]]]:
    """What was found in each tile in pixels of the image of `size`, and which of it ends at the tile's edge and not at the image's."""
    for tile in tiles:
        found = _moved(_detections(tile.outputs, tile.placed, threshold, masks=True), tile.box, size)
        yield found, cut_off(found.boxes, tile.box, *size)


def _moved(found: Detections, tile: Region, size: tuple[int, int]) -> Detections:
    """From pixels of a tile to those of the image."""
    top, left, tall, broad = tile

    def laid(runs: Runs) -> Runs:
        whole = np.zeros(size, bool)
        whole[top : top + tall, left : left + broad] = mask_of(runs, tall, broad)
        return runs_of(whole)

    masks = None if found.masks is None else tuple(map(laid, found.masks))
    return Detections(found.classes, found.scores, found.boxes + np.array((left, top, left, top)), masks)


def merged(parts: Sequence[tuple[Detections, NDArray[np.bool_]]]) -> Detections:
    """What was found in several tiles, each object once, best first: of those that mean the same a whole one stands before one that is cut."""
    cut = np.concatenate([each for _, each in parts])
    classes, scores, boxes = (
        np.concatenate([getattr(one, name) for one, _ in parts]) for name in ("classes", "scores", "boxes")
    )
    masks = (
        None if any(one.masks is None for one, _ in parts) else tuple(m for one, _ in parts for m in one.masks or ())
    )
    every = Detections(classes, scores, boxes, masks)
    order = np.lexsort((-every.scores, cut))
    kept = order[suppressed(every.boxes[order], every.classes[order], cut[order])]
    return every.take(kept[np.argsort(-every.scores[kept], kind="stable")])


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
    id: int = field(default=0, repr=False)
    """Of the class in the training data."""

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
            "category_id": self.id,
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

    @property
    def empty(self) -> bool:
        return not self.objects

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

    def pictures(self, image: NDArray[np.uint8]) -> Iterator[tuple[str, Image.Image]]:
        """The objects drawn over the image, small ones enlarged, each with its place in `objects`; and each mask alone, black and white."""
        names = [f"{k} {each.label} {each.score:.0%}" for k, each in enumerate(self.objects)]
        marks = [Mark(name, each.index, each.box, each.mask) for name, each in zip(names, self.objects, strict=True)]
        side = max(image.shape[:2])
        yield ".png", marked(image, marks, side * -(-READABLE // side))
        for k, each in enumerate(self.objects):
            if each.mask is not None:
                yield f"-masks/{k}.png", Image.fromarray(each.mask.astype(np.uint8) * 255)

    def texts(self) -> dict[str, str]:
        """YOLO's: a line for each object: class and outline, or of a box middle x and y, width, height and score; in shares of the image."""
        lines = []
        for each in self.objects:
            outlined = each.runs is not None and area_and_box(each.runs, self.height, self.width)[0]
            words = row_of(Object(each.index, each.box, each.runs if outlined else None), self.height, self.width)
            lines.append(f"{each.index} {words}" + ("" if outlined else f" {each.score:.6f}"))
        return {".txt": "".join(f"{line}\n" for line in lines)}

    def record(self) -> dict[str, Any]:
        return {"height": self.height, "width": self.width, "objects": [each.to_coco() for each in self.objects]}

    def to_json(self) -> dict[str, object]:
        return {"height": self.height, "width": self.width, "objects": [each.to_json() for each in self.objects]}


@dataclass(frozen=True)
class Row:
    """Where one object or segment stands among a model's answers."""

    row: int
    index: int
    """Of the class."""
    score: float
    box: Box
    mask: NDArray[np.bool_] | None = None
    """[h, w] of the original, of segments."""

    def holds(self, x: float, y: float) -> bool:
        """Whether it lies at this spot of the original."""
        if self.mask is not None:
            return bool(self.mask[int(y), int(x)])
        return self.box[0] <= x < self.box[2] and self.box[1] <= y < self.box[3]


class ObjectAnswers(Answers):
    """Objects that score `threshold` or more."""

    squash = "sigmoid"
    of_whole = False
    kind = "found"

    glances = True
    noun: ClassVar[str] = "object"

    threshold: float = SURE
    once: bool | None = False

    def asked(self, outputs: Found) -> Found:
        """As objects are to be told apart."""
        return replace(outputs, repeated=True) if self.once else outputs

    def rows(self, outputs: Found, placed: Placed) -> list[Row]:
        """Of one image's outputs which answer each object is, in the order of the answer."""
        columns = selected(self.asked(outputs), placed, self.threshold)
        return [
            Row(row, index, score, tuple(box))
            for row, index, score, box in zip(*(c.tolist() for c in columns), strict=True)
        ]

    def joined(self, tiles: Iterable[Tile], name: str, size: tuple[int, int], top_k: int) -> Answer:
        found = merged(list(seen_in_tiles(tiles, size, self.threshold)))
        return self.answer(found, name, *size)

    def __call__(self, outputs: Found, names: Sequence[str], top_k: int, placed: Sequence[Placed]) -> list[Detection]:
        every = detections(self.asked(outputs), placed, self.threshold)
        rows = zip(every, names, placed, strict=True)
        return [self.answer(one, name, place.height, place.width) for one, name, place in rows]

    def answer(self, found: Detections, name: str, height: int, width: int) -> Detection:
        """What was found in an image of this size, for people."""
        shapes = found.masks or (None,) * len(found)
        rows = zip(found.classes.tolist(), found.scores.tolist(), found.boxes.tolist(), shapes, strict=True)
        objects = (FoundObject(self.labels[k], k, score, tuple(box), runs, self.ids[k]) for k, score, box, runs in rows)
        return Detection(name, tuple(objects), height, width)

    def gathered(self, records: Sequence[Record]) -> dict[str, str]:
        """Beside the classes everything that was found as COCO's JSON, and the classes in the order of YOLO's numbers, a line each."""
        found = [each | {"image_id": k} for k, record in enumerate(records, 1) for each in record.found["objects"]]
        annotations = [each | {"id": number} for number, each in enumerate(found, 1)]
        categories = [{"id": number, "name": label} for number, label in zip(self.ids, self.labels, strict=True)]
        told = {"images": listed(records), "annotations": annotations, "categories": categories}
        names = "".join(f"{label}\n" for label in self.labels)
        return {"predictions.json": json.dumps(told, ensure_ascii=False), "classes.txt": names}

    def probabilities(self, outputs: Kind) -> Kind:
        """[..., K]: a sigmoid for each class."""
        return sigmoid(outputs)

    def columns(self, top_k: int, separator: str) -> list[str]:
        return ["label", "score", "x0", "y0", "x1", "y1"]


def listed(records: Sequence[Record]) -> list[dict[str, object]]:
    """Images as COCO's JSON lists them, ids from 1; by the names of their files alone where no two are alike."""
    names = [Path(record.name).name for record in records]
    if len(set(names)) < len(names):
        names = [record.name for record in records]
    sizes = [{side: record.found[side] for side in ("height", "width")} for record in records]
    return [{"id": k, "file_name": name, **size} for k, (name, size) in enumerate(zip(names, sizes, strict=True), 1)]


def _corners(box: Box) -> str:
    x0, y0, x1, y1 = (round(edge) for edge in box)
    return f"({x0}, {y0}, {x1}, {y1})"
