"""The one training loop. It knows batches, an objective that returns a loss, and a budget; no paper and no file format.

Every random number comes from the step (`vitral.randomness`), so a run that is stopped anywhere and resumed ends with the same bits.
"""

import copy
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitral.data.loader import Batch, TrainingBatches
from vitral.errors import VitralError
from vitral.layers.precision import autocast
from vitral.models.common import ImageModel
from vitral.objectives.objective import Objective
from vitral.randomness import derive
from vitral.training.compiler import step_without_compiler
from vitral.training.config import Recipe, seconds
from vitral.training.contention import PASSES, Contention
from vitral.training.machine import is_out_of_memory
from vitral.training.optim import build_optimizers, set_rates, update_average
from vitral.training.parts import Parts
from vitral.training.schedule import Schedule
from vitral.training.state import Progress, collect, restore
from vitral.training.whole import whole
from vitral.training.window import Signs, Window, check_pixels, stop_requested
from vitral.training.world import ALONE, World

LOG_EVERY = 10  # steps
GROWN_AFTER = 0.75  # share of the budget after which progressive images have their full size


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
    """Receives the loop's events; `Run` writes them to disk and to the terminal."""

    def trained(self, record: dict[str, float | int | str]) -> None: ...
    def message(self, text: str) -> None: ...
    def checkpoint(self, progress: Progress, *, validate: bool) -> None: ...


@dataclass
class Loop:
    """One run in memory: what training changes (model, optimizers, average, progress) and what governs it."""

    model: nn.Module
    objective: Objective
    batches: TrainingBatches
    optimizers: list[torch.optim.Optimizer]
    average: dict[str, Tensor] | None
    progress: Progress
    recipe: Recipe
    device: torch.device
    precision: str
    world: World = ALONE
    """The processes that share the run."""
    parts: Parts | None = None
    """What holds the model, where each process has a part of it."""

    def __post_init__(self) -> None:
        self.budget = Budget.of(self.recipe, self.batches.steps_per_epoch)
        self.schedule = Schedule.of(self.recipe.optim, self.budget.steps, self.batches.steps_per_epoch)
        self.signs = Signs(self.model)
        self.workers = self.recipe.train.workers or 0
        """Loader processes; 0 once they failed."""
        self.image_model = next(m for m in self.model.modules() if isinstance(m, ImageModel)).backbone
        """The image model inside the trained module; LoRA and the head's norm are not merged into it yet."""
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.precision == "fp16", init_scale=self.progress.loss_scale
        )

    def divide(self) -> None:
        """From now on each process holds a part of the model, of its average and of the optimisers' state, where the run was settled so."""
        how = self.recipe.train.fsdp
        if self.world.size == 1 or how not in ("yes", "offload"):
            return
        if self.precision == "fp16":
            raise VitralError(f"fsdp {how}: not in fp16, whose losses are scaled; choose --precision bf16 or fp32")
        self.world.in_step = True
        held = collect(self.model, self.optimizers, self.average)
        self.parts = Parts(self.model, self.objective, self.device, self.world, offload=how == "offload")
        self.optimizers = build_optimizers(self.model, self.recipe.optim, self.world)
        step_without_compiler(self.optimizers)
        if self.average is not None:
            self.average = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        restore(held, self.model, self.optimizers, self.average)

    def whole(self, average: dict[str, Tensor] | None = None) -> nn.Module:
        """A model to be scored or written, with these averaged weights if any; all processes must ask."""
        if self.parts is not None:
            return self.parts.whole(average)
        if average is None:
            return self.model
        learner = copy.deepcopy(self.model)
        learner.load_state_dict({**learner.state_dict(), **average})
        return learner

    def step(self, batch: Batch, lr: float, listener: Listener) -> tuple[dict[str, float], float]:
        """One optimiser step on the batch at this learning rate. Returns the losses and the gradient norm before clipping."""
        set_rates(self.optimizers, lr, self.schedule.weight_decay(self.budget.share(self.progress)))
        self.model.train()
        outcome = self.gradients(batch, listener)
        norm = self.update()
        self.progress.step += 1
        return outcome, norm

    def gradients(self, batch: Batch, listener: Listener) -> dict[str, float]:
        """Gradients of the mean loss over the whole batch into `.grad`, the same for any micro-batch size.

        If memory runs out in any process, the micro-batch is halved, the accumulation doubled, and the step repeated in all.
        """
        progress = self.progress
        while True:
            self.objective.begun(self.model)
            try:
                own = self._accumulate(batch)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.world.in_step:
                    raise VitralError(
                        f"out of memory with {progress.batch_size} images at once in a process; give a smaller --batch-size, and more --accumulation"
                    ) from error
                own = None
            if (outcome := self.world.outcome(own)) is not None:
                if self.parts is None:  # which added them in the backward pass
                    self.world.add_gradients(self.model)
                return outcome
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

    def _accumulate(self, batch: Batch) -> dict[str, float]:
        """Each named loss as this process's share of its mean over the batch; `correct` and `images` as counts."""
        outcome, noted = {"images": 0.0 if batch.idle else float(len(batch))}, []
        if (count := self.objective.count(batch)) is not None:
            batch = replace(batch, whole=self.world.total(0.0 if batch.idle else count))
        for micro, part in self.world.parts(batch, self.progress.batch_size):
            torch.manual_seed(derive(self.recipe.train.seed, "model", self.progress.step, micro))  # dropout, drop path
            with autocast(self.device, self.precision):
                ready = self.ready(part)
                losses = self.objective(self.model, ready) if self.parts is None else self.parts(ready)
            # a short last part weighs as much as its images
            share = float(not part.idle) * (1.0 if batch.whole is not None else len(part) / batch.images_in_step)
            self.scaler.scale(losses["loss"] * share).backward()
            noted += [
                (name, value.detach(), float(not part.idle) if name == "correct" else share)
                for name, value in losses.items()
            ]
        values = (
            torch.stack([value.float() for _, value, _ in noted]).tolist() if noted else []
        )  # one wait for the device
        for (name, _, weight), value in zip(noted, values, strict=True):
            outcome[name] = outcome.get(name, 0.0) + value * weight
        return outcome

    def ready(self, part: Batch) -> Batch:
        """The part on the device, normalised, and early in a progressive run smaller (https://arxiv.org/abs/2104.00298, section 4)."""
        part = part.to(self.device)
        views = [self.batches.preprocess.normalise(view) for view in part.views]
        start = self.recipe.train.progressive
        if start < 1:
            scale = min(1.0, start + (1 - start) * self.budget.share(self.progress) / GROWN_AFTER)
            views = [smaller(view, scale, self.image_model.patch_size) for view in views]
        return replace(part, views=tuple(views))

    def update(self) -> float:
        """Apply the gradients; returns their global norm before clipping."""
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        limit = self.recipe.optim.clip or float("inf")
        norm = float(whole(torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)))
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        if (self.progress.step + 1) % LOG_EVERY == 0:
            self.signs.look_at_gradients()
        self.model.zero_grad(set_to_none=True)
        if self.average is not None:
            update_average(self.average, self.model.named_parameters(), self.recipe.optim.ema, self.progress.step)
        self.world.stepped(self.model, self.objective)
        self.objective.stepped(self.model, self.budget.share(self.progress))
        return norm

    def seconds_of(self, batch: Batch, threads: int) -> float:
        """Median seconds of a few forward passes of a micro-batch with `threads` threads; the run's state does not change."""
        usual, model, took = torch.get_num_threads(), self.image_model.eval(), []
        images = self.ready(next(iter(batch.split(self.progress.batch_size)))).views[0]
        torch.set_num_threads(threads)
        try:
            for _ in range(PASSES):
                began = time.monotonic()
                with torch.inference_mode(), autocast(self.device, self.precision):
                    model(images)
                took.append(time.monotonic() - began)
        finally:
            torch.set_num_threads(usual)
        return sorted(took)[PASSES // 2]

    def without_workers(self, why: str, listener: Listener, stop: threading.Event | None = None) -> None:
        """From now on compute batches in this process. No message if a signal, which ends loader processes too, is stopping the run."""
        known, self.workers = self.workers == 0, 0
        if not known and (stop is None or not stop.is_set()):
            listener.message(why)

    def run(self, listener: Listener) -> bool:
        """Train until the budget is spent (True) or a signal asks to stop (False), and save a checkpoint."""
        train, progress = self.recipe.train, self.progress
        every = train.validate_every or self.batches.steps_per_epoch
        save_every = train.checkpoint_every or every
        before, began = progress.elapsed, time.monotonic()
        # In parts a forward pass of one process alone would wait for the others.
        looks = self.device.type == "cpu" and self.parts is None
        contention = Contention(may_change=self.budget.steps is None) if looks else None
        window, self.signs, logged = Window(self.batches.steps_per_epoch), Signs(self.model), progress.step
        with stop_requested() as stop:
            stream = self.batches.stream(
                progress.step,
                self.budget.steps,
                self.workers,
                lambda why: self.without_workers(why, listener, stop),
                pinned=self.device.type == "cuda",
            )
            if progress.owed:
                listener.checkpoint(progress, validate=True)
            while self.budget.share(progress) < 1:
                batch = window.next(stream)
                check_pixels(batch, progress.step, self.batches)
                for remark in batch.remarks:
                    listener.message(remark)
                lr = self.schedule.learning_rate(self.budget.share(progress), progress.step)
                outcome, norm = self.step(batch, lr, listener)
                if self.precision != "fp16" and not (outcome["loss"] < float("inf") and norm < float("inf")):
                    raise VitralError(
                        f"step {progress.step}: the loss is {outcome['loss']} and the gradient norm {norm}; start again with "
                        "a lower --lr or with --precision fp32. A checkpoint from before, if there is one, is kept"
                    )
                progress.elapsed = self.world.now(before + time.monotonic() - began)
                progress.loss_scale = self.scaler.get_scale() if self.precision == "fp16" else progress.loss_scale
                window.add(outcome, norm)
                done = self.budget.share(progress) >= 1
                if progress.step % LOG_EVERY == 0 or done:
                    line = window.record(progress, lr, self.budget.share(progress))
                    listener.trained(line | self.signs.record(progress.step - logged, batch, self.batches))
                    logged = progress.step
                if contention is not None and not done:
                    said = contention.look(partial(self.seconds_of, batch))
                    if said is not None:
                        listener.message(said)
                stopping = self.world.any(stop.is_set())
                if done or stopping or progress.step % every == 0 or progress.step % save_every == 0:
                    listener.checkpoint(progress, validate=done or progress.step % every == 0)
                    progress.elapsed = self.world.now(before + time.monotonic() - began)
                    stopping = self.world.any(stop.is_set())
                if stopping and not done:
                    return False
        return True


def smaller(images: Tensor, scale: float, multiple: int) -> Tensor:
    """[B, C, H, W] with sides scaled by `scale` and rounded up to whole patches."""
    sides = [min(side, -(-round(side * scale) // multiple) * multiple) for side in images.shape[2:]]
    return F.interpolate(images, sides, mode="bilinear", antialias=True, align_corners=False)
