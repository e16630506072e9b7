"""Cross-validation from the command line: every image is judged once by a model that did not learn from it, also if the command was killed."""

import csv
import json
import shutil
import signal

import numpy as np
import pytest

from processes import eventually, run, start
from vitral.cli import main
from vitral.data.sources import open_data
from vitral.report.folds import Folded
from vitral.training.toml import read_recipe

TRAIN = ["--folds", "3", "--train-fraction", "1", "--epochs", "2", "--dim", "32", "--depth", "1", "--num-heads", "2", "--image-size", "20", "20",
         "--patch-size", "4", "--batch-size", "8", "--precision", "fp32", "--checkpoint-every", "1"]  # fmt: skip


def status(*words):
    with pytest.raises(SystemExit) as stop:
        main([*map(str, words)])
    return stop.value.code


@pytest.fixture(scope="module")
def whole(shapes_folder, tmp_path_factory):
    """A finished cross-validation."""
    out = tmp_path_factory.mktemp("folds") / "run"
    assert status("train", shapes_folder, *TRAIN, "--out", out) == 0
    return out


def rows(run):
    with open(run / "out-of-fold.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_image_is_judged_once_by_a_model_that_did_not_learn_from_it(whole, shapes_folder):
    table = rows(whole)
    names = sorted(str(p.relative_to(shapes_folder)) for p in shapes_folder.glob("*/*") if p.is_file())
    assert sorted(row["image"] for row in table) == names
    assert all(row["truth"] == row["image"].split("/")[0] for row in table)
    for fold in ("1", "2", "3"):
        recipe = read_recipe(whole / f"fold-{fold}" / "recipe.toml")
        assert recipe.data.fold == (int(fold), 3)
        data = open_data(str(shapes_folder), recipe.data)
        mine = {row["image"] for row in table if row["fold"] == fold}
        assert set(data.splits["test"].names) == mine
        assert not mine & set(data.splits["train"].names)
        scores = json.loads((whole / f"fold-{fold}" / "scores.json").read_text())
        right = [row["label"] == row["truth"] for row in table if row["fold"] == fold]
        assert scores["top1"] == pytest.approx(np.mean(right))


def test_so_few_images_are_all_learned_from_but_for_the_test_ones(whole, shapes_folder):
    data = open_data(str(shapes_folder), read_recipe(whole / "fold-1" / "recipe.toml").data)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 60, "test": 30}
    assert "kept" in json.loads((whole / "fold-1" / "scores.json").read_text())
    reasons = json.loads((whole / "fold-1" / "run.json").read_text())["reasons"]
    assert [reason for reason in reasons if reason.startswith("validation: none")]


def test_the_page_has_the_mean_over_the_folds_beside_what_needs_no_training(whole):
    page = (whole / "report.html").read_text()
    top1 = [json.loads((whole / f"fold-{k}" / "scores.json").read_text())["top1"] for k in (1, 2, 3)]
    assert f"{np.mean(top1):.1%} ± {np.std(top1, ddof=1):.1%}" in page
    assert "without training: a linear classifier on pixels" in page
    assert 'href="fold-2/report.html"' in page
    assert ", fold 2 of 3: " in (whole / "fold-2" / "report.html").read_text()


def test_the_summary_says_whether_the_models_beat_what_needs_no_training(whole):
    folded = Folded.of(whole, 3)
    edges = [
        fold.without["a linear classifier on edges and colours"] for fold in folded.folds
    ]  # the best, of these pictures
    gaps = [100 * (fold.headline - value) for fold, value in zip(folded.folds, edges, strict=True)]
    assert folded.summary().splitlines()[-1] == (
        f"against a linear classifier on edges and colours, the best without training: {np.mean(gaps):+.1f} points of the images right, "
        f"better in {sum(gap > 0 for gap in gaps)} of 3 folds ({min(gaps):+.1f} to {max(gaps):+.1f})"
    )


def test_killed_in_a_fold_it_goes_on_to_the_same_table(whole, shapes_folder, tmp_path):
    out = tmp_path / "run"
    process = start("train", shapes_folder, *TRAIN, "--out", out)
    eventually((out / "fold-2" / "checkpoints" / "latest").exists, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (out / "report.html").exists()
    refused = run("train", shapes_folder, *TRAIN, "--out", out)
    assert refused.returncode == 2
    assert f"--resume {out}" in refused.stderr
    first = (out / "fold-1" / "model.safetensors").stat().st_mtime_ns
    done = run("train", "--resume", out)
    assert done.returncode == 0, done.stderr
    assert (out / "fold-1" / "model.safetensors").stat().st_mtime_ns == first
    assert (out / "out-of-fold.csv").read_bytes() == (whole / "out-of-fold.csv").read_bytes()


def test_what_cannot_be_folded_is_refused(shapes_folder, tmp_path, capsys):
    assert status("train", shapes_folder, "--folds", "1", "--out", tmp_path / "a") == 2
    assert "give 2 or more" in capsys.readouterr().err
    assert status("train", shapes_folder, *TRAIN, "--score-split", "val", "--out", tmp_path / "a") == 2
    assert "leave out --score-split" in capsys.readouterr().err
    for split in ("train", "test"):
        shutil.copytree(shapes_folder, tmp_path / "given" / split)
    assert status("train", tmp_path / "given", *TRAIN, "--out", tmp_path / "b") == 2
    assert "name their own test split" in capsys.readouterr().err
    assert not (tmp_path / "b" / "fold-1" / "run.json").exists()
