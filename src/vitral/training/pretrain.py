"""A run without labels: its score by nearest neighbours among labelled images, and its objective's pictures."""

import io
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import nn

from vitral.checkpoints.atomic import write_atomically
from vitral.data.dataset import DataSet
from vitral.evaluation.probes import features, k_nn
from vitral.models.common import ImageModel
from vitral.predict import Predictor
from vitral.training.loop import Loop
from vitral.training.state import Progress

if TYPE_CHECKING:
    from vitral.training.run import Run

SHOWN = 8  # pictures
KNOWN, ASKED = 5000, 1000  # training images, and validation images whose neighbours among them vote, at most


class Pretraining:
    """What a run without labels does at a validation and at the end. Its last weights are kept; no choice is made by neighbours."""

    keeps_last = True
    scored_split = None
    labels: ClassVar[list[str]] = []
    task = "classify"  # the model has no head; this is what a head would be for

    def __init__(self, run: "Run") -> None:
        self.run = run

    def validate(self, model: ImageModel, progress: Progress) -> tuple[bool, dict[str, object]]:
        """Nearest neighbours among labelled images, where an image has one class; by the first process alone, for there are few."""
        run, data, step = self.run, self.run.data, progress.step
        if not run.loop.world.main or not data.splits["train"].targets.one_class or len(data.labels) < 2:
            return True, {}
        top1 = neighbours(Predictor(model, run.card(model, {})), data, run.loop.precision)
        epoch = step / run.loop.batches.steps_per_epoch
        run.record({"event": "val", "step": step, "epoch": epoch, "knn": top1, "seconds": progress.elapsed})
        if progress.best is None or top1 >= progress.best:
            progress.best, progress.best_step = top1, step
        said = f"top-1 by nearest neighbours {top1:.2%}"
        run.display.validated(epoch, step, said, top1, progress.best, progress.best_step, last=run.done)
        return True, {}

    def found(self, model: ImageModel) -> dict[str, object]:
        """What `validate` found of these weights for the model file: nothing."""
        return {}

    def finish(self) -> None:
        """Save the objective's pictures of some images."""
        learner = self.run.loop.whole()
        if self.run.loop.world.main:
            write_atomically(self.run.folder / "pictures.npz", pictures(self.run.loop, learner))


def neighbours(predictor: Predictor, data: DataSet, precision: str) -> float:
    """Top-1 of weighted nearest neighbours: of up to 1,000 validation images, among up to 5,000 training images, spread over each split."""
    parts = [data.splits[name].thinned(count) for name, count in (("train", KNOWN), ("val", ASKED))]
    known, asked = (features(predictor, part, precision=precision) for part in parts)
    return float((k_nn(known, parts[0].targets.values, asked) == parts[1].targets.values).mean())


def pictures(loop: Loop, learner: nn.Module) -> bytes:
    """The objective's pictures of the run's first images by its model, as an .npz of uint8 [n, H, W, C] by name, in the order of its stages."""
    batch = next(loop.batches[0].split(SHOWN))
    learner.to(loop.device).eval()
    with torch.inference_mode():
        made = loop.objective.pictures(learner, loop.ready(batch))
    arrays = {name: loop.batches.preprocess.restore(x).permute(0, 2, 3, 1).cpu().numpy() for name, x in made.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # names that are given as keywords
    return buffer.getvalue()
