"""vitral probe from the outside, and what a model without a head says when it is asked to predict."""

import json

import pytest
import torch

from test_cli import run
from vitral.checkpoints.bundle import save_model
from vitral.checkpoints.card import ModelCard
from vitral.data.preprocess import Preprocess
from vitral.errors import VitralError
from vitral.predict import load


@pytest.fixture
def headless(tmp_path, tiny_vit):
    """A model that was trained without labels."""
    model = tiny_vit(image_size=20, num_classes=0)
    steps = Preprocess(20, 20, 1, (0.3,), (0.3,), min_size=4)
    save_model(tmp_path / "m.safetensors", model, ModelCard("vit", model.config.arguments(), [], steps))
    return tmp_path / "m.safetensors"


def test_probe_prints_json_beside_its_baselines(capsys, headless, shapes_folder):
    words = ("probe", headless, shapes_folder, "--shots", "1", "5", "--seeds", "2", "--baseline", "--json")
    code, out, err = run(capsys, *words)
    assert code == 0, err
    result = json.loads(out)
    assert result["split"] == "test"
    for who in ("model", "random", "pixels"):
        assert set(result[who]["few_shot"]) == {"1", "5"}
        top1 = [each["mean"] for each in result[who]["few_shot"].values()]
        assert all(0 <= value <= 1 for value in (*top1, result[who]["k_nn"], result[who]["linear"]["top1"]))
    assert result["model"] != result["random"] != result["pixels"]
    assert "top-1 on" in err
    assert "--baseline" not in err
    assert run(capsys, *words)[1] == out  # nothing is drawn anew


def test_probe_prints_a_table_and_says_what_it_left_out(capsys, shapes_run, shapes_folder):
    code, out, err = run(capsys, "probe", shapes_run, shapes_folder, "--seeds", "1")
    assert code == 0, err
    assert "not from 25 images a class" in err
    assert "--baseline adds random weights and the pixels" in err
    assert [line[:28].strip() for line in out.splitlines()][1:] == [
        "1 image a class", "5 images a class", "10 images a class", "20 nearest neighbours", "linear, all training images",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--shots", "1000"], "1000 shots: a class has only"),
        (["--shots", "0"], "--shots 0"),
        (["--seeds", "0"], "--seeds 0"),
        (["--test-fraction", "0", "--val-fraction", "0"], "neither a test nor a validation split"),
    ],
)
def test_what_cannot_be_probed_is_refused(capsys, headless, shapes_folder, words, what):
    code, out, err = run(capsys, "probe", headless, shapes_folder, *words)
    assert code == 2
    assert what in err
    assert not out


def test_a_model_without_a_head_predicts_nothing(capsys, headless, shapes_folder):
    predictor = load(headless)
    assert predictor.labels == []
    with pytest.raises(VitralError, match=r"no head.*vitral train DATA --init MODEL"):
        predictor.predict(torch.zeros(1, 20, 20))
    for words in (("predict", headless, next((shapes_folder / "disc").iterdir())), ("evaluate", headless, shapes_folder)):  # fmt: skip
        code, _, err = run(capsys, *words)
        assert code == 2
        assert "no head" in err


def test_training_starts_from_it(capsys, headless, shapes_folder, tmp_path):
    out = tmp_path / "run"
    words = (
        "--init",
        headless,
        "--out",
        out,
        "--steps",
        "2",
        "--batch-size",
        "8",
        "--precision",
        "fp32",
        "--workers",
        "0",
    )
    code, _, err = run(capsys, "train", shapes_folder, *words, "--freeze", "encoder")
    assert code == 0, err
    for line in ("starts from", "a new head of 3 classes, begun at zero: the source has none", "parameters learn"):
        assert line in err
    assert load(out).labels == ["cross", "disc", "square"]
