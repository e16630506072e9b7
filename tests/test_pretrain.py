"""`vitral pretrain` through the command line: every objective, folders without classes, BEiT after its tokenizer, and what comes after."""

import json
import shlex
import shutil

import numpy as np
import pytest

from vitral.cli import main
from vitral.predict import load

TINY = [
    "--image-size", "20", "20", "--patch-size", "4", "--dim", "32", "--depth", "2", "--num-heads", "2",
    "--batch-size", "16", "--precision", "fp32", "--workers", "0",
]  # fmt: skip
OWN = {
    "mae": ["--decoder-dim", "16", "--decoder-depth", "1", "--decoder-num-heads", "2"],
    "patch": [],
    "dino": ["--prototypes", "16", "--local-crops", "1"],
    "tokenizer": ["--codes", "16"],
}


def vitral(*words):
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return stop.value.code


@pytest.fixture(scope="module")
def tokenizer(shapes_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("tokenizer") / "run"
    words = ["--objective", "tokenizer", "--out", out, "--steps", "4", *OWN["tokenizer"], *TINY]
    assert vitral("pretrain", shapes_folder, *words) == 0
    return out


@pytest.mark.parametrize("objective", [*OWN, "beit"])
def test_every_objective_leaves_a_run_to_start_from(shapes_folder, tokenizer, tmp_path, objective, capsys):
    out = tmp_path / "run"
    own = OWN.get(objective, ["--tokenizer", tokenizer])
    assert vitral("pretrain", shapes_folder, "--objective", objective, "--out", out, "--steps", "8", *own, *TINY) == 0
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


def test_beit_without_a_tokenizer_is_refused_with_the_two_commands(shapes_folder, tmp_path, capsys):
    """Both run as they are printed; the first one's ending prints the second."""
    words = [
        shapes_folder,
        "--objective",
        "beit",
        "--mask-ratio",
        "0.3",
        "--steps",
        "2",
        "--out",
        tmp_path / "run",
        *TINY,
    ]
    assert vitral("pretrain", *words) == 2
    message = capsys.readouterr().err
    first, second = [shlex.split(line.partition(" pretrain ")[2]) for line in message.splitlines() if line[:2] == "  "]
    assert "--mask-ratio" not in first
    assert second == [*map(str, words), "--tokenizer", str(tmp_path / "run-tokenizer")]
    assert vitral("pretrain", *first) == 0
    assert f"--objective beit --tokenizer {tmp_path / 'run-tokenizer'}" in capsys.readouterr().err
    assert vitral("pretrain", *second) == 0
    assert load(tmp_path / "run").model.num_classes == 0
    assert vitral("pretrain", "--resume", tmp_path) == 2
    assert f"there is one in {tmp_path / 'run'}, {tmp_path / 'run-tokenizer'}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pretrain", "DATA", "--objective", "classify"], "use vitral train"),
        (["train", "DATA", "--objective", "mae"], "vitral pretrain"),
        (["pretrain", "DATA", "--objective", "mae", "--model", "resnet18"], "plain ViT"),
        (["pretrain", "DATA", "--objective", "beit", "--tokenizer", "nowhere"], "there is no model"),
        (["pretrain", "DATA", "--objective", "patch", "--model", "swin_tiny_patch4_window7_224", "--image-size", "64", "64"], "hide patches"),
        (["pretrain", "DATA", "--prototypes", "8"], "--prototypes is for dino; this is mae"),
        (["train", "DATA", "--mask-ratio", "0.5"], "--mask-ratio is for mae, beit, patch, dino; this is classify"),
        (["train", "DATA", "--window", "7", "7"], "vit_tiny_patch16_224 (family vit) has no argument 'window'"),
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
