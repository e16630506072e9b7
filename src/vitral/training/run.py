"""A run from data to a scored model file, in a folder of its own.

RUN/recipe.toml      the recipe as resolved        RUN/metrics.jsonl   a line per event
RUN/run.json         data, command, machine        RUN/checkpoints/    latest and best
RUN/model.safetensors  the self-describing result  RUN/scores.json     its scores; RUN/predictions.npz behind them
RUN/training-images.bin  which images it has seen  RUN/skipped.csv     which were left out, if any
"""

import copy
import dataclasses
import hashlib
import io
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import vitral
from vitral.checkpoints.atomic import write_atomically
from vitral.checkpoints.bundle import ModelCard, save_model
from vitral.data.loader import TrainingBatches
from vitral.data.preprocess import Preprocess
from vitral.data.sources import DataSet, open_data, write_skipped
from vitral.errors import VitralError
from vitral.evaluation.evaluate import Scores, evaluate
from vitral.evaluation.seen import write_seen
from vitral.models.common import ImageModel, ModelConfig
from vitral.models.zoo import family_of, model_config
from vitral.predict import Predictor, load
from vitral.randomness import derive
from vitral.training.assemble import assemble, training_batches
from vitral.training.config import Recipe
from vitral.training.defaults import check, patch_for, preprocess, resolve, shape
from vitral.training.display import Display, clock
from vitral.training.loop import Loop
from vitral.training.machine import choose_device, choose_precision, cores, keep_freed_memory
from vitral.training.optim import build_optimizers
from vitral.training.pretrain import neighbours, pictures
from vitral.training.state import Checkpoints, Progress, collect, restore
from vitral.training.toml import read_recipe, to_table, to_toml
from vitral.training.transfer import Initial, learning, open_initial


@dataclass
class Run:
    """One run and its folder; listens to the loop and writes down what it says."""

    folder: Path
    source: str
    """The data as they were named."""
    data: DataSet
    recipe: Recipe
    loop: Loop
    config: ModelConfig
    preprocess: Preprocess
    display: Display

    def __post_init__(self) -> None:
        self.checkpoints = Checkpoints(self.folder / "checkpoints")
        self.metrics = self.folder / "metrics.jsonl"

    def record(self, line: dict[str, object]) -> None:
        try:
            with open(self.metrics, "a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise VitralError(
                f"{self.metrics}: could not be written ({error.strerror}); free some space, then --resume {self.folder}"
            ) from error

    def trained(self, record: dict[str, float | int | str]) -> None:
        self.record(dict(record))
        self.display.train(record)

    def message(self, text: str) -> None:
        self.record({"event": "message", "step": self.loop.progress.step, "text": text})
        self.display.say(text)

    def checkpoint(self, progress: Progress, *, validate: bool) -> None:
        """Validate if asked, write the checkpoint, and the model file if these weights are the ones to keep."""
        model = self.averaged_model()
        keep = self.recipe.train.keep == "last" or "val" not in self.data.splits or not self.classifies
        if validate and "val" in self.data.splits and not self.classifies and not self.data.multi_label:
            top1 = neighbours(Predictor(model, self.card(model, {})), self.data, self.loop.precision)
            epoch = progress.step / self.loop.batches.steps_per_epoch
            self.record(
                {"event": "val", "step": progress.step, "epoch": epoch, "knn": top1, "seconds": progress.elapsed}
            )
            self.display.say(
                f"epoch {epoch:6.2f}  step {progress.step:6d}  validation top-1 by nearest neighbours {top1:.2%}"
            )
        elif validate and "val" in self.data.splits and self.classifies:
            scores, _ = self.score(Predictor(model, self.card(model, {})), "val")
            value = scores.headline
            better = value is not None and (progress.best is None or value > progress.best)
            if better:
                progress.best, progress.best_step = value, progress.step
            keep = keep or better or value is None  # no label occurs in the split: the last weights are as good as any
            self.record({"event": "val", "step": progress.step, "epoch": progress.step / self.loop.batches.steps_per_epoch,
                         "loss": scores.loss, scores.HEADLINE: value, "seconds": progress.elapsed})  # fmt: skip
            self.display.say(f"epoch {progress.step / self.loop.batches.steps_per_epoch:6.2f}  step {progress.step:6d}  "
                             f"validation {scores.line()}" + ("  best so far" if better else ""))  # fmt: skip
        # The model file first: a kill between the two repeats the step from the checkpoint before, and writes the same file again.
        if keep:
            headline = "map" if self.data.multi_label else "top1"
            scores_so_far: dict[str, object] = {} if progress.best is None else {"val": {headline: progress.best}}
            save_model(
                self.folder / "model.safetensors", model, self.card(model, {**scores_so_far, "step": progress.step})
            )
        self.checkpoints.save(collect(self.loop.model, self.loop.optimizers, self.loop.average), progress, best=keep)

    @property
    def classifies(self) -> bool:
        """Whether the run learns the data's classes, and not from the images alone."""
        return self.recipe.objective.name == "classify"

    def averaged_model(self) -> ImageModel:
        """The image model that the run is for, with the moving average of its weights where there is one."""
        learner = self.loop.model
        if self.loop.average is not None:
            learner = copy.deepcopy(learner)
            learner.load_state_dict({**learner.state_dict(), **self.loop.average})
        return self.loop.objective.result(learner)

    def score(self, predictor: Predictor, split: str) -> tuple[Scores, np.ndarray]:
        train = self.recipe.train
        predictor.model.to(self.loop.device)
        return evaluate(
            predictor, self.data.splits[split], self.data.labels, workers=train.workers or 0, precision=self.loop.precision,
            batch_size=max(1, min(256, 64 * 224 * 224 // (self.preprocess.height * self.preprocess.width))),
        )  # fmt: skip

    @property
    def scored_split(self) -> str | None:
        """The split that the finished model is scored on."""
        return next((name for name in (self.recipe.train.score_split, "val") if name in self.data.splits), None)

    def card(self, model: ImageModel, scores: dict[str, object]) -> ModelCard:
        name = self.recipe.model.name
        assert name is not None
        same = type(model.config) is type(model_config(name))  # not so of a tokenizer or a masked autoencoder's encoder
        return ModelCard(
            architecture=name if same else family_of(model.config),
            arguments=model.config.arguments(),
            labels=self.data.labels if self.classifies else [],
            multi_label=self.classifies and self.data.multi_label,
            preprocess=self.preprocess,
            recipe=dict(to_table(self.recipe)),
            scores=scores,
            data={"name": self.data.name, "fingerprint": self.data.fingerprint},
        )

    def train(self) -> bool:
        """Train to the end (True) or until a signal (False); then score once and write everything down."""
        if not self.loop.run(self):
            return False
        if not self.classifies:
            write_atomically(self.folder / "pictures.npz", pictures(self.loop))
            return True
        split = self.scored_split
        if split is None:
            self.message("no test or validation split: the model is not scored and has no report")
            return True
        predictor = load(self.folder)
        scores, logits = self.score(predictor, split)
        predictor.model.to("cpu")
        result = {"split": split, "training_seconds": round(self.loop.progress.elapsed, 1), **scores.to_json()}
        save_model(
            self.folder / "model.safetensors",
            predictor.model,
            dataclasses.replace(predictor.card, scores={**predictor.card.scores, split: scores.brief()}),
        )
        write_atomically(self.folder / "scores.json", json.dumps(result, indent=1).encode())
        arrays = io.BytesIO()
        np.savez(arrays, logits=logits, targets=self.data.splits[split].targets)
        write_atomically(self.folder / "predictions.npz", arrays.getvalue())
        self.display.say(f"\n{split} split: {scores.summary()}\n{clock(self.loop.progress.elapsed)} of training")
        return True


def start(data: str, recipe: Recipe, out: Path, display: Display, command: str = "") -> Run:
    """A new run in the folder `out`, which must not hold one that came as far as a checkpoint."""
    check_place(out)
    recipe, initial = open_initial(recipe)
    check(recipe)
    device = choose_device(recipe.train.device)
    choose_precision(recipe.train.precision, device)
    source = str(Path(data).resolve()) if Path(data).exists() else data
    recipe = _placed(recipe)
    inputs = _inputs(recipe)
    dataset = _open(source, recipe, display)
    recipe, reasons = resolve(recipe, dataset, device.type, None if initial is None else initial.preprocess)
    run = _build(out, source, dataset, recipe, device, Progress(), display, initial)
    reasons += [] if initial is None else initial.notes
    reasons += learning(run.loop.model, recipe.transfer)
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
        "command": command,
        "seed": recipe.train.seed,
        "version": vitral.__version__,
        "torch": torch.__version__,
        "machine": f"{platform.processor() or platform.machine()}, {cores()} cores, {device.type} in {run.loop.precision}",
        "parameters": sum(p.numel() for p in run.loop.model.parameters()),
    }
    write_atomically(out / "recipe.toml", to_toml(recipe).encode())
    for left_over in ("metrics.jsonl", "skipped.csv"):  # of a run that ended before its first checkpoint
        (out / left_over).unlink(missing_ok=True)
    if dataset.skipped:
        write_skipped(dataset, out / "skipped.csv")
    write_seen(out, dataset.splits["train"])
    write_atomically(out / "run.json", json.dumps(described, indent=1).encode())
    for line in (*notes, *reasons):
        display.say(f"- {line}")
    return run


def preview(data: str, recipe: Recipe, display: Display) -> tuple[TrainingBatches, list[str]]:
    """The batches that a run with this recipe would train on, and the class names."""
    recipe, initial = open_initial(recipe)
    check(recipe)
    dataset = _open(data, recipe, display)
    own = None if initial is None else initial.preprocess
    recipe, _ = resolve(recipe, dataset, choose_device(recipe.train.device).type, own)
    return training_batches(recipe, dataset, preprocess(recipe, dataset, shape(recipe, dataset))), dataset.labels


def check_place(out: Path) -> None:
    """A run can be written to `out`, and what is there already is no run that one could go on with."""
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not there.is_dir():
        raise VitralError(f"{out}: {'this' if there == out else there} is a file, not a folder; choose another --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise VitralError(f"{out}: {there} cannot be written to; choose another --out")
    if (out / "model.safetensors").exists() or Checkpoints(out / "checkpoints").pointed("latest") is not None:
        raise VitralError(f"{out}: there is a run already; go on with --resume {out}, or choose another --out")


def resume(folder: Path, display: Display, workers: int | None = None) -> Run:
    """The run in `folder`, where its latest checkpoint left it; the data must be the same, the workers may differ."""
    try:
        described = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError) as error:
        why = "there is no run.json" if isinstance(error, FileNotFoundError) else f"run.json cannot be read: {error}"
        raise VitralError(f"{folder}: holds no run to resume ({why}); give the folder that --out named") from error
    recipe = read_recipe(folder / "recipe.toml")
    if workers is not None:
        recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, workers=workers))
    dataset = _open(described["data"], recipe, display)
    if dataset.fingerprint != described["fingerprint"]:
        raise VitralError(
            f"{described['data']}: the images or labels changed since the run began; restore them, or start a new run"
        )
    for path, digest in _inputs(recipe).items():
        if described["inputs"].get(path) != digest:
            raise VitralError(f"{path}: changed since the run began; restore it, or start a new run")
    checkpoints = Checkpoints(folder / "checkpoints")
    if checkpoints.pointed("latest") is None:
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


def _placed(recipe: Recipe) -> Recipe:
    """The recipe with the files that it reads named from the root, so that a run can be resumed from any folder."""

    def placed(path: str | None) -> str | None:
        return str(Path(path).resolve()) if path and Path(path).exists() else path

    objective = recipe.objective
    located = dataclasses.replace(objective, teacher=placed(objective.teacher), tokenizer=placed(objective.tokenizer))
    return dataclasses.replace(recipe, objective=located)


def _inputs(recipe: Recipe) -> dict[str, str]:
    """What else a run learns from and needs again when it is resumed: each model file with its hash."""
    digests = {}
    for path in filter(None, (recipe.objective.teacher, recipe.objective.tokenizer)):
        if path.startswith("hf:"):
            continue
        file = Path(path) / "model.safetensors" if Path(path).is_dir() else Path(path)
        if not file.is_file():
            raise VitralError(f"{path}: there is no model; give a finished run or a model file")
        with open(file, "rb") as opened:
            digests[path] = hashlib.file_digest(opened, "sha256").hexdigest()
    return digests


def _open(data: str, recipe: Recipe, display: Display) -> DataSet:
    dataset = open_data(
        data,
        recipe.data,
        labelled=recipe.objective.name == "classify",
        least_side=lambda height, width: patch_for(recipe.model, height, width),
        progress=lambda done, total: display.count("checking images", done, total),
    )
    counts = ", ".join(f"{len(split):,} {name}" for name, split in dataset.splits.items())
    kind = "labels" if dataset.multi_label else "classes"
    display.say(f"{dataset.name}: {len(dataset.labels)} {kind}, {counts} images, {dataset.height}x{dataset.width} "
                f"{'grey' if dataset.channels == 1 else 'colour'}")  # fmt: skip
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
    parameters = sum(p.numel() for p in learner.parameters())
    display.say(f"{recipe.model.name} {config.image_size[0]}x{config.image_size[1]}, patch {loop.multiple}: {parameters:,} parameters, "
                f"{precision} on {device.type}, {cores()} cores")  # fmt: skip
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
