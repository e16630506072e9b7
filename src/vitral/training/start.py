"""Start a run from data and a recipe in a new folder, or resume it from its last checkpoint."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import vitral
from vitral.checkpoints.atomic import write_atomically
from vitral.checkpoints.claim import NAME, Claim, claim_unused, going_on, taken
from vitral.data.dataset import DataSet, write_skipped
from vitral.data.loader import TrainingBatches
from vitral.data.ranges import is_url
from vitral.engines.cores import cores
from vitral.errors import VitralError
from vitral.evaluation.seen import as_trained, count_known, held_of, write_held, write_seen
from vitral.models.words import model_in_words
from vitral.objectives.distill import Distill
from vitral.objectives.options import ClassifyOptions
from vitral.randomness import derive
from vitral.training.assemble import assemble, training_batches
from vitral.training.compiler import leave_compiler_out, step_without_compiler
from vitral.training.config import Recipe
from vitral.training.display import Display, clock
from vitral.training.loop import Loop
from vitral.training.machine import (
    choose_device,
    choose_precision,
    keep_freed_memory,
    processor,
)
from vitral.training.optim import build_optimizers
from vitral.training.parts import settle_parts
from vitral.training.run import Run
from vitral.training.selfcheck import self_check
from vitral.training.settle import Settled, inputs, open_for, rooted, settle
from vitral.training.state import Checkpoints, Progress, collect, restore
from vitral.training.toml import read_recipe, to_toml
from vitral.training.transfer import Initial, learning
from vitral.training.world import ALONE, World

FOLDS = "folds.json"  # in the folder of a cross-validation, above its runs
BEGUN = ("run.json", "recipe.toml", NAME)  # files of a run that ended before its first checkpoint


def start(
    data: str, recipe: Recipe, out: Path, display: Display, command: str = "", opened: DataSet | None = None
) -> Run:
    """`begin` after deciding the recipe's open fields from the data. opened: the data, if already opened for this recipe."""
    check_place(out)
    return begin(settle(data, recipe, display, opened), out, display, command)


def begin(
    settled: Settled,
    out: Path,
    display: Display,
    command: str = "",
    foreseen: Mapping[str, float] | None = None,
    *,
    asked: Mapping[str, Any] | None = None,
    fresh: bool = False,
    world: World = ALONE,
) -> Run:
    """A new run in the folder `out`, claimed against other processes; it must not hold a run that has a checkpoint.

    foreseen: the `epochs` and `seconds` of training by a plan's trial. asked: what the recipe's file said, to be known again. fresh: in `out`, or
    if it exists in the first of out-2, out-3, ... that does not. world: of which this is the first process; the others `follow`.
    """
    settled = settle_parts(settled, choose_device(settled.recipe.train.device), world)
    run, initial = draft(settled, out, display, world)
    if settled.recipe.objective.labelled:
        checked = self_check(run.data, run.preprocess, run.loop.model)
        settled = dataclasses.replace(settled, reasons=(*settled.reasons, *checked))
    # Not before the data were read: the folder could lie among them.
    run = dataclasses.replace(run, claim=claim_unused(out) if fresh else Claim(out))
    assert run.claim is not None
    try:
        check_place(run.folder, run.claim)
        _write_down(run, settled, initial, {"command": command, "asked": asked or {}, "foreseen": foreseen or {}})
    except BaseException:
        run.claim.undo()
        raise
    return run


def _write_down(run: Run, settled: Settled, initial: Initial | None, begun: Mapping[str, Any]) -> None:
    """Write all that is known before the first step into the folder, and show it."""
    dataset, recipe, out = run.data, run.recipe, run.folder
    reasons = [*settled.reasons, *([] if initial is None else initial.notes)]
    reasons += learning(run.loop.model, recipe.transfer)
    if isinstance(run.loop.objective, Distill) and isinstance(recipe.objective, ClassifyOptions):
        reasons.append(run.loop.objective.in_words(str(recipe.objective.teacher)))
    notes = dataset.notes + (["what was left out, and why, is in skipped.csv"] if dataset.skipped else [])
    described = {
        "data": run.source,
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "images": {name: len(split) for name, split in dataset.splits.items()},
        "labels": dataset.labels,
        "inputs": inputs(recipe),
        "notes": notes,
        "reasons": reasons,
        **begun,
        "seed": recipe.train.seed,
        "version": vitral.__version__,
        "torch": torch.__version__,
        "machine": f"{processor()}, {cores()} cores, {run.loop.device.type} in {run.loop.precision}",
        "parameters": sum(p.numel() for p in run.loop.model.parameters()),
    }
    write_atomically(out / "recipe.toml", to_toml(recipe).encode())
    for left_over in ("metrics.jsonl", "skipped.csv"):  # from a run that ended before its first checkpoint
        (out / left_over).unlink(missing_ok=True)
    if dataset.skipped:
        write_skipped(dataset, out / "skipped.csv")
    write_seen(out, dataset.splits["train"])
    write_held(out, dataset)
    write_atomically(out / "run.json", json.dumps(described, indent=1).encode())
    if initial is not None:  # so that resuming never needs the source of the weights
        loop = run.loop
        run.checkpoints.save(collect(loop.model, loop.optimizers, loop.average), loop.progress, best=False)
        run.checkpoints.wait()
    for line in (*notes, *reasons):
        run.display.say(f"- {line}")


def draft(settled: Settled, out: Path, display: Display, world: World = ALONE) -> tuple[Run, Initial | None]:
    """The run of `begin` in memory, nothing written, and the weights that it starts from with notes on what was changed in them."""
    initial = settled.initial
    if initial is not None:  # filling a model adds notes: a list of its own for each
        initial = dataclasses.replace(initial, notes=[*initial.notes])
    return _build(out, settled, Progress(), display, initial, world), initial


def preview(settled: Settled) -> TrainingBatches:
    """The batches that a run would train on."""
    return training_batches(settled.recipe, settled.data, settled.preprocess)


def check_place(out: Path, own: Claim | None = None) -> None:
    """Raise VitralError unless a run can be written to `out`: no file, no other files inside, no running or resumable run. own: our claim to it."""
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not there.is_dir():
        raise VitralError(f"{out}: {'this' if there == out else there} is a file, not a folder; choose another --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise VitralError(f"{out}: {there} cannot be written to; choose another --out")
    if own is None and going_on(out):
        raise taken(out)
    if (
        any((out / name).exists() for name in ("model.safetensors", FOLDS))
        or Checkpoints(out / "checkpoints").last() is not None
    ):
        raise VitralError(f"{out}: holds a run already; continue it with --resume {out}, or choose another --out")
    if out.is_dir() and any(out.iterdir()) and not any((out / name).exists() for name in BEGUN):
        raise VitralError(f"{out}: holds other files already; name a new or an empty folder with --out")


def resume(
    folder: Path, display: Display, workers: int | None = None, moved: str | None = None, world: World = ALONE
) -> Run:
    """The run in `folder` at its latest checkpoint. The data must be the same; the number of workers, and of processes, may differ.

    moved: the new place of data that were moved; the run remembers it. world: of which this is the first process; the others `follow`.
    """
    described = written_down(folder)
    claim = Claim(folder)
    try:
        run = _resumed(folder, described, display, workers, moved, world)
    except BaseException:
        claim.release()
        raise
    run.claim = claim
    return run


def follow(folder: Path, display: Display, world: World, workers: int | None = None) -> Run:
    """The run that the first process of `world` began or resumed, in another process of it."""
    return _resumed(folder, written_down(folder), display, workers, None, world)


def can_go_on(folder: Path) -> bool:
    """Whether a run that was begun in the folder can be resumed; if not, it left nothing that a new one would miss."""
    if not (folder / "run.json").exists():
        return False
    from_scratch = read_recipe(folder / "recipe.toml", stored=True).transfer.init is None
    return from_scratch or Checkpoints(folder / "checkpoints").last() is not None


def written_down(folder: Path) -> dict[str, Any]:
    """What the run in the folder wrote into run.json before its first step; a VitralError says what lies there instead."""
    try:
        described: dict[str, Any] = json.loads((folder / "run.json").read_text())
        return described
    except (OSError, ValueError) as error:
        why = "there is no run.json" if isinstance(error, FileNotFoundError) else f"run.json cannot be read: {error}"
        inside = ", ".join(sorted(str(place.parent) for place in folder.glob("*/run.json")))
        named = f"there is one in {inside}" if inside else "give the folder that --out named"
        raise VitralError(f"{folder}: holds no run to resume ({why}); {named}") from error


def _resumed(
    folder: Path, described: dict[str, Any], display: Display, workers: int | None, moved: str | None, world: World
) -> Run:
    recipe = read_recipe(folder / "recipe.toml", stored=True)
    if workers is not None:
        recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, workers=workers))
    dataset = _same_data(folder, described, recipe, display, moved)
    for path, digest in inputs(recipe).items():
        if described["inputs"].get(path) != digest:
            raise VitralError(f"{path}: changed since the run began; restore it, or start a new run")
    checkpoints = Checkpoints(folder / "checkpoints")
    last = checkpoints.last()
    if last is None:
        if (folder / "scores.json").exists() or (folder / "report.html").exists():
            raise VitralError(
                f"{folder}: was trained to its end, and its checkpoints are gone; copy them back, or train again with another --out"
            )
        if recipe.transfer.init is not None:
            raise VitralError(
                f"{folder}: ended before the weights from {recipe.transfer.init} were saved; start again without --resume"
            )
        display.say("no checkpoint yet: starting at the first step")
        tensors, progress = None, Progress()
    else:
        if last != checkpoints.pointed("latest"):
            display.say(f"checkpoints/latest names no checkpoint that is there: the newest is taken, {last.name}")
        tensors, progress = checkpoints.load()
    settled = Settled(described["data"], dataset, recipe, None, ())
    run = _build(folder, settled, progress, display, None, world)
    if tensors is not None:
        restore(tensors, run.loop.model, run.loop.optimizers, run.loop.average)
    if world.main:
        _forget_after(folder / "metrics.jsonl", progress.step)
    display.say(f"resuming at step {progress.step}, after {clock(progress.elapsed)} of training")
    return run


def _same_data(folder: Path, described: dict[str, Any], recipe: Recipe, display: Display, moved: str | None) -> DataSet:
    """The run's data, the training images in the run's order. If they moved, `described` and run.json are updated."""
    source = described["data"] if moved is None else rooted(moved)
    built_in = source == described["name"]
    if moved is None and not built_in and not is_url(source) and not Path(source).exists():
        raise VitralError(
            f"{source}: the data are gone; if they were moved, add their new place: --resume {folder} --data NEW_PLACE"
        )
    dataset = open_for(source, recipe, display, held=held_of(folder))
    if dataset.fingerprint != described["fingerprint"]:
        what = "the images or labels changed since the run began; restore them, or start a new run"
        if moved is not None:
            known = count_known(folder, dataset.splits["train"])
            what = (
                f"these are not the data of the run {folder} (it knows {known:,} of these {len(dataset.splits['train']):,} training images); "
                f"give the new place of {described['data']}, or start a new run"
            )
        raise VitralError(f"{source}: {what}")
    dataset.splits["train"] = as_trained(folder, dataset.splits["train"])
    if source != described["data"]:
        display.say(f"the data are now in {source}, with the same images, labels and splits")
        described["data"] = source
        write_atomically(folder / "run.json", json.dumps(described, indent=1).encode())
    return dataset


def _build(
    folder: Path,
    settled: Settled,
    progress: Progress,
    display: Display,
    initial: Initial | None,
    world: World,
) -> Run:
    keep_freed_memory()
    device = world.device(choose_device(settled.recipe.train.device))
    data, recipe, config, steps = settled.data, settled.recipe, settled.config, settled.preprocess
    train = recipe.train
    assert train.batch_size is not None
    precision = choose_precision(train.precision, device)
    torch.manual_seed(derive(train.seed, "initialise"))
    learner, objective = assemble(recipe, data, config, steps, initial)
    if world.size == 1 or train.fsdp in ("auto", "no"):  # its parts go there later
        learner.to(device)
    average = {n: p.detach().clone() for n, p in learner.named_parameters()} if recipe.optim.ema else None
    progress.batch_size = progress.batch_size or train.batch_size
    progress.accumulation = max(progress.accumulation, train.accumulation)
    batches = training_batches(recipe, data, steps, world.part)
    leave_compiler_out()
    loop = Loop(
        learner,
        objective,
        batches,
        build_optimizers(learner, recipe.optim, world),
        average,
        progress,
        recipe,
        device,
        precision,
        world,
    )
    step_without_compiler(loop.optimizers)
    parameters = sum(p.numel() for p in learner.parameters())
    display.say(
        f"{model_in_words(config, recipe.model.name)}: {parameters:,} parameters, {precision} on {device.type}, {cores()} cores{world.in_words}"
    )
    return Run(folder, settled.source, data, recipe, loop, config, steps, display)


def _forget_after(metrics: Path, step: int) -> None:
    """Drop the lines of steps that will be repeated, and a last line that a kill cut short."""
    if not metrics.exists():
        return
    kept = []
    for line in metrics.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except ValueError:
            continue  # the incomplete last line of a killed run
    write_atomically(metrics, "".join(line + "\n" for line in kept).encode())
