"""A step of learning objects against the backbone's own: forward and backward pass of a ViT-S at 512 pixels, two images with ten objects each.

    python benchmarks/dense_step.py [--rounds 9] [--size 512] [--batch 2] [--precision bf16] [--profile]

The backbone's own is its last map's forward pass and the backward pass from it. Cases step in turn, round after round; medians are given with their
ratio to the backbone's. Memory is the most that a process of its own held in three steps, less what it held before the first. No optimiser is run.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import numpy as np
import torch

from vitral.data.loader import Batch
from vitral.data.things import Things
from vitral.engines.memory import peak_memory
from vitral.models.heads.dense import build_model
from vitral.models.heads.options import QueryOptions
from vitral.models.zoo import model_config
from vitral.objectives.detect import Detect
from vitral.randomness import keys
from vitral.training.machine import keep_freed_memory

CASES = {
    "backbone": None,
    "detect, dense stage": QueryOptions(decoder_layers=0, masks=False),
    "detect, 1 layer": QueryOptions(decoder_layers=1, masks=False),
    "detect, 3 layers": QueryOptions(decoder_layers=3, masks=False),
    "instance, dense stage": QueryOptions(decoder_layers=0),
    "instance, 3 layers": QueryOptions(decoder_layers=3),
}
OBJECTS, CLASSES = 10, 80


def objects(batch: int, size: int, masked: bool) -> Things:
    """Boxes of a tenth to half of the image's side, masks that fill them."""
    torch.manual_seed(0)
    starts = torch.rand(batch, OBJECTS, 2) * 0.5
    boxes = torch.cat([starts, starts + 0.1 + 0.4 * torch.rand(batch, OBJECTS, 2)], -1)
    masks = torch.zeros(batch, OBJECTS, size, size, dtype=torch.uint8)
    for mask, box in zip(masks.flatten(0, 1), (boxes * size).int().flatten(0, 1).tolist(), strict=True):
        mask[box[1] : box[3], box[0] : box[2]] = 1
    classes = torch.randint(0, CLASSES, (batch, OBJECTS))
    return Things(tuple(classes), tuple(boxes), tuple(masks) if masked else None, (torch.zeros(0, 4),) * batch)


def step_of(case: str, size: int, batch: int, precision: str) -> Callable[[], None]:
    torch.manual_seed(0)
    head = CASES[case]
    config = model_config("vit_small_patch16_224", image_size=(size, size), num_classes=0 if head is None else CLASSES)
    model = build_model(config, head).train()
    images = torch.randn(batch, 3, size, size)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    if head is None:

        def own() -> None:
            with autocast:
                last = model.features(images)[-1]
            last.backward(torch.ones_like(last))
            model.zero_grad()

        return own
    things = objects(batch, size, head.masks)
    learned = Batch((images,), things, torch.from_numpy(keys(0, "sample", 0, np.arange(batch))))
    learned = replace(learned, whole=Detect().count(learned))

    def step() -> None:
        with autocast:
            losses = Detect()(model, learned)
        losses["loss"].backward()
        model.zero_grad()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--profile", action="store_true", help="where the time of detection with 3 layers goes")
    parser.add_argument("--memory", choices=CASES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    keep_freed_memory()
    shape = args.size, args.batch, args.precision
    if args.memory:
        step, before = step_of(args.memory, *shape), peak_memory()
        for _ in range(3):
            step()
        print((peak_memory() - before) / 2**20)
        return
    if args.profile:
        step = step_of("detect, 3 layers", *shape)
        step()
        with torch.profiler.profile() as profile:
            step()
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=30, max_name_column_width=50))
        return
    steps = {case: step_of(case, *shape) for case in CASES}
    taken: dict[str, list[float]] = {case: [] for case in CASES}
    for number in range(args.rounds + 1):
        for case, step in steps.items():
            start = time.perf_counter()
            step()
            if number:
                taken[case].append(time.perf_counter() - start)
    own = median(taken["backbone"])
    print(f"ViT-S/16, {args.size} px, {args.batch} images, {args.precision}, {torch.get_num_threads()} threads")
    for case, times in taken.items():
        words = [sys.executable, __file__, "--memory", case, "--size", str(args.size), "--batch", str(args.batch)]
        most = float(subprocess.check_output([*words, "--precision", args.precision], text=True))
        print(f"{case:22} {median(times):7.3f} s  {median(times) / own:5.2f}x  {most:7.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
