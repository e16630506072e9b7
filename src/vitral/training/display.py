"""A run's progress for people, on stderr: one live line in a terminal, a few plain lines in a pipe."""

import contextlib
import os
import sys
import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

PLAIN_EVERY = 10.0  # seconds between plain lines, at least
PLAIN_SHARE = 0.05  # and this share of the time so far, so that ten hours give some hundred lines
WIDE = 100  # columns from which scores have a digit after the point


def clock(seconds: float) -> str:
    """1:05 or 2:03:04."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


class Display:
    """Throughput, losses, the last and the best validation, and the time left; `say` prints a line that stays.

    If the terminal is closed or the pipe broken it falls silent, and the run goes on.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self.live: Progress | None = None
        self.printed = -PLAIN_EVERY
        self.began = time.monotonic()
        self.trained = self.scored = self.told = self.line = ""
        self.share = 0.0
        if self.console.is_terminal:
            self.live = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=10),
                TextColumn("{task.fields[text]}"),
                console=self.console,
                transient=True,
            )
            self.task = self.live.add_task("", total=1.0, text="", visible=False)
            if not self._out(self.live.start):
                self.live = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def say(self, text: str) -> None:
        if self.live is not None:
            console = self.live.console
            self._out(lambda: console.print(text, markup=False))
        else:
            self._out(lambda: print(text, file=sys.stderr, flush=True))

    def doing(self, text: str) -> None:
        """Show what is being done, without a count, until the next line."""
        if self.live is not None:
            self.live.update(self.task, description=text, total=None, text="", visible=True)
        else:
            self.say(text)

    def count(self, what: str, done: int, total: int) -> None:
        """Show the progress of something counted, such as images checked."""
        ended = done == total and (total >= 1000 or what == self.told)  # a count that was shown is shown to its end
        self._show(what, done / max(1, total), f"{done:,} of {total:,}", force=ended)

    def train(self, record: dict[str, float | int | str]) -> None:
        """Show a line of metrics.jsonl."""
        share, spent = float(record["share"]), float(record["seconds"])
        left = clock(spent * (1 - share) / share) if share > 0 else "?"
        epoch, loss = float(record["epoch"]), float(record["loss"])
        top1 = float(record["top1"]) if "top1" in record else None  # where an image has one class
        rate = float(record["images_per_s"])
        speed = f"{rate:,.{0 if rate >= 10 else 1}f} images/s"
        self.share = share
        if self.live is not None:  # all of it fits 80 columns
            right = self.scored or ("" if top1 is None else f"top-1 {top1:.0%}  ")
            self._show("", share, f"epoch {epoch:.1f}  loss {loss:.3f}  {right}{speed}  {left} left", force=False)
        else:
            right = "" if top1 is None else f"top-1 {top1:.1%}  "
            self.trained = f"step {record['step']}  epoch {epoch:.2f}  loss {loss:.4f}  {right}{speed}  {clock(spent)} spent, {left} left"
            self._show("training", share, self.trained + self.scored, force=False)

    def validated(
        self, epoch: float, step: int, said: str, score: float | None, best: float | None, best_step: int, *, last: bool
    ) -> None:
        """Show a validation and the best so far. said: its scores in words. last: whether it ends the run, and so is always printed."""
        if self.live is not None:
            digits = 1 if self.console.width >= WIDE else 0
            now, top = ("-" if x is None else f"{x:.{digits}%}" for x in (score, best))
            self.scored = f"val {now} best {top}  "
            text = f"epoch {epoch:.1f}  {said}  best {top}"
            self._show("", self.share, text, force=False)
            return
        top = (
            ""
            if best is None
            else f"  (best so far: {'this' if best_step == step else f'{best:.2%} at step {best_step}'})"
        )
        self.scored = f"  validation {said}{top}"
        where = self.trained or f"step {step}  epoch {epoch:.2f}"
        self._show("training", 1.0 if last else self.share, where + self.scored, force=last)

    def _show(self, what: str, share: float, text: str, *, force: bool) -> None:
        now = time.monotonic()
        if self.live is not None:
            self.live.update(self.task, description=what, total=1.0, completed=share, text=text, visible=True)
        elif force or now - self.printed > max(PLAIN_EVERY, PLAIN_SHARE * (now - self.began)):
            self.printed, self.told = now, "" if share == 1 else what
            line = f"{what} {share:4.0%}  {text}"
            if line != self.line:  # images are counted to their end by each search for copies, too
                self.line = line
                self._out(lambda: print(line, file=sys.stderr, flush=True))

    def _out(self, write: Callable[[], object]) -> bool:
        """Whether it could be written."""
        try:
            write()
            return True
        except OSError:  # the reader is gone: from here on output is discarded without an error
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
            return False

    def close(self) -> None:
        if self.live is not None:
            self._out(self.live.stop)
            self.live = None


class Silent(Display):
    """Says nothing."""

    def __init__(self) -> None:
        super().__init__(Console(stderr=True, force_terminal=False))

    def say(self, text: str) -> None:
        pass

    def _show(self, what: str, share: float, text: str, *, force: bool) -> None:
        pass
