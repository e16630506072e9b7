"""Test top-1 on Fashion-MNIST after the same minutes of training on the same machine: vitral's recipes against a plain recipe with vit-pytorch.

    python benchmarks/learning.py --minutes 8 --seeds 0 1 2        # 3 contenders x 3 seeds x 8 minutes
    python benchmarks/learning.py --show                           # the table of what has been run

Contenders take turns, seed by seed, alone on the machine; each result is a line in benchmarks/learning.jsonl, and what is there is not run
again. The plain recipe is what one writes in an afternoon: vit-pytorch's ViT (width 128, 6 layers, 4 heads, patches of 4, class token), AdamW
1e-3 with decay 0.05, batch 128, 5 % warm-up and a cosine that ends with the clock, random shifts of up to 4 pixels and flips, bfloat16.
Validation, where a recipe has any, is on the clock, too.
"""

import argparse
import importlib.util
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev

import numpy as np

HERE = Path(__file__).parent
RESULTS = HERE / "learning.jsonl"
PLAIN = "vit-pytorch, plain"
RECIPES = {
    "vitral, plain ViT": "fashion-mnist.toml",
    "vitral, convolutional stem": "fashion-mnist-stem.toml",
}


def train_recipe(recipe: str, seconds: float, seed: int) -> dict[str, float]:
    """One run of ours through the command line."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        subprocess.run(
            [sys.executable, "-m", "vitral", "train", "fashion-mnist", "--recipe", str(HERE.parent / "recipes" / recipe),
             "--time", f"{seconds}s", "--seed", str(seed), "--out", str(out)],
            check=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        scores = json.loads((out / "scores.json").read_text())
        last = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines() if '"train"' in line][-1]
    return {"top1": scores["top1"], "seconds": scores["training_seconds"], "epochs": last["epoch"]}


def train_plain(seconds: float, seed: int) -> dict[str, float]:
    """vit-pytorch's ViT in a loop of a page."""
    import torch
    from torch.nn import functional as F

    from vitral.data.options import DataOptions
    from vitral.data.sources import open_data

    # The package's __init__ needs torchvision, which cannot stand beside this torch; its ViT does not.
    folder = importlib.util.find_spec("vit_pytorch").submodule_search_locations[0]
    spec = importlib.util.spec_from_file_location("vit", f"{folder}/vit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    data = open_data("fashion-mnist", DataOptions(val_fraction=0))  # all 60,000: it needs no validation
    pixels, targets = {}, {}
    for name, split in data.splits.items():
        pixels[name] = torch.stack([split.read(i) for i in range(len(split))])
        targets[name] = torch.from_numpy(split.targets)
    torch.manual_seed(seed)
    model = module.ViT(
        image_size=28, patch_size=4, num_classes=10, dim=128, depth=6, heads=4, mlp_dim=512, channels=1, dim_head=32
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05, fused=True)
    rng = np.random.default_rng(seed)
    count, step, began = len(targets["train"]), 0, time.monotonic()
    while (share := (time.monotonic() - began) / seconds) < 1:
        at = step * 128 % (count // 128 * 128)
        if at == 0:
            order = torch.from_numpy(rng.permutation(count))
        chosen = order[at : at + 128]
        images = F.pad(pixels["train"][chosen], (4, 4, 4, 4))
        top, left = rng.integers(0, 9, (2, 128))
        images = torch.stack([x[:, t : t + 28, w : w + 28] for x, t, w in zip(images, top, left, strict=True)])
        mirrored = torch.from_numpy(rng.random(128) < 0.5)[:, None, None, None]
        images = torch.where(mirrored, images.flip(3), images).float() / 127.5 - 1
        ramp = min(1.0, share / 0.05)
        optimizer.param_groups[0]["lr"] = (
            1e-3 * max(1e-3, ramp) * (0.5 * (1 + math.cos(math.pi * share)) if ramp == 1 else 1)
        )
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(images)
        F.cross_entropy(logits.float(), targets["train"][chosen]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
    spent = time.monotonic() - began
    model.eval()
    with torch.inference_mode():
        right = sum(
            int((model(x.float() / 127.5 - 1).argmax(1) == y).sum())
            for x, y in zip(pixels["test"].split(500), targets["test"].split(500), strict=True)
        )
    return {"top1": right / len(targets["test"]), "seconds": spent, "epochs": step * 128 / count}


def done(minutes: float) -> dict[tuple[str, int], dict[str, float]]:
    """(contender, seed) -> result, of the runs of this length."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    rows = [json.loads(line) for line in lines]
    return {(row["contender"], row["seed"]): row for row in rows if row["minutes"] == minutes}


def show(minutes: float) -> None:
    results = done(minutes)
    seeds = sorted({seed for _, seed in results})
    print(f"Fashion-MNIST, test top-1 after {minutes:g} minutes of training")
    print(
        f"{'':28}" + "".join(f"   seed {seed}" for seed in seeds) + "     mean  deviation  epochs   over plain, paired"
    )
    for contender in (PLAIN, *RECIPES):
        rows = {seed: results[contender, seed] for seed in seeds if (contender, seed) in results}
        if not rows:
            continue
        top1 = [row["top1"] for row in rows.values()]
        gains = [row["top1"] - results[PLAIN, seed]["top1"] for seed, row in rows.items() if (PLAIN, seed) in results]
        cells = "".join(f"{rows[seed]['top1']:9.2%}" if seed in rows else " " * 9 for seed in seeds)
        spread = f"{stdev(top1):9.2%}" if len(top1) > 1 else " " * 9
        over = f"{100 * mean(gains):+.2f} ({', '.join(f'{100 * g:+.2f}' for g in gains)})" if contender != PLAIN else ""
        print(
            f"{contender:28}{cells}{mean(top1):9.2%}  {spread}  {mean(r['epochs'] for r in rows.values()):6.1f}   {over}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--contenders", nargs="+", choices=[PLAIN, *RECIPES], default=[PLAIN, *RECIPES])
    parser.add_argument("--show", action="store_true", help="print the table and run nothing")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)  # contender, seconds, seed: a process of its own
    given = parser.parse_args()
    if given.one:
        print(json.dumps(train_plain(float(given.one[1]), int(given.one[2]))))
        return
    for seed in [] if given.show else given.seeds:
        for contender in given.contenders:
            if (contender, seed) in done(given.minutes):
                continue
            seconds = given.minutes * 60
            if contender == PLAIN:
                command = [sys.executable, __file__, "--one", contender, str(seconds), str(seed)]
                result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            else:
                result = train_recipe(RECIPES[contender], seconds, seed)
            row = {"contender": contender, "seed": seed, "minutes": given.minutes, **result}
            with open(RESULTS, "a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{contender}, seed {seed}: {row['top1']:.2%}, {row['epochs']:.1f} epochs", flush=True)
    show(given.minutes)


if __name__ == "__main__":
    main()
