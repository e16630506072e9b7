"""Runs that are killed and resumed, as real processes: the final weights must be those of the run that was left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

TRAIN = ["--epochs", "6", "--dim", "32", "--depth", "2", "--num-heads", "2", "--image-size", "20", "20", "--patch-size", "4", "--dropout", "0.1",
         "--drop-path", "0.2", "--ema", "0.9", "--batch-size", "4", "--accumulation", "2", "--checkpoint-every", "2", "--crop", "resized",
         "--precision", "fp32", "--optimizer", "muon"]  # fmt: skip

# Kills its own process at the n-th call of one of the functions that writing a checkpoint goes through, after half of its bytes or before it acts.
KILLER = """
import os, sys
where, count = sys.argv[1], int(sys.argv[2])
sys.argv = ["vitral", *sys.argv[3:]]
import vitral.checkpoints.atomic as atomic
calls = 0
def dying(real, half):
    def call(*a):
        global calls
        calls += 1
        if calls == count:
            if half: real(a[0], bytes(a[1][: len(a[1]) // 2]))
            os.kill(os.getpid(), 9)
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


def run(*words, code=None, timeout=120):
    command = [sys.executable, *(["-c", code] if code else ["-m", "vitral"]), *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)


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
    done = run("train", shapes_folder, "--out", out, *TRAIN, "--workers", "0")
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize(("where", "count"), [("write", 5), ("replace", 6), ("fsync", 9), ("replace", 9)])
def test_killed_inside_a_checkpoint_write(shapes_folder, tmp_path, whole, where, count):
    out = tmp_path / "run"
    killed = run(where, count, "train", shapes_folder, "--out", out, *TRAIN, "--workers", "0", code=KILLER)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = run("train", "--resume", out, "--workers", count % 3)
    assert resumed.returncode == 0, resumed.stderr
    assert same(whole, out)
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)  # what was taken again is told once


def killed_at_random(shapes_folder, out, whole, rng):
    """Kill -9 after a random delay, again and again, with other workers each time, until a session gets through."""
    words = ["train", shapes_folder, "--out", out, *TRAIN, "--workers", "0"]
    kills = 0
    while True:
        command = [sys.executable, "-m", "vitral", *map(str, words)]
        process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        try:
            deadline = time.monotonic() + 60
            while process.poll() is None and not (out / "run.json").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            process.wait(rng.uniform(0.3, 9))  # longer than a start takes, or it would never get on
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        else:
            assert process.returncode == 0, process.stderr.read()
            return kills
        finally:
            process.stderr.close()
        words = ["train", "--resume", out, "--workers", rng.choice([0, 2, 4])]


@pytest.mark.slow
def test_killed_at_random_moments(shapes_folder, tmp_path, whole):
    rng, kills, attempt = random.Random(0), 0, 0
    while kills < 10:
        out = tmp_path / f"run{attempt}"
        kills += killed_at_random(shapes_folder, out, whole, rng)
        assert same(whole, out)
        attempt += 1


def test_interrupting_saves_and_says_how_to_go_on(shapes_folder, tmp_path, whole):
    out = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "vitral", "train", str(shapes_folder), "--out", str(out), *TRAIN, "--workers", "2"],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (out / "checkpoints" / "latest").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert f"vitral train --resume {out}" in said
    resumed = run("train", "--resume", out)
    assert resumed.returncode == 0, resumed.stderr
    assert same(whole, out)


def test_resuming_is_refused_where_it_would_not_be_the_same_run(whole, tmp_path):
    for words, what in (
        (["--resume", whole, "--lr", "1"], "leave out --lr"),
        (["digits", "--resume", whole], "leave out digits"),
        (["--resume", tmp_path], "holds no run to resume"),
        (["digits", "--out", whole], "there is a run already"),
    ):
        done = run("train", *words)
        assert done.returncode == 2
        assert what in done.stderr
        assert "Traceback" not in done.stderr
