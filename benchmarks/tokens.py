"""How time and memory of a ViT-S/16 grow with its tokens, from 224 to 1,024 pixels a side, beside theory.

    python benchmarks/tokens.py [--sizes 224 384 512 768 1024] [--plot tokens.html]

Each size in a process of its own, one image, float32, eager PyTorch: the median of five forward passes, and what the first adds to the process's
memory. Theory of time is multiply-adds: of the linear layers they grow as the tokens, of attention as their square. Theory of memory is a line, as
fused attention never holds the square; beside it stands what one layer's explicit softmax would hold.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

import vitral
from vitral.checkpoints.card import ModelCard
from vitral.data.preprocess import Preprocess
from vitral.drawing.charts import KINDS, Series, line_chart, standing_alone
from vitral.models.measure import multiply_adds
from vitral.predict import Predictor

NAME, HEADS = "vit_small_patch16_224", 6


def held() -> int:
    """The most memory that the process has held, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def child(size: int) -> None:
    model = vitral.create_model(NAME, num_classes=10, image_size=size)
    steps = Preprocess(size, size, 3, (0.5,) * 3, (0.5,) * 3)
    engine = Predictor(model, ModelCard(NAME, model.config.arguments(), list("0123456789"), steps)).engine
    batch = np.random.default_rng(0).integers(0, 256, (1, 3, size, size), np.uint8)
    torch.mm(torch.ones(512, 512), torch.ones(512, 512))  # loads what multiplies
    before, times = held(), []
    for _ in range(6):
        began = time.perf_counter()
        engine(batch)
        times.append(time.perf_counter() - began)
    print(
        json.dumps(
            {"seconds": median(times[1:]), "bytes": held() - before, "multiply_adds": multiply_adds(model, size, size)}
        )
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
    for size in given.sizes:
        said = subprocess.run(
            [sys.executable, __file__, "--child", str(size)], check=True, capture_output=True, text=True
        )
        rows.append({"tokens": 1 + (size // 16) ** 2, **json.loads(said.stdout)})
    first = rows[0]
    for size, row in zip(given.sizes, rows, strict=True):
        times = {key: row[key] / first[key] for key in row}
        print(
            f"{size:5} px {row['tokens']:5} tokens {row['seconds']:7.3f} s, {times['seconds']:5.1f} times the first (multiply-adds "
            f"{times['multiply_adds']:5.1f}); {row['bytes'] / 1e6:6.0f} MB, {times['bytes']:5.1f} times (tokens {times['tokens']:5.1f}); explicit "
            f"softmax of a layer {4 * HEADS * row['tokens'] ** 2 / 1e6:6.0f} MB"
        )
    if given.plot:
        lines = {
            "seconds": [row["seconds"] / first["seconds"] for row in rows],
            "multiply-adds": [row["multiply_adds"] / first["multiply_adds"] for row in rows],
            "memory": [row["bytes"] / first["bytes"] for row in rows],
            "tokens": [row["tokens"] / first["tokens"] for row in rows],
        }
        series = [
            Series(
                name,
                list(zip((row["tokens"] for row in rows), values, strict=True)),
                KINDS[i],
                marks=i % 2 == 0,
                dashed=i % 2 == 1,
            )
            for i, (name, values) in enumerate(lines.items())
        ]
        chart = line_chart("ViT-S/16: times what 224 px take", series, "tokens", x_log=True, y_log=True)
        given.plot.write_text(standing_alone(chart))


if __name__ == "__main__":
    main()
