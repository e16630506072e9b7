"""What a small job costs, from a few of its steps taken in this process: a second, where a trial takes ten.

It leaves out what a trial measures: validation as a run has it, memory at its worst, the first epoch's decoding. So it answers only where there is
time to spare whichever way these come out.
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

FEW_IMAGES = 1000  # of training: of more, images are decoded for longer than a trial needs to start
SPARE = 4.0  # times the seconds that a pass would take by the glance
STEPS = 2


class Silent(Display):
    """Says nothing: what the real run will say, it says itself."""

    def __init__(self) -> None:
        self.live = None

    def say(self, text: str) -> None:
        pass


def glance(source: str, data: DataSet, recipe: Recipe, limit: float) -> Estimate | None:
    """The cost of a pass over few images, if `limit` seconds hold far more passes than are worth having; else None, and a trial must tell."""
    images = len(data.splits["train"])
    if images > FEW_IMAGES:
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
    validated = len(data.splits["val"]) if "val" in data.splits else 0
    each_pass = min(seconds) * (images + validated)  # an image validated costs less than one trained on
    if limit / each_pass < SPARE * ENOUGH * passes_worth(images):
        return None
    parameters = sum(p.numel() for p in loop.model.parameters())
    return Estimate(each_pass, peak_memory(loop.device.type), parameters, loop.precision, measured=True, glanced=True)
