"""A run's progress for people, on stderr: a live line in a terminal, plain lines in a pipe."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

PLAIN_EVERY = 10.0  # seconds between plain lines


def clock(seconds: float) -> str:
    """1:05 or 2:03:04."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


class Display:
    """Throughput, loss, top-1 and time left; `say` prints a line that stays."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self.live: Progress | None = None
        self.printed = 0.0
        if self.console.is_terminal:
            self.live = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=10),
                TextColumn("{task.fields[text]}"),
                console=self.console,
                transient=True,
            )
            self.task = self.live.add_task("", total=1.0, text="", visible=False)
            self.live.start()

    def say(self, text: str) -> None:
        if self.live is not None:
            self.live.console.print(text, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def count(self, what: str, done: int, total: int) -> None:
        """Progress of something counted, such as images checked."""
        self._show(what, done / max(1, total), f"{done:,} of {total:,}", force=done == total and total >= 1000)

    def train(self, record: dict[str, float | int | str]) -> None:
        """A line of metrics."""
        share, spent = float(record["share"]), float(record["seconds"])
        left = clock(spent * (1 - share) / share) if share > 0 else "?"
        epoch, loss = float(record["epoch"]), float(record["loss"])
        top1 = float(record["top1"]) if "top1" in record else None  # where an image has one class
        speed = f"{float(record['images_per_s']):,.0f} images/s"
        if self.live is not None:  # all of it fits 80 columns
            right = "" if top1 is None else f"top-1 {top1:.0%}  "
            self._show("", share, f"epoch {epoch:.1f}  loss {loss:.3f}  {right}{speed}  {left} left", force=False)
        else:
            right = "" if top1 is None else f"top-1 {top1:.1%}  "
            text = f"step {record['step']}  epoch {epoch:.2f}  loss {loss:.4f}  {right}{speed}  {clock(spent)} spent, {left} left"
            self._show("training", share, text, force=False)

    def _show(self, what: str, share: float, text: str, *, force: bool) -> None:
        if self.live is not None:
            self.live.update(self.task, description=what, completed=share, text=text, visible=True)
        elif force or time.monotonic() - self.printed > PLAIN_EVERY:
            self.printed = time.monotonic()
            print(f"{what} {share:4.0%}  {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None
