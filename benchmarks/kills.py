"""Kill a training run with SIGKILL at random moments of its life, over and over: does the same command always end it, with the same bits?

    python benchmarks/kills.py [--kills 100] [--processes 1 2] [--seed 0] [--steps 40] [--fsdp no]

For each number of processes one run is left alone, and others of the same words (`vitral train ... --continue`) are killed: each after a share of
the time that the whole run took, drawn anew each time from 0 to 1, so that kills fall on the start, steps, validations, checkpoints, the end and
the report; then the command is given again, and killed again, until a draw falls after its end. Of several processes torchrun, and with it all of
them, or one alone is killed in turn. Prints where each kill fell, and a table; exits with 1 if a run was lost or ends with other bits.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

WORDS = (  # noqa: SIM905
    "digits --model vit_tiny_patch16_224 --image-size 8 8 --patch-size 2 --dim 32 --depth 2 --num-heads 2 --dropout 0.1 --ema 0.9 "
    "--batch-size 64 --checkpoint-every 5 --validate-every 10 --precision fp32 --workers 0 --seed 1 --mixup 0.4"
).split()


def start(out: Path, processes: int, steps: int, fsdp: str) -> subprocess.Popen[str]:
    words = ["train", *WORDS, "--steps", str(steps), "--out", str(out), "--continue"]
    several = ["--processes", str(processes), "--fsdp", fsdp] if processes > 1 else []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "vitral", *words, *several],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def children(pid: int) -> list[int]:
    try:
        return [
            int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()
        ]
    except OSError:
        return []


def kill(process: subprocess.Popen[str], one: bool) -> bool:
    """The command and all of its processes; or only the last that it started, if it has started one. Returns whether it was only one."""
    own = children(process.pid)
    one = one and bool(own)
    for pid in own[-1:] if one else [*own, process.pid]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return one


def stage(out: Path) -> str:
    """What a run has done so far, from its folder."""
    if not (out / "run.json").exists():
        return "before run.json"
    if (out / "report.html").exists():
        return "after the report"
    if (out / "scores.json").exists():
        return "writing the report"
    if list((out / "checkpoints").glob("*.tmp")):
        return "inside a checkpoint"
    return "training" if (out / "checkpoints/latest").exists() else "before the first checkpoint"


def bits(out: Path) -> str:
    """A hash of the model and of the last checkpoint's tensors."""
    from safetensors.numpy import load_file

    total = hashlib.sha256()
    for path in (out / "model.safetensors", out / "checkpoints" / (out / "checkpoints/latest").read_text()):
        for name, tensor in sorted(load_file(path).items()):
            total.update(name.encode() + tensor.tobytes())
    scores = json.loads((out / "scores.json").read_text())
    total.update(json.dumps({name: scores[name] for name in ("top1", "loss")}).encode())
    return total.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fsdp", default="no", help="of several processes: whether each holds a part of the model")
    given = parser.parse_args()
    draw, wrong, rows = random.Random(given.seed), 0, []
    with tempfile.TemporaryDirectory() as place:
        for processes in given.processes:
            began = time.monotonic()
            whole = start(Path(place, f"whole-{processes}"), processes, given.steps, given.fsdp)
            if whole.wait() != 0:
                sys.exit(f"the run that was left alone failed: {whole.communicate()[1]}")
            took, expected = time.monotonic() - began, bits(Path(place, f"whole-{processes}"))
            killed, runs, fell = 0, 0, Counter[str]()
            while killed < given.kills:
                out, runs = Path(place, f"killed-{processes}-{runs}"), runs + 1
                while True:
                    process = start(out, processes, given.steps, given.fsdp)
                    try:
                        process.wait(draw.uniform(0, took) if killed < given.kills else None)
                        break
                    except subprocess.TimeoutExpired:
                        where = stage(out)
                        one = kill(process, processes > 1 and killed % 2 == 1)
                        killed += 1
                        fell[where] += 1
                        print(
                            f"{processes} processes, kill {killed}: {'one process, ' if one else ''}{where}", flush=True
                        )
                        if one:  # the command starts all of them again itself
                            process.wait()
                            break
                        process.communicate()
                status, errors = process.wait(), process.communicate()[1]
                if status != 0 or bits(out) != expected:
                    wrong += 1
                    print(f"run {runs} ended with {status}, {'' if status else 'other bits'}\n{errors}", flush=True)
                shutil.rmtree(out, ignore_errors=True)
            rows.append((processes, killed, runs, wrong, took, dict(fell)))
    for processes, killed, runs, lost, took, fell in rows:
        print(
            f"{processes} processes: {killed} kills over {runs} runs of {took:.0f} s, {lost} lost or with other bits; {fell}"
        )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
