"""Runs that are killed and resumed, as real processes: the final weights must be those of the run that was left alone."""

import json
import os
import random
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from processes import eventually, run, start
from vitral.cli import main

TRAIN = ["--epochs", "3", "--dim", "32", "--depth", "2", "--num-heads", "2", "--image-size", "20", "20", "--patch-size", "4", "--dropout", "0.1",
         "--drop-path", "0.2", "--ema", "0.9", "--batch-size", "4", "--accumulation", "2", "--checkpoint-every", "2", "--crop", "resized",
         "--precision", "fp32", "--optimizer", "muon"]  # fmt: skip

# Sends its own process a signal at the n-th call of one of the functions that writing a checkpoint goes through, after half of its bytes or before
# it acts.
KILLER = """
import os, sys
where, count, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sys.argv = ["vitral", *sys.argv[4:]]
import vitral.checkpoints.atomic as atomic
calls = 0
def dying(real, half):
    def call(*a):
        global calls
        calls += 1
        if calls == count:
            if half: real(a[0], bytes(a[1][: len(a[1]) // 2]))
            os.kill(os.getpid(), number)
        return real(*a)
    return call
if where == "write":
    class File:
        def __init__(self, file): self.file = file
        def __enter__(self): return self
        def __exit__(self, *a): self.file.close()
        def write(self, content):
            dying(lambda f, c: (f.write(c), f.flush()), True)(self.file, content)
        def __getattr__(self, name): return getattr(self.file, name)
    atomic.open = lambda *a: File(open(*a))
else:
    real = getattr(os, where)
    setattr(atomic.os, where, dying(real, False))
from vitral.cli import main
main()
"""


def stopped(where, count, *words, number=signal.SIGKILL):
    """A run that sends itself a signal at this moment."""
    done = run(where, count, int(number), *words, code=KILLER)
    assert done.returncode == (-number if number == signal.SIGKILL else 130), done.stderr
    return done


def train(*words, status=0):
    """`vitral WORDS` in this process."""
    with pytest.raises(SystemExit) as stop:
        main([*map(str, words)])
    assert stop.value.code == status


def same(a: Path, b: Path) -> bool:
    """Final checkpoints (weights, moments, average) and model files, bit for bit."""
    latest = [(f / "checkpoints" / "latest").read_text() for f in (a, b)]
    files = [[f / "checkpoints" / latest[0] for f in (a, b)], [f / "model.safetensors" for f in (a, b)]]
    for one, other in files:
        x, y = load_file(one), load_file(other)
        if x.keys() != y.keys() or not all(torch.equal(x[k], y[k]) for k in x):
            return False
    return latest[0] == latest[1]


@pytest.fixture(scope="module")
def whole(shapes_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    train("train", shapes_folder, "--out", out, *TRAIN, "--workers", "0")
    return out


@pytest.mark.parametrize(
    ("where", "count"), [("write", 5), ("replace", 6), ("fsync", 9), pytest.param("replace", 9, marks=pytest.mark.slow)]
)
def test_killed_inside_a_checkpoint_write(shapes_folder, tmp_path, whole, where, count):
    out = tmp_path / "run"
    stopped(where, count, "train", shapes_folder, "--out", out, *TRAIN, "--workers", "0")
    train("train", "--resume", out, "--workers", count % 3)
    assert same(whole, out)
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)  # what was taken again is told once


def killed_at_random(shapes_folder, out, rng):
    """Kill -9 after a random delay, again and again, with other workers each time, until a session gets through."""
    words = ["train", shapes_folder, "--out", out, *TRAIN, "--workers", "0"]
    latest = out / "checkpoints" / "latest"

    def written():
        return latest.stat().st_mtime_ns if latest.exists() else 0

    def got_on(process, before):
        return written() > before or process.poll() is not None

    kills = 0
    while True:
        before, process = written(), start(*words, start_new_session=True, stdout=subprocess.DEVNULL)
        try:
            eventually((out / "run.json").exists, process)
            if kills % 2:  # every other session gets on, however slow the machine is
                eventually(partial(got_on, process, before))
            _, said = process.communicate(timeout=rng.uniform(0, 3))
        except subprocess.TimeoutExpired:
            kills += 1
        else:
            assert process.returncode == 0, said
            return kills
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            process.stderr.close()
        words = ["train", "--resume", out, "--workers", rng.choice([0, 2, 4])]


@pytest.mark.slow
def test_killed_at_random_moments(shapes_folder, tmp_path, whole):
    rng, kills, attempt = random.Random(0), 0, 0
    while kills < 10:
        out = tmp_path / f"run{attempt}"
        kills += killed_at_random(shapes_folder, out, rng)
        assert same(whole, out)
        attempt += 1


def test_interrupting_saves_and_says_how_to_go_on(shapes_folder, tmp_path, whole):
    out = tmp_path / "run"
    words = ["train", shapes_folder, "--out", out, *TRAIN, "--workers", "2"]
    said = stopped("replace", 6, *words, number=signal.SIGINT).stderr
    assert f"vitral train --resume {out}" in said
    train("train", "--resume", out)
    assert same(whole, out)


def test_resuming_is_refused_where_it_would_not_be_the_same_run(whole, tmp_path, capsys):
    for words, what in (
        (["--resume", whole, "--lr", "1"], "leave out --lr"),
        (["digits", "--resume", whole], "leave out digits"),
        (["--resume", tmp_path], "holds no run to resume"),
        (["digits", "--out", whole], "holds a run already"),
    ):
        train("train", *words, status=2)
        said = capsys.readouterr().err
        assert what in said
        assert "Traceback" not in said
