"""What learns best from 10 to 100 images a class without trained weights: ways x sets, so many images seen in every run.

    python benchmarks/cutouts.py /tmp/cutouts
    python benchmarks/few.py --cutouts /tmp/cutouts          # nothing is run twice: results are lines in benchmarks/few.jsonl
    python benchmarks/drawings.py /tmp/drawings              # weights made elsewhere, for the ways that start from them
    vitral train /tmp/drawings --image-size 64 --epochs 20 --near-copies apart --out /tmp/drawn
    python benchmarks/few.py --cutouts /tmp/cutouts --weights /tmp/drawn
    python benchmarks/few.py --show                          # the table of what has been run

The cut-outs are cross-validated in five folds, the other sets have their own test split and three seeds. Every run is the plan's model and settings,
but for what its way says, and scores its last weights. What needs no training answers the same test images. One run at a time, on one core, in this
process, so that the sets are opened once.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from runs import Results
from vitral.data.dataset import DataSet
from vitral.data.options import DataOptions
from vitral.data.sources import open_data
from vitral.evaluation.beside import baselines
from vitral.evaluation.evaluate import evaluate
from vitral.evaluation.probes import k_nn, pixels
from vitral.guidance.plan.glance import Silent
from vitral.guidance.plan.lr_finder import Silent as Listener
from vitral.guidance.plan.planner import Planner
from vitral.predict import Predictor
from vitral.training.config import Recipe
from vitral.training.settle import Settled, settle
from vitral.training.start import draft, start
from vitral.training.toml import merge

RESULTS = Results(Path(__file__).parent / "few.jsonl", "set", "way", "seed")
FOLDS, SEEDS = 5, (0, 1, 2)
SETS = {  # the data, and the share of the training images
    "cut-outs": ("", 1.0),
    "elpv, 10 %": ("elpv", 0.1),
    "Fashion-MNIST, 1 %": ("fashion-mnist", 0.01),
    "digits, 10 a class": ("digits", 0.08),
}
Way = dict[str, dict[str, Any]]
"""Sections of a recipe; `beforehand`: the objective of pre-training on the same images, which gets half of the images seen; `rate`: what the planned
learning rate is multiplied by. A way with a section `transfer` starts from --weights."""
ALONE = {"beside": "none"}
WAYS: dict[str, Way] = {
    "the plan": {},
    "without edges and colours": {"model": ALONE},
    "cropped": {"model": ALONE, "view": {"resize": "crop"}},
    "squashed": {"model": ALONE, "view": {"resize": "squash"}},
    "batches of 20": {"model": ALONE, "train": {"batch_size": 20}},
    "averaged weights": {"model": ALONE, "optim": {"ema": 0.95}},
    "linear patches": {"model": {**ALONE, "stem": ()}},
    "linear patches, masked autoencoder first": {"model": {**ALONE, "stem": ()}, "beforehand": {"name": "mae"}},
    "linear patches, DINO first": {"model": {**ALONE, "stem": ()}, "beforehand": {"name": "dino", "local_crops": 0}},
    "hybrid: a ResNet's stem before the patches": {
        "model": {"name": "vit_tiny_r_s16_p8_224", "stages": (), "dim": 128, "depth": 4, "num_heads": 4, "mlp_ratio": 2.0}
    },
    "PVT v2, widths 32 to 192": {
        "model": {"name": "pvt_v2_b0", "dims": (32, 64, 128, 192), "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 6), "mlp_ratios": (4, 4, 4, 4)}
    },
    "ResNet, widths 32 to 256, AdamW": {
        "model": {"name": "resnet18", "width": 32, "depths": (1, 1, 1, 1)}, "optim": {"optimizer": "adamw"}
    },
    "from weights: a new head on a frozen encoder": {"transfer": {"freeze": "encoder"}},
    "from weights: LoRA of rank 8": {"transfer": {"freeze": "none", "lora_rank": 8}},
    "from weights: all of it": {"transfer": {"freeze": "none"}},
    "from weights: all of it, a tenth of the rate": {"transfer": {"freeze": "none"}, "rate": {"factor": 0.1}},
}  # fmt: skip


def planned(source: str, data: DataSet, way: Way, images: int, seed: int, options: DataOptions) -> Settled:
    """The plan's settings for a run that sees so many images, around what the way says."""
    sections = {name: settings for name, settings in way.items() if name not in ("beforehand", "rate")}
    model = dict(sections.get("model", {}))
    if "name" in model:  # a named model is shown what the plan would show its own
        own = planned(source, data, {"model": ALONE}, images, seed, options).recipe.model
        model = {"image_size": own.get("image_size"), **model}
        if "stages" in model:
            model["patch_size"] = max(4, own.get("patch_size"))
        sections["model"] = model
    train = {
        "epochs": images / len(data.splits["train"]),
        "keep": "last",
        "workers": 0,
        "seed": seed,
        "validate_every": 10**9,
    }
    sections["train"] = train | sections.get("train", {})
    recipe = replace(merge(Recipe(), sections, "few.py"), data=options)
    found = Planner(data, "cpu", None, unasked, brief=True, source=source).plan(recipe).settled
    if "rate" not in way:
        return found
    lr = found.recipe.optim.lr * way["rate"]["factor"]
    slower = {name: settings for name, settings in way.items() if name != "rate"} | {"optim": {"lr": lr}}
    return planned(source, data, slower, images, seed, options)


def unasked(recipe: Recipe, settled: Settled) -> Any:
    raise AssertionError("a run of a stated length needs no trial")


def score(source: str, data: DataSet, way: Way, images: int, seed: int, options: DataOptions) -> float:
    """Test top-1 of one run."""
    before = way.get("beforehand")
    settled = planned(source, data, way, images // 2 if before else images, seed, options)
    with tempfile.TemporaryDirectory() as folder:
        if before is not None:
            settled = pretrained(settled, before, Path(folder) / "before", options)
        run, _ = draft(settled, Path(folder), Silent())
        run.loop.run(Listener(Silent()))
        model = run.averaged_model().eval()
        scores, _ = evaluate(Predictor(model, run.card(model, {})), data.splits["test"], data.labels)
    return scores.headline or 0.0


def pretrained(settled: Settled, objective: dict[str, Any], out: Path, options: DataOptions) -> Settled:
    """The same run from the weights that the objective makes of its training images in as many steps."""
    recipe, source, data = settled.recipe, settled.source, settled.data
    shape = {
        k: v
        for k, v in recipe.model.arguments.items()
        if k not in ("stem", "beside", "position", "pooling", "class_token")
    }
    train = {
        "epochs": recipe.train.epochs,
        "batch_size": recipe.train.batch_size,
        "workers": 0,
        "seed": recipe.train.seed,
        "validate_every": 10**9,
    }
    first = merge(
        Recipe(),
        {"objective": objective, "model": shape, "view": {"resize": recipe.view.resize}, "train": train},
        "few.py",
    )
    start(source, replace(first, data=options), out, Silent(), opened=data).train()
    kept = replace(recipe, model=replace_shape(recipe), transfer=replace(recipe.transfer, init=str(out)))
    return settle(source, replace(kept, data=options), Silent(), data)


def replace_shape(recipe: Recipe) -> Any:
    """The size of the images alone: the rest of the model is that of the weights."""
    return merge(Recipe(), {"model": {"image_size": recipe.model.get("image_size")}}, "few.py").model


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
    parser.add_argument("--weights", help="a run on other pictures, for the ways that start from weights")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seen", type=int, default=6_000, help="images that a run sees")
    parser.add_argument("--show", action="store_true", help="print the table and run nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in () if given.show else given.sets:
        source, fraction = SETS[name]
        folded = not source
        if folded and given.cutouts is None:
            continue
        source = source or str(given.cutouts)
        parts = (
            [DataOptions(fold=(k, FOLDS), val_fraction=0.0) for k in range(1, FOLDS + 1)]
            if folded
            else [DataOptions(train_fraction=fraction)]
        )
        opened = [open_data(source, options) for options in parts]
        if (name, "the commonest answer to all", 0) not in RESULTS.rows():
            untrained(name, source, opened, parts)
        for way in given.ways:
            sections = WAYS[way]
            if "transfer" in sections:
                if given.weights is None:
                    continue
                sections = sections | {"transfer": sections["transfer"] | {"init": given.weights}}
            for seed in SEEDS[:1] if folded else SEEDS:
                if (name, way, seed) in RESULTS.rows():
                    continue
                top1 = [
                    score(source, data, sections, given.seen, seed, options)
                    for data, options in zip(opened, parts, strict=True)
                ]
                add(name, way, seed, given.seen, top1)
    show()


def untrained(name: str, source: str, opened: list[DataSet], parts: list[DataOptions]) -> None:
    """What needs no training, on the test images of each fold."""
    found: dict[str, list[float]] = {}
    for data, options in zip(opened, parts, strict=True):
        steps = planned(source, data, {"model": ALONE}, 1000, 0, options).preprocess
        train, test = data.splits["train"], data.splits["test"]
        nearest = k_nn(pixels(train, steps), train.targets.values, pixels(test, steps)) == test.targets.values
        for what, top1 in {
            **baselines(data, "test", steps),
            "nearest neighbours on pixels": float(nearest.mean()),
        }.items():
            found.setdefault(what, []).append(top1)
    for what, top1 in found.items():
        add(name, what, 0, 0, top1)


def add(name: str, way: str, seed: int, seen: int, top1: list[float]) -> None:
    spread = {"deviation": stdev(top1)} if len(top1) > 1 else {}
    RESULTS.add({"set": name, "way": way, "seed": seed, "seen": seen, "top1": round(mean(top1), 4), **spread})


if __name__ == "__main__":
    main()
