"""The process of a trial, python -m vitral.guidance.plan.tryout DATA RECIPE.toml SECONDS BEGAN: prints a `Cost` as JSON, or an error (exit code 2).

It starts a real run beside the recipe file and goes through all that a run does (steps, validation, checkpoint, scores, report) on less. Memory is
what the process held at most. Where a run would remember more images than the trial has decoded, others of their size stand in for them.
"""

import json
import pickle
import sys
import time
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from vitral.data.dataset import DataSet
from vitral.data.loader import REMEMBERED, Batch, TrainingBatches
from vitral.data.workers import Failed, tell
from vitral.engines.memory import peak_memory
from vitral.errors import VitralError
from vitral.guidance.plan.trial import OPENED, Cost
from vitral.report.run import report_run
from vitral.training.display import Display
from vitral.training.loop import Budget, Loop
from vitral.training.machine import available_memory, choose_device
from vitral.training.pretrain import ASKED, KNOWN
from vitral.training.run import Run
from vitral.training.start import start
from vitral.training.state import Progress
from vitral.training.toml import read_recipe

STEPPING, VALIDATING = 0.6, 0.25  # shares of a trial's seconds
LEAST_STEPS = 6
FETCHED_AGAIN = 8  # batches
LEAST_VALIDATED = 256  # images: the largest batch of a validation
HARMLESS = 0.01  # of the learning rate: nothing diverges, and a step takes as long


def try_out(data: str, recipe_file: Path, seconds: float, began: float) -> Cost:
    """The trial; `began`: the clock's time when the command was given."""
    recipe = read_recipe(recipe_file)
    available = available_memory(choose_device(recipe.train.device).type)
    handed = recipe_file.parent / OPENED  # written by the process that asks
    opened = pickle.loads(handed.read_bytes()) if handed.exists() else None
    run = start(data, recipe, recipe_file.parent / "run", Display(), opened=opened)
    loop, device = run.loop, run.loop.device.type
    started = time.time() - began
    per_epoch, images = loop.batches.steps_per_epoch, len(loop.batches.split)
    read = images if loop.budget.steps is None else min(images, -(-loop.budget.steps * images // per_epoch))
    image_bytes, step_seconds = _warm_up(run)
    ballast = _remembered(loop, read - len(loop.batches.read.kept))
    computing, first, later = _steps(run, max(LEAST_STEPS, int(STEPPING * seconds / step_seconds)))
    training = peak_bytes(device)
    validation, finish = _rest(run, VALIDATING * seconds, ballast)
    average = images / per_epoch
    return Cost(
        parameters=sum(p.numel() for p in loop.model.parameters()),
        step_seconds=(computing + later) * average,
        data_seconds=later * average,
        first_data_seconds=first * average,
        validation_seconds=validation,
        start_seconds=started,
        finish_seconds=finish,
        peak_bytes=peak_bytes(device),
        training_bytes=training,
        image_bytes=image_bytes,
        available_bytes=available,
        micro_batch=loop.progress.batch_size,
        accumulation=loop.progress.accumulation,
        steps_per_epoch=per_epoch,
        images_per_step=average,
        precision=loop.precision,
        device=device,
    )


def _warm_up(run: Run) -> tuple[float, float]:
    """Bytes that an image more in the micro-batch takes, and about how long a step lasts: from steps of a quarter's and of the whole size."""
    loop, progress, options = run.loop, run.loop.progress, run.recipe.optim
    assert options.lr is not None
    lr = HARMLESS * options.lr
    loop.schedule = replace(loop.schedule, options=replace(options, lr=lr, min_lr=0.0, warmup_lr=0.0))
    loop.budget = Budget(1, None)  # images that grow during a run have their full size after one step
    began = time.monotonic()
    batch = loop.batches[0]
    fetching = time.monotonic() - began
    whole = progress.batch_size
    small = progress.batch_size = max(1, min(whole, len(batch)) // 4)
    for _ in range(2):
        loop.step(batch, lr, run)
    low = peak_bytes(loop.device.type)
    progress.batch_size = whole
    for _ in range(2):
        began = time.monotonic()
        loop.step(batch, lr, run)
    more = min(progress.batch_size, len(batch)) - small  # than the quarter; where memory ran out, less than was asked
    measured = (peak_bytes(loop.device.type) - low) / more if more > 0 else 0.0
    pixels = 2 * 4 * sum(view[0].numel() for view in batch.views)  # as floats, and normalised
    return max(measured, pixels), fetching + time.monotonic() - began


class Clocked(TrainingBatches):
    """The same batches, with a clock on who waits for whom."""

    def __init__(self, batches: TrainingBatches) -> None:
        vars(self).update(vars(batches))
        self.seconds: list[tuple[int, float, float]] = []
        """Batch number, and seconds an image of waiting for it and of learning from it."""

    def stream(
        self, start: int, stop: int | None, workers: int, failed: Failed = tell, *, pinned: bool = False
    ) -> Iterator[Batch]:
        asked = time.monotonic()
        for number, batch in enumerate(super().stream(start, stop, workers, failed, pinned=pinned), start):
            fetched = time.monotonic()
            yield batch
            done = time.monotonic()
            self.seconds.append((number, (fetched - asked) / len(batch), (done - fetched) / len(batch)))
            asked = done


@dataclass
class Steps:
    """Listens to a loop as the run does, but keeps validations and checkpoints for later."""

    run: Run

    def trained(self, record: dict[str, float | int | str]) -> None:
        self.run.trained(record)

    def message(self, text: str) -> None:
        self.run.message(text)

    def checkpoint(self, progress: Progress, *, validate: bool) -> None:
        pass


def _steps(run: Run, count: int) -> tuple[float, float, float]:
    """Seconds an image: of computing, and of waiting for data in the first epoch and after it."""
    loop = run.loop
    ahead = 1 + 2 * (run.recipe.train.workers or 0)  # read before, or ready before the first is asked for
    loop.progress.step, loop.budget = 0, Budget(ahead + count + 1, None)
    batches = loop.batches
    loop.batches = clocked = Clocked(batches)
    if not loop.run(Steps(run)):
        raise KeyboardInterrupt
    loop.batches = batches
    counted = clocked.seconds[ahead:]
    first = [waiting for number, waiting, _ in counted if number < batches.steps_per_epoch]
    later = [waiting for number, waiting, _ in counted if number >= batches.steps_per_epoch]
    if not later and batches.read.kept:
        again = Clocked(batches)
        for _ in again.stream(1, 1 + FETCHED_AGAIN, 0):
            pass
        later = [waiting for _, waiting, _ in again.seconds]
    return middle([computing for _, _, computing in counted]), middle(first or later), middle(later or first)


def _rest(run: Run, seconds: float, ballast: list[Tensor]) -> tuple[float, float]:
    """Seconds of one validation with its checkpoint, and of what follows training."""
    loop, whole = run.loop, run.data
    loop.budget = Budget(loop.progress.step, None)  # spent: nothing but the end is left

    def checkpoint(validate: bool) -> float:
        return timed(lambda: run.checkpoint(loop.progress, validate=validate))

    run.data = _part(run, whole, 0.0)
    checkpoint(True)  # warms up
    writing, few, n_few = checkpoint(False), checkpoint(True), _validated(run, run.data)
    n_whole = _validated(run, whole)
    run.data = _part(run, whole, min(1.0, seconds / few * n_few / max(1, n_whole)))
    unread = [len(whole.splits[name]) - len(split) for name, split in run.data.splits.items() if name != "train"]
    ballast += _remembered(loop, max(unread, default=0), fresh=True)
    many, n_many = checkpoint(True), _validated(run, run.data)
    each = max(0.0, (many - few) / (n_many - n_few) if n_many > n_few else (many - writing) / max(1, n_many))

    def end() -> None:
        run.train()
        if run.purpose.scored_split is not None or not run.recipe.objective.labelled:
            report_run(run.folder, run.data)

    finish = timed(end)
    if run.recipe.objective.labelled and run.purpose.scored_split is not None:
        finish += each * (len(whole.splits[run.purpose.scored_split]) - len(run.data.splits[run.purpose.scored_split]))
    return many + each * (n_whole - n_many), finish


def _part(run: Run, data: DataSet, share: float) -> DataSet:
    """The data with this share of the images that a validation reads, but not too few to tell."""
    reads = {"val": len, "test": len} if run.recipe.objective.labelled else {"train": _known, "val": _asked}
    parts = {
        name: split.thinned(max(LEAST_VALIDATED, round(share * reads[name](split)))) if name in reads else split
        for name, split in data.splits.items()
    }
    return replace(data, splits=parts)


def _validated(run: Run, data: DataSet) -> int:
    """How many images a validation of the run reads."""
    if "val" not in data.splits or not (data.splits["val"].targets.one_class or run.recipe.objective.labelled):
        return 0
    if run.recipe.objective.labelled:
        return len(data.splits["val"])
    return _known(data.splits["train"]) + _asked(data.splits["val"])


def _known(split: Sized) -> int:
    return min(KNOWN, len(split))


def _asked(split: Sized) -> int:
    return min(ASKED, len(split))


def _remembered(loop: Loop, count: int, *, fresh: bool = False) -> list[Tensor]:
    """As much memory as `count` more decoded images will take, where they are kept; fresh: by another reader with room of its own."""
    reader = loop.batches.read
    if not reader.kept or count <= 0:
        return []
    size = sum(image.nbytes for image in reader.kept.values()) // len(reader.kept)
    room = REMEMBERED if fresh else reader.room
    return [torch.ones(size, dtype=torch.uint8) for _ in range(min(count, room // size))]


def timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def middle(values: Sequence[float]) -> float:
    """The mean without the lowest and the highest tenth: what else the machine did for a moment does not count."""
    ordered = sorted(values)
    cut = len(ordered) // 10
    kept = ordered[cut : len(ordered) - cut]
    return sum(kept) / len(kept)


def peak_bytes(device: str) -> int:
    """Bytes that this process held at most so far, on the device that computes."""
    return torch.cuda.max_memory_reserved() if device == "cuda" else peak_memory()


def main() -> None:
    data, recipe, seconds, began = sys.argv[1:]
    try:
        cost = try_out(data, Path(recipe), float(seconds), float(began))
    except VitralError as error:
        print(json.dumps({"error": str(error)}))
        sys.exit(2)
    print(json.dumps(asdict(cost)))


if __name__ == "__main__":
    main()
