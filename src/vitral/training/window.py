"""Cheap measurements between two log lines: losses, speed, waiting for images, gradients, and how far the weights move."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from vitral.data.loader import Batch, TrainingBatches
from vitral.errors import VitralError
from vitral.training.state import Progress
from vitral.training.whole import own

SAMPLED = (
    16  # numbers of each parameter whose change is followed: enough to see whether it learns, too few to cost time
)
LOOKED_AT = 16  # images of a batch
Line = dict[str, float | int | str]


class Window:
    """Averages between two log lines."""

    def __init__(self, steps_per_epoch: int) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.clear()

    def clear(self) -> None:
        self.sums: dict[str, float] = {}
        self.norms: list[float] = []
        self.waited = 0.0
        self.since = time.monotonic()

    def next(self, stream: Iterator[Batch]) -> Batch:
        """The next batch; the time until it arrives counts as waiting."""
        began = time.monotonic()
        batch = next(stream)
        self.waited += time.monotonic() - began
        return batch

    def add(self, outcome: dict[str, float], norm: float) -> None:
        """Losses are means over a batch, `correct` and `images` counts; `norm` is the gradients'."""
        self.norms.append(norm)
        for name, value in outcome.items():
            weight = 1.0 if name in ("correct", "images") else outcome["images"]
            self.sums[name] = self.sums.get(name, 0.0) + value * weight

    def record(self, progress: Progress, lr: float, share: float) -> Line:
        """One line of metrics.jsonl; then a new window."""
        took = max(1e-9, time.monotonic() - self.since)
        images = self.sums.pop("images")
        means = {"top1" if name == "correct" else name: round(v / images, 6) for name, v in self.sums.items()}
        line: Line = {
            "event": "train",
            "step": progress.step,
            "epoch": round(progress.step / self.steps_per_epoch, 4),
            **means,
            "lr": lr,
            "grad_norm": round(self.norms[-1], 6),
            "grad_norm_mean": round(float(np.mean(self.norms)), 9),
            "grad_norm_max": round(max(self.norms), 6),
            "images_per_s": round(images / took, 1),
            "wait_s": round(self.waited, 4),
            "window_s": round(took, 4),
            "seconds": round(progress.elapsed, 2),
            "share": round(share, 6),
        }
        self.clear()
        return line


class Signs:
    """Tells whether a model's weights learn, from a few sampled entries of each parameter, compared from one log line to the next.

    Of a model in parts (`vitral.training.parts`) by this process's part.
    """

    def __init__(self, model: nn.Module) -> None:
        self.parameters = [p for p in model.parameters() if own(p.detach()).numel()]
        lengths = [len(_some(p)) for p in self.parameters]
        self.starts = np.cumsum([0, *lengths[:-1]])
        self.before = self._sample()
        self.dead = 0

    def _sample(self) -> np.ndarray:
        """float32: up to `SAMPLED` entries of each parameter, concatenated."""
        return torch.cat([_some(p) for p in self.parameters]).float().cpu().numpy()

    def look_at_gradients(self) -> None:
        """Count the trainable parameters whose gradient is missing or zero; call before the gradients are cleared."""
        learning = [p for p in self.parameters if p.requires_grad]
        gradients = [own(p.grad) for p in learning if p.grad is not None]
        zero = int((torch.stack(torch._foreach_norm(gradients)) == 0).sum()) if gradients else 0
        self.dead = len(learning) - len(gradients) + zero

    def record(self, steps: int, batch: Batch, batches: TrainingBatches) -> Line:
        """The part of the log line that ends a window of `steps` training steps.

        tensors: how many parameters the model has. dead: those whose gradient was zero or missing in the last step. still: parameters whose
        sampled entries did not change. update: the change in a step over the weights' size, the median of the other parameters (about 1e-3 in
        a run that learns well). input_mean, input_std: of some images of the last batch, as the model gets them.
        """
        after = self._sample()
        change = np.add.reduceat(np.square(after - self.before, dtype=np.float64), self.starts)  # [parameters]
        size = np.add.reduceat(np.square(self.before, dtype=np.float64), self.starts)
        self.before = after
        moved = (change > 0) & (size > 0)
        update = float(np.median(np.sqrt(change[moved] / size[moved]))) / max(1, steps) if moved.any() else 0.0
        pixels = batches.preprocess.normalise(batch.images[:LOOKED_AT])
        return {
            "tensors": len(self.parameters),
            "dead": self.dead,
            "still": int((change == 0).sum()),
            "update": float(f"{update:.3g}"),
            "input_mean": round(float(pixels.mean()), 4),
            "input_std": round(float(pixels.std()), 4),
        }


def _some(parameter: Tensor) -> Tensor:
    """Up to `SAMPLED` evenly spread entries of a parameter."""
    flat = own(parameter.detach()).reshape(-1)
    return flat[:: -(-len(flat) // SAMPLED)]


def check_pixels(batch: Batch, step: int, batches: TrainingBatches) -> None:
    """Raise VitralError, with the image's name, for a batch with pixels that are not finite, before it spoils the weights."""
    for view in batch.views:
        if not view.is_floating_point() or bool(torch.isfinite(view).all()):
            continue  # whole numbers are always finite
        spoiled = (~torch.isfinite(view)).flatten(1).any(1).nonzero().flatten().tolist()  # rows of the batch
        indices = batches.indices(step)[1].tolist()
        # Mixup spreads it to a second image, which is not the cause.
        guilty = [i for i in indices if not bool(torch.isfinite(batches.read(i).float()).all())]
        name = batches.split.names[guilty[0] if guilty else indices[spoiled[0]]]
        where = "as it is read" if guilty else "after augmentation"
        raise VitralError(
            f"{name}: has pixels that are not finite numbers, {where} (step {step + 1}); repair the image or leave it out"
        )


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """An event that the first SIGINT, SIGTERM or SIGHUP sets, so that the step ends and is saved; a second Ctrl-C interrupts at once.

    A SIGHUP that is ignored (nohup) stays ignored.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, frame: object) -> None:
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    heard = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        heard.append(signal.SIGHUP)
    previous = {s: signal.signal(s, handle) for s in heard}
    try:
        yield event
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)
