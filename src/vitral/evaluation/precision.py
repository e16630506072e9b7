"""COCO's average precision of boxes or masks, computed by faster-coco-eval (extra `dense`) with ids of our own.

Ten thresholds of overlap from .5 to .95, precision at 101 levels of recall, at most 100 answers an image and class
(https://cocodataset.org/#detection-eval), or as many as an image has objects of a class: else nobody could find them all. A class without objects
is in no mean. Axes: n images, K classes, T thresholds, R levels of recall.
"""

from collections import Counter
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vitral.data.annotated import Annotated, Object, Polygons, Runs
from vitral.data.detections import Detections
from vitral.data.shapes import as_runs
from vitral.errors import VitralError
from vitral.randomness import uniforms

Kind = Literal["boxes", "masks"]
AREAS = ("all", "small", "medium", "large")
"""Objects of any size, below 32 x 32 pixels, up to 96 x 96, and above."""
MOST = 100
"""Answers of an image and class that count, where no image has more objects of a class."""
RESAMPLED = 200  # times that the images are drawn anew for an interval
Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Precision:
    """Precision of a split's answers of one kind."""

    table: NDArray[np.float64]
    """[T, R, K, A]: precision at each threshold of overlap, level of recall, class and area; -1 where there is no such object."""
    recall: NDArray[np.float64]
    """[T, K, A]: the highest that is reached."""
    interval: Interval | None
    """95 % interval of `ap` under other drawings of the images."""
    interval50: Interval | None

    @cached_property
    def ap(self) -> float | None:
        """The mean over thresholds, recalls and classes: COCO's AP."""
        return mean(self.table[..., 0])

    @cached_property
    def ap50(self) -> float | None:
        return mean(self.table[0, ..., 0])

    @cached_property
    def ap75(self) -> float | None:
        return mean(self.table[5, ..., 0])

    def of_area(self, area: str) -> float | None:
        """AP of the objects of this size."""
        return mean(self.table[..., AREAS.index(area)])

    def of_class(self, k: int, threshold: int | None = None) -> float | None:
        """AP of class k, or at one threshold by number."""
        return mean(self.table[slice(None) if threshold is None else threshold, :, k, 0])

    def curve(self, k: int) -> NDArray[np.float64]:
        """[R]: precision of class k by recall, at an overlap of .5."""
        return self.table[0, :, k, 0]


def mean(table: NDArray[np.float64]) -> float | None:
    """Of what is there; None if nothing is."""
    known = table[table > -1]
    return float(known.mean()) if len(known) else None


def average_precision(
    found: Sequence[Detections],
    truth: Sequence[Annotated],
    classes: int,
    kind: Kind = "boxes",
    *,
    thresholds: Sequence[float] | None = None,
    resampled: int = RESAMPLED,
) -> Precision:
    """Scores of what was found in n images against what is there.

    Args:
        found, truth: of each image, with classes by number 0 to K - 1. Objects that are crowds or too hard are neither hits nor mistakes.
        kind: masks need a mask of everything that was found; an object without a shape then counts as a crowd of its box.
        thresholds: of overlap; default: COCO's ten.
        resampled: how often images are drawn anew for the intervals; 0 for none.

    Raises:
        VitralError: there are no images, or a score or box is not finite.
    """
    if not len(truth):
        raise VitralError("evaluation: there are no images to score; choose a split or folder that has some")
    assert len(found) == len(truth)
    evaluation = _evaluation(found, truth, classes, kind, thresholds)
    evaluation.evaluate()
    evaluation.accumulate()
    table, recall = (np.asarray(evaluation.eval[name])[..., -1] for name in ("precision", "recall"))
    lows = _intervals(evaluation, len(truth), resampled) if resampled else (None, None)
    return Precision(table, recall, *lows)


def counting(truth: Sequence[Annotated]) -> int:
    """How many answers of an image and class count."""
    objects = (Counter(each.index for each in one.objects if not (each.crowd or each.hard)) for one in truth)
    return max([MOST, *(max(each.values()) for each in objects if each)])


def _evaluation(
    found: Sequence[Detections],
    truth: Sequence[Annotated],
    classes: int,
    kind: Kind,
    thresholds: Sequence[float] | None,
) -> Any:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise VitralError("scores of boxes need faster-coco-eval; run pip install 'vitral[dense]'") from None
    images = [{"id": i, "height": one.height, "width": one.width} for i, one in enumerate(truth, 1)]
    rows = [_object(each, i, one, kind) for i, one in enumerate(truth, 1) for each in one.objects]
    objects = [row | {"id": number} for number, row in enumerate(rows, 1)]
    answers = [row for i, one in enumerate(found, 1) for row in _answers(one, i, kind)]
    categories = [{"id": k + 1, "name": str(k)} for k in range(classes)]
    data = COCO({"images": images, "annotations": objects, "categories": categories})
    evaluation = COCOeval_faster(
        data, data.loadRes(answers), "bbox" if kind == "boxes" else "segm", separate_eval=True, rle_iou_max_workers=1
    )
    evaluation.params.maxDets = [counting(truth)]
    if thresholds is not None:
        evaluation.params.iouThrs = np.array(thresholds)
    return evaluation


def _object(each: Object, image: int, one: Annotated, kind: Kind) -> dict[str, Any]:
    x0, y0, x1, y1 = map(float, each.box)
    row = {
        "image_id": image,
        "category_id": each.index + 1,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": float((x1 - x0) * (y1 - y0) if each.area is None else each.area),
        "iscrowd": int(each.crowd or each.hard),
    }
    if kind == "boxes":
        return row
    if each.shape is None:
        corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
        return row | {"segmentation": _packed(as_runs(Polygons((corners,)), one.height, one.width)), "iscrowd": 1}
    return row | {"segmentation": _packed(as_runs(each.shape, one.height, one.width))}


def _answers(one: Detections, image: int, kind: Kind) -> list[dict[str, Any]]:
    if not (np.isfinite(one.scores).all() and np.isfinite(one.boxes).all()):
        raise VitralError("evaluation: the model's boxes or scores are not finite; it has to be trained again")
    rows = []
    for i, (index, score, box) in enumerate(
        zip(one.classes.tolist(), one.scores.tolist(), one.boxes.tolist(), strict=True)
    ):
        x0, y0, x1, y1 = box
        row: dict[str, Any] = {"image_id": image, "category_id": index + 1, "score": score}
        if kind == "boxes":
            row["bbox"] = [x0, y0, x1 - x0, y1 - y0]
        else:
            assert one.masks is not None
            row["segmentation"] = _packed(one.masks[i])
        rows.append(row)
    return rows


def _packed(runs: Runs) -> dict[str, Any]:
    return {"size": [runs.height, runs.width], "counts": runs.counts}


def _intervals(evaluation: Any, images: int, resampled: int) -> tuple[Interval | None, Interval | None]:
    """95 % intervals of AP and AP at the first threshold, over images that are drawn with replacement."""
    from faster_coco_eval import faster_eval_api_cpp as cpp

    params = copy(evaluation._paramsEval)
    areas = len(params.areaRng)
    params.areaRng, params.areaRngLbl = params.areaRng[:1], params.areaRngLbl[:1]
    each = np.empty(len(evaluation._evalImgs_cpp), object)
    each[:] = evaluation._evalImgs_cpp
    matched = each.reshape(-1, areas, images)[:, 0]  # [K, n]: class by class, then size by size
    values = []
    for k in range(resampled):
        drawn = (uniforms(0, "bootstrap", k, np.arange(images), 1)[:, 0] * images).astype(np.int64)
        table = np.asarray(cpp.COCOevalAccumulate(params, matched[:, drawn].ravel().tolist())["precision"])
        values.append((mean(table), mean(table[0])))
    return tuple(_middle([value for value in column if value is not None]) for column in zip(*values, strict=True))  # type: ignore[return-value]


def _middle(values: list[float]) -> Interval | None:
    """What holds the middle 95 % of the values."""
    if not values:
        return None
    low, high = np.quantile(values, (0.025, 0.975)).tolist()
    return low, high
