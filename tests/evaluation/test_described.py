"""The classifier that answers beside a model: fitted in closed form, and part of the model file."""

import json

import numpy as np
import pytest
import torch

from vitral.checkpoints.bundle import save_model
from vitral.data.options import DataOptions
from vitral.data.preprocess import Preprocess
from vitral.data.sources import open_data
from vitral.errors import VitralError
from vitral.evaluation.described import SHARPNESS, fit_described, left_out_top1, sharpness_of
from vitral.evaluation.evaluate import evaluate
from vitral.evaluation.outputs import over
from vitral.layers.described import EdgesAndColours
from vitral.models.common import BESIDE, alone
from vitral.predict import load
from vitral.training.config import Recipe
from vitral.training.display import Display
from vitral.training.options import ModelOptions, TrainOptions
from vitral.training.start import start

SMALL = {"image_size": (32, 32), "patch_size": 8, "dim": 32, "depth": 1, "num_heads": 2, "beside": "edges"}


@pytest.fixture(scope="module")
def shapes(shapes_folder):
    return open_data(str(shapes_folder), DataOptions())


def fitted(data, mirrored=False, classes=3):
    steps = Preprocess(32, 32, data.channels, (0.4,) * data.channels, (0.3,) * data.channels)
    layer = EdgesAndColours(data.channels, classes)
    fit_described(layer, data.splits["train"], steps, mirrored=mirrored)
    return layer, steps


@pytest.mark.parametrize("mirrored", [False, True])
def test_it_tells_what_edges_tell(shapes, mirrored):
    layer, steps = fitted(shapes, mirrored, classes=4)
    test = shapes.splits["test"]
    logits = over(test, steps, layer, "cpu", batch_size=8)
    assert (logits.argmax(1) == test.targets.values).mean() > 0.8
    assert (logits[:, 3] < logits.max(1)).all()  # a class without images is never the answer


def test_left_out_images_are_told_less_well_than_learned_ones():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 60)), np.arange(40) % 4  # noise: nothing to learn
    assert left_out_top1(x, y) < 0.6
    x[np.arange(40), y] += 6
    assert left_out_top1(x, y) > 0.8


def test_scores_are_sharpened_as_far_as_they_are_right():
    Y = 2.0 * np.eye(3)[np.arange(90) % 3] - 1
    rng = np.random.default_rng(0)
    sure, unsure = Y + 0.1 * rng.normal(size=Y.shape), 0.2 * Y + rng.normal(size=Y.shape)
    assert sharpness_of(sure, Y) == max(SHARPNESS)
    assert sharpness_of(unsure, Y) == min(SHARPNESS)


def test_a_model_learns_alone_and_answers_with_it(shapes_folder, tmp_path):
    run = start(str(shapes_folder), Recipe(model=ModelOptions(None, SMALL)), tmp_path / "run", Display())
    model = run.loop.model
    images = torch.randn(2, run.data.channels, 32, 32)
    model.train()
    learning = model(images)
    model.eval()
    torch.testing.assert_close(model(images), BESIDE * model.head(model.represent(images)) + model.beside(images))
    assert learning.shape == model(images).shape
    with alone(model):
        torch.testing.assert_close(model(images), model.head(model.represent(images)))
    assert not [name for name, _ in model.named_parameters() if name.startswith("beside")]
    layer, _ = fitted(run.data, mirrored=True)
    assert layer.weight.shape == model.beside.weight.shape
    assert model.beside.weight.abs().max() > 0
    save_model(tmp_path / "model.safetensors", model, run.card(model, {}))
    stored = load(tmp_path / "model.safetensors")
    torch.testing.assert_close(stored.model.eval()(images), model(images))


def test_a_run_notes_what_the_model_knows_alone(shapes_folder, tmp_path):
    recipe = Recipe(model=ModelOptions(None, SMALL), train=TrainOptions(steps=2, workers=0))
    run = start(str(shapes_folder), recipe, tmp_path / "run", Display())
    assert run.train()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    noted = [line for line in lines if line["event"] == "val"][-1]
    stored, split = load(tmp_path / "run"), run.data.splits["val"]
    together, _ = evaluate(stored, split, run.data.labels)
    with alone(stored.model):
        own, _ = evaluate(stored, split, run.data.labels)
    assert (noted["loss"], noted["own_loss"]) == pytest.approx((together.loss, own.loss), rel=1e-3)
    assert noted["own_top1"] == own.headline
    assert together.loss != own.loss


def test_it_answers_with_one_class(shapes_folder, tmp_path):
    names = [f"{kind}/{i:02d}.png" for kind in ("disc", "square") for i in range(30)]
    rows = [f"{name},{name.partition('/')[0]}{';small' if i % 3 else ''}" for i, name in enumerate(names)]
    (tmp_path / "t.csv").write_text("\n".join(["image,label", *rows]))
    asked = DataOptions(label_separator=";", images_folder=str(shapes_folder))
    with pytest.raises(VitralError, match="leave out --beside"):
        start(str(tmp_path / "t.csv"), Recipe(model=ModelOptions(None, SMALL), data=asked), tmp_path / "run", Display())
