"""`--continue`: one command that starts a run, goes on with it, or has nothing left to do, whatever it finds."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_resume import TRAIN, same, stopped, train

from processes import run
from vitral.checkpoints.atomic import write_safetensors
from vitral.checkpoints.claim import Claim
from vitral.predict import load
from vitral.training.state import opened

WORDS = [*TRAIN, "--workers", "0", "--continue"]
LATER = 24  # renamings until a run of these words has a checkpoint beside its best one


@pytest.fixture(scope="module")
def whole(shapes_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    train("train", shapes_folder, "--out", out, *WORDS)
    return out


# From the claim of the folder over the first checkpoint to the report.
@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 11, 14])
def test_the_same_command_ends_a_run_that_was_killed_anywhere(shapes_folder, tmp_path, whole, count):
    stopped("replace", count, "train", shapes_folder, "--out", tmp_path / "run", *WORDS)
    train("train", shapes_folder, "--out", tmp_path / "run", *WORDS)
    assert same(whole, tmp_path / "run")
    assert (tmp_path / "run/report.html").exists()


def test_a_finished_run_is_left_alone(shapes_folder, whole, capsys):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    train("train", shapes_folder, "--out", whole, *WORDS)
    assert "nothing is left to do" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("other", [["--lr", "0.1"], ["--epochs", "4"], "data"])
def test_another_run_is_not_gone_on_with(shapes_folder, whole, tmp_path, capsys, finished, other):
    shutil.copytree(whole, tmp_path / "run")
    if not finished:
        (tmp_path / "run/report.html").unlink()
    words = ["digits", *WORDS] if other == "data" else [shapes_folder, *WORDS, *other]
    train("train", *words, "--out", tmp_path / "run", status=2)
    said = capsys.readouterr().err
    assert "holds a run that was begun by vitral train" in said
    assert "nothing is left to do" not in said


def test_a_recipe_that_was_changed_is_noticed(shapes_folder, tmp_path, capsys):
    recipe, words = (
        tmp_path / "own.toml",
        ["train", shapes_folder, "--out", tmp_path / "run", *WORDS, "--recipe", tmp_path / "own.toml"],
    )
    recipe.write_text("[optim]\nlr = 0.001\n")
    train(*words)
    for finished in (True, False):
        recipe.write_text("# the rate\n[optim]\nlr = 1e-3\n[train]\nworkers = 1\n")
        train(*words)
        assert "nothing is left to do" in capsys.readouterr().err or not finished
        recipe.write_text("[optim]\nlr = 0.002\n[train]\nseed = 3\n")
        train(*words, status=2)
        assert f"was begun with another {recipe}, as optim.lr, train.seed shows; write there" in capsys.readouterr().err
        (tmp_path / "run/report.html").unlink()


@pytest.mark.parametrize("pointed", [True, False])
def test_a_model_that_was_removed_is_written_again(shapes_folder, whole, tmp_path, capsys, pointed):
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    (out / "model.safetensors").unlink()
    if not pointed:
        (out / "checkpoints/best").unlink()
    train("train", shapes_folder, "--out", out, *WORDS)
    assert "was gone: it is written again from the checkpoint of step" in capsys.readouterr().err
    assert same(whole, out)
    assert load(out).card == load(whole).card
    before, after = (json.loads((folder / "scores.json").read_text()) for folder in (whole, out))
    assert after | {"training_seconds": 0} == before | {"training_seconds": 0}


def test_the_best_weights_are_written_again_and_not_the_last(shapes_folder, whole, tmp_path):
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    last = out / "checkpoints" / (out / "checkpoints/latest").read_text()
    tensors, progress = opened(last)
    best = replace(progress, step=8, best_step=8)
    halved = {name: t / 2 if name.startswith("average/") else t for name, t in tensors.items()}
    write_safetensors(out / "checkpoints/step-00000008.safetensors", halved, {"progress": json.dumps(vars(best))})
    (out / "checkpoints/best").write_text("step-00000008.safetensors")
    (out / "model.safetensors").unlink()
    train("train", shapes_folder, "--out", out, *WORDS)
    assert load(out).card.scores["step"] == 8
    before, after = (load_file(folder / "model.safetensors") for folder in (whole, out))
    learned = next(name for name in before if name.endswith("qkv.weight"))
    assert torch.equal(after[learned], before[learned] / 2)


@pytest.mark.parametrize(
    ("gone", "said"), [("best", "model.safetensors: is gone"), ("all", "was trained to its end, and its checkpoints")]
)
def test_a_finished_run_without_its_weights_is_not_trained_over(shapes_folder, whole, tmp_path, capsys, gone, said):
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    (out / "model.safetensors").unlink()
    if gone == "all":
        shutil.rmtree(out / "checkpoints")
    else:
        (out / "checkpoints/best").write_text("step-00000008.safetensors")
    before = (out / "metrics.jsonl").read_text()
    train("train", shapes_folder, "--out", out, *WORDS, status=2)
    told = capsys.readouterr().err
    assert said in told
    assert "another --out" in told
    assert (out / "metrics.jsonl").read_text() == before


@pytest.fixture(scope="module")
def parted(shapes_folder, tmp_path_factory):
    """A run that was ended in its second epoch, with checkpoints of two steps: the best of the first epoch, and the last."""
    out = tmp_path_factory.mktemp("runs") / "parted"
    stopped("replace", LATER, "train", shapes_folder, "--out", out, *WORDS)
    steps = sorted(path.name for path in (out / "checkpoints").glob("step-*.safetensors"))
    assert len(steps) == 2
    assert (out / "checkpoints/latest").read_text() == steps[1]
    return out, steps


@pytest.mark.parametrize("how", ["gone", "empty", "dangling"])
def test_without_its_pointer_a_run_goes_on_from_the_newest_checkpoint(
    shapes_folder, whole, parted, tmp_path, capsys, how
):
    out, (older, newer) = Path(shutil.copytree(parted[0], tmp_path / "run")), parted[1]
    latest, taken = out / "checkpoints/latest", newer
    if how == "gone":
        latest.unlink()
    elif how == "empty":
        latest.write_text("")
    else:
        (out / "checkpoints" / newer).unlink()
        taken = older
    train("train", shapes_folder, "--out", out, *WORDS)
    said = capsys.readouterr().err
    assert f"names no checkpoint that is there: the newest is taken, {taken}" in said
    assert f"resuming at step {int(taken[5:13])}, " in said
    assert same(whole, out)


def test_of_a_damaged_checkpoint_the_whole_one_before_is_named(shapes_folder, parted, tmp_path, capsys):
    out, (older, newer) = Path(shutil.copytree(parted[0], tmp_path / "run")), parted[1]
    for name, said in ((newer, f"{older})"), (older, "no older checkpoint is whole")):
        os.truncate(out / "checkpoints" / name, 5000)
        train("train", shapes_folder, "--out", out, *WORDS, status=2)
        told = capsys.readouterr().err
        assert f"{newer}: is cut short or damaged" in told
        assert said in told


@pytest.mark.parametrize("processes", ["1", "2"])
def test_two_runs_do_not_meet_in_one_folder(shapes_folder, tmp_path, capsys, processes):
    with Claim(tmp_path / "run"):
        train("train", shapes_folder, "--out", tmp_path / "run", *WORDS, "--processes", processes, status=2)
    assert f"a run is going on there (process {os.getpid()}); wait for it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--lr", "1"], "leave out --lr"), ([], "holds no run to resume"), (["digits"], "leave out digits")],
)
def test_several_processes_are_not_started_to_be_refused(tmp_path, capsys, monkeypatch, words, said):
    monkeypatch.setattr("vitral.cli.launch.launch", lambda *given: pytest.fail("they were started"))
    train("train", *words, "--resume", tmp_path, "--processes", "2", status=2)
    assert said in capsys.readouterr().err


def test_no_processes_are_none(tmp_path, capsys):
    train("train", "digits", "--processes", "0", "--out", tmp_path / "run", status=2)
    assert "--processes 0: give 1 or more" in capsys.readouterr().err


def test_a_run_at_work_is_not_resumed_by_several_processes(parted, tmp_path, capsys):
    out = Path(shutil.copytree(parted[0], tmp_path / "run"))
    with Claim(out):
        train("train", "--resume", out, "--processes", "2", status=2)
    assert f"a run is going on there (process {os.getpid()})" in capsys.readouterr().err


def test_what_else_lies_in_the_folder_is_not_touched(shapes_folder, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/thesis.txt").write_text("mine")
    train("train", shapes_folder, "--out", tmp_path / "run", *WORDS, status=2)
    assert "holds other files already" in capsys.readouterr().err


# Kills its own process in a validation, the one with this number.
IN_VALIDATION = """
import os, sys
from vitral.training.supervised import Supervised
number, calls, score = int(sys.argv[1]), 0, Supervised.validate
def dying(*rest):
    global calls
    calls += 1
    if calls == number:
        os.kill(os.getpid(), 9)
    return score(*rest)
Supervised.validate = dying
from vitral.cli import main
main(sys.argv[2:])
"""


def test_what_was_learned_before_a_long_validation_outlives_a_kill_in_it(shapes_folder, tmp_path, whole):
    words = ["train", shapes_folder, "--out", tmp_path / "run", *WORDS]
    assert run(1, *words, code=IN_VALIDATION).returncode == -9
    step = int((tmp_path / "run/checkpoints/latest").read_text()[5:13])
    assert run(99, *words, code=IN_VALIDATION).returncode == 0
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert min(line["step"] for line in lines if line["event"] == "val") == step
    assert same(whole, tmp_path / "run")
