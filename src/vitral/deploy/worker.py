"""One thread that computes, and its queue.

What waits for the same thing is computed together; what is given up is dropped, or stopped at its next step.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Any, TypeVar

from vitral.deploy.refused import RefusedError

T = TypeVar("T")
WAITING = 16
"""Jobs that may wait; more are refused."""
ENDING = 2.0
"""Seconds that `close` waits at most."""
NEWEST = 0.3
"""Weight of the newest measurement in `Together.pace`."""


@dataclass(eq=False)
class Together:
    """Jobs that are computed together, at most `most` at a time: a result for each thing, in order."""

    compute: Callable[[Sequence[Any]], Sequence[Any]]
    most: int = 1
    pace: float = 0.0
    """Seconds that one takes, as measured of late."""

    def timed(self, things: Sequence[Any]) -> Sequence[Any]:
        """The results, and the pace measured."""
        began = time.monotonic()
        results = self.compute(things)
        took = (time.monotonic() - began) / len(things)
        self.pace += (took - self.pace) * (NEWEST if self.pace else 1)
        return results


@dataclass(eq=False)
class Job:
    """One thing to compute. until: by the monotonic clock, when nobody wants it any more. ready: whether the thing is made; its place is kept."""

    together: Together
    thing: Any
    until: float = math.inf
    ready: bool = True
    result: "Future[Any]" = field(default_factory=Future)


class Worker:
    """Computes one thing at a time, in order of arrival, for an engine itself uses all cores.

    waiting: jobs that may wait. It is no executor of the standard library, because Python waits for those when it ends.
    """

    def __init__(self, waiting: int = WAITING) -> None:
        self.waiting = waiting
        self._line: deque[Job] = deque()
        self._changed = Condition()
        self._computed: list[Job] = []
        self._since = 0.0  # when their computation began
        self._left: set[Job] = set()  # what was being computed when its client left
        self._closed = False
        self._thread = Thread(target=self._work, name="worker", daemon=True)
        self._thread.start()

    @property
    def asked(self) -> int:
        """Jobs that wait or are computed."""
        return self.count(lambda job: True)

    def count(self, of: Callable[[Job], bool]) -> int:
        """How many of these wait or are computed."""
        with self._changed:
            return sum(map(of, (*self._line, *self._computed)))

    def run(self, function: Callable[[], T]) -> T:
        """Compute for a background job, in turn with the requests. Waits, so it must not be called from the worker's own thread."""
        job = _alone(function)
        with self._changed:
            self._line.append(job)
            self._changed.notify()
        return job.result.result()

    async def answer(self, function: Callable[[], T], gone: Awaitable[None]) -> T:
        """Compute for a request.

        gone: ends when the client has left; then `function` is not started, or stopped at its next `step`.

        Raises:
            RefusedError: the queue is full.
            ConnectionAbortedError: the client has left.
        """
        (result,) = await self.answers([_alone(function)], gone)
        if isinstance(result, BaseException):
            raise result
        return result

    async def answers(
        self, jobs: Sequence[Job], gone: Awaitable[None], prepare: Callable[[Any], Awaitable[Any]] | None = None
    ) -> list[Any]:
        """Compute what a request asks for: for each job its result or its exception. All of it is taken, or RefusedError raised.

        prepare: makes the thing of a job out of what it holds at first, while others are computed; its error is the job's.
        """
        left = asyncio.ensure_future(gone)
        making: list[asyncio.Future[None]] = []
        try:
            for job in jobs:
                job.ready = prepare is None
            self._admit(jobs)
            if prepare is not None:
                making = [asyncio.ensure_future(self._made(job, prepare)) for job in jobs]
            results = asyncio.gather(*(asyncio.wrap_future(job.result) for job in jobs), return_exceptions=True)
            either: set[asyncio.Future[Any]] = {results, left}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if results.done():
                return results.result()
            raise ConnectionAbortedError
        finally:
            for each in (left, *making):
                each.cancel()
            self._drop(jobs)

    def step(self) -> None:
        """To be called between steps of what is computed: ConnectionAbortedError if all its clients have left."""
        if self._computed and self._left.issuperset(self._computed):
            raise ConnectionAbortedError

    def close(self) -> None:
        """Drop what waits, and let what is computed end: a thread that is inside an engine's code when Python ends can abort the process."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(ENDING)

    def _admit(self, jobs: Sequence[Job]) -> None:
        """Put all in the line; RefusedError where it is full, or the last would be computed too late."""
        if len(jobs) > self.waiting:
            raise RefusedError(413, f"{len(jobs)} images at once, and no more than {self.waiting} may wait; send fewer")
        with self._changed:
            ahead = self._ahead()
            if len(self._line) + len(jobs) > self.waiting + (not self._computed):  # one of them may begin at once
                said = f"{self.waiting} requests are waiting already; try again in a moment"
                raise RefusedError(503, said, wait=max(1, math.ceil(ahead)))
            late = time.monotonic() + ahead + sum(job.together.pace for job in jobs) - jobs[-1].until
            if late > 0 and (self._line or self._computed):
                said = f"the answer would come {late:.1f} s too late, as {len(self._line)} requests wait; try again"
                raise RefusedError(503, said, wait=math.ceil(late))
            self._line.extend(jobs)
            self._changed.notify()

    async def _made(self, job: Job, prepare: Callable[[Any], Awaitable[Any]]) -> None:
        try:
            made = await prepare(job.thing)
        except Exception as error:
            with self._changed:
                if job in self._line:
                    self._line.remove(job)
            _settle(job, error)
        else:
            with self._changed:
                job.thing, job.ready = made, True
                self._changed.notify()

    def _ahead(self) -> float:
        """Seconds until what waits now is computed."""
        begun = sum(job.together.pace for job in self._computed) - (time.monotonic() - self._since)
        return max(0.0, begun) + sum(job.together.pace for job in self._line)

    def _drop(self, jobs: Sequence[Job]) -> None:
        """Nobody waits for these any more."""
        with self._changed:
            self._left.update(job for job in jobs if job in self._computed)
            for job in jobs:
                if job in self._line:
                    self._line.remove(job)
                    job.result.cancel()

    def _next(self) -> list[Job]:
        """Waits for a job, and takes with it what can be computed together, without waiting for more."""
        with self._changed:
            while not (self._closed or (ready := [job for job in self._line if job.ready])):
                self._changed.wait()
            if self._closed:
                return []
            together = ready[0].together
            taken = [job for job in ready if job.together is together][: together.most]
            for job in taken:
                self._line.remove(job)
            self._computed, self._since = taken, time.monotonic()
            return taken

    def _work(self) -> None:
        while jobs := self._next():
            late = [job for job in jobs if job.until < self._since]
            for job in late:
                _settle(job, RefusedError(503, "this answer would have come too late; try again in a moment", wait=1))
            self._compute([job for job in jobs if job not in late])
            with self._changed:
                self._computed = []
                self._left.clear()

    def _compute(self, jobs: Sequence[Job]) -> None:
        """Settles all; where they cannot be computed together each is computed alone, so that it fails alone."""
        if not jobs:
            return
        try:
            results = jobs[0].together.timed([job.thing for job in jobs])
        except BaseException as error:
            if len(jobs) == 1:
                _settle(jobs[0], error)
                return
            for job in jobs:
                self._compute([job])
        else:
            for job, result in zip(jobs, results, strict=True):
                _settle(job, result)


def _alone(function: Callable[[], Any]) -> Job:
    return Job(Together(lambda _: [function()]), None)


def _settle(job: Job, result: Any) -> None:
    if not job.result.set_running_or_notify_cancel():
        return  # its client has left
    if isinstance(result, BaseException):
        job.result.set_exception(result)
    else:
        job.result.set_result(result)
