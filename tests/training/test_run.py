"""A run from data to file, in this process: which weights it keeps and says so, how signals end it, and what is shown of it."""

import dataclasses
import io
import json
import os
import pty
import shutil
import signal
import sys

import pytest
import torch
from rich.console import Console

from vitral.checkpoints.atomic import read_safetensors
from vitral.cli import main
from vitral.data.options import DataOptions
from vitral.errors import VitralError
from vitral.objectives.options import ClassifyOptions
from vitral.report.run import report_run
from vitral.training import display as shown
from vitral.training.config import Recipe
from vitral.training.display import Display
from vitral.training.keep import FEW, SPAN, consider
from vitral.training.options import ModelOptions, TrainOptions
from vitral.training.settle import settle
from vitral.training.start import begin, resume, start
from vitral.training.state import Checkpoints, Progress

TINY = Recipe(
    model=ModelOptions(image_size=(20, 20), patch_size=5, dim=32, depth=1, num_heads=2),
    train=TrainOptions(steps=12, batch_size=16, validate_every=3, workers=0, precision="fp32"),
)


def tiny(**train):
    return dataclasses.replace(TINY, train=dataclasses.replace(TINY.train, **train))


def card(run):
    return json.loads(read_safetensors(run / "model.safetensors")[1]["vitral"])


def chosen(validations, images):
    """The step kept of validations (score, loss), a step each."""
    progress = Progress()
    for progress.step, (score, loss) in enumerate(validations, 1):
        kept = consider(progress, score, loss, images)
        assert kept == (progress.best_step == progress.step)
    return progress.best_step


@pytest.mark.parametrize("images", [1, FEW - 1, FEW, 10_000])
def test_of_equal_scores_the_lower_loss_is_kept_and_of_equal_losses_the_later(images):
    assert chosen([(1.0, 0.61), (1.0, 0.08), (1.0, 0.3)], images) == 2
    assert chosen([(0.5, 0.2), (0.5, 0.2), (0.5, 0.2)], images) == 3
    assert chosen([(0.5, 0.7), (0.75, 0.9), (0.75, 0.8)], images) == 3


def test_one_lucky_validation_of_few_images_does_not_win():
    lucky = [(0.5, 1.0), (1.0, 0.9), (0.5, 0.8), *[(0.75, 0.7 - 0.01 * i) for i in range(SPAN)]]
    assert chosen(lucky, 4) == len(lucky)
    assert chosen(lucky, FEW) == 2


def test_a_run_of_a_version_that_knew_no_losses_goes_on():
    old = Progress(step=7, best=0.75, best_step=4)
    assert consider(old, 0.75, 3.0, 500)
    assert old.best_step == 7
    assert not consider(Progress(step=7, best=0.75, best_step=4), 0.7, 0.1, 500)
    assert Progress(**{"step": 3, "elapsed": 1.0, "batch_size": 8, "best": 0.5, "best_step": 2}).recent == []


@pytest.fixture(scope="module")
def one_image(shapes_folder, tmp_path_factory):
    """Data with a single validation image: every validation that gets it right ties with the first."""
    root = tmp_path_factory.mktemp("data") / "one"
    for label in ("disc", "square"):
        for split, files in (("train", range(12)), ("test", range(12, 20)), ("val", range(20, 21))):
            (root / split / label).mkdir(parents=True)
            for i in files if split != "val" or label == "disc" else ():
                shutil.copy(shapes_folder / label / f"{i:02d}.png", root / split / label)
    shutil.rmtree(root / "val" / "square")
    return root


def test_what_is_kept_and_scored_is_said_everywhere(one_image, tmp_path, capsys):
    run = start(str(one_image), TINY, tmp_path / "run", Display(), "vitral train one")
    assert run.train()
    validations = [line for line in map(json.loads, run.metrics.read_text().splitlines()) if line["event"] == "val"]
    best = validations[chosen([(line["top1"], line["loss"]) for line in validations], 1) - 1]
    scores = json.loads((run.folder / "scores.json").read_text())
    assert scores["step"] == best["step"] == card(run.folder)["scores"]["step"]
    assert card(run.folder)["scores"]["val"] == {"top1": best["top1"], "loss": best["loss"], "images": 1}
    assert f"step {best['step']} of 12" in scores["kept"]
    assert f"loss {best['loss']:.4f} on 1 image; for so few images" in scores["kept"]
    assert card(run.folder)["scores"]["kept"] == scores["kept"]
    assert f"kept and scored: {scores['kept']}" in capsys.readouterr().err
    assert scores["kept"] in report_run(run.folder, run.data).read_text()
    assert Checkpoints(run.folder / "checkpoints").pointed("best").name.endswith(f"{best['step']}.safetensors")


@pytest.mark.parametrize(
    ("change", "data", "why"),
    [
        ({"keep": "last"}, {}, "step 4 of 4 (epoch 1.00), the last, as --keep last asks"),
        ({}, {"val_fraction": 0.0}, "the last: there is no validation split"),
    ],
)
def test_the_last_weights_bring_their_own_score(shapes_folder, tmp_path, change, data, why):
    recipe = dataclasses.replace(tiny(steps=4, validate_every=2, **change), data=DataOptions(**data))
    run = start(str(shapes_folder), recipe, tmp_path / "run", Display())
    run.train()
    assert why in json.loads((run.folder / "scores.json").read_text())["kept"]
    validations = [line for line in map(json.loads, run.metrics.read_text().splitlines()) if line["event"] == "val"]
    said = card(run.folder)["scores"].get("val")
    assert (said is None) == (not validations)
    assert said is None or (said["top1"], said["loss"]) == (validations[-1]["top1"], validations[-1]["loss"])


def raising(number, step):
    def watch(line):
        if line["event"] == "train" and line["step"] == step:
            signal.raise_signal(number)
        return ()

    return watch


@pytest.fixture
def hears_hangup():
    """As in a terminal, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_saved(shapes_folder, tmp_path, hears_hangup, number):
    run = start(str(shapes_folder), tiny(steps=20, validate_every=20), tmp_path / "run", Display())
    run.watch = raising(number, 10)
    assert not run.train()
    assert Checkpoints(run.folder / "checkpoints").load()[1].step == 10
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_nohup_is_respected(shapes_folder, tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run = start(str(shapes_folder), tiny(steps=11), tmp_path / "run", Display())
        run.watch = raising(signal.SIGHUP, 10)
        assert run.train()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_is_gone_does_not_stop_a_run():
    """In a process of its own: what nobody reads goes to /dev/null from there on."""
    leader, follower = pty.openpty()
    os.close(leader)  # the terminal hangs up
    child = os.fork()
    if child == 0:
        try:
            os.dup2(follower, 2)
            os.close(follower)
            sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
            display = Display(Console(stderr=True, force_terminal=True))
            display.say("one")
            display.close()
            plain = Display(Console(stderr=True, force_terminal=False))
            plain.say("two")
            print("three", file=sys.stderr, flush=True)
        except BaseException:
            os._exit(1)
        os._exit(0)
    os.close(follower)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def records(display, count, validated=True):
    for i in range(1, count + 1):
        line = {"share": i / count, "seconds": 0.1 * i, "step": 10 * i, "epoch": float(i), "loss": 1 / i, "top1": 0.5}
        display.train(line | {"images_per_s": 93.0})
        if validated:
            display.validated(float(i), 10 * i, f"top-1 {i / count:.2%}", i / count, i / count, 10 * i, last=i == count)


def test_a_pipe_gets_a_sparse_log_with_the_best_so_far(capsys, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(shown.time, "monotonic", lambda: now[0])
    display = Display(Console(file=io.StringIO()))
    for i in range(1, 3601):  # a validation a second for an hour
        now[0] += 1.0
        line = {"share": i / 3600, "seconds": float(i), "step": i, "epoch": float(i), "loss": 0.5, "images_per_s": 93.0}
        display.train(line)
        display.validated(float(i), i, "top-1 50.00%", 0.5, 0.75, 7, last=i == 3600)
    lines = capsys.readouterr().err.splitlines()
    assert 60 < len(lines) < 120
    assert lines[-1].startswith("training 100%  step 3600")
    assert lines[-1].endswith("validation top-1 50.00%  (best so far: 75.00% at step 7)")


def test_a_terminal_has_one_live_line_with_the_best_so_far(capsys):
    out = io.StringIO()
    display = Display(Console(width=80, force_terminal=True, file=out, color_system=None))
    records(display, 30)
    line = {"share": 0.1, "seconds": 3600.0, "step": 123456, "epoch": 123.4, "loss": 12.3456, "images_per_s": 12345.6}
    display.validated(123.4, 123456, "top-1 100.00%", 1.0, 1.0, 5, last=False)
    display.train(line)
    display.live.refresh()
    drawn = [text for text in out.getvalue().replace("\r", "\n").split("\n") if "12.346" in text]
    display.close()
    for part in ("epoch 123.4", "val 100% best 100%", "12,346 images/s", "9:00:00 left"):
        assert part in drawn[0]
    assert capsys.readouterr().err == ""


# Two runs and one folder.


def test_a_folder_in_which_a_run_goes_on_is_refused_before_and_while_it_trains(shapes_folder, tmp_path):
    out = tmp_path / "run"
    run = start(str(shapes_folder), tiny(), out, Display())  # nothing but its description is written yet
    with pytest.raises(VitralError, match="a run is going on there"):
        start(str(shapes_folder), tiny(), out, Display())
    with pytest.raises(VitralError, match="a run is going on there"):
        resume(out, Display())
    second = begin(settle(str(shapes_folder), tiny(), Display()), out, Display(), fresh=True)
    assert second.folder == tmp_path / "run-2"
    assert second.metrics.parent == second.checkpoints.folder.parent == second.folder
    assert run.train()
    assert second.train()
    steps = [json.loads(line)["step"] for line in run.metrics.read_text().splitlines()]
    assert steps == sorted(steps)
    with pytest.raises(VitralError, match="holds a run already"):
        start(str(shapes_folder), tiny(), out, Display())


def test_a_run_that_cannot_start_leaves_no_folder(shapes_folder, tmp_path, monkeypatch):
    recipe = dataclasses.replace(TINY, objective=ClassifyOptions(teacher=str(tmp_path / "teacher")))
    with pytest.raises(VitralError, match="teacher"):
        start(str(shapes_folder), recipe, tmp_path / "run", Display())

    def full(*given):
        raise VitralError("the disk is full")

    monkeypatch.setattr("vitral.training.start.write_seen", full)
    with pytest.raises(VitralError, match="the disk is full"):
        start(str(shapes_folder), TINY, tmp_path / "run", Display())
    monkeypatch.undo()
    assert start(str(shapes_folder), tiny(steps=2), tmp_path / "run", Display()).train()


# Data that moved.


def vitral(*words):
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return stop.value.code


@pytest.fixture(scope="module")
def stopped(shapes_folder, tmp_path_factory):
    """A run that a signal ended at step 10, over data that are gone since; and the weights of one that was left alone."""
    place = tmp_path_factory.mktemp("moved")
    data = shutil.copytree(shapes_folder, place / "here")
    whole = start(str(data), tiny(steps=20, validate_every=10), place / "whole", Display())
    assert whole.train()
    run = start(str(data), tiny(steps=20, validate_every=20), place / "run", Display())
    run.watch = raising(signal.SIGTERM, 10)
    assert not run.train()
    data.rename(place / "there")
    return place


def weights(run):
    return read_safetensors(run / "checkpoints" / "step-00000020.safetensors")[0]


def test_a_run_goes_on_where_its_data_moved_to_bit_for_bit(stopped, tmp_path, capsys):
    run = shutil.copytree(stopped / "run", tmp_path / "run")
    assert vitral("train", "--resume", run) == 2
    assert f"--resume {run} --data NEW_PLACE" in capsys.readouterr().err
    assert vitral("train", stopped / "there", "--resume", run) == 2
    assert f"--data {stopped / 'there'}" in capsys.readouterr().err
    renamed = tmp_path / "renamed"
    for i, path in enumerate(
        sorted(stopped.joinpath("there").glob("*/*.png"), reverse=True)
    ):  # listed in another order
        (renamed / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, renamed / path.parent.name / f"{i:03d}.png")
    assert vitral("train", "--resume", run, "--data", renamed) == 0
    assert f"the data are now in {renamed}" in capsys.readouterr().err
    assert json.loads((run / "run.json").read_text())["data"] == str(renamed)
    alone, resumed = weights(stopped / "whole"), weights(run)
    assert all(torch.equal(alone[name], resumed[name]) for name in alone)
    assert vitral("report", run) == 0


def test_other_data_are_refused(stopped, tmp_path, capsys):
    run = shutil.copytree(stopped / "run", tmp_path / "run")
    other = shutil.copytree(stopped / "there", tmp_path / "other")
    (other / "disc" / "00.png").unlink()
    for words in (("--data", other), (f"--data={other}",)):
        assert vitral("train", "--resume", run, *words) == 2
        said = capsys.readouterr().err
        assert f"these are not the data of the run {run} " in said
        assert str(stopped / "here") in said
    assert json.loads((run / "run.json").read_text())["data"] == str(stopped / "here")
    assert vitral("train", "--data", other) == 2
    assert "without a flag" in capsys.readouterr().err
