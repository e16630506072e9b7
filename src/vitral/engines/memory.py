"""What this process and this machine hold in memory."""

import resource
import sys
from pathlib import Path


def peak_memory() -> int:
    """Bytes that this process has held at most."""
    held = numbers_of("/proc/self/status").get("VmHWM")
    if held is not None:  # getrusage counts what the parent held when it forked, too
        return held * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def numbers_of(path: str | Path) -> dict[str, int]:
    """The whole numbers in a file of lines such as "VmHWM:  1024 kB"; none where there is no such file."""
    try:
        words = [line.replace(":", " ").split() for line in Path(path).read_text().splitlines()]
    except FileNotFoundError:
        return {}
    return {each[0]: int(each[1]) for each in words if len(each) > 1 and each[1].isdigit()}
