"""`vitral pretrain` through the command line: every objective, folders without classes, BEiT in two stages, and what comes after."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from vitral.cli import main
from vitral.predict import load

sys.path.append(str(Path(__file__).parent / "training"))
from test_resume import same, stopped

TINY = [
    "--image-size", "20", "20", "--patch-size", "4", "--dim", "32", "--depth", "2", "--num-heads", "2",
    "--batch-size", "16", "--precision", "fp32", "--workers", "0", "--decoder-dim", "16", "--decoder-depth",
    "1", "--decoder-num-heads", "2", "--codes", "16", "--prototypes", "16", "--local-crops", "1",
]  # fmt: skip


def vitral(*words):
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return stop.value.code


@pytest.mark.parametrize("objective", ["mae", "beit", "patch", "dino", "tokenizer"])
def test_every_objective_leaves_a_run_to_start_from(shapes_folder, tmp_path, objective, capsys):
    out = tmp_path / "run"
    assert vitral("pretrain", shapes_folder, "--objective", objective, "--out", out, "--steps", "8", *TINY) == 0
    said = capsys.readouterr().err
    assert "nearest neighbours" in said
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert 0 <= [line["knn"] for line in lines if line["event"] == "val"][-1] <= 1
    page = (out / "report.html").read_text()
    with np.load(out / "pictures.npz") as pictures:
        assert page.count("<figure>") == (8 if pictures.files else 0)
        assert all(pictures[name].shape == (8, 20, 20, 1) for name in pictures.files)
        assert (objective == "dino") == (not pictures.files)
    predictor = load(out)
    assert predictor.labels == []
    assert predictor.model.num_classes == 0
    if objective == "tokenizer":
        return
    tuned = tmp_path / "tuned"
    assert (
        vitral(
            "train",
            shapes_folder,
            "--init",
            out,
            "--out",
            tuned,
            "--steps",
            "2",
            "--batch-size",
            "16",
            "--workers",
            "0",
        )
        == 0
    )
    assert "starts from" in capsys.readouterr().err
    assert load(tuned).labels == ["cross", "disc", "square"]


def test_a_folder_without_classes_will_do(shapes_folder, tmp_path, capsys):
    flat = tmp_path / "pictures"
    (flat / "deeper").mkdir(parents=True)
    for i, path in enumerate(sorted(shapes_folder.rglob("*.png"))[:40]):
        shutil.copy(path, (flat if i % 2 else flat / "deeper") / f"{i}.png")
    (flat / "README.txt").write_text("no picture")
    assert vitral("pretrain", flat, "--out", tmp_path / "run", "--steps", "2", *TINY) == 0
    assert "40 train" in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["images"] == {"train": 40}
    assert vitral("train", flat, "--out", tmp_path / "other") == 2
    assert "outside of any class folder" in capsys.readouterr().err


@pytest.mark.parametrize(("count", "second"), [(9, False), (40, True)])
def test_beit_is_resumed_in_either_stage(shapes_folder, tmp_path, count, second):
    words = ["--objective", "beit", "--epochs", "4", "--checkpoint-every", "1", *TINY]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert vitral("pretrain", shapes_folder, "--out", whole, *words) == 0
    stopped("replace", count, "pretrain", shapes_folder, "--out", killed, *words)
    assert (killed / "run.json").exists() == second
    assert vitral("pretrain", "--resume", killed) == 0
    assert same(whole / "tokenizer", killed / "tokenizer")
    # The two runs name two tokenizers in their recipes, but their weights are the same.
    assert load(whole).model.state_dict().keys() == load(killed).model.state_dict().keys()
    theirs = load(killed).model.state_dict()
    assert all((value == theirs[name]).all() for name, value in load(whole).model.state_dict().items())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pretrain", "DATA", "--objective", "classify"], "use vitral train"),
        (["train", "DATA", "--objective", "mae"], "vitral pretrain"),
        (["pretrain", "DATA", "--objective", "mae", "--model", "resnet18"], "plain ViT"),
        (["pretrain", "DATA", "--objective", "beit", "--tokenizer", "nowhere"], "there is no model"),
        (["pretrain", "DATA", "--objective", "patch", "--model", "swin_tiny_patch4_window7_224", "--image-size", "64", "64"], "hide patches"),
        (["pretrain"], "which data"),
    ],
)  # fmt: skip
def test_refusals_say_what_to_do(shapes_folder, tmp_path, capsys, words, said):
    words = [str(shapes_folder) if word == "DATA" else word for word in words]
    assert vitral(*words, "--out", tmp_path / "run") == 2
    message = capsys.readouterr().err
    assert said in message
    assert "Traceback" not in message


def test_the_augmentation_can_be_looked_at(shapes_folder, tmp_path, capsys):
    from PIL import Image

    sheet = tmp_path / "sheet.png"
    assert vitral("train", shapes_folder, "--show-augmentation", sheet, "--policy", "3augment", "--cutmix", "1") == 0
    with Image.open(sheet) as picture:
        assert min(picture.size) > 300
    assert not (tmp_path / "runs").exists()
    assert vitral("train", shapes_folder, "--show-augmentation", tmp_path / "no" / "sheet.png") == 2
    assert "cannot be written" in capsys.readouterr().err
