"""vitral train --processes N: torchrun on this machine, which starts N processes of the command and ends them all where one dies."""

import logging
import os
import signal
import sys
from typing import Any

from vitral.cli.parse import program

RESTARTS = 3
MEANT = (
    2,
    130,
)  # exit codes that starting again would only repeat: an error that the user can mend, and a signal to stop


def launch(processes: int, command: str, words: list[str], goes_on: list[str]) -> int:
    """The exit code of `vitral COMMAND WORDS` in so many processes. Where one dies, all begin again from the last checkpoint, a few times.

    goes_on: words that are added then.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from vitral.engines.cores import cores

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # what is to be said, is said here
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // processes)))
    for attempt in range(1 + RESTARTS):
        config = LaunchConfig(
            1, 1, processes, run_id=f"vitral-{os.getpid()}-{attempt}", rdzv_backend="c10d", rdzv_endpoint="localhost:0",
            max_restarts=0,
        )  # fmt: skip
        try:
            again = goes_on if attempt else []
            elastic_launch(config, sys.executable)("-m", "vitral", command, *words, *again)
            return 0
        except SignalException:
            return 130
        except ChildFailedError as error:
            codes = [failure.exitcode for failure in error.failures.values()]
            if meant := [code for code in codes if code in MEANT]:
                return meant[0]
            print(f"vitral: {_how(error)}; all {processes} begin again from the last checkpoint", file=sys.stderr)
    print(f"vitral: given up after {RESTARTS} times; go on with: {program()} {command} ... --continue", file=sys.stderr)
    return 1


def _how(error: Any) -> str:
    """Which process ended first, and how."""
    rank, failure = error.get_first_failure()
    ended = signal.Signals(-failure.exitcode).name if failure.exitcode < 0 else f"exit code {failure.exitcode}"
    return f"process {rank} ended by {ended}"
