"""What `vitral.guidance.plan.trial` foresees of a run, and what then happens: peak memory and training time, three models on two data sets.

    python benchmarks/trial.py [--data fashion-mnist elpv] [--models small tiny resnet] [--seconds 20]

Each trial is followed at once by the run that it is about, so that what else the machine does falls on both; the run is long enough to last about
`--run` seconds by the trial's word. Peak memory is the resident memory of the process, which Linux keeps as VmHWM; time is what the run reports.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from vitral.guidance.plan.trial import Cost, measure_cost
from vitral.training.config import Recipe
from vitral.training.options import ModelOptions, OptimOptions, TrainOptions
from vitral.training.toml import to_toml

MODELS = {
    "small": ModelOptions(),  # by the table of sizes
    "tiny": ModelOptions(name="vit_tiny_patch16_224", image_size=(128, 128), patch_size=16),
    "resnet": ModelOptions(name="resnet18"),
}


def happened(data: str, recipe: Recipe) -> tuple[float, int]:
    """Seconds of training and bytes at the peak of a run of the command line."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "recipe.toml").write_text(to_toml(recipe))
        files = ["--recipe", f"{folder}/recipe.toml", "--out", f"{folder}/run"]
        words = [sys.executable, "-m", "vitral", "train", data, *files]
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        peak = 0
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            time.sleep(0.05)
        assert process.returncode == 0, process.stderr and process.stderr.read()
        return json.loads(Path(folder, "run/scores.json").read_text())["training_seconds"], peak


def resident(pid: int) -> int:
    """The most bytes that the process held so far; 0 once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def plan(cost: Cost, seconds: float) -> tuple[int, int]:
    """Steps that take about as long, an epoch or more, and how many validations they see, one an epoch or five in all if epochs are short."""
    steps = max(cost.steps_per_epoch, round(seconds / (1.2 * cost.step_seconds)))
    return steps, max(1, min(5, steps // cost.steps_per_epoch))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["fashion-mnist", "elpv"])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--seconds", type=float, default=20, help="of a trial")
    parser.add_argument("--run", type=float, default=40, help="seconds of a run")
    given = parser.parse_args()
    print(
        f"{'data':14}{'model':8}{'MiB foreseen':>14}{'happened':>10}{'ratio':>7}{'s foreseen':>12}{'happened':>10}{'ratio':>7}{'trial s':>9}"
    )
    for data in given.data:
        for name in given.models:
            model = MODELS[name]
            began = time.monotonic()
            recipe = Recipe(model=model, optim=OptimOptions("muon"), train=TrainOptions(steps=10**6))
            cost = measure_cost(data, recipe, given.seconds)
            took = time.monotonic() - began
            steps, validations = plan(cost, given.run)
            every = -(-steps // validations)
            train = TrainOptions(steps=steps, validate_every=every)
            seconds, peak = happened(data, replace(recipe, train=train))
            foreseen = cost.seconds(steps, -(-steps // every))
            print(
                f"{data:14}{name:8}{cost.peak_bytes / 2**20:14,.0f}{peak / 2**20:10,.0f}{cost.peak_bytes / peak:7.2f}"
                f"{foreseen:12.1f}{seconds:10.1f}{foreseen / seconds:7.2f}{took:9.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
