"""A segment for each pixel of the original: what queries found, laid side by side.

As MaskFormer merges (https://arxiv.org/abs/2107.06278, section 3.4): a pixel belongs to the query with the largest score x mask of those whose mask
covers it; a segment of which too little is left is dropped. Axes: Q answers of an image, n that are kept, h w of the original.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitral.answers.answer import Answer, Record
from vitral.answers.maps import at_original
from vitral.answers.objects import SURE, ObjectAnswers, Row, at_original_boxes, listed, scored, suppressed
from vitral.answers.squash import sigmoid
from vitral.data.annotated import Segment
from vitral.data.formats.maps import ids_picture
from vitral.data.formats.panoptic import extent
from vitral.data.tiles import Tile, cut_off, nearness
from vitral.data.view import Placed
from vitral.drawing.objects import keyed, veiled
from vitral.models.heads.outputs import Found

LEFT = 0.8  # of a mask that has to be seen
COVERED = 0.5  # probability from which a mask covers a pixel


@dataclass(frozen=True)
class FoundSegment:
    """One segment."""

    id: int
    """Its pixels' value in the map."""
    label: str
    index: int
    """Of the class among the model's labels."""
    score: float
    """0 to 1."""
    area: int
    """Pixels."""


@dataclass(frozen=True, eq=False)
class Panoptic(Answer):
    """The segments of an image, the surest first."""

    map: NDArray[np.int32] = field(repr=False)
    """[h, w] of the upright original: numbers of segments, 0 where there is none."""
    segments: tuple[FoundSegment, ...]
    labels: list[str]
    ids: Sequence[int] = ()
    """Of each label its number in the training data; its position where there are none."""
    stuff: frozenset[int] = frozenset()
    """Positions in `labels` of the classes that cannot be counted: all that was found of one is one segment."""

    @property
    def classes(self) -> NDArray[np.int64]:
        """[h, w]: positions in `labels`, -1 where there is no segment."""
        place = np.full(1 + max((each.id for each in self.segments), default=0), -1)
        for each in self.segments:
            place[each.id] = each.index
        return place[self.map]

    @property
    def empty(self) -> bool:
        return not self.segments

    def line(self, top_k: int) -> str:
        shares = [f"{each.label} {each.area / self.map.size:.1%}" for each in self.segments[:top_k]]
        more = len(self.segments) - len(shares)
        return "  ".join(shares) + (f"  and {more} more" if more else "") if shares else "nothing found"

    def cells(self, top_k: int, separator: str) -> list[str]:
        return self.rows(top_k, separator)[0]

    def rows(self, top_k: int, separator: str) -> list[list[str]]:
        """Of each segment, whatever top_k; an empty row where there is none."""
        rows = [[str(each.id), each.label, f"{each.score:.6f}", str(each.area)] for each in self.segments]
        return rows or [[""] * 4]

    def pictures(self, image: NDArray[np.uint8]) -> Iterator[tuple[str, Image.Image]]:
        """The segments' numbers as COCO writes them (R + 256 G + 65536 B), and the image under the classes' colours."""
        yield ".png", ids_picture(self.map)
        names = {each.label: each.index for each in self.segments}
        yield "-overlay.jpg", keyed(Image.fromarray(veiled(image, self.classes, self.map)), list(names.items()))

    def record(self) -> dict[str, Any]:
        height, width = self.map.shape
        segments = [
            {"id": each.id, "category_id": self.ids[each.index] if self.ids else each.index, "iscrowd": 0, "score": round(each.score, 6)}
            | extent(self.map == each.id)
            for each in self.segments
        ]  # fmt: skip
        return {"height": height, "width": width, "segments": segments, "stuff": self.stuff}

    def to_json(self) -> dict[str, object]:
        height, width = self.map.shape
        return {"height": height, "width": width, "segments": [vars(each) for each in self.segments]}


class PanopticAnswers(ObjectAnswers):
    """Segments that score `threshold` or more."""

    once = None

    def __call__(self, outputs: Found, names: Sequence[str], top_k: int, placed: Sequence[Placed]) -> list[Panoptic]:  # type: ignore[override]
        return [
            self._told(name, *laid_out(outputs[k : k + 1], place, self.threshold), outputs.stuff)
            for k, (name, place) in enumerate(zip(names, placed, strict=True))
        ]

    def _told(
        self, name: str, ids: NDArray[np.int32], segments: list[Segment], scores: list[float], stuff: frozenset[int]
    ) -> Panoptic:
        areas = np.bincount(ids.ravel(), minlength=len(segments) + 1)
        rows = zip(segments, scores, strict=True)
        found = (FoundSegment(s.id, self.labels[s.index], s.index, score, int(areas[s.id])) for s, score in rows)
        return Panoptic(name, ids, tuple(found), self.labels, self.ids, stuff)

    noun = "segment"

    def rows(self, outputs: Found, placed: Placed) -> list[Row]:
        ids, segments, scores, rows = laid_out_rows(outputs, placed, self.threshold)
        found = []
        for segment, score, row in zip(segments, scores, rows, strict=True):
            mask = ids == segment.id
            x, y, w, h = extent(mask)["bbox"]
            found.append(Row(row, segment.index, score, (x, y, x + w, y + h), mask))
        return found

    def joined(self, tiles: Iterable[Tile], name: str, size: tuple[int, int], top_k: int) -> Panoptic:
        return self._told(name, *joined(tiles, size, self.threshold))

    def gathered(self, records: Sequence[Record]) -> dict[str, str]:
        """COCO's JSON of the segments in the maps, ids of images from 1."""
        stuff = frozenset().union(*(record.found["stuff"] for record in records))
        categories = [
            {"id": number, "name": label, "isthing": int(k not in stuff)}
            for k, (number, label) in enumerate(zip(self.ids, self.labels, strict=True))
        ]
        annotations = [
            {"image_id": k, "file_name": f"{record.stem}.png", "segments_info": record.found["segments"]}
            for k, record in enumerate(records, 1)
        ]
        told = {"images": listed(records), "annotations": annotations, "categories": categories}
        return {"predictions.json": json.dumps(told, ensure_ascii=False)}

    def columns(self, top_k: int, separator: str) -> list[str]:
        return ["segment", "label", "score", "pixels"]


def laid_out(
    found: Found, placed: Placed, threshold: float = SURE
) -> tuple[NDArray[np.int32], list[Segment], list[float]]:
    """Of one image the map [h, w] of segments' numbers from 1, the segments, and their scores; 0 is of no segment.

    All that is found of one kind of stuff is one segment. A thing ends at its box.
    """
    return laid_out_rows(found, placed, threshold)[:3]


def laid_out_rows(
    found: Found, placed: Placed, threshold: float
) -> tuple[NDArray[np.int32], list[Segment], list[float], list[int]]:
    """`laid_out`, and of each segment its row among the answers, of stuff that of the surest."""
    assert found.masks is not None
    every = scored(found)  # [Q, K]
    scores, classes = every.max(-1), every.argmax(-1)
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= threshold]
    stuff = np.isin(classes, sorted(found.stuff))
    boxes = at_original_boxes(found.boxes[0], placed)
    if found.repeated:
        things = order[~stuff[order]]
        lost = np.setdiff1d(things, things[suppressed(boxes[things], classes[things])])
        order = order[~np.isin(order, lost)]
    if not len(order):
        return np.zeros((placed.height, placed.width), np.int32), [], [], []
    boxes[stuff] = (0, 0, placed.width, placed.height)
    owners, whole = _owners(np.asarray(found.masks[0])[order], found.stride, scores[order], boxes[order], placed)
    seen = np.bincount(owners.ravel() + 1, minlength=len(order) + 1)[1:]
    kept = (seen > 0) & (seen >= LEFT * whole)
    numbers = np.zeros(len(order) + 1, np.int32)
    segments: list[Segment] = []
    sure: list[float] = []
    rows: list[int] = []
    of_stuff: dict[int, int] = {}
    for k in np.flatnonzero(kept).tolist():
        row = int(order[k])
        index = int(classes[row])
        if stuff[row] and index in of_stuff:
            numbers[k + 1] = of_stuff[index]
            continue
        numbers[k + 1] = number = len(segments) + 1
        segments.append(Segment(number, index))
        sure.append(float(scores[row]))
        rows.append(row)
        if stuff[row]:
            of_stuff[index] = number
    return numbers[owners + 1], segments, sure, rows


def joined(
    tiles: Iterable[Tile], size: tuple[int, int], threshold: float
) -> tuple[NDArray[np.int32], list[Segment], list[float], frozenset[int]]:
    """`laid_out` of an image of `size` that was seen in tiles, and which classes are stuff.

    Of things that mean the same the best stands, one that is cut by its tile's edge behind whole ones. A pixel of stuff is answered by the tile in
    whose middle it lies most, and not by the look at the whole image.
    """
    things: list[tuple[float, int, NDArray[np.bool_]]] = []  # score, class, mask [h, w]
    boxes: list[NDArray[np.float64]] = []
    cut: list[NDArray[np.bool_]] = []
    ground, near, sure = np.full(size, -1), np.zeros(size, np.float32), dict[int, float]()
    stuff: frozenset[int] = frozenset()
    for tile in tiles:
        stuff = tile.outputs.stuff
        top, left, tall, broad = tile.box
        ids, segments, scores = laid_out(tile.outputs, tile.placed, threshold)
        part = (slice(top, top + tall), slice(left, left + broad))
        weight = nearness(tall)[:, None] * nearness(broad) * (1.0 if (tall, broad) != size else 1e-9)
        for segment, score in zip(segments, scores, strict=True):
            mask = ids == segment.id
            if segment.index in stuff:
                better = mask & (weight > near[part])
                ground[part][better], near[part][better] = segment.index, weight[better]
                sure[segment.index] = max(score, sure.get(segment.index, 0.0))
                continue
            whole = np.zeros(size, bool)
            whole[part] = mask
            x, y, w, h = extent(whole)["bbox"]
            boxes.append(np.array([x, y, x + w, y + h], np.float64))
            cut.append(cut_off(boxes[-1][None], tile.box, *size))
            things.append((score, segment.index, whole))
    return *_stacked(things, boxes, cut, ground, sure), stuff


def _stacked(
    things: list[tuple[float, int, NDArray[np.bool_]]],
    boxes: list[NDArray[np.float64]],
    cut: list[NDArray[np.bool_]],
    ground: NDArray[np.int64],
    sure: dict[int, float],
) -> tuple[NDArray[np.int32], list[Segment], list[float]]:
    """Things, the surest on top, over the classes of the ground [h, w], -1 where there is none. sure: of each class of stuff its score."""
    ids = np.zeros(ground.shape, np.int32)
    found: list[tuple[float, int]] = []
    if things:
        ends, classes = np.concatenate(cut), np.array([index for _, index, _ in things])
        order = np.lexsort((np.array([-score for score, _, _ in things]), ends))
        for k in order[suppressed(np.stack(boxes)[order], classes[order], ends[order])].tolist():
            score, index, mask = things[k]
            left = mask & (ids == 0)
            if left.sum() >= LEFT * mask.sum():
                found.append((score, index))
                ids[left] = len(found)
    for index, score in sure.items():
        left = (ground == index) & (ids == 0)
        if left.any():
            found.append((score, index))
            ids[left] = len(found)
    surest = sorted(range(len(found)), key=lambda k: -found[k][0])
    numbers = np.zeros(len(found) + 1, np.int32)
    numbers[np.array(surest, np.int64) + 1] = np.arange(1, len(found) + 1)
    segments = [Segment(number, found[k][1]) for number, k in enumerate(surest, 1)]
    return numbers[ids], segments, [found[k][0] for k in surest]


def _owners(
    masks: NDArray[np.float32], stride: float, scores: NDArray[np.float64], boxes: NDArray[np.float64], placed: Placed
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which of n masks each pixel belongs to, [h, w], -1 for none; and how many pixels each covers, [n]."""
    x0, y0, x1, y1 = (edge[:, None] for edge in boxes.T)
    xs, ys = np.arange(placed.width) + 0.5, np.arange(placed.height) + 0.5
    across, down = (xs > x0 - 1) & (xs < x1 + 1), (ys > y0 - 1) & (ys < y1 + 1)  # [n, w], [n, h]
    owners, whole, top = [], np.zeros(len(masks), np.int64), 0
    for logits in at_original(masks, stride, placed):  # [n, some rows, w]
        p = sigmoid(logits)
        within = (p >= COVERED) & down[:, top : top + p.shape[1], None] & across[:, None]
        top += p.shape[1]
        whole += within.sum((1, 2))
        p *= scores.astype(np.float32)[:, None, None]
        p *= within
        owners.append(np.where(p.max(0) > 0, p.argmax(0), -1))
    return np.concatenate(owners), whole
