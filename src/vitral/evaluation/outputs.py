"""A model's outputs for the images of a split."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitral.data.dataset import Split
from vitral.data.loader import EvaluationBatches
from vitral.data.preprocess import Preprocess
from vitral.data.workers import Failed, tell
from vitral.engines.torch import in_use
from vitral.predict import Predictor


def outputs(
    predictor: Predictor, split: Split, compute: Callable[[Tensor], Tensor], *, precision: str = "fp32", **options: Any
) -> np.ndarray:
    """`over` a split with `compute`, a function of the predictor's model, on its device and in evaluation mode; options: those of `over`."""
    with in_use(predictor.model, precision) as device:
        return over(split, predictor.card.preprocess, compute, device, **options)


def over(
    split: Split,
    preprocess: Preprocess,
    compute: Callable[[Tensor], Tensor],
    device: torch.device | str,
    *,
    batch_size: int,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
    failed: Failed = tell,
) -> np.ndarray:
    """float32 [n, ...] in the split's order: `compute` applied to its normalised images [B, C, H, W] on the device.

    workers, failed: the number of loader processes and the callback if they fail, as in `vitral.data.workers.stream`.
    """
    parts, done = [], 0
    for pixels, _ in EvaluationBatches(split, preprocess, batch_size).stream(workers, failed):
        parts.append(compute(preprocess.normalise(pixels.to(device))).float().cpu().numpy())
        done += len(pixels)
        if progress:
            progress(done, len(split))
    return np.concatenate(parts)


def answered(
    predictor: Predictor,
    split: Split,
    *,
    batch_size: int = 256,
    workers: int = 0,
    precision: str = "fp32",
    progress: Callable[[int, int], None] | None = None,
    failed: Failed = tell,
) -> Iterator[tuple[Any, Any]]:
    """The engine's outputs, float32 on the CPU, and the targets of batch after batch of a split, in its order; options as in `over`."""
    done, steps, engine = 0, predictor.card.preprocess, predictor.engine
    apart = engine.packs and not steps.one_size
    with engine.computing(precision):
        for pixels, targets in EvaluationBatches(split, steps, batch_size, apart=apart).stream(workers, failed):
            yield engine.packed([each.numpy() for each in pixels]) if apart else engine(pixels.numpy()), targets
            done += len(pixels)
            if progress:
                progress(done, len(split))
