"""What a run over few images costs, from a few of its steps taken in this process: less than a second, where a trial takes ten.

It leaves out what a trial measures: validation as a run has it, memory at its worst, the first epoch's decoding. So it answers only where there is
time for all the passes that a plan makes unasked, three times those that are worth having; where it is short, or the machine busy, a trial must tell.
"""

import time
from pathlib import Path

from vitral.data.sources import DataSet
from vitral.guidance.plan.ladder import passes_worth
from vitral.guidance.plan.planner import ENOUGH, Estimate
from vitral.guidance.plan.tryout import peak_memory
from vitral.training.config import Recipe
from vitral.training.display import Display
from vitral.training.start import draft

FEW_IMAGES = 1000  # of training
STEPS = 3  # the first warms up


class Silent(Display):
    """Says nothing: what the real run will say, it says itself."""

    def __init__(self) -> None:
        self.live = None

    def say(self, text: str) -> None:
        pass


def glance(source: str, data: DataSet, recipe: Recipe, limit: float) -> Estimate | None:
    """The cost of a pass over few images, if `limit` seconds hold more of them than a plan makes; None where a trial must tell.

    recipe: without open fields. An image that is validated counts as one trained on; the memory is what this process holds.
    """
    if len(data.splits["train"]) > FEW_IMAGES:
        return None
    run, _, _ = draft(source, recipe, Path("unwritten"), Silent(), opened=data)
    loop = run.loop
    loop.batches.read.room = 0  # what it decodes is no image of the run
    seconds = []
    for _ in range(STEPS):
        began = time.monotonic()
        batch = loop.batches[0]
        loop.step(batch, 0.0, run)
        seconds.append((time.monotonic() - began) / len(batch))
    images = sum(len(data.splits[name]) for name in ("train", "val") if name in data.splits)
    each_pass = min(seconds) * images
    if limit < ENOUGH * passes_worth(len(data.splits["train"])) * each_pass:
        return None
    parameters = sum(p.numel() for p in loop.model.parameters())
    return Estimate(each_pass, peak_memory(loop.device.type), parameters, loop.precision, measured=True, glanced=True)
