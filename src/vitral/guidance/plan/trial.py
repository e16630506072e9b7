"""What a recipe costs on this machine, found by trying: a process of its own starts the run in a folder that is thrown away and takes a few steps.

The trial (`tryout.py`) is a real run cut short, so that its memory and its seconds are those of `vitral train`; what it did not get to is
extrapolated, by the image.
"""

import json
import pickle
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from vitral.data.dataset import DataSet
from vitral.errors import VitralError
from vitral.training.config import Recipe
from vitral.training.machine import ROOM
from vitral.training.toml import to_toml

OPENED = "data.pickle"  # beside the recipe of a trial: the data as they were opened
FIRST_TRIED = 16  # images: what a search for the micro-batch starts from


@dataclass(frozen=True)
class Cost:
    """What a run costs. Seconds are of the wall clock, memory is in bytes."""

    parameters: int
    step_seconds: float
    """One optimiser step with its data, after the first epoch."""
    data_seconds: float
    """The part of it that waits for data."""
    first_data_seconds: float
    """The same in the first epoch, when images that are then remembered are decoded."""
    validation_seconds: float
    """One validation of the whole validation split, with the checkpoint that follows it."""
    start_seconds: float
    """From the command to the first step: imports, opening the data, building the model."""
    finish_seconds: float
    """After training: scoring the finished model, and its report."""
    peak_bytes: int
    """What the run will hold at most: resident memory of the process, or on a GPU what its allocator reserves; loader processes not counted."""
    training_bytes: int
    """The same while it only trains."""
    image_bytes: float
    """How much one image more in a micro-batch adds to that."""
    available_bytes: int
    """What the machine had free for a process as the trial began."""
    micro_batch: int
    accumulation: int
    steps_per_epoch: int
    images_per_step: float
    """On average over an epoch, whose last step may have fewer."""
    precision: str
    device: str

    @property
    def images(self) -> int:
        """Training images."""
        return round(self.steps_per_epoch * self.images_per_step)

    def seconds(self, steps: int, validations: int) -> float:
        """Wall time of training as a run reports it: without its start, and without scores and report at its end."""
        first = min(steps, self.steps_per_epoch) * (self.first_data_seconds - self.data_seconds)
        return steps * self.step_seconds + first + validations * self.validation_seconds

    def largest_micro_batch(self) -> int:
        """The largest power of two that fits `ROOM` of the available memory; 1 where not even that does."""
        spare = ROOM * self.available_bytes - self.training_bytes
        fits = self.micro_batch + spare / self.image_bytes
        return 2 ** (max(1, int(fits)).bit_length() - 1)


def measure_cost(data: str, recipe: Recipe, budget_seconds: float = 20.0, opened: DataSet | None = None) -> Cost:
    """The cost of a run of this recipe, resolved or not, on data as `vitral train` takes them.

    opened: the data, if they were opened for this recipe already; the trial then does not read every image again. It steps and validates for about
    `budget_seconds`, after it has opened the data and warmed up; six steps are taken however long they
    last. Raises VitralError for what a run would raise it for, and where the trial itself is killed, as it is where memory ends.
    """
    if not budget_seconds > 0:
        raise VitralError(f"a trial of {budget_seconds:g} seconds: give more than 0")
    with tempfile.TemporaryDirectory(prefix="vitral-trial-") as folder:
        file = Path(folder) / "recipe.toml"
        file.write_text(to_toml(recipe))
        if opened is not None:
            (Path(folder) / OPENED).write_bytes(pickle.dumps(opened))
        numbers = [str(budget_seconds), str(time.time())]
        command = [sys.executable, "-P", "-m", "vitral.guidance.plan.tryout", data, str(file), *numbers]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return Cost(**json.loads(done.stdout.splitlines()[-1]))
    if done.returncode == 2 and done.stdout:
        raise VitralError(json.loads(done.stdout.splitlines()[-1])["error"])
    if done.returncode < 0:
        raise VitralError(
            f"the trial run was killed (signal {-done.returncode}), most likely because memory ran out; "
            "lower --batch-size and raise --accumulation by as much, or choose a smaller model or image size"
        )
    raise RuntimeError(f"the trial run failed:\n{done.stderr}")


def find_micro_batch(
    data: str, recipe: Recipe, batch: int, budget_seconds: float = 5.0, opened: DataSet | None = None
) -> tuple[int, int]:
    """(micro-batch, accumulation) for steps of `batch` images: the largest power of two that fits the memory, but no more than the batch.

    A trial with few images at a time tells what one more adds, so that memory is never filled to find its end. Where the power of two does not
    divide the batch, the parts are made equal, and a step has up to a part's worth of images more.
    """
    parts = -(-batch // FIRST_TRIED)
    small = replace(recipe.train, batch_size=-(-batch // parts), accumulation=parts)
    cost = measure_cost(data, replace(recipe, train=small), budget_seconds, opened)
    accumulation = -(-batch // cost.largest_micro_batch())
    return -(-batch // accumulation), accumulation
