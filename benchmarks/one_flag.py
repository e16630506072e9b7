"""Does one flag turn anything else of a plan off? `vitral train DATA` with one flag against none: their plans, and their scores.

    python benchmarks/one_flag.py OUT [--data fashion-mnist] [--share 0.1] [--time 2m] [--epochs N] [--seeds 0 1 2] [--jobs 1]

Plans a run of `--time` on a share of the data without a flag and with each of FLAGS, prints in what their recipes differ, and trains each for every
seed. What a size of model costs is measured once for each patch size, so that plans do not differ by what else the machine does. --epochs: train
each for so many instead of by the clock, as on a machine that other work shares. Runs that are in OUT already are not trained again.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from vitral.data.sources import open_data
from vitral.guidance.plan.choices import Estimate
from vitral.guidance.plan.plan import tried
from vitral.guidance.plan.planner import Planner
from vitral.training.config import SECTIONS, Recipe, seconds
from vitral.training.display import Display
from vitral.training.settle import Settled
from vitral.training.toml import merge, to_table, to_toml

FLAGS: dict[str, dict[str, dict[str, object]]] = {
    "none": {},
    "--hflip 0": {"augment": {"hflip": 0.0}},
    "--lr 1e-3": {"optim": {"lr": 1e-3}},
    "--patch-size 4": {"model": {"patch_size": 4}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--time", default="2m")
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--flags", nargs="+", default=list(FLAGS), choices=FLAGS)
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    plans = planned(given.data, given.share, given.time)
    for flag, (recipe, passes) in plans.items():
        print(
            f"{flag}: {passes:.1f} passes in {given.time}; differs by {differences(plans['none'][0], recipe) or 'nothing'}"
        )
    jobs = []
    for flag in given.flags:
        recipe = plans[flag][0]
        if given.epochs is not None:
            recipe = replace(recipe, train=replace(recipe.train, time=None, epochs=given.epochs))
        name = flag.strip("-").replace(" ", "")
        file = given.out / f"{name}.toml"
        file.write_text(to_toml(recipe))
        jobs += [(given.data, file, seed, given.out / f"{name}-s{seed}") for seed in given.seeds]
    with ThreadPoolExecutor(given.jobs) as pool:
        scores = list(pool.map(lambda job: top1(*job), jobs))
    count = len(given.seeds)
    for i, flag in enumerate(given.flags):
        own = [100 * score for score in scores[i * count : (i + 1) * count]]
        deviation = f" +- {statistics.stdev(own):.2f}" if count > 1 else ""
        print(f"{flag}: top-1 {statistics.mean(own):.2f}{deviation} ({' '.join(f'{each:.2f}' for each in own)})")


def planned(data: str, share: float, time: str) -> dict[str, tuple[Recipe, float]]:
    """Flag -> its plan's recipe and passes over the images."""
    plain = merge(Recipe(), {"data": {"train_fraction": share}, "train": {"time": time}}, "the benchmark")
    opened = open_data(data, plain.data)
    measure, known = tried(Display()), dict[tuple[object, ...], Estimate]()

    def estimate(recipe: Recipe, settled: Settled) -> Estimate:
        model = settled.recipe.model
        size = tuple(model.get(name) for name in ("dim", "depth", "patch_size"))
        known[size] = known.get(size) or measure(recipe, settled)
        return known[size]

    made = {}
    for flag, said in FLAGS.items():
        plan = Planner(opened, "cpu", seconds(time), estimate, brief=True, source=data).plan(merge(plain, said, flag))
        made[flag] = plan.recipe, plan.passes
    return made


def differences(old: Recipe, new: Recipe) -> str:
    a, b = to_table(old), to_table(new)
    return ", ".join(
        f"{section}.{name} {a[section].get(name)} -> {b[section].get(name)}"
        for section in SECTIONS
        for name in sorted({*a[section], *b[section]})
        if a[section].get(name) != b[section].get(name)
    )


def top1(data: str, recipe: Path, seed: int, out: Path) -> float:
    if not (out / "scores.json").exists():
        before = [*os.environ.get("BEFORE", "").split()]
        words = ["train", data, "--recipe", str(recipe), "--seed", str(seed), "--out", str(out)]
        done = subprocess.run([*before, sys.executable, "-m", "vitral", *words], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{out}: {done.stderr}")
    return float(json.loads((out / "scores.json").read_text())["top1"])


if __name__ == "__main__":
    main()
