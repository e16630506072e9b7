"""What a run over few images costs, from a few of its steps taken in this process: half a second, where a trial takes ten.

It leaves out what a trial measures: validation as a run has it, memory at its worst, the first epoch's decoding. Over few images that decides
nothing: a size of model that makes just about the passes worth having is as good a choice as the next.
"""

import time
from pathlib import Path

from vitral.data.sources import DataSet
from vitral.guidance.plan.planner import Estimate
from vitral.guidance.plan.tryout import peak_memory
from vitral.training.config import Recipe
from vitral.training.display import Display
from vitral.training.start import draft

FEW_IMAGES = 1000  # of training
STEPS, SECONDS = 8, 0.4  # steps at most, and when no other is begun; the first warms up, and a second is taken however long it lasts


class Silent(Display):
    """Says nothing: what the real run will say, it says itself."""

    def __init__(self) -> None:
        self.live = None

    def say(self, text: str) -> None:
        pass


def glance(source: str, data: DataSet, recipe: Recipe) -> Estimate:
    """The cost of a pass over the training images of `data`, and of the memory held so far; an image validated counts as one trained on."""
    run, _, _ = draft(source, recipe, Path("unwritten"), Silent(), opened=data)
    loop = run.loop
    loop.batches.read.room = 0  # what it decodes is no image of the run
    began, seconds = time.monotonic(), []
    while len(seconds) < 2 or (len(seconds) < STEPS and time.monotonic() - began < SECONDS):
        start = time.monotonic()
        batch = loop.batches[0]
        loop.step(batch, 0.0, run)
        seconds.append((time.monotonic() - start) / len(batch))
    images = sum(len(data.splits[name]) for name in ("train", "val") if name in data.splits)
    parameters = sum(p.numel() for p in loop.model.parameters())
    held = peak_memory(loop.device.type)
    return Estimate(min(seconds) * images, held, parameters, loop.precision, measured=True, glanced=True)
