"""Semantic maps from a folder to an answer: trained, killed and resumed, scored at the images' own sizes, started from other weights."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from test_everything import made
from test_resume import same, stopped, train

import vitral
from vitral.cli import main
from vitral.data.maps import VOID
from vitral.data.options import AugmentOptions, DataOptions
from vitral.data.sources import open_data
from vitral.errors import VitralError
from vitral.models.heads.options import LinearOptions, SegformerOptions
from vitral.objectives.options import ClassifyOptions, SegmentOptions
from vitral.training.config import Recipe
from vitral.training.defaults import resolve
from vitral.training.options import ModelOptions, TrainOptions, TransferOptions, ViewOptions

SMALL = ModelOptions("vit_tiny_patch16_224", image_size=(24, 32), patch_size=4, dim=32, depth=2, num_heads=2)
WORDS = ["--image-size", "24", "32", "--patch-size", "4", "--dim", "32", "--depth", "2", "--num-heads", "2", "--precision", "fp32",
         "--optimizer", "adamw", "--lr", "5e-3", "--batch-size", "4", "--workers", "0", "--near-copies", "apart"]  # fmt: skip
KILLED = [
    "--accumulation",
    "2",
    "--epochs",
    "2",
    "--checkpoint-every",
    "2",
    "--ema",
    "0.9",
    "--drop-path",
    "0.1",
]  # of a run that is killed at step 8
UNCHANGED = [
    "--steps",
    "1",
    "--workers",
    "0",
    "--lr",
    "1e-9",
    "--precision",
    "fp32",
]  # a step that leaves the weights as they began


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """Forty pictures of many sizes: a bright and a dark side, of which the map says which is which; some pixels are void."""
    root = tmp_path_factory.mktemp("ground")
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (root / name).mkdir()
    for k in range(40):
        h, w = rng.integers(20, 44, 2)
        edge = int(rng.integers(w // 4, 3 * w // 4))
        map_ = np.zeros((h, w), np.uint8)
        map_[:, edge:] = 1
        map_ = map_ if rng.random() < 0.5 else map_[:, ::-1]
        pixels = np.where(map_[..., None] > 0, 200, 40) + rng.normal(0, 12, (h, w, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"images/{k:02}.png")
        map_ = map_.copy()
        map_[:2] = 255
        Image.fromarray(map_).save(root / f"masks/{k:02}.png")
    (root / "classes.json").write_text('{"classes": {"0": "dark", "1": "bright"}, "void": [255]}')
    return root


@pytest.fixture(scope="module")
def trained(ground, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "ground"
    train("train", ground, "--out", out, *WORDS, "--steps", "60")
    return out


def picture(path):
    with Image.open(path) as image:
        return np.asarray(image)


def run(capsys, *words):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    said = capsys.readouterr()
    assert stop.value.code == 0, said.err
    return said


def test_from_a_folder_of_maps_to_maps_of_the_originals(ground, trained, capsys):
    result = json.loads(run(capsys, "evaluate", trained, ground, "--split", "test", "--json").out)
    assert result["miou"] > 0.9
    assert result["miou"] == pytest.approx(json.loads((trained / "scores.json").read_text())["miou"])
    low, high = result["miou_interval"]
    assert low <= result["miou"] <= high
    data = open_data(ground, DataOptions(near_copies="apart"))
    split, vit = data.splits["test"], vitral.load(trained)
    total = np.zeros((3, 2))
    for i in range(len(split)):
        answer, truth = vit.predict(split.path(i)), split.targets.map(i)
        assert answer.map.shape == truth.shape
        assert answer.labels == ["dark", "bright"]
        known = truth != VOID
        for k in range(2):
            own, true = (answer.map == k) & known, truth == k
            total[:, k] += (own & true).sum(), own.sum(), true.sum()
    expected = (total[0] / (total[1] + total[2] - total[0])).mean()
    assert result["miou"] == pytest.approx(expected, abs=1e-9)
    assert "mIoU" in (trained / "report.html").read_text()
    rows = run(capsys, "predict", trained, split.path(0), "--format", "csv").out.splitlines()
    assert rows[0] == "image,label,share,label_2,share_2,error"
    line = json.loads(run(capsys, "predict", trained, split.path(0), "--format", "jsonl").out)
    assert sum(line["shares"].values()) == pytest.approx(1)


def test_a_killed_run_ends_with_the_same_bits(ground, tmp_path):
    words = [*WORDS, *KILLED]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train("train", ground, "--out", whole, *words)
    stopped("replace", 8, "train", ground, "--out", killed, *words)
    train("train", "--resume", killed)
    assert same(whole, killed)


@pytest.mark.parametrize("head", [LinearOptions(head_dropout=0.0), SegformerOptions(head_dim=16, head_dropout=0.0)])
def test_accumulated_gradients_are_the_large_batchs(ground, head):
    """The loss is the mean over the labelled pixels of the whole batch: images with much void weigh less, however the batch is cut."""
    data = open_data(ground, DataOptions(val_fraction=0, test_fraction=0, near_copies="apart"))
    recipe = Recipe(SMALL, augment=AugmentOptions(zoom=(0.3, 1.0), jitter=0.2), head=head)
    whole, parts = made(recipe, data, 12, 1), made(recipe, data, 5, 3)
    parts.batches = whole.batches
    gradients, outcomes = [], []
    for loop in (whole, parts):
        loop.model.train()
        outcomes.append(loop.gradients(loop.batches[0], None))
        gradients.append(torch.cat([p.grad.flatten().double() for p in loop.model.parameters() if p.grad is not None]))
    assert (gradients[0] - gradients[1]).norm() <= 2e-6 * gradients[0].norm()
    assert outcomes[0] == pytest.approx(outcomes[1], rel=1e-5)
    assert 0 < outcomes[0]["accuracy"] < 1


def test_a_backbone_from_a_classifier_and_a_head_from_the_same_task(ground, trained, shapes_folder, tmp_path):
    first, out = tmp_path / "classifier", tmp_path / "maps"
    train("train", shapes_folder, "--out", first, *WORDS[:-2], "--steps", "2")
    train("train", ground, "--out", out, "--init", first, *UNCHANGED)
    a, b = vitral.load(first).model.state_dict(), vitral.load(out).model.backbone.state_dict()
    assert torch.allclose(a["blocks.1.mlp.fc1.weight"], b["blocks.1.mlp.fc1.weight"], atol=1e-6)
    assert "a new head for 2 classes" in (out / "run.json").read_text()
    again = tmp_path / "again"
    train("train", ground, "--out", again, "--init", trained, *UNCHANGED)
    assert "the head is kept" in (again / "run.json").read_text()
    assert json.loads((again / "scores.json").read_text())["miou"] > 0.9
    frozen = tmp_path / "frozen"
    train(
        "train",
        ground,
        "--out",
        frozen,
        "--init",
        first,
        "--freeze",
        "encoder",
        "--steps",
        "2",
        "--workers",
        "0",
        "--lr",
        "1e-2",
    )
    c = vitral.load(frozen).model.backbone.state_dict()
    assert torch.equal(a["blocks.0.attn.qkv.weight"], c["blocks.0.attn.qkv.weight"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"augment": AugmentOptions(mixup=0.2)}, "augment.mixup 0.2: is for answers to whole images"),
        ({"augment": AugmentOptions(cutmix=1.0)}, "augment.cutmix"),
        ({"view": ViewOptions(resize="crop")}, "choose pad or squash"),
        ({"train": TrainOptions(progressive=0.5)}, "train.progressive"),
        ({"objective": ClassifyOptions(smoothing=0.3)}, "objective.smoothing: is for classify"),
        ({"transfer": TransferOptions(head_norm=True)}, "transfer.head_norm"),
    ],
)
def test_what_means_nothing_for_places_is_refused(ground, change, said):
    data = open_data(ground)
    with pytest.raises(VitralError, match=said):
        resolve(replace(Recipe(SMALL), **change), data, "cpu")


def test_defaults_suit_maps(ground, shapes_folder):
    data = open_data(ground)
    recipe, reasons = resolve(Recipe(), data, "cpu")
    assert (recipe.objective, recipe.head) == (SegmentOptions(), SegformerOptions(head_dim=64, head_upscale=2))
    assert recipe.model.get("stem") == (32,) * 2 + (64,) * 4 + (128,) * 5
    linear, _ = resolve(Recipe(ModelOptions(stem=())), data, "cpu")
    assert linear.head == LinearOptions()
    assert (recipe.augment.crop, recipe.view.resize, recipe.model.get("patch_size")) == ("jittered", "pad", 8)
    assert any("segformer head" in reason for reason in reasons)
    pyramid, _ = resolve(Recipe(ModelOptions("pvt_v2_b0")), data, "cpu")
    assert pyramid.head == SegformerOptions()
    with pytest.raises(VitralError, match="head linear: is for tasks that answer places"):
        resolve(Recipe(head=LinearOptions()), open_data(shapes_folder), "cpu")
    with pytest.raises(VitralError, match="objective segment: is for other data"):
        resolve(Recipe(objective=SegmentOptions()), open_data(shapes_folder), "cpu")


def test_predictions_are_written_as_maps_that_are_data_again(ground, trained, tmp_path, capsys):
    out = tmp_path / "maps"
    said = run(capsys, "predict", trained, ground / "images", "--out", out)
    assert "pictures of 40 images" in said.err
    assert json.loads((out / "classes.json").read_text()) == {"classes": {"0": "dark", "1": "bright"}}
    answer = vitral.load(trained).predict(ground / "images/03.png")
    assert (picture(out / "03.png") == answer.map).all()
    h, w = picture(out / "03-overlay.jpg").shape[:2]  # with the classes' names below
    assert h > answer.map.shape[0]
    assert w >= answer.map.shape[1]


def test_answers_to_whole_images_have_no_pictures(shapes_folder, tmp_path, capsys):
    out = tmp_path / "run"
    train("train", shapes_folder, "--out", out, *WORDS[:-2], "--steps", "1")
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["predict", str(out), str(shapes_folder), "--out", str(tmp_path / "pictures")])
    assert "--out: is for answers that are places" in capsys.readouterr().err


def test_what_is_for_whole_images_says_so(ground, trained, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(trained), str(ground), "--explanations", "rollout"])
    assert stop.value.code == 2
    assert "answers places in an image (task semantic)" in capsys.readouterr().err


def test_the_truth_is_scored_before_training(ground, trained, tmp_path, capsys):
    assert "the truth in cells of 1 pixels" in (trained / "run.json").read_text()
    fine = np.indices((64, 64)).sum(0) % 2  # a checkerboard, of which a small view shows nothing
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    rng = np.random.default_rng(0)
    for k in range(12):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / f"images/{k}.png")
        Image.fromarray(fine.astype(np.uint8)).save(tmp_path / f"masks/{k}.png")
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "train",
                str(tmp_path),
                "--image-size",
                "16",
                "16",
                "--patch-size",
                "4",
                "--steps",
                "1",
                "--out",
                str(tmp_path / "run"),
            ]
        )
    assert stop.value.code == 2
    assert "the truth itself, shown at 16x16 pixels and brought back, scores mIoU" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_contact_sheet_shows_maps_on_their_views(ground, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    run(capsys, "train", ground, "--show-augmentation", out, *WORDS)
    assert picture(out).shape[1] > 300


@pytest.mark.slow
def test_ten_images_are_learned_by_heart(tmp_path, capsys):
    from vitral.data.scenes import SceneOptions, write_scenes

    write_scenes(tmp_path / "scenes", SceneOptions(images=10, test=0, size=64))
    out = tmp_path / "run"
    train("train", tmp_path / "scenes", "--task", "semantic", "--val-fraction", "0", "--test-fraction", "0", "--crop", "none", "--hflip", "0",
          "--dim", "128", "--depth", "4", "--num-heads", "4", "--patch-size", "8", "--head-dropout", "0", "--head", "linear", "--head-upscale", "8",
          "--epochs", "400",
          "--batch-size", "10", "--lr", "2e-3", "--workers", "0", "--keep", "last", "--out", out)  # fmt: skip
    result = json.loads(run(capsys, "evaluate", out, tmp_path / "scenes", "--split", "train", "--json").out)
    assert result["miou"] >= 0.97


def test_a_converted_file_answers_the_same_and_others_have_no_such_model(ground, trained, tmp_path, capsys):
    run(capsys, "convert", trained, tmp_path / "own.safetensors")
    image = ground / "images/03.png"
    assert (
        vitral.load(tmp_path / "own.safetensors").predict(image).map == vitral.load(trained).predict(image).map
    ).all()
    with pytest.raises(SystemExit) as stop:
        main(["convert", str(trained), str(tmp_path / "hf"), "--to", "hf"])
    assert stop.value.code == 2
    assert "has no layout 'hf'" in capsys.readouterr().err


def test_the_doctor_and_a_plan_know_the_task(ground, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "PNG maps" in run(capsys, "doctor", ground, "--task", "semantic").err
    run(capsys, "plan", ground, "--epochs", "2", "--device", "t4")
    (recipe,) = tmp_path.glob("*.toml")
    run(
        capsys,
        "train",
        ground,
        "--recipe",
        recipe,
        "--workers",
        "0",
        "--batch-size",
        "4",
        "--steps",
        "1",
        "--out",
        tmp_path / "run",
    )
    assert json.loads((tmp_path / "run" / "scores.json").read_text())["images"] > 0


@pytest.mark.slow
def test_scenes_are_learned_from_scratch(tmp_path, monkeypatch, capsys):
    """Shapes in random colours over photographs, on scenes that were not learned: by the commands of docs/dense.md."""
    monkeypatch.chdir(tmp_path)
    run(capsys, "data", "scenes", "scenes", "--images", "800", "--test", "100", "--size", "192")
    run(capsys, "doctor", "scenes")
    run(capsys, "train", "scenes", "--task", "semantic", "--near-copies", "apart", "--steps", "300", "--out", "run")
    result = json.loads(run(capsys, "evaluate", "run", "scenes", "--split", "test", "--json").out)
    run(capsys, "predict", "run", "scenes/test", "--out", "maps")
    assert result["miou"] > 0.25  # background everywhere scores 0.10
