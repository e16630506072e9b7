"""Images per second of our training step against vit-pytorch's and Hugging Face's ViT: same model, batch, precision, optimiser, clipping.

    make bench        # or: python benchmarks/training.py [--rounds 7] [--cases small ti s]

Each contender lives in a process of its own and steps when it is its turn, round after round, so that what else the machine does falls on all alike.
Given are medians over the rounds, the ratio of our best to the best of the others in any precision and attention, and the share of the
processor's matrix-product rate in its fast precision, measured in the same rounds, that our step reaches. bfloat16 is left out where the processor
only emulates it.

Ours is the product's own step (uint8 pixels
normalised, seeded, loss and top-1 counted); the others get normalised floats and the bare minimum of a step.
"""

import argparse
import importlib.util
import subprocess
import sys
import time
from statistics import median
from types import SimpleNamespace

# image size, channels, patch, width, layers, heads, batch, steps a round
CASES = {
    "small": (28, 1, 4, 128, 6, 4, 256, 3),
    "ti": (224, 3, 16, 192, 12, 3, 16, 2),
    "s": (224, 3, 16, 384, 12, 6, 16, 1),
}
CONTENDERS = ["vitral", "vit-pytorch", "hf-sdpa", "hf-eager"]


def flops(case: str) -> float:
    """Floating-point operations of one training step on one image: forward and twice as many backward, matrix products only."""
    size, channels, patch, dim, depth, _, _, _ = CASES[case]
    tokens = (size // patch) ** 2 + 1
    macs = tokens * channels * patch**2 * dim + depth * (12 * tokens * dim**2 + 2 * tokens**2 * dim)
    return 6.0 * macs


def our_step(case: str, precision: str):
    import torch

    from vitral.checkpoints.create import create_model
    from vitral.data.loader import Batch
    from vitral.data.preprocess import Preprocess
    from vitral.objectives.classify import Classify
    from vitral.training.config import Recipe
    from vitral.training.loop import Loop
    from vitral.training.machine import keep_freed_memory
    from vitral.training.optim import build_optimizers
    from vitral.training.options import OptimOptions, TrainOptions
    from vitral.training.state import Progress

    keep_freed_memory()
    size, channels, patch, dim, depth, heads, batch, _ = CASES[case]
    model = create_model(
        "vit_tiny_patch16_224", image_size=size, in_channels=channels, patch_size=patch, dim=dim, depth=depth, num_heads=heads, num_classes=10
    ).train()  # fmt: skip
    half = (0.5,) * channels
    recipe = Recipe(optim=OptimOptions(lr=1e-3), train=TrainOptions(steps=10**9, batch_size=batch))
    batches = SimpleNamespace(preprocess=Preprocess(size, size, channels, half, half), steps_per_epoch=1)
    loop = Loop(
        model, Classify(), batches, build_optimizers(model, recipe.optim), None, Progress(batch_size=batch), recipe, torch.device("cpu"), precision
    )  # fmt: skip
    images = torch.randint(0, 256, (batch, channels, size, size), dtype=torch.uint8)
    learned = Batch((images,), torch.randint(0, 10, (batch,)), torch.arange(batch))

    def step() -> None:
        loop.gradients(learned, None)
        loop.update()

    return step


def their_step(name: str, case: str, precision: str):
    import torch

    size, channels, patch, dim, depth, heads, batch, _ = CASES[case]
    if name == "vit-pytorch":
        # The package's __init__ needs torchvision, which cannot stand beside this torch; its ViT does not.
        folder = importlib.util.find_spec("vit_pytorch").submodule_search_locations[0]
        spec = importlib.util.spec_from_file_location("vit", f"{folder}/vit.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model = module.ViT(
            image_size=size, patch_size=patch, num_classes=10, dim=dim, depth=depth, heads=heads, mlp_dim=4 * dim, channels=channels,
            dim_head=dim // heads,
        )  # fmt: skip
        forward = model
    else:
        from transformers import ViTConfig, ViTForImageClassification

        model = ViTForImageClassification(
            ViTConfig(
                hidden_size=dim, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=4 * dim, image_size=size, patch_size=patch,
                num_channels=channels, num_labels=10, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, attn_implementation=name[3:],
            )
        )  # fmt: skip

        def forward(x):
            return model(pixel_values=x).logits

    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    images, targets = torch.randn(batch, channels, size, size), torch.randint(0, 10, (batch,))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = forward(images)
        torch.nn.functional.cross_entropy(logits.float(), targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def fast_precisions() -> list[str]:
    """Those that this processor has instructions for, the fastest first."""
    import torch

    from vitral.training.machine import choose_precision

    return ["bf16", "fp32"] if choose_precision("auto", torch.device("cpu")) == "bf16" else ["fp32"]


def product_step(precision: str):
    """A large matrix product; one call is 17.2 billion operations."""
    import torch

    a, b = torch.randn(2, 2048, 2048, dtype=torch.bfloat16 if precision == "bf16" else torch.float32).unbind(0)
    return lambda: torch.mm(a, b)


def serve(name: str, case: str, precision: str) -> None:
    """A contender's process: one line in, one round, its seconds out."""
    step = (
        product_step(precision)
        if name == "product"
        else our_step(case, precision)
        if name == "vitral"
        else their_step(name, case, precision)
    )
    steps = 20 if name == "product" else CASES[case][-1]
    step()
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        for _ in range(steps):
            step()
        print(time.perf_counter() - began, flush=True)


def compare(case: str, rounds: int) -> None:
    precisions = fast_precisions()
    keys = [("product", precisions[0]), *((c, p) for c in CONTENDERS for p in precisions)]
    workers = {}
    for name, precision in keys:
        command = [sys.executable, __file__, "--serve", name, case, precision]
        workers[name, precision] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert workers[name, precision].stdout.readline() == "ready\n", (
            f"{name} did not start; `make bench` installs what it needs"
        )
    seconds = {key: [] for key in keys}
    for _ in range(rounds):
        for key, worker in workers.items():
            worker.stdin.write("go\n")
            worker.stdin.flush()
            seconds[key].append(float(worker.stdout.readline()))
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    size, _, patch, dim, depth, _, batch, steps = CASES[case]
    rate = {key: batch * steps / median(s) for key, s in seconds.items() if key[0] != "product"}
    product = 20 * 2 * 2048**3 / median(seconds["product", precisions[0]])
    ours = max((k for k in rate if k[0] == "vitral"), key=rate.get)
    theirs = max((k for k in rate if k[0] != "vitral"), key=rate.get)
    paired = median(b / a for a, b in zip(seconds[ours], seconds[theirs], strict=True))
    print(f"\n{case}: width {dim}, {depth} layers, {size} px, patch {patch}, batch {batch}; {rounds} rounds")
    for key in rate:
        print(f"  {key[0]:12} {key[1]}  {rate[key]:8.1f} images/s")
    print(
        f"  ours ({ours[1]}) / {theirs[0]} ({theirs[1]}): {rate[ours] / rate[theirs]:.2f} of medians, {paired:.2f} paired"
    )
    print(f"  {precisions[0]} matrix products {product / 1e9:.0f} GFLOP/s; our step {rate[ours] * flops(case) / 1e9:.0f} GFLOP/s,"
          f" {rate[ours] * flops(case) / product:.0%} of it", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(*given.serve)
    else:
        for case in given.cases:
            compare(case, given.rounds)


if __name__ == "__main__":
    main()
