"""The coach of runs whose answers are places: remarks that the scores give reason for, silence where they give none, and what a model is worth."""

import pytest

from vitral.guidance.coach import places
from vitral.guidance.coach.coach import Coach, silence, summary
from vitral.objectives.options import DetectOptions, SegmentOptions
from vitral.training.config import Recipe
from vitral.training.options import TrainOptions


def coached(name, values, train=None, losses=None, objective=None, end=1.0):
    """A coach after a run with these validation scores, and its remarks."""
    recipe = Recipe(objective=objective or DetectOptions(), train=TrainOptions(batch_size=4, steps=100))
    described = {
        "labels": ["a", "b"],
        "images": {"train": 40, "val": 20},
        "command": "vitral train data --steps 100",
        "data": "data",
        "folder": "run",
    }
    coach, remarks = Coach(recipe, described), []
    losses = losses or [20.0 - k for k in range(len(values))]
    for k, value in enumerate(values):
        step = 100 * (k + 1)
        line = {
            "event": "train",
            "step": step,
            "epoch": k + 1.0,
            "loss": losses[k],
            "lr": 1e-3,
            "share": end * (k + 1) / len(values),
            "seconds": 1.0,
            "images_per_s": 9.0,
        }
        seen = {} if train is None else {f"train_{name}": train[k], "train_loss": 1.0, "train_images": 32}
        remarks += coach.see(line)
        remarks += coach.see(
            {"event": "val", "step": step, "epoch": k + 1.0, "loss": 1.0, name: value, "seconds": 1.0, **seen}
        )
    return coach, [remark for remark in remarks if remark.kind in ("overfitting", "unfound")]


@pytest.mark.parametrize("name", ["ap", "miou", "pq"])
def test_scores_that_fall_while_training_images_are_learned_are_overfitting(name):
    values = [0.1, 0.2, 0.3, 0.3, 0.3, 0.2, 0.15, 0.15, 0.1]
    _, (remark,) = coached(name, values, [0.1, 0.2, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    assert remark.kind == "overfitting"
    assert places.TITLES[name] in remark.seen
    assert "about step 400" in remark.seen
    assert "--init" in remark.next


def test_training_images_by_heart_are_overfitting_without_a_fall():
    _, (remark,) = coached("ap", [0.1, 0.15, 0.2, 0.2, 0.2, 0.21, 0.21], [0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.95])
    assert "88.3% on training images and 20.3% on 20 validation images" in remark.seen


@pytest.mark.parametrize(
    ("values", "train"),
    [
        ([0.1, 0.2, 0.3, 0.35, 0.4, 0.42, 0.43], [0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.5]),  # learns
        ([0.1, 0.3, 0.1, 0.3, 0.1, 0.3, 0.2], [0.2] * 7),  # jumps, as few images do
        ([0.3, 0.25, 0.2, 0.15, 0.1, 0.1, 0.1], [0.3, 0.25, 0.2, 0.15, 0.1, 0.1, 0.1]),  # falls on training images too
        ([0.1, 0.2, 0.3], [0.9, 0.9, 0.9]),  # too few validations
    ],
)
def test_other_courses_are_no_overfitting(values, train):
    coach, remarks = coached("ap", values, train)
    assert remarks == []
    assert silence(coach.run).startswith("nothing looks wrong")


def test_nothing_found_though_the_loss_falls_is_said_at_the_end():
    losses = [20.0, 15.0, 12.0, 10.0]
    _, (remark,) = coached("ap", [0.0, 0.0, 0.001, 0.002], losses=losses)
    assert remark.kind == "unfound"
    assert "the loss fell from 20.0 to 10.0" in remark.seen
    assert coached("ap", [0.0, 0.0, 0.001, 0.002], losses=losses, end=0.5)[1] == []  # half of the way
    assert coached("ap", [0.0, 0.01, 0.02, 0.05], losses=losses)[1] == []
    assert coached("miou", [0.0, 0.0, 0.0, 0.0], losses=losses, objective=SegmentOptions())[1] == []


def test_the_summary_names_the_score_and_what_helps():
    coach, _ = coached("ap", [0.1, 0.3, 0.2], [0.1, 0.3, 0.4])
    said, command = summary(coach.run)
    assert "validation AP 20.0% (best 30.0%); training images 26.7%" in said
    assert "--steps 200" in command
    coach, _ = coached("ap", [0.1, 0.1, 0.1], [0.5, 0.5, 0.5])
    assert places.more(coach.run, {})[0].startswith("more images")


def maps(miou, interval):
    rows = [
        {"label": "sky", "iou": 0.8, "share": 0.75, "images": 4},
        {"label": "cow", "iou": 2 * miou - 0.8, "share": 0.25, "images": 4},
    ]
    return {
        "miou": miou,
        "miou_interval": interval,
        "accuracy": 0.8,
        "classes": rows,
        "confusion": [[90, 2], [8, 5]],
        "images": 9,
    }


def test_maps_stand_beside_the_commonest_class_everywhere():
    assert "better than sky everywhere (37.5%)" in places.what_is_right(maps(0.6, [0.5, 0.7]))
    assert "no better than sky everywhere" in places.what_is_right(maps(0.41, [0.3, 0.37]))
    assert "not by enough to be sure" in places.what_is_right(maps(0.42, [0.3, 0.5]))
    assert (
        places.weakest(maps(0.6, [0.5, 0.7]))
        == "Its lowest class is cow (IoU 40.0%); what costs most is cow taken for sky (80% of the wrong pixels)."
    )


def test_objects_stand_beside_finding_nothing():
    rows = [{"label": "cat", "ap": 0.5}, {"label": "dog", "ap": 0.002}, {"label": "elk", "ap": None}]
    scores = {"ap": 0.25, "ap_interval": [0.2, 0.3], "classes": rows, "costs": {"class": 0.02, "place": 0.1}}
    assert (
        places.what_is_right(scores)
        == "It finds objects with AP 25.0% (95 % interval 20.0% to 30.0%): better than finding nothing (0.0%)."
    )
    assert (
        places.weakest(scores)
        == "It cannot do dog (AP 0.2%); what costs most is boxes in the wrong place (AP50 would gain 10.0 points)."
    )
    assert places.what_is_right(scores | {"ap_interval": [0.0, 0.0], "ap": 0.0}).endswith(
        "no better than finding nothing (0.0%)."
    )
    assert places.what_is_right({"top1": 0.5}) is None
    panoptic = {"pq": 0.3, "pq_interval": None, "classes": [{"label": "sky", "pq": 0.3}]}
    assert places.what_is_right(panoptic) == "It finds segments with PQ 30.0%: better than finding nothing (0.0%)."
    assert places.weakest(panoptic) == "Its lowest class is sky (PQ 30.0%)."
