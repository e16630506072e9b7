"""Images a second of a ViT-S/16 on images of many shapes: packed in one sequence, padded to the largest of a batch, and one at a time.

    python benchmarks/packing.py [--rounds 5]

Batches of 8 as `keeping_shape` makes them, sides 1:3 to 3:1 at as many pixels as 224 x 224; random weights, float32, in turns.
"""

import argparse
import time

import numpy as np
import torch
from torch.nn import functional as F

import vitral
from vitral.data.steps import Resize
from vitral.models.plain import forward_packed

SIZE, BATCH, PATCH = 224, 8, 16


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    model = vitral.create_model("vit_small_patch16_224", num_classes=10).eval()
    ratios = 3 ** np.random.default_rng(0).uniform(-1, 1, BATCH)  # of height to width
    to = Resize("area", SIZE, SIZE, "bicubic", multiple=PATCH)
    images = [torch.rand(3, *to.size(round(1000 * ratio), 1000)) for ratio in ratios]
    most = [max(side) for side in zip(*(image.shape[1:] for image in images), strict=True)]

    def padded() -> torch.Tensor:
        return model(torch.stack([F.pad(x, (0, most[1] - x.shape[2], 0, most[0] - x.shape[1])) for x in images]))

    ways = {
        "packed": lambda: forward_packed(model, images),
        "padded": padded,
        "one at a time": lambda: torch.cat([model(image[None]) for image in images]),
    }
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds = np.zeros((given.rounds, len(ways)))
    for turn in seconds:
        for i, way in enumerate(ways.values()):
            began = clock()
            way()
            turn[i] = clock() - began
    print(f"shapes {', '.join('x'.join(map(str, image.shape[1:])) for image in images)}")
    tokens = [sum(image.shape[1] * image.shape[2] for image in images), BATCH * most[0] * most[1]]
    print(f"{tokens[0] // PATCH**2} patches, padded {tokens[1] // PATCH**2}")
    for i, name in enumerate(ways):
        ratio = np.median(seconds[:, i] / seconds[:, 0])
        print(f"{name:14} {BATCH / np.median(seconds[:, i]):6.1f} images/s, time {ratio:.2f} of packed")


if __name__ == "__main__":
    main()
