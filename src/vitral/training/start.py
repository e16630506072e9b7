"""How a run begins: from data and a recipe, in a new folder, or again from where its last checkpoint left it."""

import dataclasses
import hashlib
import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import vitral
from vitral.checkpoints.atomic import write_atomically
from vitral.checkpoints.claim import NAME, Claim, claim_unused, going_on
from vitral.data.bands import in_words
from vitral.data.loader import TrainingBatches
from vitral.data.sources import DataSet, Held, open_data, write_skipped
from vitral.data.targets import TARGETS
from vitral.errors import VitralError, counted
from vitral.evaluation.seen import as_trained, count_known, held_of, write_held, write_seen
from vitral.models.words import model_in_words
from vitral.objectives.distill import Distill
from vitral.objectives.options import ClassifyOptions
from vitral.randomness import derive
from vitral.training.assemble import assemble, training_batches
from vitral.training.compiler import leave_compiler_out, step_without_compiler
from vitral.training.config import Recipe
from vitral.training.defaults import check, resolve
from vitral.training.display import Display, clock
from vitral.training.loop import Loop
from vitral.training.machine import (
    choose_device,
    choose_precision,
    cores,
    keep_freed_memory,
    precision_cost,
    processor,
)
from vitral.training.optim import build_optimizers
from vitral.training.run import Run
from vitral.training.shape import patch_for, preprocess, shape
from vitral.training.state import Checkpoints, Progress, collect, restore
from vitral.training.toml import read_recipe, to_toml
from vitral.training.transfer import Initial, learning, open_initial

FOLDS = "folds.json"  # in the folder of a cross-validation, above its runs
BEGUN = ("run.json", "recipe.toml", NAME)  # what a run that ended early has left


def start(
    data: str,
    recipe: Recipe,
    out: Path,
    display: Display,
    command: str = "",
    opened: DataSet | None = None,
    planned: Sequence[str] = (),
    baselines: Mapping[str, float] | None = None,
    foreseen: Mapping[str, float] | None = None,
    *,
    fresh: bool = False,
) -> Run:
    """A new run in the folder `out`, which must not hold one that came as far as a checkpoint; no other process writes to it meanwhile.

    fresh: in `out` or the first of out-2, out-3, ... that is not there yet. opened: the data, if they were opened for this recipe already. planned:
    reasons for what the recipe says, baselines: top-1 on the validation images of what needs no training, and foreseen: `epochs` and `seconds` of
    training by a trial; all to be kept with the run.
    """
    if not fresh:
        check_place(out)
    inputs = _inputs(placed(recipe))
    run, initial, decided = draft(data, recipe, out, display, opened)
    # As late as that: a folder made earlier could lie among the data that are looked through.
    run = dataclasses.replace(run, claim=claim_unused(out) if fresh else Claim(out))
    assert run.claim is not None
    try:
        check_place(run.folder, run.claim)
        _write_down(run, initial, inputs, [*planned, *decided], command, baselines or {}, foreseen or {})
    except BaseException:
        run.claim.undo()
        raise
    return run


def _write_down(
    run: Run,
    initial: Initial | None,
    inputs: dict[str, str],
    reasons: list[str],
    command: str,
    baselines: Mapping[str, float],
    foreseen: Mapping[str, float],
) -> None:
    """All that a run knows before its first step, into its folder and for a person."""
    dataset, recipe, source, out, display = run.data, run.recipe, run.source, run.folder, run.display
    reasons += [] if initial is None else initial.notes
    reasons += learning(run.loop.model, recipe.transfer)
    if isinstance(run.loop.objective, Distill) and isinstance(recipe.objective, ClassifyOptions):
        reasons.append(run.loop.objective.in_words(str(recipe.objective.teacher)))
    notes = dataset.notes + (["what was left out, and why, is in skipped.csv"] if dataset.skipped else [])
    described = {
        "data": source,
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "images": {name: len(split) for name, split in dataset.splits.items()},
        "labels": dataset.labels,
        "inputs": inputs,
        "notes": notes,
        "reasons": reasons,
        "baselines": dict(baselines),
        "foreseen": dict(foreseen),
        "command": command,
        "seed": recipe.train.seed,
        "version": vitral.__version__,
        "torch": torch.__version__,
        "machine": f"{processor()}, {cores()} cores, {run.loop.device.type} in {run.loop.precision}",
        "parameters": sum(p.numel() for p in run.loop.model.parameters()),
    }
    write_atomically(out / "recipe.toml", to_toml(recipe).encode())
    for left_over in ("metrics.jsonl", "skipped.csv"):  # of a run that ended before its first checkpoint
        (out / left_over).unlink(missing_ok=True)
    if dataset.skipped:
        write_skipped(dataset, out / "skipped.csv")
    write_seen(out, dataset.splits["train"])
    write_held(out, dataset)
    write_atomically(out / "run.json", json.dumps(described, indent=1).encode())
    if initial is not None:  # so that a run resumed before its first checkpoint does not need the source again
        loop = run.loop
        run.checkpoints.save(collect(loop.model, loop.optimizers, loop.average), loop.progress, best=False)
    for line in (*notes, *reasons):
        display.say(f"- {line}")


def draft(
    data: str, recipe: Recipe, out: Path, display: Display, opened: DataSet | None = None
) -> tuple[Run, Initial | None, list[str]]:
    """The run that `start` begins, in memory: nothing is written. With the weights that it starts from, and the reasons for what was decided.

    opened: as in `start`; who opened them has checked the recipe.
    """
    recipe, initial = open_initial(recipe)
    if opened is None:
        check(recipe)
    if (first := recipe.objective.missing) is not None:
        raise VitralError(
            f"objective {recipe.objective.name} needs --{first}: a run of vitral pretrain --objective {first}"
        )
    device = choose_device(recipe.train.device)
    choose_precision(recipe.train.precision, device)
    recipe = placed(recipe)
    source = rooted(data)
    dataset = open_for(source, recipe, display) if opened is None else opened
    recipe, reasons = resolve(recipe, dataset, device.type, None if initial is None else initial.preprocess)
    return _build(out, source, dataset, recipe, device, Progress(), display, initial), initial, reasons


def preview(data: str, recipe: Recipe, display: Display) -> tuple[TrainingBatches, list[str]]:
    """The batches that a run with this recipe would train on, and the class names."""
    recipe, initial = open_initial(recipe)
    check(recipe)
    dataset = open_for(data, recipe, display)
    own = None if initial is None else initial.preprocess
    recipe, _ = resolve(recipe, dataset, choose_device(recipe.train.device).type, own)
    return training_batches(recipe, dataset, preprocess(recipe, dataset, shape(recipe, dataset))), dataset.labels


def check_place(out: Path, own: Claim | None = None) -> None:
    """A run can be written to `out`, and what is there already is no run that goes on or that one could go on with. own: our claim to it."""
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not there.is_dir():
        raise VitralError(f"{out}: {'this' if there == out else there} is a file, not a folder; choose another --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise VitralError(f"{out}: {there} cannot be written to; choose another --out")
    if own is None and going_on(out):
        raise VitralError(f"{out}: a run is going on there; wait for it, or choose another --out")
    if (
        any((out / name).exists() for name in ("model.safetensors", FOLDS))
        or Checkpoints(out / "checkpoints").pointed("latest") is not None
    ):
        raise VitralError(f"{out}: there is a run already; go on with --resume {out}, or choose another --out")
    if out.is_dir() and any(out.iterdir()) and not any((out / name).exists() for name in BEGUN):
        raise VitralError(f"{out}: holds other files already; name a new or an empty folder with --out")


def resume(folder: Path, display: Display, workers: int | None = None, moved: str | None = None) -> Run:
    """The run in `folder`, where its latest checkpoint left it; the data must be the same, the workers may differ.

    moved: where the data are now, if they are not where they were; the run remembers it.
    """
    try:
        described = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError) as error:
        why = "there is no run.json" if isinstance(error, FileNotFoundError) else f"run.json cannot be read: {error}"
        inside = ", ".join(sorted(str(place.parent) for place in folder.glob("*/run.json")))
        named = f"there is one in {inside}" if inside else "give the folder that --out named"
        raise VitralError(f"{folder}: holds no run to resume ({why}); {named}") from error
    claim = Claim(folder)
    try:
        run = _resumed(folder, described, display, workers, moved)
    except BaseException:
        claim.release()
        raise
    run.claim = claim
    return run


def _resumed(folder: Path, described: dict[str, Any], display: Display, workers: int | None, moved: str | None) -> Run:
    recipe = read_recipe(folder / "recipe.toml", stored=True)
    if workers is not None:
        recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, workers=workers))
    dataset = _same_data(folder, described, recipe, display, moved)
    for path, digest in _inputs(recipe).items():
        if described["inputs"].get(path) != digest:
            raise VitralError(f"{path}: changed since the run began; restore it, or start a new run")
    checkpoints = Checkpoints(folder / "checkpoints")
    if checkpoints.pointed("latest") is None:
        if recipe.transfer.init is not None:
            raise VitralError(
                f"{folder}: ended before the weights from {recipe.transfer.init} were saved; start again without --resume"
            )
        display.say("no checkpoint yet: starting from the first step")
        tensors, progress = None, Progress()
    else:
        tensors, progress = checkpoints.load()
    run = _build(folder, described["data"], dataset, recipe, choose_device(recipe.train.device), progress, display)
    if tensors is not None:
        restore(tensors, run.loop.model, run.loop.optimizers, run.loop.average)
    _forget_after(folder / "metrics.jsonl", progress.step)
    display.say(f"going on at step {progress.step}, after {clock(progress.elapsed)} of training")
    return run


def _same_data(folder: Path, described: dict[str, Any], recipe: Recipe, display: Display, moved: str | None) -> DataSet:
    """The run's data, in the order in which it has learned from them; `described` says where they are now."""
    source = described["data"] if moved is None else rooted(moved)
    built_in = source == described["name"]
    if moved is None and not built_in and not Path(source).exists():
        raise VitralError(
            f"{source}: the data are gone; if they moved, say where to: --resume {folder} --data NEW_PLACE"
        )
    dataset = open_for(source, recipe, display, held=held_of(folder))
    if dataset.fingerprint != described["fingerprint"]:
        what = "the images or labels changed since the run began; restore them, or start a new run"
        if moved is not None:
            known = count_known(folder, dataset.splits["train"])
            what = (
                f"these are not the data that the run of {folder} began with ({known:,} of {len(dataset.splits['train']):,} training "
                f"images are); give the place that {described['data']} moved to, or start a new run"
            )
        raise VitralError(f"{source}: {what}")
    dataset.splits["train"] = as_trained(folder, dataset.splits["train"])
    if source != described["data"]:
        display.say(f"the data are in {source} now: the same images, labels and splits")
        described["data"] = source
        write_atomically(folder / "run.json", json.dumps(described, indent=1).encode())
    return dataset


def rooted(data: str) -> str:
    """The data as any folder sees them; a built-in name stays."""
    return str(Path(data).resolve()) if Path(data).exists() else data


def placed(recipe: Recipe) -> Recipe:
    """The recipe with the files that it reads named from the root, so that a run can be resumed from any folder."""

    def whole(path: str | None) -> str | None:
        return path and rooted(path)

    objective = recipe.objective
    located = dataclasses.replace(objective, **{name: whole(getattr(objective, name)) for name in objective.models})
    data = dataclasses.replace(recipe.data, images_folder=whole(recipe.data.images_folder))
    return dataclasses.replace(recipe, objective=located, data=data)


def _inputs(recipe: Recipe) -> dict[str, str]:
    """What else a run learns from and needs again when it is resumed: each model file with its hash."""
    digests = {}
    for path in filter(None, (getattr(recipe.objective, name) for name in recipe.objective.models)):
        if path.startswith("hf:"):
            continue
        file = Path(path) / "model.safetensors" if Path(path).is_dir() else Path(path)
        if not file.is_file():
            raise VitralError(f"{path}: there is no model; give a finished run or a model file")
        with open(file, "rb") as opened:
            digests[path] = hashlib.file_digest(opened, "sha256").hexdigest()
    return digests


def open_for(
    data: str,
    recipe: Recipe,
    display: Display,
    least_side: Callable[[int, int], int] | None = None,
    held: Held | None = None,
) -> DataSet:
    """The data as a run with this recipe would open them. least_side, held: as in `open_data`; default: the patch that the recipe resolves to."""
    if (warning := precision_cost(recipe.train.precision, choose_device(recipe.train.device))) is not None:
        display.say(warning)
    try:
        dataset = open_data(
            data,
            recipe.data,
            labelled=recipe.objective.labelled,
            least_side=least_side or (lambda height, width: patch_for(recipe.model, height, width)),
            progress=lambda done, total: display.count("checking images", done, total),
            held=held,
        )
    except VitralError as error:
        if Path(data).exists():
            error.args = (f"{error}\nmore about these data, with the images: vitral doctor {shlex.quote(data)}",)
        raise
    counts = ", ".join(f"{len(split):,} {name}" for name, split in dataset.splits.items())
    kinds = counted(len(dataset.labels), *TARGETS[dataset.task].nouns)
    display.say(f"{dataset.name}: {kinds}, {counts} images, {dataset.height}x{dataset.width} "
                f"{in_words(dataset.channels)}")  # fmt: skip
    return dataset


def _build(
    folder: Path,
    source: str,
    data: DataSet,
    recipe: Recipe,
    device: torch.device,
    progress: Progress,
    display: Display,
    initial: Initial | None = None,
) -> Run:
    keep_freed_memory()
    train = recipe.train
    assert train.batch_size is not None
    precision = choose_precision(train.precision, device)
    config = shape(recipe, data)
    steps = preprocess(recipe, data, config)
    torch.manual_seed(derive(train.seed, "initialise"))
    learner, objective = assemble(recipe, data, config, steps, initial)
    learner.to(device)
    average = {n: p.detach().clone() for n, p in learner.named_parameters()} if recipe.optim.ema else None
    progress.batch_size = progress.batch_size or train.batch_size
    progress.accumulation = max(progress.accumulation, train.accumulation)
    batches = training_batches(recipe, data, steps)
    leave_compiler_out()
    loop = Loop(
        learner,
        objective,
        batches,
        build_optimizers(learner, recipe.optim),
        average,
        progress,
        recipe,
        device,
        precision,
    )
    step_without_compiler(loop.optimizers)
    parameters = sum(p.numel() for p in learner.parameters())
    display.say(
        f"{model_in_words(config, recipe.model.name)}: {parameters:,} parameters, {precision} on {device.type}, {cores()} cores"
    )
    return Run(folder, source, data, recipe, loop, config, steps, display)


def _forget_after(metrics: Path, step: int) -> None:
    """Drop the lines of steps that will be taken again, and a last line that a kill cut short."""
    if not metrics.exists():
        return
    kept = []
    for line in metrics.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except ValueError:
            continue  # the torn last line of a killed run
    write_atomically(metrics, "".join(line + "\n" for line in kept).encode())
