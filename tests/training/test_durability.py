"""A disk that is full, a folder that became read-only, a clock that jumps: the run says what and where, and goes on later as if nothing had been."""

import errno
import json
import resource
import time

import pytest
from test_resume import TRAIN, same, train

from vitral.checkpoints import atomic
from vitral.training.loop import Loop

WORDS = [*TRAIN, "--workers", "0"]
LEAST = 20_000  # bytes: a file of metrics is smaller, a checkpoint larger


@pytest.fixture(scope="module")
def whole(shapes_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    train("train", shapes_folder, "--out", out, *WORDS)
    return out


def at_step(monkeypatch, number, happens):
    """Calls `happens` as a run takes the step with this number."""
    step = Loop.step

    def taken(loop, *rest):
        if loop.progress.step == number:
            happens()
        return step(loop, *rest)

    monkeypatch.setattr(Loop, "step", taken)


@pytest.fixture
def no_room():
    """Files larger than LEAST cannot be written from when it is called on: the kernel's limit on a file stands in for the full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LEAST, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def read_only(monkeypatch):
    """From when it is called on no file can be made or replaced, as on a file system that the kernel has mounted read-only after an error."""

    def refused(path, mode="r", *rest):
        if "w" in mode:
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return open(path, mode, *rest)

    return lambda: monkeypatch.setattr(atomic, "open", refused, raising=False)


@pytest.mark.parametrize(("what", "remedy"), [("no_room", "free some space"), ("read_only", "check the folder")])
def test_what_cannot_be_written_is_named_and_nothing_is_lost(
    shapes_folder, tmp_path, whole, monkeypatch, capsys, request, what, remedy
):
    """Of the steps after the last whole checkpoint none is kept, and they are taken again."""
    at_step(monkeypatch, 9, request.getfixturevalue(what))
    out = tmp_path / "run"
    train("train", shapes_folder, "--out", out, *WORDS, status=2)
    said = capsys.readouterr().err
    assert f"{out}/" in said.replace("\n", "")
    assert "could not be written" in said
    assert remedy in said
    assert (out / "checkpoints/latest").read_text() == "step-00000008.safetensors"
    assert not list(out.rglob("*.tmp"))
    monkeypatch.undo()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
    train("train", "--resume", out)
    assert same(whole, out)


def test_a_clock_that_jumps_changes_nothing(shapes_folder, tmp_path, whole, monkeypatch):
    """Back by a year at step 5, ahead by ten at step 10: times of a run are of a clock that nobody sets."""
    real, ahead = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + ahead[0])
    year = 365 * 24 * 3600.0
    step = Loop.step

    def taken(loop, *rest):
        ahead[0] = {5: -year, 10: 10 * year}.get(loop.progress.step, ahead[0])
        return step(loop, *rest)

    monkeypatch.setattr(Loop, "step", taken)
    train("train", shapes_folder, "--out", tmp_path / "run", *WORDS)
    assert same(whole, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    seconds = [round(line["seconds"], 2) for line in lines if "seconds" in line]
    assert seconds == sorted(seconds)
    assert 0 <= seconds[0] <= seconds[-1] < 3600
