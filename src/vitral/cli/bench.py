"""Commands that measure how a model runs here: bench, optimize."""

import json
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vitral.cli.options import argument, names_said
from vitral.cli.parse import at_least, values_said
from vitral.data.options import DataOptions
from vitral.errors import VitralError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vitral.checkpoints.card import ModelCard
    from vitral.data.dataset import DataSet, Split
    from vitral.data.resample import Pixels
    from vitral.training.display import Display


@dataclass
class Bench:
    """Measure what running a model costs here: images a second, latencies, memory, the start of a process, and the share of what the processor can
    multiply at most. Each engine runs in a process of its own.

    Example: vitral bench runs/photos --engine torch onnx openvino --batch-size 1 8
    """

    model: Path = argument()
    """Run folder, model file or exported file."""
    engine: tuple[Literal["auto", "torch", "onnx", "openvino"], ...] = ("auto",)
    """Engines to time; auto is what vitral optimize found, or the model's own."""
    batch_size: tuple[int, ...] = (1, 8)
    """Images in one forward pass."""
    seconds: float = 5.0
    """How long each batch size is timed."""
    json: bool = False
    """Print JSON on stdout."""
    plot: Path | None = None
    """HTML file for a chart of images a second by batch size; default: none."""


def bench(given: Bench, words: list[str]) -> int:
    from vitral.checkpoints.atomic import write_atomically
    from vitral.deploy.fastest.bench import bench as measure

    for size in given.batch_size:
        at_least(1, batch_size=size)
    if not given.seconds > 0:
        raise VitralError(f"--seconds {given.seconds:g}: must be above 0")
    if given.plot is not None and given.plot.suffix != ".html":
        raise VitralError(f"--plot {given.plot}: is drawn on a page; give a name that ends in .html")
    found = measure(
        given.model,
        given.engine,
        given.batch_size,
        seconds=given.seconds,
        say=lambda text: print(text, file=sys.stderr),
    )
    print(json.dumps(found.to_json()) if given.json else found.table())
    if given.plot is not None:
        write_atomically(given.plot, found.picture().encode())
        print(f"wrote {given.plot}", file=sys.stderr)
    return 0


@dataclass
class Optimize:
    """Time every engine that this machine has on a model, check the answers on labelled images, and write the fastest file whose score loses no more
    than is allowed. vitral predict and evaluate then use it for this model here, unless --engine says another.

    Example: vitral optimize runs/photos photos/ -o fast/
    """

    model: Path = argument()
    """Run folder or model file."""
    data: str = argument()
    """Folder, table or built-in name, as for vitral train."""
    out: Path | None = argument(None, flags=("-o",))
    """Folder to write the file into, with the table as optimize.json; default: the folder fast beside the model."""
    loss: float = 0.3
    """Points of the headline score (of 100) that may be lost."""
    batch_size: int = 8
    """Images in one forward pass, at which engines are compared."""
    split: Literal["train", "val", "test", "all"] | None = None
    """Split to score; default: val, or what there is."""
    images: int = 500
    """How many images of the split are scored at most."""
    int8: bool = False
    """Also try 8 bits, with ranges taken from training images."""
    compiled: bool = False
    """Also try PyTorch compiled, which takes minutes."""
    json: bool = False
    """Print JSON on stdout."""
    options: DataOptions = field(default_factory=DataOptions)
    said: frozenset[str] = names_said()


def optimize(given: Optimize, words: list[str]) -> int:
    from vitral.deploy.export.quantise import IMAGES
    from vitral.deploy.fastest.optimise import optimise
    from vitral.predict import load
    from vitral.training.display import Display

    at_least(1, batch_size=given.batch_size, images=given.images)
    if given.loss < 0:
        raise VitralError(f"--loss {given.loss:g}: points cannot be below 0")
    card = load(given.model).card
    out = given.out or (given.model if given.model.is_dir() else given.model.parent) / "fast"
    with Display() as display:
        data = labelled(given.data, given.model, card, values_said(given.options, given.said), display)
        split = scored(data, given.split, given.data).thinned(given.images)
        calibration = seen(data.splits.get("train", split), card, IMAGES)
        found = optimise(
            given.model, split, data.labels, calibration, seen(split, card, given.batch_size), out,
            loss=given.loss, batch=given.batch_size, eight_bits=given.int8, compiled=given.compiled, say=display.say,
        )  # fmt: skip
    print(json.dumps(found.to_json()) if given.json else found.table())
    fastest = f"{found.best.way.name} is fastest at batch {found.batch} with at most {given.loss:g} points lost"
    print(f"{fastest}; wrote {out}", file=sys.stderr)
    return 0


def labelled(data: str, model: Path, card: "ModelCard", said: dict[str, object], display: "Display") -> "DataSet":
    """The data as the model's run read them."""
    from vitral.training.reopen import open_as_in_training

    return open_as_in_training(data, model, card, said, partial(display.count, "checking images"))


def scored(data: "DataSet", wanted: str | None, name: str) -> "Split":
    """The split that was asked for; else val, test or all that there is, the first of them."""
    from vitral.evaluation.evaluate import merged

    if wanted is None:
        return next((data.splits[each] for each in ("val", "test") if each in data.splits), None) or merged(data)
    if wanted != "all" and wanted not in data.splits:
        raise VitralError(f"{name}: has no {wanted} split; there are {', '.join(data.splits)} and all")
    return merged(data) if wanted == "all" else data.splits[wanted]


def seen(split: "Split", card: "ModelCard", most: int) -> "Sequence[Pixels]":
    """Images of the split as the model sees them, spread evenly over it."""
    from vitral.data.loader import EvaluationBatches

    batches = EvaluationBatches(split.thinned(most), card.preprocess, 1)
    return [pixels[0].numpy() for pixels, _ in batches.stream(0)]
