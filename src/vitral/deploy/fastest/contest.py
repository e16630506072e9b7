"""Several ways of running one model on the same images: how fast each is here, and what its answers lose.

Speeds are taken in turns, and compared by their medians: what else the machine does meets all of them. In each turn batches that do not count come
before the one that does, as threads of the way before spin for a while.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vitral.data.dataset import Split
from vitral.data.resample import Pixels
from vitral.engines.cores import cores
from vitral.errors import VitralError
from vitral.evaluation.evaluate import evaluate
from vitral.evaluation.evaluator import Scores
from vitral.predict import Predictor

ROUNDS, LEAST, SECONDS = 7, 3, 30.0
"""Turns of a batch size: fewer, but not fewer than `LEAST`, where they take longer than so many seconds."""
WARM = 0.1  # seconds of batches before the one that counts


@dataclass(frozen=True)
class Way:
    """One way of running the model."""

    name: str
    engine: str
    """torch, onnx or openvino."""
    predictor: Predictor
    precision: str = "fp32"
    """fp32, bf16 or int8."""
    file: Path | None = None
    """That it runs; None for the model itself."""
    compiled: bool = False


@dataclass(frozen=True)
class Result:
    """How a way did."""

    way: Way
    rates: dict[int, float]
    """Images a second by batch size."""
    score: float
    """The task's headline score, a share of 1."""
    lost: float
    """Points of it that the first way has more."""
    slower: dict[int, float] = field(default_factory=dict)
    """Time of a batch over that of the first way, the median over turns, by batch size."""


def contest(
    ways: Sequence[Way],
    split: Split,
    labels: list[str],
    views: Sequence[Pixels],
    batches: Sequence[int] = (1, 8),
    *,
    rounds: int = ROUNDS,
    say: Callable[[str], None] = lambda text: None,
) -> list[Result]:
    """Speed of each on `views`, images as the model sees them, and its score on the split; losses are beside the first.

    labels: of the data set that the split is of.
    """
    times = {size: timed(ways, [views] * len(ways), size, rounds) for size in batches}
    results: list[Result] = []
    for i, way in enumerate(ways):
        say(f"scoring {way.name}")
        scores, _ = evaluate(way.predictor, split, labels, batch_size=max(batches))
        score = defined(scores, split)
        lost = 100 * (results[0].score - score) if results else 0.0
        rates = {size: size / statistics.median(turns[:, i]) for size, turns in times.items()}
        slower = {size: float(np.median(turns[:, i] / turns[:, 0])) for size, turns in times.items()}
        results.append(Result(way, rates, score, lost, slower))
    return results


def lost_or_won(lost: float) -> str:
    """Points of a score in words."""
    return f"{abs(lost):.2f} points {'lost' if lost >= 0 else 'won'}"


def defined(scores: Scores, split: Split) -> float:
    """The headline score on a split. Raises VitralError where it has none."""
    if scores.headline is None:
        raise VitralError(f"{split.name}: has nothing to score answers by; give data with labels of every kind")
    return float(scores.headline)


def timed(ways: Sequence[Way], views: Sequence[Sequence[Pixels]], size: int, rounds: int) -> np.ndarray:
    """Seconds of a batch of this size, [rounds, ways]; of one core the processor's, which other processes' work does not lengthen.

    views: for each way images as it sees them.
    """
    clock = time.process_time if cores() == 1 else time.perf_counter
    batches = [[own[i % len(own)] for i in range(size)] for own in views]
    turns: list[list[float]] = []
    end = time.perf_counter() + SECONDS
    while len(turns) < rounds and (len(turns) < LEAST or time.perf_counter() < end):
        turns.append([])
        for way, batch in zip(ways, batches, strict=True):
            warm = time.perf_counter() + WARM
            way.predictor.run(batch)
            while time.perf_counter() < warm:
                way.predictor.run(batch)
            began = clock()
            way.predictor.run(batch)
            turns[-1].append(clock() - began)
    return np.array(turns)
