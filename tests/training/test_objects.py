"""Objects from a folder to an answer: trained, killed and resumed, scored in the images' own pixels, reported and predicted."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from test_dense import KILLED, run
from test_everything import made
from test_resume import same, stopped, train

import vitral
from vitral.answers.objects import ObjectAnswers
from vitral.data.loader import EvaluationBatches
from vitral.data.options import AugmentOptions, DataOptions
from vitral.data.scenes import SceneOptions, write_scenes
from vitral.data.sources import open_data
from vitral.errors import VitralError
from vitral.evaluation.evaluate import EVALUATORS
from vitral.models.heads.options import LinearOptions, QueryOptions
from vitral.objectives.options import DetectOptions
from vitral.training.config import Recipe
from vitral.training.defaults import resolve
from vitral.training.options import ModelOptions
from vitral.training.tasks import learning_of

SMALL = ModelOptions("vit_tiny_patch16_224", image_size=(40, 48), patch_size=8, dim=32, depth=2, num_heads=2)
WORDS = ["--image-size", "40", "48", "--patch-size", "8", "--dim", "32", "--depth", "2", "--num-heads", "2", "--precision", "fp32",
         "--head", "query", "--query-dim", "32", "--query-heads", "2", "--queries", "20", "--optimizer", "adamw", "--lr", "2e-3", "--batch-size", "8",
         "--workers", "0", "--near-copies", "apart"]  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes") / "s"
    write_scenes(root, SceneOptions(images=40, test=10, size=48, classes=3))
    return root


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "objects"
    train("train", scenes, "--task", "instance", "--out", out, *WORDS, "--steps", "12")
    return out


def test_from_a_folder_to_objects_of_the_originals(scenes, trained, capsys):
    result = json.loads(run(capsys, "evaluate", trained, scenes, "--split", "test", "--json").out)
    assert 0 <= result["ap"] <= result["ap50"] <= 1
    assert result["mask_ap"] is not None
    assert result["ap"] == pytest.approx(json.loads((trained / "scores.json").read_text())["ap"], abs=1e-6)
    assert "Precision by recall" in (trained / "report.html").read_text()
    split, vit = (
        open_data(scenes, DataOptions(near_copies="apart", task="instance")).splits["test"],
        vitral.load(trained),
    )
    assert (
        vit.answers.threshold == vit.card.scores["val"]["threshold"] != ObjectAnswers.threshold
    )  # as validation had it
    vit.answers.threshold = 0.0
    answer = vit.predict(split.path(0))
    assert (answer.height, answer.width) == (48, 48)
    assert len(answer.objects) > 5
    for each in answer.objects:
        x0, y0, x1, y1 = each.box
        assert 0 <= x0 < x1 <= 48
        assert 0 <= y0 < y1 <= 48
        assert each.mask.shape == (48, 48)
        ys, xs = np.nonzero(each.mask)
        assert not len(xs) or (xs.min() >= x0 - 2 and xs.max() <= x1 + 1 and ys.min() >= y0 - 2 and ys.max() <= y1 + 1)


def test_predictions_as_rows_pictures_and_files_of_other_tools(scenes, trained, tmp_path, capsys):
    paths, out = sorted((scenes / "test").glob("*.jpg"))[:2], tmp_path / "out"
    said = run(capsys, "predict", trained, *paths, "--threshold", "0.005", "--format", "csv", "--out", out)
    rows = said.out.splitlines()
    assert rows[0] == "image,label,score,x0,y0,x1,y1,error"
    found = json.loads((out / "predictions.json").read_text())
    assert len(found["annotations"]) == len(rows) - 1 > 5
    assert [each["id"] for each in found["annotations"]] == list(range(1, len(rows)))
    assert found["annotations"][0]["segmentation"]["size"] == [48, 48]
    assert {each["name"] for each in found["categories"]} == {"disc", "square", "triangle"}
    own = {
        each["id"]: each["name"]
        for each in json.loads((scenes / "annotations/instances_train.json").read_text())["categories"]
    }
    assert {each["id"]: each["name"] for each in found["categories"]} == own
    lines = [line for path in paths for line in (out / f"{path.stem}.txt").read_text().splitlines()]
    assert len(lines) == len(rows) - 1
    with Image.open(out / f"{paths[0].stem}.png") as picture:
        assert picture.size == (336, 336)
    lines = run(capsys, "predict", trained, *paths, "--threshold", "0.005", "--format", "jsonl").out.splitlines()
    assert sum(len(json.loads(line)["objects"]) for line in lines) == len(rows) - 1
    assert "nothing found" in run(capsys, "predict", trained, paths[0], "--threshold", "1").out


def test_the_truth_scores_one_before_training(scenes, trained):
    assert "the truth in cells of 4 pixels" in (trained / "run.json").read_text()
    learning = learning_of("instance")
    data = open_data(scenes, DataOptions(near_copies="apart", task="instance"))
    split, steps = data.splits["test"], vitral.load(trained).card.preprocess
    rows = np.arange(len(split))
    placed = EvaluationBatches(split, steps, 8).placed(rows)
    found = learning.perfect(split.targets.batch(rows, placed), 3, 1)
    evaluator = EVALUATORS["instance"](data.labels)
    evaluator.add(found, split.targets.truth(rows, placed))
    assert evaluator.result().ap50 == 1
    again = EVALUATORS["instance"](data.labels)
    again.take(evaluator.kept())
    assert again.result().to_json() == evaluator.result().to_json()


def test_a_killed_run_ends_with_the_same_bits(scenes, tmp_path):
    words = [*WORDS, *KILLED]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train("train", scenes, "--task", "instance", "--out", whole, *words)
    stopped("replace", 8, "train", scenes, "--task", "instance", "--out", killed, *words)
    train("train", "--resume", killed)
    assert same(whole, killed)


@pytest.mark.parametrize("task", ["detect", "instance"])
@pytest.mark.parametrize("layers", [0, 1])
def test_accumulated_gradients_are_the_large_batchs(scenes, task, layers):
    data = open_data(scenes, DataOptions(val_fraction=0, near_copies="apart", task=task))
    head = QueryOptions(decoder_layers=layers, query_dim=32, query_heads=2)
    recipe = Recipe(SMALL, augment=AugmentOptions(zoom=(0.5, 1.0), jitter=0.2), head=head)
    whole, parts = made(recipe, data, 8, 1), made(recipe, data, 2, 4)
    parts.batches = whole.batches
    gradients, outcomes = [], []
    for loop in (whole, parts):
        loop.model.train()
        outcomes.append(loop.gradients(loop.batches[0], None))
        gradients.append(torch.cat([p.grad.flatten().double() for p in loop.model.parameters() if p.grad is not None]))
    assert (gradients[0] - gradients[1]).norm() <= 1e-5 * gradients[0].norm()
    assert outcomes[0] == pytest.approx(outcomes[1], rel=1e-4)


def test_defaults_suit_objects(scenes):
    recipe, reasons = resolve(Recipe(), open_data(scenes, DataOptions(near_copies="apart", task="detect")), "cpu")
    assert isinstance(recipe.head, QueryOptions)
    assert isinstance(recipe.objective, DetectOptions)
    assert any("places" in reason for reason in reasons)


def test_a_cost_that_is_not_finite_stops_the_run_at_its_step(scenes, tmp_path, capsys):
    words = ["1e20" if word == "2e-3" else word for word in WORDS]
    train("train", scenes, "--task", "detect", "--out", tmp_path / "run", *words, "--steps", "9", status=2)
    assert re.search(r"step \d: the loss is (nan|inf)", capsys.readouterr().err)


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """Pictures with a sky and a ground, which are stuff, and bright squares, which are things: COCO's panoptic format."""
    root = tmp_path_factory.mktemp("panoptic")
    rng = np.random.default_rng(0)
    (root / "annotations/panoptic_train").mkdir(parents=True)
    (root / "train").mkdir()
    images, annotations = [], []
    for k in range(1, 41):
        h, w = 40, int(rng.integers(44, 52))
        ids, pixels = np.ones((h, w), np.int32), np.full((h, w, 3), (90, 120, 220), np.uint8)
        ids[h // 2 :], pixels[h // 2 :] = 2, (60, 150, 60)
        for number in range(3, 3 + int(rng.integers(0, 3))):
            y, x = rng.integers(0, h - 12), rng.integers(0, w - 12)
            ids[y : y + 12, x : x + 12], pixels[y : y + 12, x : x + 12] = number, 240
        ids[0] = 0  # void
        Image.fromarray(pixels).save(root / f"train/{k}.png")
        Image.fromarray(np.stack([ids, ids * 0, ids * 0], -1).astype(np.uint8)).save(
            root / f"annotations/panoptic_train/{k}.png"
        )
        images.append({"id": k, "file_name": f"{k}.png", "height": h, "width": w})
        present = [number for number in np.unique(ids).tolist() if number]
        segments = [
            {"id": n, "category_id": min(n, 3), "area": int((ids == n).sum()), "bbox": [0, 0, w, h], "iscrowd": 0}
            for n in present
        ]
        annotations.append({"image_id": k, "file_name": f"{k}.png", "segments_info": segments})
    categories = [
        {"id": i, "name": name, "isthing": int(name == "box")} for i, name in enumerate(("sky", "grass", "box"), 1)
    ]
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (root / "annotations/panoptic_train.json").write_text(text)
    return root


def test_panoptic_data_from_a_folder_to_segments(ground, tmp_path, capsys):
    out = tmp_path / "run"
    train("train", ground, "--task", "panoptic", "--out", out, *WORDS, "--decoder-layers", "1", "--steps", "60")
    vit = vitral.load(out)
    assert vit.model.head.stuff == {0, 1}
    result = json.loads(run(capsys, "evaluate", out, ground, "--split", "test", "--json").out)
    assert [row["stuff"] for row in result["classes"]] == [True, True, False]
    assert 0 <= result["pq"] <= 1
    assert "PQ" in (out / "report.html").read_text()
    vit.answers.threshold = 0.0
    answer = vit.predict(ground / "train/1.png")
    with Image.open(ground / "train/1.png") as picture:
        assert answer.map.shape == picture.size[::-1]
    assert set(np.unique(answer.map)) - {0} == {each.id for each in answer.segments}
    labels = [each.label for each in answer.segments if each.label != "box"]
    assert len(labels) == len(set(labels)) > 0
    assert sum(each.area for each in answer.segments) == (answer.map > 0).sum()
    run(capsys, "predict", out, ground / "train/1.png", "--threshold", "0.1", "--out", tmp_path / "pictures")
    assert (tmp_path / "pictures/1-overlay.jpg").exists()


def test_the_truth_of_panoptic_data_scores_one(ground):
    data = open_data(ground, DataOptions(near_copies="apart", task="panoptic"))
    recipe, _ = resolve(Recipe(SMALL), data, "cpu")
    assert recipe.head.stuff == (0, 1)
    split = data.splits["train"]
    rows = np.arange(len(split))
    placed = EvaluationBatches(split, made(recipe, data, 4, 1).batches.preprocess, 8).placed(rows)
    found = learning_of("panoptic").perfect(split.targets.batch(rows, placed), 3, 1)
    evaluator = EVALUATORS["panoptic"](data.labels)
    evaluator.add(found, split.targets.truth(rows, placed))
    assert evaluator.result().pq > 0.9
    again = EVALUATORS["panoptic"](data.labels)
    again.take(evaluator.kept())
    assert again.result() == evaluator.result()


@pytest.mark.parametrize(
    ("task", "head", "said"),
    [
        ("detect", LinearOptions(), "head linear: finds no objects"),
        ("semantic", QueryOptions(), "head query: finds objects"),
        ("detect", QueryOptions(queries=2), "head.queries 2: an image has"),
    ],
)
def test_heads_that_do_not_suit_the_task_are_refused(scenes, task, head, said):
    data = open_data(scenes, DataOptions(near_copies="apart", task=task))
    with pytest.raises(VitralError, match=said):
        resolve(Recipe(SMALL, head=head), data, "cpu")


@pytest.mark.slow
def test_ten_images_are_learned_by_heart(tmp_path, capsys):
    root, out = tmp_path / "ten", tmp_path / "run"
    write_scenes(root, SceneOptions(images=10, test=4, size=64, classes=4))
    words = ["--image-size", "64", "--patch-size", "8", "--dim", "96", "--depth", "4", "--num-heads", "4", "--stem", "16", "16", "32", "32", "64",
             "--head", "query", "--query-dim", "96", "--decoder-layers", "1",
             "--crop", "none", "--hflip", "0", "--val-fraction", "0", "--lr", "1e-3", "--batch-size", "10",
             "--optimizer", "adamw", "--weight-decay", "0", "--workers", "0", "--near-copies", "apart", "--ema", "0.98"]  # fmt: skip
    train("train", root, "--task", "instance", "--out", out, *words, "--steps", "1000")
    result = json.loads(run(capsys, "evaluate", out, root, "--split", "train", "--json").out)
    assert result["ap"] >= 0.95
    # The head answers in cells of 4 pixels, and the objects have sides of 9 to 32: edges a pixel off cost the highest overlaps.
    assert result["mask_ap"] >= 0.8


def checked(root, size, learner):
    """What the self-check says of data at this height and width."""
    from vitral.training.selfcheck import self_check
    from vitral.training.shape import preprocess, shape

    data = open_data(root, DataOptions(near_copies="apart", task="detect"))
    recipe, _ = resolve(Recipe(replace(SMALL, image_size=size)), data, "cpu")
    return self_check(data, preprocess(recipe, data, shape(recipe, data)), learner)


def test_the_truth_is_one_or_what_was_lost_is_said(scenes, trained, monkeypatch):
    model = vitral.load(trained).model
    assert "scores AP 100.00%, AP50 100.00%" in checked(scenes, (48, 48), model)[0]
    monkeypatch.setattr("vitral.training.selfcheck.LEAST", 0.1)
    (said,) = checked(scenes, (16, 16), model)
    assert re.search(
        r"scores AP50 \d+\.\d% at 16x16 pixels: .*fewer than 4 pixels a side there.*larger --image-size", said
    )
    found = learning_of("detect")
    monkeypatch.setattr(
        "vitral.training.selfcheck.learning_of", lambda task: replace(found, certain=lambda scores: 0.9)
    )
    with pytest.raises(VitralError, match="do not belong together"):
        checked(scenes, (48, 48), model)
