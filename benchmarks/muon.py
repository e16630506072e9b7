"""What an optimiser's step costs beside the model's: python benchmarks/muon.py [--threads 1] [--rounds 8] [--cases demo ti s].

For each case the forward and backward pass of a batch of 64, then in turn a step of vitral's Muon, of torch's (each for the encoder's matrices, with
AdamW for the rest) and AdamW on the same gradients; medians of processor seconds, so that other work on the machine counts less.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

import vitral
from vitral.training.machine import keep_freed_memory, processor
from vitral.training.optim import build_optimizers
from vitral.training.optimizers import Muon
from vitral.training.options import OptimOptions

DEMO = {"image_size": (8, 8), "patch_size": 2, "in_channels": 1, "dim": 96, "depth": 4, "num_heads": 3, "mlp_ratio": 2.0,
        "position": "sincos2d", "pooling": "mean", "class_token": False}  # fmt: skip
CASES = {
    "demo": ("vit_tiny_patch16_224", DEMO),
    "ti": ("vit_tiny_patch16_224", {}),
    "s": ("vit_small_patch16_224", {}),
}
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_freed_memory()
    print(
        f"{processor()}, {given.threads} threads, torch {torch.__version__}, batch of {BATCH}, processor ms a step, medians of {given.rounds}"
    )
    for case in given.cases:
        name, arguments = CASES[case]
        torch.manual_seed(0)
        compare(case, vitral.create_model(name, num_classes=10, **arguments).train(), given.rounds)


def compare(case: str, model: nn.Module, rounds: int) -> None:
    images, targets = torch.randn(BATCH, model.config.in_channels, *model.image_size), torch.randint(0, 10, (BATCH,))
    ours = build_optimizers(model, OptimOptions("muon", lr=1e-4))
    muon = next(each for each in ours if isinstance(each, Muon))
    matrices = [p for group in muon.param_groups for p in group["params"]]
    rest = next(each for each in ours if each is not muon)
    steppers: dict[str, list[torch.optim.Optimizer]] = {
        "vitral's Muon": ours,
        "torch's Muon": [torch.optim.Muon(matrices, lr=1e-4, adjust_lr_fn="match_rms_adamw"), rest],
        "AdamW": build_optimizers(model, OptimOptions("adamw", lr=1e-4)),
    }
    taken: dict[str, list[float]] = {"model": [], **{name: [] for name in steppers}}
    for _ in range(rounds + 1):  # the first warms up
        taken["model"].append(spent(lambda: nn.functional.cross_entropy(model(images), targets).backward()))
        for name, optimizers in steppers.items():
            taken[name].append(spent(lambda optimizers=optimizers: [each.step() for each in optimizers]))
        model.zero_grad()
    middle = {name: statistics.median(times[1:]) for name, times in taken.items()}
    print(f"{case}: forward and backward {middle['model'] * 1e3:,.0f}")
    for name in steppers:
        whole = middle["model"] + middle[name]
        print(
            f"  {name:14} {middle[name] * 1e3:8,.1f}   {middle[name] / whole:5.1%} of the step   {BATCH / whole:7,.1f} images/s"
        )


def spent(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    main()
