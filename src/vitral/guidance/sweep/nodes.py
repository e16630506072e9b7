"""The runs of a sweep on the machines of a Ray cluster, https://docs.ray.io; its folder and the data must be seen by all of them.

Ray finds a machine with free cores and starts the process there; what a run is, its lock, its log and its table are as on one machine.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitral.errors import VitralError
from vitral.guidance.sweep.runs import POLL, Process, Runs, started

ANSWERS = 10.0  # seconds
LOST = -int(signal.SIGKILL)  # the exit status of a process whose machine is gone


def connect() -> Any:
    """Ray, connected to the cluster that RAY_ADDRESS names, or to the one that this machine is part of."""
    try:
        import ray
    except ImportError:
        raise VitralError("--ray: needs Ray; run pip install 'vitral[scale]'") from None
    if not ray.is_initialized():
        host, _, port = os.environ.get("RAY_ADDRESS", "").removeprefix("ray://").rpartition(":")
        try:
            if port.isdecimal():  # Ray would ask for minutes
                socket.create_connection((host, int(port)), ANSWERS).close()
            ray.init(address="auto", logging_level="ERROR", log_to_driver=False)
        except (ConnectionError, OSError, ValueError) as error:
            raise VitralError(
                "--ray: finds no cluster; run ray start --head on one machine, ray start --address=HOST:6379 on the others, and give RAY_ADDRESS "
                f"if this is none of them ({str(error).splitlines()[0]})"
            ) from error
    return ray


class Keeper:
    """On a machine of the cluster: one process, and what becomes of it."""

    process: subprocess.Popen[bytes]

    def start(self, words: Sequence[str], log: str, run: str, threads: int) -> int | str:
        begun = started(words, Path(log), Path(run), threads)
        if isinstance(begun, str):
            return begun
        self.process, before = begun
        return before

    def poll(self) -> int | None:
        return self.process.poll()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)


class Away:
    """A process on another machine, as `subprocess.Popen` has it."""

    def __init__(self, ray: Any, keeper: Any) -> None:
        self.ray, self.keeper = ray, keeper
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            try:
                self.returncode = self.ray.get(self.keeper.poll.remote())
            except self.ray.exceptions.RayError:
                self.returncode = LOST
            if self.returncode is not None:
                self.ray.kill(self.keeper)  # its cores are free for the next
        return self.returncode

    def wait(self) -> int:
        while self.poll() is None:
            time.sleep(POLL)
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        self.keeper.signal.remote(int(signal.SIGTERM))

    def kill(self) -> None:
        self.keeper.signal.remote(int(signal.SIGKILL))


@dataclass
class RayRuns(Runs):
    """Runs whose processes Ray places, each with `threads` cores and, where the cluster has accelerators, one of those."""

    def __post_init__(self) -> None:
        self.folder = self.folder.resolve()  # processes elsewhere have other working folders
        self.ray = connect()
        has = self.ray.cluster_resources()
        if has.get("CPU", 0) < self.threads:
            raise VitralError(
                f"--ray: a run takes {self.threads} cores, and the cluster has {has.get('CPU', 0):g}; set OMP_NUM_THREADS lower"
            )
        self.kind = self.ray.remote(Keeper).options(
            num_cpus=self.threads, num_gpus=int(has.get("GPU", 0) > 0), scheduling_strategy="SPREAD"
        )

    def spawn(self, words: Sequence[str], log: Path, run: Path) -> tuple[Process, int] | str:
        keeper = self.kind.remote()
        begun = self.ray.get(keeper.start.remote(list(words), str(log), str(run), self.threads))
        if isinstance(begun, str):
            self.ray.kill(keeper)
            return begun
        return Away(self.ray, keeper), begun
