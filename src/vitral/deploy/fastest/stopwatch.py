"""One engine with one model in a process of its own, timed: `python -m vitral.deploy.fastest.stopwatch MODEL ENGINE SECONDS SIZE...`.

It prints JSON lines. The first comes with the first answer, which whoever started the process times. One more for each batch size: its latencies in
seconds. The last: the most memory that the process held, in bytes.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from vitral.deploy.fastest.choice import opened
from vitral.engines.memory import peak_memory
from vitral.predict import Predictor

LEAST, MOST = 5, 200  # times that a batch is computed


def main(model: str, engine: str, seconds: float, sizes: list[int]) -> None:
    predictor = opened(Path(model), engine)
    image = _picture(predictor)
    predictor.predict(image)
    print(json.dumps({"library": predictor.engine.library}), flush=True)
    view = predictor.card.preprocess.view(predictor.read(image))
    for size in sizes:
        print(
            json.dumps({"size": size, "latencies": latencies(predictor, np.stack([view] * size), seconds)}), flush=True
        )
    print(json.dumps({"memory": peak_memory()}), flush=True)


def latencies(predictor: Predictor, batch: np.ndarray, seconds: float) -> list[float]:
    """Of the same batch again and again, after one that does not count."""
    predictor.engine(batch)
    taken: list[float] = []
    while len(taken) < LEAST or (sum(taken) < seconds and len(taken) < MOST):
        began = time.perf_counter()
        predictor.engine(batch)
        taken.append(time.perf_counter() - began)
    return taken


def _picture(predictor: Predictor) -> np.ndarray:
    steps = predictor.card.preprocess
    size = (max(375, steps.height), max(500, steps.width), steps.channels)
    return np.random.default_rng(0).integers(0, 256, size, np.uint8)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), [int(word) for word in sys.argv[4:]])
