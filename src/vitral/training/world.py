"""The processes that share a run, started by torchrun: the one place that knows how many there are and which of them this is.

Batch n is a function of (seed, n); each process computes its part of it (`vitral.data.loader.rows_of`), every process takes every step, and the loss
is the mean over the whole batch, whoever computed what. So N processes learn what one does, up to the order in which numbers are added. Everything
that decides how a run goes on (losses, the time spent, a signal, a lack of memory) is the same number in all of them. The first one alone writes.

All gradients are added once a step, and not by DistributedDataParallel: that wraps a module's forward, and objectives call other methods too; it
averages over processes, which is the mean over images only where all have as many. Batch norms take the statistics of all processes' images, which
torch's SyncBatchNorm does on accelerators alone; then every process makes as many forward passes as the others, some for nothing.
"""

import contextlib
import datetime
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from vitral.data.dataset import Split
from vitral.data.loader import Batch, rows_of
from vitral.evaluation.evaluate import EVALUATORS, evaluate, gathered
from vitral.evaluation.evaluator import Evaluator, Scores
from vitral.objectives.objective import Objective
from vitral.predict import Predictor

T = TypeVar("T")
PATIENT = datetime.timedelta(hours=2)  # for the first process to plan, or to score alone
BUCKET = 2**25  # bytes of gradients that are added at once
SLOTS = 64  # losses of an objective, at most, and what else is added beside them
LOSS, IMAGES, FAILED = range(3)
PR_SET_PDEATHSIG = 1  # of prctl(2)


class PartedError(Exception):
    """Another process of the run is gone, and this one cannot go on without it."""


class NotBegunError(Exception):
    """The first process could not begin, and says why."""


@dataclass(eq=False)
class World:
    """This process among those of the run. Without torchrun it is alone, and all methods are what they say for one."""

    rank: int = 0
    size: int = 1
    in_step: bool = False
    """Whether forward passes wait for each other, so that each process makes as many."""

    @property
    def main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    @property
    def part(self) -> tuple[int, int]:
        """Whose rows of a batch it computes, as `TrainingBatches` takes it."""
        return self.rank, self.size

    @property
    def restarted(self) -> bool:
        """Whether torchrun started the processes again after one died."""
        return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"

    @property
    def beside(self) -> int:
        """How many there are on this machine."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if self.size > 1 else 1

    @property
    def in_words(self) -> str:
        """How many there are, where there are several."""
        return "" if self.size == 1 else f", {self.size} processes"

    def device(self, chosen: torch.device) -> torch.device:
        """The accelerator of this process, where several have one kind."""
        if self.size == 1 or chosen.type != "cuda" or chosen.index is not None:
            return chosen
        own = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(own)
        return own

    # -- numbers and tensors --

    def add(self, tensor: Tensor) -> None:
        """In place, the sum over all processes."""
        if self.size > 1:
            with _together():
                torch.distributed.all_reduce(tensor)

    def join(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes, which have one shape, one after another along the first dimension."""
        if self.size == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        with _together():
            torch.distributed.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    def total(self, value: float) -> float:
        """The sum over all processes."""
        if self.size == 1:
            return value
        held = torch.tensor([value], dtype=torch.float64)
        self.add(held)
        return float(held)

    def first(self, value: T) -> T:
        """What the first process has."""
        if self.size == 1:
            return value
        held = [value]
        with _together():
            torch.distributed.broadcast_object_list(held)
        return held[0]

    def each(self, value: T) -> list[T]:
        """What every process has, in their order."""
        if self.size == 1:
            return [value]
        held: list[Any] = [None] * self.size
        with _together():
            torch.distributed.all_gather_object(held, value)
        return held

    def now(self, elapsed: float) -> float:
        """The first process's time."""
        return self.total(elapsed if self.main else 0.0)

    def any(self, own: bool) -> bool:
        """Whether it is so in any process."""
        return bool(self.total(float(own)))

    def wait(self) -> None:
        """Until all are here: what the first one wrote before can be read after."""
        self.total(0.0)

    # -- a step --

    def parts(self, batch: Batch, size: int) -> Iterator[tuple[int, Batch]]:
        """The micro-batches of up to `size` images, each with its number in the whole step's batch, by which dropout differs."""
        most = max(len(rows_of(batch.images_in_step, number, self.size)) for number in range(self.size))
        count = -(-most // size)
        own = [] if batch.idle else list(batch.split(size))
        if self.in_step:
            own += [replace(next(batch.split(1)), idle=True)] * (count - len(own))
        for n, part in enumerate(own):
            _Shared.counts = not part.idle
            yield self.rank * count + n, part

    def outcome(self, own: dict[str, float] | None) -> dict[str, float] | None:
        """Losses and counts added up over all processes, under the names that this one has; None if any of them has None: its memory ran out."""
        if self.size == 1:
            return own
        named = own or {}
        names = [name for name in named if name not in ("loss", "images")]
        values = [
            named.get("loss", 0.0),
            named.get("images", 0.0),
            float(own is None),
            *(named[name] for name in names),
        ]
        held = torch.zeros(SLOTS, dtype=torch.float64)
        held[: len(values)] = torch.tensor(values, dtype=torch.float64)
        self.add(held)
        if held[FAILED]:
            return None
        summed = held.tolist()
        others = dict(zip(names, summed[FAILED + 1 :], strict=False))
        return {"images": summed[IMAGES], "loss": summed[LOSS]} | others

    def add_gradients(self, model: nn.Module) -> None:
        """Each `.grad` becomes the sum over all processes; one that only others have, too."""
        if self.size == 1:
            return
        parameters = [p for p in model.parameters() if p.numel()]
        there = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32)
        self.add(there)
        gradients: list[Tensor] = []
        for p, found in zip(parameters, there.tolist(), strict=True):
            if found:
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
                gradients.append(p.grad)
        for bucket in _buckets(gradients):
            flat = torch.cat([each.reshape(-1) for each in bucket])
            self.add(flat)
            for each, summed in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                each.copy_(summed.view_as(each))

    def shared(self, rows: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """compute(rows), whose rows each come of one row alone: every process computes some of them and has all."""
        if self.size == 1 or len(rows) == 1:
            return compute(rows)
        each = -(-len(rows) // self.size)
        own = torch.arange(each * self.rank, each * (self.rank + 1)).clamp(
            max=len(rows) - 1
        )  # the last may be computed again
        return self.join(compute(rows[own.to(rows.device)]))[: len(rows)]

    def stepped(self, model: nn.Module, objective: Objective) -> None:
        """Bring together what the parts of the batch left behind beside gradients."""
        if self.size > 1:
            objective.gathered(model, self)

    def unite(self, model: nn.Module, average: dict[str, Tensor] | None) -> None:
        """Before the first step: the first process's weights in all, whose machines could have made others of the same seed, and batch norms over
        all images."""
        if self.size == 1:
            return
        with _together(), torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers(), *(average or {}).values()):
                torch.distributed.broadcast(tensor, 0)
        for module in model.modules():
            if type(module) in _SHARED:
                module.__class__ = _SHARED[type(module)]
                self.in_step = True

    # -- scores --

    def evaluated(
        self, predictor: Predictor, split: Split, labels: list[str], *, report: bool = True, **options: Any
    ) -> tuple[Scores, Evaluator]:
        """As `evaluate`; each process answers some of the images, each image is answered once, and all have the scores of all."""
        if self.size == 1:
            return evaluate(predictor, split, labels, report=report, **options)
        rows = np.array_split(np.arange(len(split)), self.size)[self.rank]
        kept = gathered(predictor, split.take(rows), labels, **options).kept() if len(rows) else None
        whole = EVALUATORS[predictor.card.task](predictor.labels)
        for part in self.each(kept):
            if part is not None:
                whole.take(part)
        return whole.result() if report else whole.glance(), whole

    # -- together --

    def begun(self, begin: Callable[[], T], follow: Callable[[Any], T], place: Callable[[T], Any]) -> T:
        """What `begin` makes in the first process; in the others what `follow` makes of its place. Where it cannot, they raise NotBegunError."""
        if not self.main:
            if (where := self.first(None)) is None:
                raise NotBegunError
            return follow(where)
        where = None
        try:
            made = begin()
            where = place(made)
        finally:
            self.first(where)
        return made


ALONE = World()


class _Sum(torch.autograd.Function):
    """The sum over all processes; the loss is that of all, so its gradient is a sum as well."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        summed = tensor.clone()
        with _together():
            torch.distributed.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)


class _Shared(nn.modules.batchnorm._BatchNorm):
    """A batch norm over the images of all processes. A module becomes one by its class, so that copies of it are their own."""

    counts: ClassVar[bool] = True
    """Whether this process's images count."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        places, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
        wide, counts = x.float(), float(_Shared.counts)
        n = _Sum.apply(wide.new_tensor([counts * x.numel() / x.shape[1]]))
        mean = _Sum.apply(wide.sum(places) * counts) / n  # [C]
        centred = wide - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(places) * counts) / n
        if self.running_mean is not None and self.running_var is not None:
            assert self.momentum is not None
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.detach(), self.momentum)
            self.running_var.lerp_(variance.detach() * n / (n - 1), self.momentum)
        y = centred * (variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)


class _Shared1d(_Shared, nn.BatchNorm1d):
    pass


class _Shared2d(_Shared, nn.BatchNorm2d):
    pass


_SHARED: dict[type, type] = {nn.BatchNorm1d: _Shared1d, nn.BatchNorm2d: _Shared2d}


@contextlib.contextmanager
def joined() -> Iterator[World]:
    """The world that torchrun described in the environment; ALONE without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield ALONE
        return
    _end_with_parent()
    kinds = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _together():
        store, rank, size = next(torch.distributed.rendezvous("env://", timeout=PATIENT))
        # torchrun keeps its store when it starts all again, with the addresses of those who died; see docs/scale.md for several machines.
        if os.environ.get("GROUP_WORLD_SIZE") == "1":
            store = torch.distributed.PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
        torch.distributed.init_process_group(kinds, store=store, rank=rank, world_size=size, timeout=PATIENT)
    try:
        world = World(rank, size)
        yield world
        world.wait()  # the first one has still to write when the others are done
    finally:
        gc.collect()  # nothing may use the group any more when it goes
        torch.distributed.destroy_process_group()


def _end_with_parent() -> None:
    """Linux sends this process SIGTERM when torchrun, which started it, is gone: nobody else would end it. It is saved then as at any SIGTERM."""
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """What torch raises where another process is gone, as PartedError."""
    try:
        yield
    except RuntimeError as error:
        raise PartedError(str(error).splitlines()[0]) from error


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in groups of about BUCKET bytes, each of one type."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and (bucket[0].dtype != tensor.dtype or sum(each.nbytes for each in bucket) >= BUCKET):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
