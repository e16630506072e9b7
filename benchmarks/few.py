"""What learns best from 10 to 100 images a class without trained weights: ways x sets, so many images seen in every run.

    python benchmarks/cutouts.py /tmp/cutouts
    python benchmarks/few.py --cutouts /tmp/cutouts          # nothing is run twice: results are lines in benchmarks/few.jsonl
    python benchmarks/few.py --show                          # the table of what has been run

The cut-outs are cross-validated in five folds, the other sets have their own test split and three seeds. Every run is the plan's model and settings,
but for the flags of its way. What needs no training answers the same test images. One run at a time, on one core.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import mean, stdev

from runs import Results, vitral
from vitral.data.options import DataOptions
from vitral.data.sources import open_data
from vitral.evaluation.beside import baselines
from vitral.evaluation.probes import k_nn, pixels
from vitral.report.folds import Folded
from vitral.training.config import Recipe
from vitral.training.defaults import resolve
from vitral.training.shape import preprocess, shape

RESULTS = Results(Path(__file__).parent / "few.jsonl", "set", "way", "seed")
FOLDS, SEEDS = 5, (0, 1, 2)
SETS = {  # flags, images to train on
    "cut-outs": ("", 157),
    "elpv, 10 %": ("--train-fraction 0.1", 177),
    "Fashion-MNIST, 1 %": ("--train-fraction 0.01", 540),
    "digits, 10 a class": ("--train-fraction 0.08", 100),
}
PLACES = {"elpv, 10 %": "elpv", "Fashion-MNIST, 1 %": "fashion-mnist", "digits, 10 a class": "digits"}
WAYS = {
    "the plan": "",
    "cropped": "--resize crop",
    "padded": "--resize pad",
    "batches of an eighth": "--batch-size 20",
    "batches of 64": "--batch-size 64",
    "crops from 8 %": "--crop framed --scale 0.08 1",
    "colour jitter": "--jitter 0.3",
    "RandAugment": "--policy randaugment",
    "Mixup and CutMix": "--mixup 0.8 --cutmix 1",
    "random erasing": "--erase 0.25",
    "averaged weights": "--ema 0.99",
    "drop path": "--drop-path 0.2",
    "AdamW": "--optimizer adamw",
    "half the rate": "--lr 2.5e-3",
    "twice the rate": "--lr 1e-2",
    "small ResNet": "--model resnet18 --width 32 --depths 1 1 1 1 --optimizer adamw",
}


def score(name: str, way: str, seed: int, data: str, images_seen: int) -> dict[str, float]:
    """Test top-1 of one run, or with its deviation of the folds."""
    flags, images = SETS[name]
    fixed = f"{flags} {WAYS[way]} --epochs {images_seen / images:.2f} --keep last --validate-every 100000 --workers 0"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        if name in PLACES:
            return vitral("train", data, fixed, seed=seed, out=out, threads=1)
        vitral("train", data, f"{fixed} --folds {FOLDS}", seed=seed, out=out, threads=1)
        top1 = [fold.headline or 0.0 for fold in Folded.of(out, FOLDS).folds]
        return {"top1": mean(top1), "deviation": stdev(top1)}


NAMES = {  # of what needs no training, as the rows have them
    "the commonest answer to all": "commonest class",
    "a linear classifier on pixels": "linear on pixels",
    "a linear classifier on edges and colours": "linear on edges and colours",
}


def untrained(name: str, data: str) -> dict[str, list[float]]:
    """By name, the test top-1 of what needs no training, of each fold."""
    fraction = float(SETS[name][0].split()[-1]) if SETS[name][0] else 1.0
    parts = [None] if name in PLACES else [(k, FOLDS) for k in range(1, FOLDS + 1)]
    found: dict[str, list[float]] = {}
    for part in parts:
        opened = open_data(data, DataOptions(train_fraction=fraction, fold=part))
        recipe, _ = resolve(Recipe(), opened, "cpu")
        steps = preprocess(recipe, opened, shape(recipe, opened))
        train, test = opened.splits["train"], opened.splits["test"]
        near = k_nn(pixels(train, steps), train.targets.values, pixels(test, steps)) == test.targets.values
        known = {NAMES[what]: top1 for what, top1 in baselines(opened, "test", steps).items()}
        for what, top1 in {**known, "nearest neighbours on pixels": float(near.mean())}.items():
            found.setdefault(what, []).append(top1)
    return found


def summary(rows: list[dict[str, float]]) -> str:
    """Mean and deviation in percent, over folds or seeds."""
    top1 = [100 * row["top1"] for row in rows]
    spread = 100 * rows[0]["deviation"] if "deviation" in rows[0] else stdev(top1) if len(top1) > 1 else None
    return f"{mean(top1):.1f}" + ("" if spread is None else f" ± {spread:.1f}")


def show() -> None:
    rows = RESULTS.rows()
    names = dict.fromkeys(way for _, way, _ in rows)
    print(f"| test top-1 in % | {' | '.join(SETS)} |\n|---|{'---|' * len(SETS)}")
    for way in names:
        found = [[row for (s, w, _), row in rows.items() if (s, w) == (name, way)] for name in SETS]
        print(f"| {way} | {' | '.join(summary(each) if each else '' for each in found)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cutouts", type=Path, help="the folder that benchmarks/cutouts.py made")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seen", type=int, default=12_000, help="images that a run sees")
    parser.add_argument("--show", action="store_true", help="print the table and run nothing")
    given = parser.parse_args()
    for name in () if given.show else given.sets:
        data = PLACES.get(name) or str(given.cutouts)
        if name not in PLACES and given.cutouts is None:
            continue
        if (name, "commonest class", 0) not in RESULTS.rows():
            for what, top1 in untrained(name, data).items():
                spread = {"deviation": stdev(top1)} if len(top1) > 1 else {}
                RESULTS.add({"set": name, "way": what, "seed": 0, "seen": 0, "top1": mean(top1), **spread})
        for way in given.ways:
            for seed in SEEDS if name in PLACES else SEEDS[:1]:
                if (name, way, seed) not in RESULTS.rows():
                    found = score(name, way, seed, data, given.seen)
                    RESULTS.add({"set": name, "way": way, "seed": seed, "seen": given.seen, **found})
    show()


if __name__ == "__main__":
    main()
