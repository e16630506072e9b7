"""How many cores this process may use: what its affinity and its container allow, which may be far fewer than the machine has."""

import math
import os
import sys
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")


def cores() -> int:
    """Processor cores that this process may use, at least 1."""
    own = len(os.sched_getaffinity(0)) if sys.platform.startswith("linux") else os.cpu_count() or 1
    return max(1, math.ceil(min(own, quota())))


def quota(groups: Path = GROUPS, own: Path = Path("/proc/self/cgroup")) -> float:
    """Cores' worth of time that the control groups around this process leave it; infinite without a limit.

    https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max), https://docs.kernel.org/scheduler/sched-bwc.html (version 1)
    """
    lines = own.read_text().splitlines() if own.exists() else []
    inside = next((line.split(":", 2)[2] for line in lines if line.startswith("0::")), "/")
    place = groups / inside.strip("/")
    limits = [_limit(folder / "cpu.max") for folder in (place, *place.parents) if folder.is_relative_to(groups)]
    first = groups / "cpu"
    if (first / "cpu.cfs_quota_us").exists():
        given, period = (int((first / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        limits.append(given / period if given > 0 else math.inf)
    return min(limits, default=math.inf)


def _limit(file: Path) -> float:
    """Of a line such as "150000 100000", microseconds of time in each period; infinite for "max 100000"."""
    if not file.exists():
        return math.inf
    given, period = file.read_text().split()
    return math.inf if given == "max" else int(given) / int(period)
