"""What goes wrong elsewhere between a file of annotations and a score: ids of 0, crowded images, large images, answers that are repeated."""

import json
import tracemalloc

import numpy as np
import pytest

from annotations import encoded
from vitral.answers.objects import ObjectAnswers, detections
from vitral.data.annotated import Annotated, Object
from vitral.data.detections import as_found
from vitral.data.formats import read_annotated
from vitral.data.view import Placed, View
from vitral.evaluation.objects import score_objects
from vitral.evaluation.precision import average_precision
from vitral.models.heads.outputs import Found

SURE = 9.0


def placed(height, width, rows, columns):
    return Placed(height, width, View(height, width).resized(rows, columns))


def crowded(count=130):
    """An image full of boxes of one class, and a model's answer to it with a query for each."""
    boxes = [(9.0 * (k % 13), 9.0 * (k // 13), 9.0 * (k % 13) + 8, 9.0 * (k // 13) + 8) for k in range(count)]
    truth = Annotated(120, 120, objects=tuple(Object(0, box) for box in boxes))
    logits = np.full((1, count, 2), -SURE, np.float32)
    logits[..., 0] = SURE
    return truth, Found(logits, np.array([boxes], np.float32) / 120)


@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_ids_of_zero_score_like_others(tmp_path, kind):
    """COCO's own tools take annotation 0 for "not matched": the truth itself then scores less than 1."""
    square = [[2, 3, 12, 3, 12, 13, 2, 13]]
    told = {
        "images": [{"id": k, "file_name": f"{k}.png", "width": 30, "height": 20} for k in range(2)],
        "categories": [{"id": k, "name": name} for k, name in enumerate(("cat", "dog"))],
        "annotations": [
            {"id": k, "image_id": k, "category_id": k, "bbox": [2, 3, 10, 10], "segmentation": square} for k in range(2)
        ],
    }
    (tmp_path / "a.json").write_text(json.dumps(told))
    for k in range(2):
        (tmp_path / f"{k}.png").write_bytes(encoded(30, 20, seed=k))
    truth = read_annotated(tmp_path).annotated
    found = [as_found(one, masks=kind == "masks") for one in truth]
    assert average_precision(found, truth, 2, kind, resampled=0).ap == 1.0


def test_images_with_more_objects_than_coco_counts():
    truth, found = crowded()
    there = detections(found, [placed(120, 120, 60, 60)])
    assert len(there[0]) == 130
    scores = score_objects(there, [truth], ["cell", "other"])
    assert (scores.ap, scores.counting) == (1.0, 130)
    assert "130 answers an image and class count" in scores.summary()
    few = score_objects([there[0].take(np.arange(30))], [Annotated(120, 120, objects=truth.objects[:30])], ["a", "b"])
    assert few.counting == 100
    assert "count" not in few.summary()


def test_masks_of_large_images_are_made_one_by_one():
    """All at once those of 60 queries at 1,500 x 2,000 pixels would take 700 MB."""
    rng = np.random.default_rng(0)
    masks = rng.normal(size=(1, 60, 24, 32)).astype(np.float32)
    boxes = np.tile(np.array([0.1, 0.1, 0.6, 0.6], np.float32), (1, 60, 1))
    found = Found(np.full((1, 60, 2), SURE, np.float32), boxes, masks, 4.0)
    tracemalloc.start()
    try:
        (one,) = detections(found, [placed(1500, 2000, 96, 128)])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(one.masks) == 100
    assert peak < 100e6


def test_of_repeated_answers_the_best_if_asked():
    """A decoder that has learned little answers twice; one with a box for each class and place is never asked."""
    boxes = np.array([[[0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.52, 0.5], [0.6, 0.6, 0.9, 0.9]]], np.float32)
    logits = np.array([[[2.0, -SURE], [1.0, -SURE], [0.5, -SURE]]], np.float32)
    answers, where = ObjectAnswers(["cat", "dog"]), [placed(50, 50, 50, 50)]
    (both,) = answers(Found(logits, boxes), ["a.png"], 5, where)
    assert len(both.objects) == 3
    answers.once = True
    (best,) = answers(Found(logits, boxes), ["a.png"], 5, where)
    assert [each.score for each in best.objects] == [both.objects[0].score, both.objects[2].score]
    assert [row.row for row in answers.rows(Found(logits, boxes), where[0])] == [0, 2]
