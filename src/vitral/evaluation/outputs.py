"""What a model makes of every image of a split."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from vitral.data.loader import EvaluationBatches
from vitral.data.preprocess import Preprocess
from vitral.data.sources import Split
from vitral.data.workers import Failed, tell
from vitral.layers.precision import autocast


@contextmanager
def in_use(model: nn.Module, precision: str = "fp32") -> Iterator[torch.device]:
    """Evaluation mode without gradients in this precision; gives the model's device. Afterwards the model is in the mode that it was in."""
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    try:
        with torch.inference_mode(), autocast(device, precision):
            yield device
    finally:
        model.train(was_training)


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
    """float32 [n, ...] in the split's order: what `compute` makes of its normalised images [B, C, H, W] on the device.

    workers, failed: loader processes, and who hears of it if they fail, as in `vitral.data.workers.stream`.
    """
    parts, done = [], 0
    for pixels, _ in EvaluationBatches(split, preprocess, batch_size).stream(workers, failed):
        parts.append(compute(preprocess.normalise(pixels.to(device))).float().cpu().numpy())
        done += len(pixels)
        if progress:
            progress(done, len(split))
    return np.concatenate(parts)
