"""Images a second of a ViT-S/16 at 224 px with tokens merged, beside the model as it is: random weights, float32, batches of 8, in turns.

    python benchmarks/merging.py [--merge 4 8 13 16] [--rounds 5]

What it costs in answers only a trained model shows: vitral evaluate RUN DATA --merge N.
"""

import argparse

import numpy as np

import vitral
from vitral.checkpoints.card import ModelCard
from vitral.data.preprocess import Preprocess
from vitral.deploy.fastest.contest import Way, timed
from vitral.predict import Predictor

NAME, SIZE, BATCH = "vit_small_patch16_224", 224, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--merge", type=int, nargs="+", default=[4, 8, 13, 16])
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    model = vitral.create_model(NAME, num_classes=10)
    steps = Preprocess(SIZE, SIZE, 3, (0.5,) * 3, (0.5,) * 3)
    predictor = Predictor(model, ModelCard(NAME, model.config.arguments(), list("0123456789"), steps))
    ways = [Way(f"{each}", "torch", predictor.merging(each)) for each in (0, *given.merge)]
    view = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE), np.uint8)
    turns = timed(ways, [view], BATCH, given.rounds)  # [rounds, ways]
    for i, way in enumerate(ways):
        rate, times = BATCH / np.median(turns[:, i]), np.median(turns[:, 0] / turns[:, i])
        print(f"merging {way.name:3} {rate:7.1f} images/s, {times:.2f} times as many")


if __name__ == "__main__":
    main()
