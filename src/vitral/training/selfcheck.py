"""Before a run whose answers are places: the truth itself, as if a model had answered it, through the view and back, scored as the run will be.

What is lost on the way no model can get back; an error in the way (boxes in another order, a shift, a map of another size) shows here and not
after hours of training. Peers' most frequent complaint is a score of 0 with a falling loss (facebookresearch/detr issues 387 and 479).
"""

import numpy as np
from torch import nn

from vitral.data.dataset import DataSet
from vitral.data.loader import EvaluationBatches
from vitral.data.preprocess import Preprocess
from vitral.errors import VitralError, counted
from vitral.evaluation.evaluate import EVALUATORS
from vitral.models.heads.dense import Dense
from vitral.training.tasks import learning_of

CHECKED = 48  # images
BATCH = 8
LEAST = 0.5
"""Of the headline score at the model's own pixels: below it something is wrong, or the view is far too small."""
NEAR = 0.995


def self_check(data: DataSet, preprocess: Preprocess, learner: nn.Module) -> list[str]:
    """What the truth scores, in words; empty for answers to whole images. learner: what holds the model.

    Raises VitralError where it scores so little that training would be in vain.
    """
    learning = learning_of(data.task)
    perfect = learning.perfect
    if perfect is None:
        return []
    stride = next(module.stride for module in learner.modules() if isinstance(module, Dense))
    split = next(data.splits[name] for name in ("val", "train") if name in data.splits).thinned(CHECKED)
    batches, kind = EvaluationBatches(split, preprocess, BATCH), EVALUATORS[data.task]
    whole, coarse = kind(data.labels), kind(data.labels)
    objects = np.zeros(3, np.int64)  # all, lost, small
    for number in range(-(-len(split) // BATCH)):
        rows = np.arange(number * BATCH, min((number + 1) * BATCH, len(split)))
        placed = batches.placed(rows)
        seen, truth = split.targets.batch(rows, placed), split.targets.truth(rows, placed)
        objects += learning.small(seen, truth, preprocess.height, preprocess.width)
        whole.add(perfect(seen, len(data.labels), 1), truth)
        coarse.add(perfect(seen, len(data.labels), stride), truth)
    exact, reached = whole.glance(), coarse.glance()
    at_pixels, at_cells = exact.headline, ", ".join(reached.line().split("  "))
    if at_pixels is None or reached.headline is None:
        return []
    title, size = kind.scores.TITLE, f"{preprocess.height}x{preprocess.width} pixels"
    if at_pixels < LEAST:
        raise VitralError(
            f"{data.name}: the truth itself, shown at {size} and brought back, scores {title} {at_pixels:.1%} on {counted(len(split), 'image')}, so "
            "no model can do better; give a larger --image-size, or see with vitral doctor whether maps, boxes and images belong together"
        )
    lost = _exact(learning.certain(exact), objects.tolist(), data.name, size)
    if lost:
        return [
            f"{lost}; the truth in cells of {stride} pixels, which the head answers, scores {at_cells}: about what a model can reach"
        ]
    lost = "" if at_pixels > NEAR else f" ({at_pixels:.1%} at {size}: a larger --image-size loses less)"
    return [
        f"the truth in cells of {stride} pixels, which the head answers, scores {at_cells} on {counted(len(split), 'image')}: about what "
        f"a model can reach{lost}"
    ]


def _exact(score: float | None, objects: list[int], name: str, size: str) -> str:
    """Why a score that is 1 where nothing is lost is less, in words; "" where it is 1. Raises VitralError where nothing explains it."""
    if score is None or score > NEAR:
        return ""
    every, lost, small = objects
    if not lost and not small:
        raise VitralError(
            f"{name}: the truth itself, shown at {size} and brought back, scores AP50 {score:.1%} and not 100 %, though none of its "
            f"{counted(every, 'object')} is too small for that: boxes, outlines and images do not belong together; see vitral doctor {name}"
        )
    gone = (
        f"{lost:,} of {counted(every, 'object')} are smaller than a pixel at {size} and cannot be found" if lost else ""
    )
    tiny = f"{small:,} of {every:,} objects have fewer than 4 pixels a side there" if small else ""
    return f"the truth itself scores AP50 {score:.1%} at {size}: {'; '.join(filter(None, (gone, tiny)))}; a larger --image-size keeps them"
