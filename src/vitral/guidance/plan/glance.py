"""The cost of a run over few images from a few steps in this process: less than a second, where a trial takes ten.

Unlike a trial it does not measure validation, peak memory or the first epoch's decoding, which matter little for few images.
"""

import time
from pathlib import Path

from vitral.guidance.plan.choices import Estimate
from vitral.guidance.plan.tryout import peak_bytes
from vitral.training.display import Silent
from vitral.training.settle import Settled
from vitral.training.start import draft

FEW_IMAGES = 1000  # of training
STEPS = 3  # the first is warm-up


def glance(settled: Settled) -> Estimate | None:
    """The cost of a pass over few images; None for many, which need a trial.

    Validation images count like training images; the memory is this process's.
    """
    data = settled.data
    if len(data.splits["train"]) > FEW_IMAGES:
        return None
    run, _ = draft(settled, Path("unwritten"), Silent())
    loop = run.loop
    loop.batches.read.room = 0  # keep no decoded image
    seconds = []
    for _ in range(STEPS):
        began = time.monotonic()
        batch = loop.batches[0]
        loop.step(batch, 0.0, run)
        seconds.append((time.monotonic() - began) / len(batch))
    images = sum(len(data.splits[name]) for name in ("train", "val") if name in data.splits)
    each_pass = min(seconds) * images
    parameters = sum(p.numel() for p in loop.model.parameters())
    return Estimate(each_pass, peak_bytes(loop.device.type), parameters, loop.precision, measured=True, glanced=True)
