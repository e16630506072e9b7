"""What running a model costs here: speed, latencies, memory and start of each engine, beside what the processor multiplies at most."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vitral.deploy.fastest.choice import opened
from vitral.drawing.charts import KINDS, Series, line_chart, standing_alone
from vitral.engines.cores import cores
from vitral.errors import VitralError
from vitral.models.measure import multiply_adds
from vitral.predict import load
from vitral.training.machine import processor, product_rates


@dataclass(frozen=True)
class Speed:
    """Of one batch size."""

    batch: int
    images_a_second: float
    p50: float
    """Seconds of a batch: the median."""
    p90: float
    p99: float
    share: float
    """Of what the processor's cores multiply in float32 at most, by matrix products of torch alone."""


@dataclass(frozen=True)
class Cost:
    """Of one engine."""

    engine: str
    """As it was asked for."""
    library: str
    """What ran the model."""
    cold_start: float
    """Seconds from the start of a process to its first answer."""
    memory: int
    """Bytes that the process held at most."""
    speeds: tuple[Speed, ...]


@dataclass(frozen=True)
class Bench:
    """A model on one machine."""

    model: str
    processor: str
    cores: int
    multiply_adds: int
    """Of one image."""
    matrix_rate: float
    """FLOP/s of products in float32 on all cores."""
    costs: tuple[Cost, ...]

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    def table(self) -> str:
        lines = [
            f"{self.model}\n{self.processor}, {self.cores} cores: products of float32 at {self.matrix_rate / 1e9:.0f} GFLOP/s at most, which is "
            f"{self.matrix_rate / 2 / self.multiply_adds:.1f} images/s",
            f"{'engine':10}{'batch':>6}{'images/s':>10}{'p50 ms':>9}{'p90 ms':>9}{'p99 ms':>9}{'share':>7}{'start s':>9}{'MB':>7}",
        ]
        for cost in self.costs:
            lines += [
                f"{cost.engine:10}{each.batch:6}{each.images_a_second:10.1f}{1e3 * each.p50:9.1f}{1e3 * each.p90:9.1f}"
                f"{1e3 * each.p99:9.1f}{each.share:7.0%}{cost.cold_start:9.2f}{cost.memory / 1e6:7.0f}"
                for each in cost.speeds
            ]
        return "\n".join(lines)

    def picture(self) -> str:
        """Images a second by batch size, a line for each engine, as HTML."""
        lines = [
            Series(cost.engine, [(each.batch, each.images_a_second) for each in cost.speeds], KINDS[i], marks=True)
            for i, cost in enumerate(self.costs)
        ]
        return standing_alone(line_chart(f"images a second: {self.model}", lines, "images in a batch"))


def bench(
    model: Path,
    engines: Sequence[str],
    batches: Sequence[int],
    *,
    seconds: float = 5.0,
    say: Callable[[str], None] = lambda text: None,
) -> Bench:
    """Each engine in a process of its own, one after the other; seconds: of each batch size."""
    card = load(model).card
    needed = multiply_adds(card.build(), card.preprocess.height, card.preprocess.width)
    most = product_rates().fp32 * cores()
    costs = []
    for engine in engines:
        opened(model, engine, say)  # exported where it has to be, which is no part of a start
        say(f"timing {engine}")
        costs.append(_cost(model, engine, sorted(set(batches)), seconds, 2 * needed / most))
    return Bench(card.model, processor(), cores(), needed, most, tuple(costs))


def _cost(model: Path, engine: str, batches: Sequence[int], seconds: float, least: float) -> Cost:
    """least: seconds that an image takes at the processor's best."""
    began = time.perf_counter()
    words = [
        sys.executable,
        "-m",
        "vitral.deploy.fastest.stopwatch",
        str(model),
        engine,
        str(seconds),
        *map(str, batches),
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        cold = time.perf_counter() - began
        rows = [json.loads(line) for line in process.stdout]
        said = process.stderr.read().strip()
    if process.returncode or not first:
        raise VitralError(
            f"{model}: {engine} does not run here ({said.splitlines()[-1] if said else 'it said nothing'})"
        )
    speeds = []
    for row in rows[:-1]:
        p50, p90, p99 = np.percentile(row["latencies"], (50, 90, 99)).tolist()
        speeds.append(Speed(row["size"], row["size"] / p50, p50, p90, p99, row["size"] * least / p50))
    return Cost(engine, json.loads(first)["library"], cold, rows[-1]["memory"], tuple(speeds))
