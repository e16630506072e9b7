"""Test top-1 on Fashion-MNIST after the same minutes of training on the same machine: vitral's recipes against a plain recipe with vit-pytorch.

    python benchmarks/learning.py --minutes 8 --seeds 0 1 2        # 3 contenders x 3 seeds x 8 minutes
    python benchmarks/learning.py --show                           # the table of what has been run

Contenders take turns, seed by seed, alone on the machine; each result is a line in benchmarks/learning.jsonl, and what is there is not run
again. The plain recipe is what one writes in an afternoon: vit-pytorch's ViT (width 128, 6 layers, 4 heads, patches of 4, class token), AdamW
1e-3 with decay 0.05, batch 128, 5 % warm-up and a cosine that ends with the clock, random shifts of a pixel and flips as in our recipes, bfloat16.
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
from statistics import mean

import numpy as np

from runs import Results, summary, vitral

HERE = Path(__file__).parent
RESULTS = Results(HERE / "learning.jsonl", "contender", "minutes", "seed")
PLAIN = "vit-pytorch, plain"
RECIPES = {
    "vitral, plain ViT": "fashion-mnist.toml",
    "vitral, convolutional stem": "fashion-mnist-stem.toml",
}


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
        images = F.pad(pixels["train"][chosen], (1, 1, 1, 1))
        top, left = rng.integers(0, 3, (2, 128))
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
    model.eval()
    with torch.inference_mode():
        right = sum(
            int((model(x.float() / 127.5 - 1).argmax(1) == y).sum())
            for x, y in zip(pixels["test"].split(500), targets["test"].split(500), strict=True)
        )
    return {"top1": right / len(targets["test"]), "epochs": round(step * 128 / count, 1)}


def run(contender: str, minutes: float, seed: int) -> dict:
    """One contender, alone, in a process of its own."""
    if contender == PLAIN:
        command = [sys.executable, __file__, "--one", contender, str(60 * minutes), str(seed)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    with tempfile.TemporaryDirectory() as folder:
        options = f"--recipe {HERE.parent / 'recipes' / RECIPES[contender]}"
        return vitral("train", "fashion-mnist", options, minutes=minutes, seed=seed, out=Path(folder) / "run")


def show(minutes: float) -> None:
    rows = RESULTS.rows()
    seeds = sorted({seed for _, m, seed in rows if m == minutes})
    print(f"Fashion-MNIST, test top-1 in % after {minutes:g} minutes of training")
    for contender in (PLAIN, *RECIPES):
        found = {seed: rows[contender, minutes, seed]["top1"] for seed in seeds if (contender, minutes, seed) in rows}
        each = "  ".join(f"seed {seed}: {100 * top1:.2f}" for seed, top1 in found.items())
        print(f"  {contender:28} {summary(list(found.values())):28} {each}")
        gains = [
            100 * (top1 - rows[PLAIN, minutes, seed]["top1"])
            for seed, top1 in found.items()
            if (PLAIN, minutes, seed) in rows
        ]
        if gains and contender != PLAIN:
            print(
                f"  {'over the plain recipe':28} {mean(gains):+.2f} points, paired: {', '.join(f'{gain:+.2f}' for gain in gains)}"
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
            if (contender, given.minutes, seed) not in RESULTS.rows():
                RESULTS.add(
                    {
                        "contender": contender,
                        "minutes": given.minutes,
                        "seed": seed,
                        **run(contender, given.minutes, seed),
                    }
                )
    show(given.minutes)


if __name__ == "__main__":
    main()
