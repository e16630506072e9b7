"""The fastest way of running a model here that loses no more than is allowed."""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitral.checkpoints.bundle import save_model
from vitral.data.dataset import Split
from vitral.data.resample import Pixels
from vitral.deploy.export.file import place
from vitral.deploy.export.formats import FORMATS
from vitral.deploy.export.graph import Traced
from vitral.deploy.export.quantise import WAYS, quantised
from vitral.deploy.export.writers import told_anew
from vitral.deploy.fastest.choice import Choice, in_torch, remember
from vitral.deploy.fastest.contest import Result, Way, contest
from vitral.engines.cores import cores
from vitral.engines.exported import PRECISION, THREADING
from vitral.engines.files import SUFFIXES
from vitral.errors import VitralError
from vitral.predict import Predictor, load
from vitral.training.machine import choose_device, choose_precision, processor

THREADS = {"onnx": ("no spinning", "blocking"), "openvino": ("streams", "streams")}
"""Of each engine another way of working with several threads: its name, and what its file says."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Optimised:
    """What was tried, what was left out and why, and what is fastest."""

    results: tuple[Result, ...]
    """The first is the model as it is."""
    refused: tuple[str, ...]
    best: Result
    batch: int
    loss: float

    def table(self) -> str:
        """A line for each, the fastest first."""
        sizes = sorted(self.best.rates)
        head = f"{'engine':28}" + "".join(f"{f'batch {size}':>18}" for size in sizes) + f"{'score':>9}{'lost':>8}"
        lines = [head]
        for each in sorted(self.results, key=lambda one: -one.rates[self.batch]):
            speeds = "".join(f"{each.rates[size]:11.1f} ({1 / each.slower[size]:.2f}x)" for size in sizes)
            much = "" if each.lost <= self.loss else "  too much"
            lines.append(f"{each.way.name:28}{speeds}{each.score:9.2%}{each.lost:+8.2f}{much}")
        return "\n".join([*lines, *(f"left out: {why}" for why in self.refused)])

    def to_json(self) -> dict[str, object]:
        rows = [
            {"engine": each.way.name, "images_a_second": each.rates, "score": each.score, "lost_points": each.lost}
            for each in self.results
        ]
        return {"processor": processor(), "rows": rows, "left_out": list(self.refused), "chosen": self.best.way.name}


def optimise(
    model: Path,
    split: Split,
    labels: list[str],
    calibration: Sequence[Pixels],
    views: Sequence[Pixels],
    out: Path,
    *,
    loss: float = 0.3,
    batch: int = 8,
    eight_bits: bool = False,
    compiled: bool = False,
    say: Say = lambda text: None,
) -> Optimised:
    """Time every engine that this machine has, and write the fastest one's file into the folder `out`, with the table as optimize.json.

    Args:
        split: on which answers are scored; labels: of its data set.
        calibration: images as the model sees them, for the ranges of 8 bits; views: those that are timed.
        loss: points of the headline score that may be lost.
    """
    traced, refused = Traced(load(model)), list[str]()
    with tempfile.TemporaryDirectory(prefix=".optimize-", dir=_folder(out)) as folder:
        made = _ways(traced, Path(folder), calibration, refused, eight_bits=eight_bits, compiled=compiled, say=say)
        results = contest(list(made), split, labels, views, sorted({1, batch}), say=say)
        best = max((each for each in results if each.lost <= loss), key=lambda each: each.rates[batch])
        found = Optimised(tuple(results), tuple(refused), best, batch, loss)
        file = _write(best.way, traced.predictor, out)
    way = best.way
    remember(model, Choice(way.engine, way.precision, way.compiled, str(file.absolute()) if way.file else ""))
    (out / "optimize.json").write_text(json.dumps(found.to_json(), indent=1))
    return found


def _folder(out: Path) -> Path:
    if out.suffix in SUFFIXES or out.is_file():
        raise VitralError(f"{out}: give a folder, as how the file is called depends on which engine is fastest")
    out.mkdir(parents=True, exist_ok=True)
    return out


def _ways(
    traced: Traced,
    folder: Path,
    calibration: Sequence[Pixels],
    refused: list[str],
    *,
    eight_bits: bool,
    compiled: bool,
    say: Say,
) -> Iterator[Way]:
    """Every way that this machine has; what it has not goes to `refused`."""
    predictor = traced.predictor
    precisions = ["fp32", "bf16"] if choose_precision("auto", choose_device("cpu")) == "bf16" else ["fp32"]
    if len(precisions) == 1:
        refused.append("bf16: this processor multiplies it no faster than float32")
    for precision in precisions:
        yield Way(_named("PyTorch", precision), "torch", in_torch(predictor, precision), precision)
        if compiled:
            also = in_torch(predictor, precision, compiled=True)
            yield Way(_named("PyTorch, compiled", precision), "torch", also, precision, compiled=True)
    for engine, name in (("onnx", "ONNX Runtime"), ("openvino", "OpenVINO")):
        try:
            say(f"exporting for {name}")
            file = folder / f"model{FORMATS[engine].suffix}"
            FORMATS[engine].write(traced, file)
        except VitralError as error:
            refused.append(f"{name}: {error}")
            continue
        yield Way(name, engine, load(file), file=file)
        for k, (how, more) in enumerate(_others(engine, precisions)):
            told = folder / str(k) / file.name
            told_anew(file, told, more)
            yield Way(f"{name}, {how}", engine, load(told), more.get(PRECISION, "fp32"), told)
        for how, quantise in WAYS[engine].items() if eight_bits else ():
            say(f"{name}: {how}")
            small = folder / how.replace(" ", "-").replace(",", "") / file.name
            try:
                quantised(quantise, file, small, calibration)
                yield Way(f"{name}, {how}", engine, load(small), "int8", small)
            except VitralError as error:
                refused.append(f"{name}, {how}: {error}")


def _others(engine: str, precisions: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """What else a file of the engine may say of how it is run here, and its name."""
    half = {PRECISION: "bf16"} if engine == "openvino" and "bf16" in precisions else {}
    name, word = THREADS[engine]
    threading = {THREADING: word} if cores() > 1 else {}
    if half:
        yield "bf16", half
    if threading:
        yield name, threading
    if half and threading:
        yield f"bf16, {name}", half | threading


def _named(name: str, precision: str) -> str:
    return name if precision == "fp32" else f"{name}, {precision}"


def _write(way: Way, predictor: Predictor, out: Path) -> Path:
    """The file of a way in the folder."""
    if way.file is None:
        save_model(out / "model.safetensors", predictor.model, predictor.card)
        return out / "model.safetensors"
    place(way.file, out / way.file.name)
    return out / way.file.name
