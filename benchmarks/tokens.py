"""How time and memory of a ViT-S/16 grow with its tokens, from 224 to 1,024 pixels a side, beside theory.

    python benchmarks/tokens.py [--sizes 224 384 512 768 1024] [--plot tokens.html]

Each size in a process of its own, one image, float32, eager PyTorch on one thread: the fastest of three forward passes, in seconds of the
processor, which other processes' work lengthens little, and the most memory that they add to the process. Theory: products of linear layers grow as
the tokens N, those of attention as N^2; memory grows as N, because fused attention never holds the square. Beside it stands what the explicit softmax
of one layer holds, N^2 numbers for each head.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch

import vitral
from vitral.drawing.charts import Series, line_chart, standing_alone
from vitral.engines.memory import numbers_of, peak_memory
from vitral.models.measure import measure

NAME, HEADS, ROUNDS = "vit_small_patch16_224", 6, 3


@torch.inference_mode()
def child(size: int) -> None:
    torch.set_num_threads(1)
    model = vitral.create_model(NAME, num_classes=10, image_size=size).eval()
    model(torch.zeros(1, 3, 32, 32))  # what is loaded and laid out once
    image = torch.rand(1, 3, size, size)
    Path("/proc/self/clear_refs").write_text("5")  # the most that was held begins anew
    before, seconds = 1024 * numbers_of("/proc/self/status")["VmRSS"], []
    for _ in range(1 + ROUNDS):
        began = time.process_time()
        model(image)
        seconds.append(time.process_time() - began)
    added = peak_memory() - before
    tokens = 1 + (size // 16) ** 2
    attention = 2 * model.config.depth * tokens**2 * model.config.dim
    linear = measure(model.config).multiply_adds - attention
    row = {"tokens": tokens, "seconds": min(seconds[1:]), "bytes": added, "linear": linear, "attention": attention}
    print(json.dumps(row))


def picture(rows: list[dict[str, float]]) -> str:
    """Time and memory as multiples of the first size's, each beside its theory."""
    tokens = [row["tokens"] for row in rows]

    def times(values: list[float]) -> list[tuple[float, float]]:
        return [(n, value / values[0]) for n, value in zip(tokens, values, strict=True)]

    products = times([row["linear"] + row["attention"] for row in rows])
    lines = [
        Series("time, dashed: multiply-adds", times([row["seconds"] for row in rows]), "b", marks=True),
        Series("", products, "b", dashed=True),
        Series("memory, dashed: tokens", times([row["bytes"] for row in rows]), "a", marks=True),
        Series("", times(tokens), "a", dashed=True),
    ]
    return standing_alone(
        line_chart("ViT-S/16: times what 224 px take", lines, "tokens of an image", x_log=True, y_log=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 384, 512, 768, 1024])
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child)
        return
    rows = []
    print(
        "| pixels | tokens | seconds | times | multiply-adds, times | of them attention | memory added | times | tokens, times | one softmax |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for size in given.sizes:
        words = [sys.executable, __file__, "--child", str(size)]
        row = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)
        rows.append(row)
        first, products = rows[0], row["linear"] + row["attention"]
        print(
            f"| {size} | {row['tokens']:,} | {row['seconds']:.3f} | {row['seconds'] / first['seconds']:.1f} "
            f"| {products / (first['linear'] + first['attention']):.1f} | {row['attention'] / products:.0%} | {row['bytes'] / 1e6:.0f} MB "
            f"| {row['bytes'] / first['bytes']:.1f} | {row['tokens'] / first['tokens']:.1f} | {4 * HEADS * row['tokens'] ** 2 / 1e6:.0f} MB |",
            flush=True,
        )
    if given.plot:
        given.plot.write_text(picture(rows))


if __name__ == "__main__":
    main()
