"""Detects other work on the cores of a run and picks the number of threads that is fastest beside it.

Matrix products are divided over the threads, and all wait for the last: if another job holds one of two cores, two threads can take four times as
long as one. But the number of threads decides the order of sums and so the last digits of a result. Therefore only a run with a budget of time, whose
length depends on the machine anyway, changes it. A run of a number of steps or epochs must end with the same bits when repeated: it keeps the number,
and a message says what to do.

The measurements are Linux's (https://docs.kernel.org/filesystems/proc.html#miscellaneous-kernel-statistics-in-proc-stat and
https://docs.kernel.org/scheduler/sched-stats.html); on other systems nothing is detected.
"""

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

EVERY = 10.0  # seconds between two looks: shorter spans are noisy
AGAIN = 60.0  # seconds between two measurements, at least
SHARE = 0.02  # of the time that measurements may take
WAITED = 0.2  # share of the time that runnable threads wait for a core, from which a run is slowed down
OTHERS = 0.25  # cores that others take, from which it counts: less is the system's own work
FASTER = 1.2  # speed-up from which fewer threads pay
PASSES = 3  # forward passes measured with each number of threads


@dataclass(frozen=True)
class Times:
    """Seconds since some starting point."""

    now: float
    busy: float
    """Busy time of all cores that this process may use, by any process."""
    own: float
    """Busy time of this process and its children."""
    ran: float
    waited: float
    """This process's threads: on a core, and waiting for one."""


def read_times() -> Times | None:
    """The times now; None if the system does not provide them."""
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
    """Measures now and then, and chooses the number of threads."""

    def __init__(
        self,
        *,
        may_change: bool,
        read: Callable[[], Times | None] = read_times,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """may_change: whether to change the number of threads, or only to report."""
        self.may_change, self.read, self.clock = may_change, read, clock
        self.usual = torch.get_num_threads()
        self.before = read()
        self.next = float("-inf")
        self.said = False

    def look(self, seconds_of: Callable[[int], float]) -> str | None:
        """Change the number of threads if that pays; returns a message if anything is new.

        seconds_of: the seconds that some work of the run takes with a number of threads.
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
