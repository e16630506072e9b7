"""Which validation's weights to keep when there are few validation images: rules compared by the test accuracy of what they keep.

Small ViTs learn from 60 to 300 digits, some with wrong labels, and answer 1,200 others at each of 60 validations. Of these 600 are the test
images; from the other 600 validation sets of 1 to 300 images are drawn 200 times, and each rule chooses by them. It takes a quarter of an hour on
one core: python benchmarks/keeping.py
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

import vitral

SIZES = (1, 4, 8, 16, 32, 64, 128, 300)
VALIDATIONS, STEPS = 60, 25


def answers(images: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """logits [validations, 1200, 10] and targets [1200] of one training."""
    digits = load_digits()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(digits.target))
    pixels = torch.from_numpy(digits.images[order] / 8 - 1).float()[:, None]
    targets = torch.from_numpy(digits.target[order]).long()
    x, y = pixels[:images], targets[:images].clone()
    wrong = torch.from_numpy(rng.random(images) < noise)
    y[wrong] = torch.from_numpy(rng.integers(0, 10, int(wrong.sum())))
    torch.manual_seed(seed)
    model = vitral.create_model(
        "vit_tiny_patch16_224", image_size=8, patch_size=2, in_channels=1, num_classes=10, dim=32, depth=2, num_heads=2
    )
    total = VALIDATIONS * STEPS
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=total, pct_start=0.1)
    kept = []
    for step in range(total):
        model.train()
        rows = torch.from_numpy(rng.integers(0, images, min(32, images)))
        shift = tuple(rng.integers(-1, 2, 2).tolist())
        F.cross_entropy(model(torch.roll(x[rows], shift, (2, 3))), y[rows]).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if (step + 1) % STEPS == 0:
            with torch.inference_mode():
                kept.append(model.eval()(pixels[images : images + 1200]).numpy())
    return np.stack(kept), targets[images : images + 1200].numpy()


def smoothed(values: np.ndarray, span: int) -> np.ndarray:
    """Mean of each value and those up to `span` before it: [validations]."""
    sums = np.cumsum(np.insert(values, 0, 0.0))
    last = np.arange(1, len(values) + 1)
    first = np.maximum(0, last - span)
    return (sums[last] - sums[first]) / (last - first)


def latest(values: np.ndarray) -> int:
    """The last of the largest."""
    return len(values) - 1 - int(np.argmax(values[::-1]))


def by_ties(top1: np.ndarray, loss: np.ndarray, within: float) -> int:
    """The lowest loss among validations whose top-1 is within so much of the best."""
    near = top1 >= top1.max() - within - 1e-12
    return latest(np.where(near, -loss, -np.inf))


def rules(top1: np.ndarray, loss: np.ndarray, images: int) -> dict[str, int]:
    best = top1.max()
    error = ((best * images + 2) / (images + 4) * (1 - (best * images + 2) / (images + 4)) / (images + 4)) ** 0.5
    return {
        "first of the best top-1": int(np.argmax(top1)),
        "last of the best top-1": latest(top1),
        "best top-1, then loss": by_ties(top1, loss, 0.0),
        "top-1 within an image, then loss": by_ties(top1, loss, 1 / images),
        "top-1 within a standard error, then loss": by_ties(top1, loss, error),
        "lowest loss": latest(-loss),
        "top-1 averaged over 3, then loss": by_ties(smoothed(top1, 3), loss, 0.0),
        "top-1 averaged over 5, then loss": by_ties(smoothed(top1, 5), loss, 0.0),
        "loss averaged over 3": latest(-smoothed(loss, 3)),
        "last": len(top1) - 1,
    }


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'training':22}{'rule':44}" + "".join(f"{n:>7}" for n in SIZES))
    for images, noise in ((60, 0.0), (300, 0.0), (300, 0.3), (100, 0.5)):
        scores: dict[str, np.ndarray] = {}
        seeds = 3
        for seed in range(seeds):
            logits, targets = answers(images, noise, seed)
            logits = logits.astype(np.float64)
            shifted = logits - logits.max(2, keepdims=True)
            losses = np.log(np.exp(shifted).sum(2)) - np.take_along_axis(shifted, targets[None, :, None], 2)[..., 0]
            right = logits.argmax(2) == targets
            test = right[:, 600:].mean(1)
            rng = np.random.default_rng(seed)
            for j, n in enumerate(SIZES):
                for _ in range(200):
                    chosen = rng.choice(600, n, replace=False)
                    for name, k in rules(right[:, chosen].mean(1), losses[:, chosen].mean(1), n).items():
                        scores.setdefault(name, np.zeros(len(SIZES)))[j] += test[k] / (200 * seeds)
        for name, values in scores.items():
            print(
                f"{f'{images}, {noise:.0%} wrong':22}{name:44}" + "".join(f"{100 * v:7.2f}" for v in values), flush=True
            )


if __name__ == "__main__":
    main()
