"""Batches computed ahead by loader processes. If these fail, the same batches are computed in this process, and the reason is reported once.

A batch is a function of its number, so which process computes it affects speed alone.
"""

import contextlib
import dataclasses
import errno
import itertools
import multiprocessing.connection
import os
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vitral.errors import VitralError

T = TypeVar("T")
Failed = Callable[[str], None]
"""Called once with the reason if the loader processes are given up."""
SHARED = Path("/dev/shm")
ENDING = 5.0  # seconds that a process may take to end once its connection is gone
FULL = (errno.ENOSPC, errno.EDQUOT)


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def stream(
    batches: Dataset[T], start: int, stop: int | None, workers: int, failed: Failed = tell, *, pinned: bool = False
) -> Iterator[T]:
    """Batches start, start + 1, ... (endless if `stop` is None) in order, computed ahead by `workers` processes, or here if 0.

    pinned: whether batches are put into pinned memory (`Batch.pin_memory`), from which a GPU copies while it computes.

    Raises VitralError as a batch does. A loader process that is killed or runs out of memory, shared memory or open files does not stop the stream.
    """
    done = start
    if workers:
        try:
            for batch in _ahead(batches, _numbers(start, stop), workers, pinned):
                done += 1
                yield batch
            return
        except _LoadersFailed as failure:
            text = str(failure)
        failed(text)
    for number in _numbers(done, stop):
        yield batches[number]


def _numbers(start: int, stop: int | None) -> Iterator[int]:
    return itertools.count(start) if stop is None else iter(range(start, stop))


class _LoadersFailed(Exception):
    """Why the loader processes failed, in words."""


class _Carried(Dataset[T | VitralError | _LoadersFailed]):
    """Batches in shared memory, or a VitralError in place of a batch, which thus crosses processes without a traceback.

    The batch is put into shared memory here, not when it is sent: if that failed, the loader would print a traceback and wait for ever.
    """

    def __init__(self, batches: Dataset[T]) -> None:
        self.batches = batches

    def __getitem__(self, number: int) -> T | VitralError | _LoadersFailed:
        try:
            batch = self.batches[number]
        except VitralError as error:
            return VitralError(str(error))
        except MemoryError:
            return _LoadersFailed(_in_words("a loader process ran out of memory", "fewer --workers"))
        try:
            for tensor in _tensors(batch):
                tensor.share_memory_()
        except (RuntimeError, OSError) as error:
            return _LoadersFailed(_why(error, []))
        return batch


def _tensors(item: object) -> Iterator[Tensor]:
    if isinstance(item, Tensor):
        yield item
    elif isinstance(item, tuple | list):
        for one in item:
            yield from _tensors(one)
    elif dataclasses.is_dataclass(item):
        for each in dataclasses.fields(item):
            yield from _tensors(getattr(item, each.name))


def _ahead(batches: Dataset[T], numbers: Iterator[int], workers: int, pinned: bool) -> Iterator[T]:
    """The batches from worker processes. Raises _LoadersFailed if these die."""
    # With a generator of its own the loader does not draw from the global one; its draws are not used.
    generator = torch.Generator().manual_seed(0)
    with warnings.catch_warnings(), _deaths_wait():
        warnings.filterwarnings(
            "ignore", message="This DataLoader will create"
        )  # more workers than cores is the caller's choice
        loader: DataLoader[T | VitralError | _LoadersFailed] = DataLoader(
            _Carried(batches), batch_size=None, sampler=numbers, num_workers=workers, generator=generator,
            worker_init_fn=_keep_quiet, pin_memory=pinned,
        )  # fmt: skip
        try:
            items = iter(loader)
        except OSError as error:
            text = f"no loader process could be started ({error.strerror})"
            raise _LoadersFailed(_in_words(text, "fewer --workers")) from None
    processes = list(items._workers)  # type: ignore[attr-defined]
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except Exception as error:
            if str(error).startswith(
                "Caught "
            ):  # a fault of ours in computing a batch, with the traceback of the worker
                raise
            if isinstance(error, ConnectionError | EOFError):
                # It comes before the end of the process that it is due to; that is known some time after the process lets its files go.
                ended = multiprocessing.connection.wait([p.sentinel for p in processes], timeout=ENDING)
                for process in processes:
                    if process.sentinel in ended:
                        process.join(ENDING)
            raise _LoadersFailed(_why(error, [p.exitcode for p in processes if p.exitcode])) from None
        if isinstance(item, VitralError | _LoadersFailed):
            raise item
        yield item


@contextlib.contextmanager
def _deaths_wait() -> Iterator[None]:
    """Without torch's signal handler, which raises in the main thread when a loader process dies, even in a step; the next batch raises instead."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)


def _keep_quiet(worker: int) -> None:
    """In a worker, ignore signals to the process group: the main process decides when to stop, and reports what a worker died of."""
    for each in (signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    for each in (signal.SIGBUS, signal.SIGSEGV, signal.SIGFPE):
        signal.signal(each, signal.SIG_DFL)


def _why(error: Exception, codes: list[int]) -> str:
    """Why the loader processes failed, from the exception and the exit codes."""
    text, number = str(error), getattr(error, "errno", None)
    died = {-code for code in codes if code < 0}
    if signal.SIGBUS in died or number in FULL or "shared memory" in text or "No space left" in text:
        size = f" ({shutil.disk_usage(SHARED).total / 2**20:,.1f} MiB in all)" if SHARED.exists() else ""
        remedy = "a larger one (docker run --shm-size 2g, or mount -o remount,size=2g /dev/shm)"
        return _in_words(f"the shared memory {SHARED} is full{size}", remedy)
    if number == errno.EMFILE or "open files" in text or "ancdata" in text:
        return _in_words("too many files are open", "ulimit -n 65536")
    if signal.SIGKILL in died:
        return _in_words("one was killed, as the system does when memory runs out", "fewer --workers")
    if died:
        return _in_words(f"one ended by {signal.Signals(min(died)).name}", "fewer --workers")
    if codes:
        return _in_words(f"one ended with exit code {codes[0]}", "fewer --workers")
    return _in_words(f"{os.path.basename(type(error).__name__)}: {text}".splitlines()[0], "fewer --workers")


def _in_words(what: str, remedy: str) -> str:
    return (
        f"loader processes failed: {what}. From here on this process reads the images, with the same result, perhaps more slowly; "
        f"to have loader processes: {remedy}; to have none from the start: --workers 0"
    )
