"""One thread that computes, and its queue. A request that is given up is dropped, or stopped at its next step."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar

from vitral.deploy.refused import RefusedError

T = TypeVar("T")
WAITING = 16
"""Requests that may wait; more are refused."""


class Worker:
    """Computes one thing at a time, in order of arrival, for torch itself uses all cores.

    It is no executor of the standard library, because Python waits for those when it ends.
    """

    def __init__(self, waiting: int = WAITING) -> None:
        self.waiting = waiting
        self._line: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self.asked = 0  # requests that wait or are computed
        self._lock = Lock()
        self._computed: Future[Any] | None = None
        self._left: Future[Any] | None = None  # what was being computed when its client left
        self._closed = False
        Thread(target=self._work, name="viewer", daemon=True).start()

    def run(self, function: Callable[[], T]) -> T:
        """Compute for a background job, in turn with the requests. Waits, so it must not be called from the worker's own thread."""
        return self._join(function).result()

    async def answer(self, function: Callable[[], T], gone: Awaitable[None]) -> T:
        """Compute for a request.

        gone: ends when the client has left; then `function` is not started, or stopped at its next `step`.

        Raises:
            RefusedError: the queue is full.
            ConnectionAbortedError: the client has left.
        """
        left = asyncio.ensure_future(gone)
        try:
            with self._lock:
                if self.asked > self.waiting:
                    raise RefusedError(503, f"{self.waiting} requests are waiting already; try again in a moment")
                self.asked += 1
            work = self._join(function)
            work.add_done_callback(self._served)
            result = asyncio.wrap_future(work)
            either: set[asyncio.Future[Any]] = {result, left}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                return result.result()
            if work is self._computed:
                self._left = work
            result.cancel()  # and with it `work`, unless it is being computed
            raise ConnectionAbortedError
        finally:
            left.cancel()

    def step(self) -> None:
        """To be called between steps of what is computed: ConnectionAbortedError if its client has left."""
        if self._computed is not None and self._computed is self._left:
            raise ConnectionAbortedError

    def close(self) -> None:
        """Drop what waits."""
        self._closed = True
        self._line.put(None)

    def _join(self, function: Callable[[], T]) -> "Future[T]":
        future: Future[T] = Future()
        self._line.put((future, function))
        return future

    def _served(self, _: "Future[Any]") -> None:
        with self._lock:
            self.asked -= 1

    def _work(self) -> None:
        while (item := self._line.get()) is not None and not self._closed:
            future, function = item
            if not future.set_running_or_notify_cancel():
                continue
            self._computed = future
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
