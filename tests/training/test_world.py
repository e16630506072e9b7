"""Runs of several processes, as torchrun starts them, learn what one process learns."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_resume import same, train

from processes import PATIENCE, eventually, run, start
from vitral.data.loader import rows_of
from vitral.data.scenes import SceneOptions, write_scenes

SMALL = "--image-size 20 20 --patch-size 4 --dim 32 --depth 2 --num-heads 2"
EVERY = (
    "--precision fp32 --device cpu --workers 0 --seed 2 --optimizer sgd --keep last --hflip 0.5 --batch-size 12 "
    "--validate-every 10"
)
RATE = {
    "dino": "0.002 --clip 0"
}  # the norm of its large matrices in float32 hangs on the order of sums, and so would clipping
# A short stem: rounding grows with every normalised convolution.
DENSE = "--image-size 40 48 --patch-size 8 --stem 8 16 32 --dim 32 --depth 2 --num-heads 2 --near-copies apart"
QUERY = "--head query --query-dim 32 --query-heads 2 --queries 20"
CASES = {
    "mixed": f"train {{shapes}} {SMALL} --mixup 0.4 --cutmix 1 --ema 0.9 --class-weights balanced",
    "distilled": f"train {{shapes}} {SMALL} --teacher {{teacher}} --distillation soft --repeats 2",
    "mae": f"pretrain {{shapes}} {SMALL} --objective mae --decoder-dim 16 --decoder-depth 1 --decoder-num-heads 2",
    "dino": f"pretrain {{shapes}} {SMALL} --objective dino --prototypes 16 --local-crops 2 --patch-loss 1",
    "tokenizer": f"pretrain {{shapes}} {SMALL} --objective tokenizer --codes 16",
    "patch": f"pretrain {{shapes}} {SMALL} --objective patch",
    "semantic": f"train {{scenes}} {DENSE} --task semantic --head linear --head-dropout 0",
    "instance": f"train {{scenes}} {DENSE} {QUERY} --task instance",
}
QUICK = ("mixed", "mae", "dino", "instance")
IN_PARTS = {"mixed": "offload"}  # of these, how each process holds a part of the model (FSDP2)
LONGER = f"{SMALL} {EVERY} --lr 0.05 --steps 60 --mixup 0.4 --ema 0.9 --dropout 0.1 --checkpoint-every 4"

TOGETHER = Path(__file__).with_name("together.py")


def torchrun(processes, *words, restarts=0):
    """The script with these words in so many processes of torchrun, or in one without it, ended."""
    launcher = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        processes,
        "--max-restarts",
        restarts,
    ]
    command = [sys.executable, *(launcher if processes > 1 else []), *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=PATIENCE, env=environment)


@pytest.mark.parametrize("count", [1, 2, 5, 8, 13])
@pytest.mark.parametrize("processes", [1, 2, 3, 4, 16])
def test_the_rows_of_a_batch_are_dealt_once_and_pairs_stay_together(count, processes):
    dealt = [rows_of(count, number, processes) for number in range(processes)]
    assert sorted(np.concatenate(dealt).tolist()) == list(range(count))
    for rows in dealt:
        assert rows.tolist() == (count - 1 - rows[::-1]).tolist()  # Mixup flips a batch
    assert len(dealt[0])
    if processes == 1:
        assert dealt[0].tolist() == list(range(count))


def learned(folder):
    """Of a run by step the losses, and all of its scores."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = torch.tensor([line["loss"] for line in lines if line["event"] == "train"])
    validated = [{k: v for k, v in line.items() if k != "seconds"} for line in lines if line["event"] == "val"]
    return losses, [[v for v in line.values() if isinstance(v, int | float)] for line in validated]


@pytest.fixture(scope="module")
def trained(shapes_folder, shapes_run, tmp_path_factory):
    """The folder with the runs of some cases in so many processes; each is run once."""
    root = tmp_path_factory.mktemp("shared")
    write_scenes(root / "scenes", SceneOptions(images=30, test=7, size=48, classes=3))
    places = {"shapes": shapes_folder, "teacher": shapes_run, "scenes": root / "scenes"}

    def made(processes, names, steps, in_parts):
        out = root / f"{processes} {steps} {' '.join(names)}"
        if not out.exists():
            out.mkdir()
            commands = {
                name: f"{CASES[name].format(**places)} {EVERY} --lr {RATE.get(name, 0.05)} --steps {steps}"
                for name in names
            }
            if processes > 1:
                commands |= {f"{name} in parts": f"{commands[name]} --fsdp {how}" for name, how in in_parts.items()}
                commands["left alone"] = f"train {shapes_folder} {LONGER}"
            (out / "commands").write_text(json.dumps({name: words.split() for name, words in commands.items()}))
            done = torchrun(processes, TOGETHER, out, out / "commands")
            assert done.returncode == 0, done.stderr
        return out

    return made


@pytest.mark.parametrize(
    ("name", "part"), [*((name, "") for name in QUICK), *((name, " in parts") for name in IN_PARTS)]
)
def test_two_processes_learn_what_one_does(trained, name, part):
    as_alone(trained, 2, QUICK, 10, IN_PARTS, name, part)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["", " in parts"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_learn_what_one_does(trained, processes, name, part):
    as_alone(trained, processes, tuple(CASES), 20, dict.fromkeys(CASES, "yes"), name, part)


def as_alone(trained, processes, names, steps, in_parts, name, part):
    """The gradients of the first step to 1e-6 of the largest, the losses of all steps to 1e-5 of theirs, and the same scores."""
    alone, together = (trained(n, names, steps, in_parts) for n in (1, processes))
    expected, gradients = (
        load_file(path) for path in (alone / f"{name}.gradients", together / f"{name}{part}.gradients")
    )
    size = max(1.0, *(float(gradient.abs().max()) for gradient in expected.values()))
    assert gradients.keys() == expected.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(gradients[key], gradient, rtol=0, atol=1e-6 * size, msg=key)
    (losses, scores), (theirs, their_scores) = learned(alone / name), learned(together / f"{name}{part}")
    assert len(losses) == steps
    torch.testing.assert_close(theirs, losses, rtol=1e-5, atol=1e-5)
    for one, other in zip(scores, their_scores, strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-4)


# Process 1 sends itself these signals, as "STEP:NUMBER", as it begins these steps: the first as torchrun starts it, the next as it starts it again.
STRUCK = """
import os, sys
from vitral.training import loop
life = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
step, number = map(int, sys.argv[1].split(",")[life].split(":"))
begun = loop.Loop.step
def struck(self, *rest):
    if (self.progress.step, self.world.rank) == (step, 1):
        os.kill(os.getpid(), number)
    return begun(self, *rest)
loop.Loop.step = struck
from vitral.cli import main
main(sys.argv[2:])
"""
KILL, STOP, NOTHING = f"{{}}:{signal.SIGKILL:d}", f"{{}}:{signal.SIGTERM:d}", "-1:0"


@pytest.fixture
def struck(tmp_path):
    script = tmp_path / "struck.py"
    script.write_text(STRUCK)
    return script


@pytest.fixture
def left_alone(trained):
    """A run of two processes that nothing happened to."""
    return trained(2, QUICK, 10, IN_PARTS) / "left alone"


@pytest.mark.slow  # of what is fast, one test shows that torchrun starts them again, and another that the bits are the same
def test_when_a_process_is_killed_all_go_on_from_the_last_checkpoint(shapes_folder, tmp_path, struck, left_alone):
    """torchrun starts them again, and the run ends with the bits of one that was left alone."""
    words = ["train", shapes_folder, *LONGER.split(), "--out", tmp_path / "killed"]
    killed = torchrun(2, struck, f"{KILL.format(11)},{NOTHING}", *words, restarts=1)
    assert killed.returncode == 0, killed.stderr
    assert "resuming at step 10" in killed.stderr
    assert same(left_alone, tmp_path / "killed")


@pytest.fixture(scope="module")
def shorter(shapes_folder, tmp_path_factory):
    """The words of a run of 20 steps without dropout, which differs between processes, and the weights that one process ends with."""
    words = [word for word in ["train", shapes_folder, *LONGER.split()] if word not in ("--dropout", "0.1", "60")]
    words.insert(words.index("--steps") + 1, "20")
    out = tmp_path_factory.mktemp("shorter") / "alone"
    train(*words, "--out", out)
    return words, load_file(out / "model.safetensors")


def test_killed_they_are_started_again_and_stopped_one_goes_on(shorter, tmp_path, struck):
    """Of two that hold the model in parts torchrun starts both again; asked to stop, both save and stop; one learns the rest."""
    words, weights = shorter
    struck_twice = f"{KILL.format(5)},{STOP.format(9)}"
    both = torchrun(2, struck, struck_twice, *words, "--fsdp", "yes", "--out", tmp_path / "run", restarts=1)
    assert "resuming at step 4" in both.stderr
    assert "stopped and saved at step 10" in both.stderr
    train("train", "--resume", tmp_path / "run")
    as_before(weights, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("fsdp", ["yes", "no"])
def test_a_run_goes_on_in_other_numbers_of_processes(shorter, tmp_path, struck, fsdp):
    """One process is asked to stop, and all save and stop; 3, then 2, then 1 learn from the batches that one would, in parts or not."""
    words, weights = shorter
    first = torchrun(3, struck, STOP.format(5), *words, "--fsdp", fsdp, "--out", tmp_path / "run")
    assert "stopped and saved at step 6" in first.stderr
    second = torchrun(2, struck, STOP.format(13), "train", "--resume", tmp_path / "run")
    assert "stopped and saved at step 14" in second.stderr
    train("train", "--resume", tmp_path / "run")
    as_before(weights, tmp_path / "run")


def as_before(weights, run):
    """The run ended with these weights, but for the order in which numbers were added."""
    found = load_file(run / "model.safetensors")
    for name, tensor in weights.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_the_command_itself_starts_several_and_starts_them_again(shapes_folder, tmp_path, left_alone):
    words = ["train", shapes_folder, *LONGER.split(), "--processes", "2", "--out"]
    process = start(*words, tmp_path / "killed")
    try:
        eventually((tmp_path / "killed/checkpoints/latest").exists, process)
        children = " ".join(path.read_text() for path in Path(f"/proc/{process.pid}/task").glob("*/children")).split()
        os.kill(int(children[-1]), signal.SIGKILL)
        _, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "ended by SIGKILL; all 2 begin again from the last checkpoint" in err
    assert same(left_alone, tmp_path / "killed")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell nobody that a parent died")
def test_of_a_command_that_is_killed_the_processes_save_and_stop(shapes_folder, tmp_path, left_alone):
    words = ["train", shapes_folder, *LONGER.split(), "--processes", "2", "--continue", "--out", tmp_path / "run"]
    process, latest = start(*words), tmp_path / "run/checkpoints/latest"
    try:
        # The first is of step 0, before signals are listened to.
        eventually(lambda: latest.exists() and latest.read_text() > "step-00000000.safetensors", process)
    finally:
        process.kill()
    _, err = process.communicate(timeout=PATIENCE)  # until its processes, which have its streams, are gone
    assert "stopped and saved at step" in err
    assert not (tmp_path / "run/scores.json").exists()
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert same(left_alone, tmp_path / "run")


def test_an_error_that_a_person_can_mend_is_said_once_and_not_tried_again(shapes_folder, tmp_path):
    done = run("train", shapes_folder, "--model", "vit_none", "--processes", "2", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr.count("vit_none") == 1, done.stderr
