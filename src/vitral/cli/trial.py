"""Commands that try a recipe for some seconds: lr-find, memory."""

import json
import math
import shlex
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitral.cli.options import argument
from vitral.cli.parse import program, unused, without
from vitral.errors import VitralError
from vitral.training.config import Recipe
from vitral.training.options import OptimOptions

if TYPE_CHECKING:
    from vitral.guidance.plan.lr_finder import Curve
    from vitral.guidance.plan.trial import Cost

ROWS, BAR = 16, 40  # of the curve in a terminal
MIB = 2**20
OWN = ("lowest", "highest", "range_steps", "plot", "lr", "json")  # options that are not for the run that follows


@dataclass
class LrFind:
    """Suggest a learning rate: train for a hundred steps at rates that grow from step to step, and see where the loss falls fastest.

    Takes the flags of vitral train, and of vitral pretrain with --objective. The rate is for the recipe's optimiser and batch. The
    model, if none is said, is the one that vitral train takes with --epochs. Nothing is written. The suggestion comes from a hundred
    steps: a start, no proof.

    Example: vitral lr-find photos/ --optimizer adamw --plot lr.html

    Example: vitral lr-find photos/ --recipe photos.toml
    """

    data: str = argument()
    """Folder, table or built-in name, as for vitral train."""
    recipe: Path | None = None
    """TOML file of settings, over which any flag goes."""
    lowest: float = 1e-6
    """The first step's learning rate."""
    highest: float = 1.0
    """The last step's learning rate, if the loss has not broken before."""
    range_steps: int = 100
    """Steps from the lowest to the highest rate."""
    plot: Path | None = None
    """Draw the curve on this HTML page."""
    json: bool = False
    """Print JSON on stdout."""
    settings: Recipe = field(default_factory=Recipe)


def lr_find(given: LrFind, words: list[str]) -> int:
    if given.plot is not None and given.plot.suffix != ".html":
        raise VitralError(f"--plot {given.plot}: is drawn on a page; give a name that ends in .html")
    from vitral.guidance.plan.lr_finder import NoFall
    from vitral.guidance.plan.lr_finder import lr_find as find
    from vitral.training.display import Display
    from vitral.training.settle import settle

    display = Display()
    try:
        settled = settle(given.data, given.settings, display)
        curve = find(settled, given.lowest, given.highest, given.range_steps, display)
    except NoFall as none:
        default = "" if "optim.lr" in given.settings.said else "default "
        print(f"no suggestion: keep the {default}{none.used:g} ({none})", file=sys.stderr)
        if given.json:
            print("null")
        return 0
    finally:
        display.close()
    if given.plot is not None:
        _plot(curve, given)
    if given.json:
        print(json.dumps(asdict(curve)))
    else:
        print(_drawn(curve), file=sys.stderr)
        print(f"{curve.suggestion:.2g}")
    print(
        f"learning rate {curve.suggestion:.2g} for {curve.optimizer}: {curve.reason}. The recipe has {curve.used:g}.\n"
        f"Next: {_next(words, given, _as_said(curve, given.settings.optim))}",
        file=sys.stderr,
    )
    return 0


def _as_said(curve: "Curve", optim: OptimOptions) -> float:
    """The suggestion as --lr is meant: with --lr-per for so many images, while a range test is for the batch as it is."""
    if optim.lr_per is None:
        return curve.suggestion
    assert optim.lr is not None  # or the recipe had been refused
    return curve.suggestion * optim.lr / curve.used


def _next(words: list[str], given: Any, rate: float) -> str:
    """The command that trains at this rate, in a folder of its own."""
    pretrain = not given.settings.objective.labelled
    out = unused(Path("runs") / ((Path(given.data).stem or "run") + ("-pretrained" if pretrain else "")))
    command = [
        "pretrain" if pretrain else "train",
        *without(words, LrFind, OWN),
        "--lr",
        f"{rate:.2g}",
        "--out",
        str(out),
    ]
    return f"{program()} {shlex.join(command)}"


def _drawn(curve: "Curve") -> str:
    """The smoothed loss by rate as rows of text."""
    chosen = range(0, curve.unbroken(), -(-curve.unbroken() // ROWS))
    low, high = min(curve.smoothed), max(curve.smoothed[: curve.unbroken()])
    rows = [f"{'rate':>8}{'loss':>9}"]
    nearest = min(chosen, key=lambda i: abs(math.log(curve.rates[i] / curve.suggestion)))
    for i in chosen:
        bar = "=" * max(1, round(BAR * (curve.smoothed[i] - low) / max(1e-12, high - low)))
        rows.append(f"{curve.rates[i]:8.1e}{curve.smoothed[i]:9.3f} {bar}{'  <- about here' if i == nearest else ''}")
    return "\n".join(rows)


def _plot(curve: "Curve", given: Any) -> None:
    from vitral.drawing.charts import Series, line_chart
    from vitral.report.frame import tiles, write_page
    from vitral.report.parts import escape

    points = [(math.log10(rate), loss) for rate, loss in zip(curve.rates, curve.smoothed, strict=True)]
    chart = line_chart(
        "Loss by learning rate",
        [Series("smoothed loss", points[: curve.unbroken()])],
        "learning rate, as its power of ten",
    )
    name = Path(given.data).name
    body = [
        f"<header><h1>Learning rate for {escape(name)}</h1></header>",
        tiles([(f"{curve.suggestion:.2g}", "suggested learning rate"), (f"{curve.used:g}", "the recipe's")], {}),
        f"<section><h2>Loss by learning rate</h2>{chart}<p>Training with {escape(curve.optimizer)} at a rate that grows from step to step: "
        f"{escape(curve.reason)}. A start and no proof, from {len(curve.rates)} steps.</p></section>",
    ]
    if not given.plot.parent.is_dir():
        raise VitralError(f"--plot {given.plot}: there is no folder {given.plot.parent}; make it, or choose another")
    print(f"curve: {write_page(given.plot.parent, f'Learning rate: {name}', body, given.plot.name)}", file=sys.stderr)


@dataclass
class Memory:
    """Measure a run on this machine: memory, seconds for a step and an epoch, the largest micro-batch that fits.

    Takes the flags of vitral train, and of vitral pretrain with --objective. The run is tried in a process of its own for a few steps, a
    validation and its end, and once more with gradient checkpointing. The model, if none is said, is the one that vitral train takes
    with --epochs. No run folder is made.

    Example: vitral memory photos/ --model vit_small_patch16_224 --batch-size 128

    Example: vitral memory photos/ --recipe photos.toml --json
    """

    data: str = argument()
    """Folder, table or built-in name, as for vitral train."""
    recipe: Path | None = None
    """TOML file of settings, over which any flag goes."""
    budget: float = 20.0
    """Seconds of each trial, beside opening the data."""
    json: bool = False
    """Print JSON on stdout."""
    settings: Recipe = field(default_factory=Recipe)


def memory(given: Memory, words: list[str]) -> int:
    from vitral.guidance.plan.trial import measure_cost

    settings = given.settings
    if settings.train.gradient_checkpointing:
        raise VitralError("--gradient-checkpointing: leave it out; memory tells what it would save")
    print(f"trying a run of {given.data} for about {given.budget:g} s, twice", file=sys.stderr)
    cost = measure_cost(given.data, settings, given.budget)
    again = replace(settings, train=replace(settings.train, gradient_checkpointing=True))
    recomputed = measure_cost(given.data, again, given.budget)
    if given.json:
        largest = {"largest_micro_batch": _largest(cost), "epoch_seconds": _epoch(cost)}
        print(json.dumps({**asdict(cost), **largest, "gradient_checkpointing": asdict(recomputed)}))
    else:
        print(_said(cost, recomputed))
    return 0


def _epoch(cost: "Cost") -> float:
    """Seconds of an epoch and its validation, after the first."""
    return cost.steps_per_epoch * cost.step_seconds + cost.validation_seconds


def _largest(cost: "Cost") -> int:
    """The largest micro-batch that there is memory for, and images."""
    return min(cost.largest_micro_batch(), cost.images)


def _percent(share: float) -> str:
    return f"{share:+.0%}" if round(share, 2) else "0%"


def _said(cost: "Cost", recomputed: "Cost") -> str:
    less = 1 - recomputed.training_bytes / cost.training_bytes
    slower = recomputed.step_seconds / cost.step_seconds - 1
    bound = "all there are" if cost.images < cost.largest_micro_batch() else "power of two, in 80 % of what is free"
    lines = [
        ("parameters", f"{cost.parameters:,}"),
        ("peak memory", f"{cost.peak_bytes / MIB:,.0f} MiB of {cost.available_bytes / MIB:,.0f} MiB that are free"),
        ("micro-batch", f"{cost.micro_batch} images, {cost.accumulation} to a step, {cost.precision} on {cost.device}"),
        ("an image more", f"{cost.image_bytes / MIB:,.1f} MiB"),
        ("largest micro-batch", f"{_largest(cost):,} images ({bound})"),
        ("a step", f"{cost.step_seconds:.3g} s, of which {cost.data_seconds:.2g} s wait for data"),
        ("images a second", f"{cost.images_per_step / cost.step_seconds:,.0f}"),
        ("an epoch", f"{_epoch(cost):,.1f} s with its validation, {cost.steps_per_epoch:,} steps"),
        (
            "gradient checkpointing",
            f"{_percent(abs(less))} of the memory {'saved' if less >= 0 else 'more'}, a step {_percent(slower)} longer",
        ),
    ]
    return "\n".join(f"{name:24}{value}" for name, value in lines)
