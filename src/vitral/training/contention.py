"""Other work on the cores of a run: noticed, and answered with the number of threads that is fastest beside it.

A step's products are divided over the threads, and all wait for the last: where another job holds one of two cores, two threads can take four times
as long as one. The number of threads decides in which order sums are made and so the last digits of a result. Therefore a run whose budget is a time,
whose length depends on the machine anyway, changes it; one of so many steps or epochs, which is to end with the same bits wherever it is repeated,
keeps it and says what to do.

Linux counts what must be known (https://docs.kernel.org/filesystems/proc.html#miscellaneous-kernel-statistics-in-proc-stat and
https://docs.kernel.org/scheduler/sched-stats.html); elsewhere nothing is seen.
"""

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

EVERY = 10.0  # seconds between two looks: shorter ones see chance
AGAIN = 60.0  # seconds between two measurements, at least
SHARE = 0.02  # of the time that measurements may take
WAITED = 0.2  # share of the time in which threads that could run had no core, from which a run is held up
OTHERS = 0.25  # cores that others take: less is the system's own work
FASTER = 1.2  # times, from which on fewer threads are worth it
PASSES = 3  # forward passes that are measured with each number of threads


@dataclass(frozen=True)
class Times:
    """Seconds since some beginning."""

    now: float
    busy: float
    """Of all cores that this process may use, by anyone."""
    own: float
    """Of this process and the processes that it started."""
    ran: float
    waited: float
    """This process's threads: on a core, and waiting for one."""


def read_times() -> Times | None:
    """The times now; None where the system does not tell them."""
    try:
        tick = os.sysconf("SC_CLK_TCK")
        cores = os.sched_getaffinity(0)
        busy = 0
        for line in Path("/proc/stat").read_text().splitlines():
            name, *ticks = line.split()
            if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
                user, nice, system, _, _, irq, softirq, steal = (int(n) for n in ticks[:8])
                busy += user + nice + system + irq + softirq + steal
        own = sum(_ticks(child.pid) for child in multiprocessing.active_children() if child.pid) / tick
        ran = waited = 0
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
                on, off, _ = (task / "schedstat").read_text().split()
                ran, waited = ran + int(on), waited + int(off)
    except (OSError, ValueError, AttributeError):
        return None
    return Times(time.monotonic(), busy / tick, own + time.process_time(), ran / 1e9, waited / 1e9)


def _ticks(pid: int) -> int:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])  # user and system time
    return 0


class Contention:
    """Measures now and then, and decides the number of threads."""

    def __init__(
        self,
        *,
        may_change: bool,
        read: Callable[[], Times | None] = read_times,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """may_change: whether to change the number of threads, or only report what is noticed."""
        self.may_change, self.read, self.clock = may_change, read, clock
        self.usual = torch.get_num_threads()
        self.before = read()
        self.next = float("-inf")
        self.said = False

    def look(self, seconds_of: Callable[[int], float]) -> str | None:
        """The message, if there is anything new, after changing the number of threads where that pays.

        seconds_of: measures some work of the run with so many threads.
        """
        before = self.before
        if before is None or self.clock() - before.now < EVERY or (now := self.read()) is None:
            return None
        self.before, threads = now, torch.get_num_threads()
        others = max(0.0, (now.busy - before.busy - (now.own - before.own)) / (now.now - before.now))
        if others < OTHERS:
            if threads == self.usual:
                return None
            torch.set_num_threads(self.usual)
            return f"the other job is done: {self.usual} threads again"
        ran, waited = now.ran - before.ran, now.waited - before.waited
        if (
            not (waited > 0 and waited >= WAITED * (ran + waited))
            or now.now < self.next
            or (self.said and not self.may_change)
        ):
            return None
        return self._answer(
            threads, f"other work takes about {others:.1f} of the cores, and this run waits for them", seconds_of
        )

    def _answer(self, threads: int, seen: str, seconds_of: Callable[[int], float]) -> str | None:
        began = time.monotonic()
        took = {n: seconds_of(n) for n in sorted({threads, threads // 2, threads // 4, 1} - {0}, reverse=True)}
        spent = time.monotonic() - began
        self.next = time.monotonic() + max(AGAIN, spent / SHARE)
        best = min(took, key=lambda n: took[n])
        first, self.said = not self.said, True
        if took[threads] < FASTER * took[best]:
            return f"{seen}; fewer threads would not be faster" if first else None
        seen = f"{seen}: a forward pass takes {took[threads]:.2f} s with {threads} threads and {took[best]:.2f} s with {best}"
        if self.may_change:
            torch.set_num_threads(best)
            return f"{seen}; going on with {best}"
        return (
            f"{seen}. A run of so many steps keeps the number, which changes the last digits of results; to go on with fewer nevertheless, stop it "
            f"and put OMP_NUM_THREADS={best} before the command with --resume"
        )
