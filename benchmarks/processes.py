"""One run in one process and in several of one thread each: images a second, and how much of so many times one process's that is.

    python benchmarks/processes.py [--processes 2] [--steps 30] [--batch-size 64] [--dim 192] [--depth 12] [--optimizer muon]

Runs take turns, three of each kind: one process, several that hold the model whole, several that hold parts of it (`--fsdp yes`), and so many runs of
one process each beside each other, which share nothing: what the machine itself allows. The rate is of the run's own log without its first ten
steps. Images are noise of 64 x 64 pixels in patches of 8, so that a step's time does not hang on the data.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROUNDS = 3


def rate(out: Path) -> float:
    """Images a second of a run's log, without the first line of it."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["event"] == "train"][1:]
    return sum(line["images_per_s"] * line["window_s"] for line in steps) / sum(line["window_s"] for line in steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("processes", 2), ("steps", 30), ("batch-size", 64), ("dim", 192), ("depth", 12)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--optimizer", default="muon", help="muon, which training takes by itself, or another")
    given = parser.parse_args()
    several = ["--processes", str(given.processes)]
    kinds = {
        "1 process": [],
        f"{given.processes} processes": several,
        f"{given.processes} in parts": [*several, "--fsdp", "yes"],
        f"{given.processes} runs": [],
    }
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory() as place:
        noise = np.random.default_rng(0)
        for i in range(512):
            target = Path(place, "images", str(i % 4), f"{i}.png")
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise.integers(0, 256, (64, 64, 3), np.uint8)).save(target)
        for turn in range(ROUNDS):
            for name, words in kinds.items():
                outs = [
                    Path(place, f"{name}-{turn}-{n}") for n in range(given.processes if name.endswith("runs") else 1)
                ]
                command = [
                    sys.executable, "-m", "vitral", "train", f"{place}/images", "--model", "vit_tiny_patch16_224", "--image-size", "64", "64",
                    "--patch-size", "8", "--dim", str(given.dim), "--depth", str(given.depth), "--steps", str(given.steps),
                    "--batch-size", str(given.batch_size), "--workers", "0", "--validate-every", "1000", "--near-copies", "apart",
                    "--optimizer", given.optimizer, "--val-fraction", "0.01", "--test-fraction", "0.01", *words,
                ]  # fmt: skip
                environment = os.environ | {"OMP_NUM_THREADS": "1"}
                started = [
                    subprocess.Popen([*command, "--out", str(out)], env=environment, stderr=subprocess.PIPE, text=True)
                    for out in outs
                ]
                for process in started:
                    _, said = process.communicate()
                    if process.returncode:
                        sys.exit(said)
                rates[name].append(sum(map(rate, outs)))
                print(f"{name}: {rates[name][-1]:,.1f} images/s", flush=True)
    alone = sorted(rates["1 process"])[ROUNDS // 2]
    for name, found in rates.items():
        middle = sorted(found)[ROUNDS // 2]
        share = middle / alone / (1 if name == "1 process" else given.processes)
        print(f"{name}: {middle:,.1f} images/s, {share:.0%} of one process's for each")


if __name__ == "__main__":
    main()
