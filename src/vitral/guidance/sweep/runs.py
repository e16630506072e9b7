"""The runs of a sweep as processes: each is a `vitral train` in OUT/runs, a few at a time, stopped and resumed without a lost step.

A run's process holds a lock on its log: it inherits the open file, so the lock lasts as long as the process, also when the sweep that started it
was killed. No other record of processes is needed.
"""

import fcntl
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from vitral.checkpoints.atomic import write_atomically
from vitral.errors import VitralError
from vitral.guidance.sweep.sweep import Point
from vitral.training.state import Checkpoints
from vitral.training.toml import read_recipe, to_toml

POLL = 0.1  # seconds


class Process(Protocol):
    """What `subprocess.Popen` has, and a process on another machine."""

    returncode: int | None

    def poll(self) -> int | None: ...
    def wait(self) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


@dataclass
class Going:
    """A run that is being trained."""

    point: Point
    process: Process
    logged_before: int
    """Bytes of the log from earlier sessions."""
    began: float


@dataclass
class Runs:
    """Where the runs of a sweep are, and how they are started."""

    folder: Path
    data: str
    jobs: int
    threads: int
    say: Callable[[str], None]

    def path(self, point: Point) -> Path:
        return self.folder / "runs" / point.name

    def log(self, point: Point) -> Path:
        return self.folder / "logs" / f"{point.name}.log"

    def recipe(self, point: Point) -> Path:
        return self.folder / "recipes" / f"{point.name}.toml"

    def finished(self, point: Point) -> bool:
        """Whether the run is scored; it writes its page last."""
        return is_finished(self.path(point))

    def words(self, point: Point) -> list[str]:
        """The words of the command that starts the run, or resumes it from its latest checkpoint."""
        if Checkpoints(self.path(point) / "checkpoints").last() is not None:
            return ["train", "--resume", str(self.path(point))]
        return ["train", self.data, "--recipe", str(self.recipe(point)), "--out", str(self.path(point))]

    def prepare(self, points: Sequence[Point]) -> None:
        """Write the runs' recipes; VitralError where one is there and differs."""
        for point in points:
            path = self.recipe(point)
            if not path.exists():
                write_atomically(path, to_toml(point.recipe).encode())
            elif read_recipe(path, stored=True) != point.recipe:
                raise VitralError(
                    f"{path}: the recipe changed since the sweep began; restore it, or choose another --out"
                )

    def train(
        self, points: Sequence[Point], stop: threading.Event, done: Callable[[Point, str | None, float], None]
    ) -> bool:
        """Train the runs that are not finished, in this order. Calls done(run, why it failed or None, seconds of this session) for each.

        Returns False if `stop` was set before the end; then the processes have saved their checkpoints and ended.
        """
        self.prepare(points)
        waiting, going = list(points), list[Going]()
        heard, told = set[str](), set[str]()
        try:
            while (waiting or going) and not stop.is_set():
                others = 0
                for point in list(waiting):
                    if len(going) + others >= self.jobs:
                        break
                    started = self._start(point)
                    if isinstance(started, Going):
                        going.append(started)
                    elif started == "elsewhere":
                        others += 1
                        if point.name not in told:
                            told.add(point.name)
                            self.say(f"{point.name}: a process of a killed sweep still trains it; waiting for that")
                        continue
                    else:
                        heard.add(point.name)
                        done(point, None, 0.0)
                    waiting.remove(point)
                stop.wait(POLL)
                for one in [one for one in going if one.process.poll() is not None]:
                    if not stop.is_set():  # a signal to the whole group stops the runs too: that is no failure
                        heard.add(one.point.name)
                        done(one.point, self._failure(one), time.monotonic() - one.began)
                    going.remove(one)
            for one in going:
                one.process.terminate()
            for one in going:
                one.process.wait()
        finally:  # interrupted a second time, or an error here: checkpoints are whole at any moment
            for one in going:
                if one.process.poll() is None:
                    one.process.kill()
                    one.process.wait()
        return len(heard) == len(points)

    def _start(self, point: Point) -> Going | str:
        """The started run; "finished"; or "elsewhere" if another process trains it."""
        self.log(point).parent.mkdir(parents=True, exist_ok=True)
        started = self.spawn(self.words(point), self.log(point), self.path(point))
        return started if isinstance(started, str) else Going(point, *started, time.monotonic())

    def spawn(self, words: Sequence[str], log: Path, run: Path) -> tuple[Process, int] | str:
        """As `started`, on this machine."""
        return started(words, log, run, self.threads)

    def _failure(self, run: Going) -> str | None:
        """Why the run failed, from its log; None if it did not."""
        code = run.process.returncode
        assert code is not None, "it has ended"
        if code == 0 and self.finished(run.point):
            return None
        if code == 0:
            return "was not scored: the data have no test or validation split; give --val-fraction above 0"
        if code < 0 or code == 130:
            return f"was stopped by {f'signal {-code}' if code < 0 else 'a signal'}; resume the sweep to go on with it"
        lines = self.log(run.point).read_bytes()[run.logged_before :].decode(errors="replace").strip().splitlines()
        said = next((i for i in reversed(range(len(lines))) if lines[i].startswith("vitral: ")), len(lines) - 1)
        return " ".join(line.strip() for line in lines[said:]).removeprefix("vitral: ")


def started(words: Sequence[str], log: Path, run: Path, threads: int) -> tuple[subprocess.Popen[bytes], int] | str:
    """A process of vitral with these words, and the bytes that its log had before; "finished" where the run is; or "elsewhere" where a process
    that trains it has the log."""
    with open(log, "ab") as file:
        if not _locked(file):
            return "elsewhere"
        if is_finished(run):
            return "finished"
        command = [sys.executable, "-m", "vitral", *words]
        before = file.tell()
        file.write(f"$ {shlex.join(command)}\n".encode())
        file.flush()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            start_new_session=True,  # Ctrl-C reaches the sweep alone, which then stops each run once
        )  # fmt: skip
    return process, before


def is_finished(run: Path) -> bool:
    """Whether the run in this folder is scored, and has its page."""
    return all((run / name).exists() for name in ("scores.json", "report.html"))


def _locked(file: BinaryIO) -> bool:
    """Lock the open file for this process and those that inherit it; False if another holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
