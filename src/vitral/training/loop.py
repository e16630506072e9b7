"""The one training loop. It knows batches, an objective that returns a loss, and a budget; no paper and no file format.

Every random number comes from the step (`vitral.randomness`), so a run that is stopped anywhere and resumed ends with the same bits.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from vitral.data.loader import TrainingBatches
from vitral.errors import VitralError
from vitral.randomness import derive
from vitral.training.config import Recipe, seconds
from vitral.training.machine import is_out_of_memory
from vitral.training.optim import learning_rate, update_average
from vitral.training.state import Progress

Objective = Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]
LOG_EVERY = 10  # steps


@dataclass(frozen=True)
class Budget:
    """How long to train: optimiser steps or seconds."""

    steps: int | None
    seconds: float | None

    @classmethod
    def of(cls, recipe: Recipe, steps_per_epoch: int) -> "Budget":
        train = recipe.train
        if train.time is not None:
            return cls(None, seconds(train.time))
        if train.steps is not None:
            return cls(train.steps, None)
        assert train.epochs is not None
        return cls(max(1, round(train.epochs * steps_per_epoch)), None)

    def share(self, progress: Progress) -> float:
        """How much of the budget is spent, 0 to 1."""
        if self.steps is not None:
            return min(1.0, progress.step / self.steps)
        assert self.seconds is not None
        return min(1.0, progress.elapsed / self.seconds)


class Listener(Protocol):
    """What the loop tells the world; `Run` writes it to disk and to the terminal."""

    def trained(self, record: dict[str, float | int | str]) -> None: ...
    def message(self, text: str) -> None: ...
    def checkpoint(self, progress: Progress, *, validate: bool) -> None: ...


@dataclass
class Loop:
    """One run in memory: what changes (model, optimiser, average, progress) and what decides how."""

    model: nn.Module
    objective: Objective
    batches: TrainingBatches
    optimizers: list[torch.optim.Optimizer]
    average: dict[str, Tensor] | None
    progress: Progress
    recipe: Recipe
    device: torch.device
    precision: str

    def __post_init__(self) -> None:
        self.budget = Budget.of(self.recipe, self.batches.steps_per_epoch)
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.precision == "fp16", init_scale=self.progress.loss_scale
        )

    def autocast(self) -> AbstractContextManager[object]:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.precision == "bf16" else torch.float16)

    def gradients(self, pixels: Tensor, targets: Tensor, listener: Listener) -> dict[str, float]:
        """Gradients of the mean loss over the whole batch into `.grad`, however it is cut into micro-batches.

        Where memory runs out the micro-batch is halved, the accumulation doubled, and the same step tried again.
        """
        progress = self.progress
        while True:
            try:
                return self._accumulate(pixels, targets)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                size = progress.batch_size
            self.model.zero_grad(set_to_none=True)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            if size == 1:
                raise VitralError("out of memory with a single image at a time; choose a smaller model or image_size")
            progress.batch_size, progress.accumulation = -(-size // 2), progress.accumulation * 2
            listener.message(
                f"out of memory: batch of {size} becomes {progress.batch_size} x {progress.accumulation} accumulation; the gradients stay the same"
            )

    def _accumulate(self, pixels: Tensor, targets: Tensor) -> dict[str, float]:
        total, loss, correct = len(pixels), 0.0, 0
        size = self.progress.batch_size
        for micro, (part, wanted) in enumerate(zip(pixels.split(size), targets.split(size), strict=True)):
            torch.manual_seed(derive(self.recipe.train.seed, "model", self.progress.step, micro))  # dropout, drop path
            images = self.batches.preprocess.normalise(part.to(self.device, non_blocking=True))
            with self.autocast():
                outcome = self.objective(self.model, images, wanted.to(self.device, non_blocking=True))
            share = len(part) / total  # a short last part weighs as much as its images
            self.scaler.scale(outcome["loss"] * share).backward()
            loss += float(outcome["loss"].detach()) * share
            correct += int(outcome["correct"])
        return {"loss": loss, "correct": float(correct), "images": float(total)}

    def update(self) -> float:
        """One optimiser step from the gradients; returns their global norm before clipping."""
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        limit = self.recipe.optim.clip or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit))
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        self.model.zero_grad(set_to_none=True)
        if self.average is not None:
            update_average(self.average, self.model.named_parameters(), self.recipe.optim.ema, self.progress.step)
        return norm

    def rate(self) -> float:
        """The learning rate of the coming step."""
        optim, progress = self.recipe.optim, self.progress
        fraction = optim.warmup_fraction
        if optim.warmup_steps is not None and self.budget.steps is not None:
            fraction = min(1.0, optim.warmup_steps / self.budget.steps)
        return learning_rate(optim, self.budget.share(progress), progress.step, fraction)

    def run(self, listener: Listener) -> bool:
        """Train until the budget is spent (True) or a signal asks to stop (False); a checkpoint is saved either way."""
        train, progress = self.recipe.train, self.progress
        every = train.validate_every or self.batches.steps_per_epoch
        save_every = train.checkpoint_every or every
        stream = self.batches.stream(progress.step, self.budget.steps, train.workers or 0)
        before, began = progress.elapsed, time.monotonic()
        window = Window(self.batches.steps_per_epoch)
        with stop_requested() as stop:
            while self.budget.share(progress) < 1:
                pixels, targets = next(stream)
                lr = self.rate()
                for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
                    group["lr"] = lr
                self.model.train()
                outcome = self.gradients(pixels, targets, listener)
                norm = self.update()
                if self.precision != "fp16" and not (outcome["loss"] < float("inf") and norm < float("inf")):
                    raise VitralError(
                        f"step {progress.step + 1}: the loss is {outcome['loss']} and the gradient norm {norm}; start again with "
                        "a lower --lr or with --precision fp32. A checkpoint from before, if there is one, is kept"
                    )
                progress.step += 1
                progress.elapsed = before + time.monotonic() - began
                progress.loss_scale = self.scaler.get_scale() if self.precision == "fp16" else progress.loss_scale
                window.add(outcome)
                done = self.budget.share(progress) >= 1
                if progress.step % LOG_EVERY == 0 or done:
                    listener.trained(window.record(progress, lr, norm, self.budget.share(progress)))
                if done or stop.is_set() or progress.step % every == 0 or progress.step % save_every == 0:
                    listener.checkpoint(progress, validate=done or progress.step % every == 0)
                    progress.elapsed = before + time.monotonic() - began
                if stop.is_set() and not done:
                    return False
        return True


class Window:
    """Averages between two log lines."""

    def __init__(self, steps_per_epoch: int) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.clear()

    def clear(self) -> None:
        self.loss = self.correct = self.images = 0.0
        self.since = time.monotonic()

    def add(self, outcome: dict[str, float]) -> None:
        self.loss += outcome["loss"] * outcome["images"]
        self.correct += outcome["correct"]
        self.images += outcome["images"]

    def record(self, progress: Progress, lr: float, norm: float, share: float) -> dict[str, float | int | str]:
        """One line of metrics.jsonl; then a new window."""
        took = max(1e-9, time.monotonic() - self.since)
        line: dict[str, float | int | str] = {
            "event": "train",
            "step": progress.step,
            "epoch": round(progress.step / self.steps_per_epoch, 4),
            "loss": round(self.loss / self.images, 6),
            "top1": round(self.correct / self.images, 6),
            "lr": lr,
            "grad_norm": round(norm, 6),
            "images_per_s": round(self.images / took, 1),
            "seconds": round(progress.elapsed, 2),
            "share": round(share, 6),
        }
        self.clear()
        return line


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets, so that the step ends and is saved; a second Ctrl-C interrupts at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, frame: object) -> None:
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    previous = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)
