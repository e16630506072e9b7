"""COCO's average precision: by hand on one image, and as pycocotools computes it on random scenes with crowds and ties."""

import numpy as np
import pytest

from annotations import masked
from vitral.data.annotated import Annotated, Object
from vitral.data.detections import Detections, as_found
from vitral.data.shapes import mask_of, runs_of
from vitral.errors import VitralError
from vitral.evaluation.mistakes import costs, counts, judged, surest
from vitral.evaluation.precision import average_precision

SIDE = 130


def image(*objects, side=SIDE):
    return Annotated(side, side, objects=objects)


def detections(*rows):
    """Of (class, score, box)."""
    classes, scores, boxes = zip(*rows, strict=True) if rows else ((), (), ())
    return Detections(np.array(classes, np.int64), np.array(scores, float), np.array(boxes, float).reshape(-1, 4))


def random_scenes(seed, count=12, classes=3):
    """Objects of all sizes, some crowds; answers near them, elsewhere, of wrong classes, with few different scores."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for _ in range(count):
        objects = []
        for _ in range(rng.integers(0, 6)):
            mask = box_mask(rng)
            objects.append(
                masked(int(rng.integers(classes)), mask, crowd=bool(rng.random() < 0.2), area=float(mask.sum()))
            )
        truth.append(image(*objects))
        boxes, masks = [], []
        for each in objects * int(rng.integers(1, 3)):
            mask = mask_of(each.shape, SIDE, SIDE)
            masks.append(np.roll(mask, rng.integers(-6, 7, 2), (0, 1)))
        masks += [box_mask(rng) for _ in range(rng.integers(0, 4))]
        masks = [mask for mask in masks if mask.any()]
        for mask in masks:
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
        names = [each.index for each in objects * 2] + [0] * 9
        found.append(
            Detections(
                np.array([k if rng.random() < 0.8 else rng.integers(classes) for k in names[: len(masks)]], np.int64),
                rng.integers(0, 5, len(masks)) / 4,
                np.array(boxes, float).reshape(-1, 4),
                tuple(map(runs_of, masks)),
            )
        )
    return found, truth


def box_mask(rng):
    """A rectangle without one corner, of a side of 3 to 120 pixels."""
    mask = np.zeros((SIDE, SIDE), bool)
    h, w = (3 * 40 ** rng.random(2)).astype(int)
    y, x = rng.integers(0, SIDE - h + 1), rng.integers(0, SIDE - w + 1)
    mask[y : y + h, x : x + w] = True
    mask[y : y + h // 2, x : x + w // 2] = False
    return mask


@pytest.mark.parametrize("kind", ["boxes", "masks"])
@pytest.mark.parametrize("seed", range(5))
def test_equal_to_pycocotools(kind, seed):
    tools = pytest.importorskip("pycocotools.cocoeval", reason="the oracle pycocotools is not installed")
    from pycocotools.coco import COCO

    found, truth = random_scenes(seed)
    images = [{"id": i, "height": SIDE, "width": SIDE} for i in range(1, len(truth) + 1)]
    objects = [(i, each) for i, one in enumerate(truth, 1) for each in one.objects]
    data = COCO()
    data.dataset = {
        "images": images,
        "categories": [{"id": k} for k in range(1, 4)],
        "annotations": [
            {
                "id": n, "image_id": i, "category_id": each.index + 1, "iscrowd": int(each.crowd), "area": each.area,
                "bbox": [each.box[0], each.box[1], each.box[2] - each.box[0], each.box[3] - each.box[1]],
                "segmentation": {"size": [SIDE, SIDE], "counts": each.shape.counts},
            }
            for n, (i, each) in enumerate(objects, 1)
        ],
    }  # fmt: skip
    data.createIndex()
    answers = [
        {"image_id": i, "category_id": int(k) + 1, "score": float(score)}
        | ({"bbox": [x0, y0, x1 - x0, y1 - y0]} if kind == "boxes" else {"segmentation": {"size": [SIDE, SIDE], "counts": mask.counts}})
        for i, one in enumerate(found, 1)
        for k, score, (x0, y0, x1, y1), mask in zip(one.classes, one.scores, one.boxes.tolist(), one.masks, strict=True)
    ]  # fmt: skip
    theirs = tools.COCOeval(data, data.loadRes(answers), "bbox" if kind == "boxes" else "segm")
    theirs.evaluate()
    theirs.accumulate()
    ours = average_precision(found, truth, 3, kind, resampled=0)
    assert np.abs(ours.table - theirs.eval["precision"][..., -1]).max() < 1e-6
    assert np.abs(ours.recall - theirs.eval["recall"][..., -1]).max() < 1e-6


@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_the_truth_scores_one(kind):
    _, truth = random_scenes(3)
    found = [as_found(one, masks=True) for one in truth]
    scores = average_precision(found, truth, 3, kind, resampled=20)
    assert scores.ap == scores.ap50 == 1
    assert scores.interval == scores.interval50 == (1, 1)


def test_a_class_without_objects_is_in_no_mean():
    truth = [image(Object(0, (0, 0, 20, 20)), Object(0, (40, 40, 60, 60)))]
    found = [detections((0, 0.9, (0, 0, 20, 20)), (0, 0.8, (100, 100, 120, 120)), (1, 0.9, (0, 0, 9, 9)))]
    scores = average_precision(found, truth, 2, resampled=0)
    assert scores.ap50 == pytest.approx(51 / 101)  # recall .5 at precision 1
    assert scores.of_class(1) is None
    assert scores.of_area("large") is None


def test_nothing_found_is_zero_and_nothing_there_is_undefined():
    empty = detections()
    assert average_precision([empty], [image(Object(0, (0, 0, 9, 9)))], 1).ap == 0
    assert average_precision([empty], [image()], 1).ap is None


def test_objects_too_hard_are_neither_hits_nor_mistakes():
    truth = [image(Object(0, (0, 0, 20, 20)), Object(0, (40, 40, 60, 60), hard=True))]
    found = [detections((0, 0.9, (40, 40, 60, 60)), (0, 0.8, (0, 0, 20, 20)))]
    assert average_precision(found, truth, 1, resampled=0).ap == 1


def test_an_interval_holds_the_score_and_narrows_with_more_images():
    found, truth = random_scenes(1, count=10)
    few = average_precision(found, truth, 3, resampled=60)
    many = average_precision(found * 6, truth * 6, 3, resampled=60)
    assert few.interval[0] <= few.ap <= few.interval[1]
    assert many.interval[1] - many.interval[0] < few.interval[1] - few.interval[0]


def test_what_is_not_finite_is_refused():
    truth = [image(Object(0, (0, 0, 9, 9)))]
    with pytest.raises(VitralError, match="not finite"):
        average_precision([detections((0, np.nan, (0, 0, 9, 9)))], truth, 1)
    with pytest.raises(VitralError, match="no images"):
        average_precision([], [], 1)


def test_each_kind_of_mistake():
    truth = image(
        Object(0, (0, 0, 20, 20)),
        Object(1, (40, 0, 60, 20)),
        Object(0, (0, 40, 20, 60)),
        Object(0, (100, 100, 120, 120)),
        Object(0, (60, 60, 100, 100), crowd=True),
    )
    found = detections(
        (0, 0.9, (0, 0, 20, 20)),  # hit
        (0, 0.8, (1, 0, 21, 20)),  # duplicate
        (0, 0.7, (40, 0, 60, 20)),  # class
        (0, 0.6, (12, 40, 32, 60)),  # place
        (1, 0.5, (0, 100, 20, 120)),  # background
        (0, 0.4, (70, 70, 80, 80)),  # in a crowd
    )
    verdict = judged(found, truth)
    assert verdict.kinds == ["hit", "duplicate", "class", "place", "background", "ignored"]
    assert verdict.missed == [3]
    assert counts([verdict]) == {"hit": 1, "class": 1, "place": 1, "duplicate": 1, "background": 1, "missed": 1}
    gains = costs([found], [truth], [verdict], 2)
    assert set(gains) == {"class", "place", "duplicate", "background", "missed"}
    assert gains["class"] > gains["duplicate"] >= 0
    assert gains["missed"] > 0


def test_a_perfect_detector_loses_nothing():
    _, truth = random_scenes(2)
    found = [as_found(one, masks=False) for one in truth]
    gains = costs(found, truth, list(map(judged, found, truth)), 3)
    assert set(gains.values()) == {0}


@pytest.mark.parametrize("seed", range(6))
def test_no_other_score_has_a_higher_f1_than_the_surest(seed):
    found, truth = random_scenes(seed)
    real = sum(not each.crowd for one in truth for each in one.objects)

    def f1(threshold):
        tally = counts(
            [judged(one.take(one.scores >= threshold), each) for one, each in zip(found, truth, strict=True)]
        )
        answers = sum(count for kind, count in tally.items() if kind != "missed")
        return 2 * tally["hit"] / max(1, answers + real)

    best = surest(found, [judged(one, each) for one, each in zip(found, truth, strict=True)], real)
    assert best is not None
    assert f1(best) >= max(map(f1, np.linspace(-0.1, 1.1, 25)))  # random_scenes has scores of quarters


def test_of_nothing_right_no_score_is_the_surest():
    truth, found = [image(Object(0, (0, 0, 20, 20)))], [detections((0, 0.9, (50, 50, 70, 70)))]
    assert surest(found, [judged(found[0], truth[0])], 1) is None
