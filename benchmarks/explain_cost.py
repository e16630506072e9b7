"""What a map costs: every method's seconds against one forward and backward pass of the same image, and the memory it needs at its highest.

    python benchmarks/explain_cost.py [--model vit_small_patch16_224] [--rounds 15] [--methods relevance rollout ...]

The pass is a training step's: the answer, and the gradient of every parameter for the most probable class. A method is the whole call, `explain`,
from uint8 pixels to its map, batch 1, as a person makes it. The two take turns in one process; the ratio is the median over the rounds of the
method's seconds / the pass's. Memory is the most that a fresh process which does nothing else has resident. Weights are random; what depends on
them is how many points integrated gradients need.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from vitral.checkpoints.card import ModelCard
from vitral.checkpoints.create import create_model
from vitral.data.preprocess import Preprocess
from vitral.explain.explain import explain
from vitral.explain.methods import METHODS, undefined
from vitral.models.zoo import family_of
from vitral.predict import Predictor

PASS = "forward and backward"
ENOUGH = 30.0  # seconds of a method, after at least LEAST rounds
LEAST = 3


def jobs(name: str) -> dict[str, Callable[[], object]]:
    """What is timed of a model: the pass, and each method that is defined for it."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=1000).eval()
    for parameter in model.head.parameters():  # a head begins at zero, and then nothing speaks for a class
        torch.nn.init.normal_(parameter, std=0.02)
    config = model.config
    half = (0.5,) * config.in_channels
    steps = Preprocess(*config.image_size, config.in_channels, half, half)
    labels = [str(k) for k in range(config.num_classes)]
    predictor = Predictor(model, ModelCard(family_of(config), config.arguments(), labels, steps))
    pixels = torch.randint(0, 256, (config.in_channels, *config.image_size), dtype=torch.uint8)
    image = steps(pixels)[None]

    def forward_and_backward() -> None:
        model.zero_grad()
        model(image).max().backward()

    defined = [method for method in METHODS if undefined(model, method) is None]
    maps = {method: lambda method=method: explain(predictor, pixels, method) for method in defined}
    return {PASS: forward_and_backward, **maps}


def seconds(job: Callable[[], object]) -> float:
    began = time.perf_counter()
    job()
    return time.perf_counter() - began


def paired(job: Callable[[], object], reference: Callable[[], object], rounds: int) -> list[tuple[float, float]]:
    """Seconds of the job and of the reference in each round, after one that warms the caches."""
    job(), reference()
    times: list[tuple[float, float]] = []
    while len(times) < rounds and (len(times) < LEAST or sum(mine for mine, _ in times) < ENOUGH):
        times.append((seconds(job), seconds(reference)))
    return times


def peak(model: str, job: str) -> tuple[int, int]:
    """Bytes that a process of its own has resident at most: before it does the job, and in all."""
    words = [sys.executable, __file__, "--model", model, "--alone", job]
    before, most = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    return before, most


def resident() -> int:
    """The most bytes of this process that were in memory so far (VmHWM: unlike getrusage's, not its parent's)."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_small_patch16_224", help="a name of the zoo")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="default: all that are defined for the model")
    parser.add_argument("--alone", help=argparse.SUPPRESS)  # a job to do once, in a process that `peak` starts
    given = parser.parse_args()
    todo = jobs(given.model)
    if given.alone:
        before = resident()
        todo[given.alone]()
        print(json.dumps([before, resident()]))
        return
    print(f"{given.model}, batch 1, fp32, {torch.get_num_threads()} threads\n")
    print(f"{'':22}{'ms':>8}{'of the pass':>13}{'peak MB':>9}{'of it for the job':>19}")
    for name in [PASS, *(given.methods or [each for each in todo if each != PASS])]:
        times = paired(todo[name], todo[PASS], given.rounds)
        before, most = peak(given.model, name)
        print(
            f"{name:22}{1e3 * median(mine for mine, _ in times):8.0f}{median(m / p for m, p in times):13.2f}"
            f"{most / 1e6:9.0f}{(most - before) / 1e6:19.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
