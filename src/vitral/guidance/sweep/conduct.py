"""A sweep from its description to its table. Its folder holds all that is needed to go on with it:

OUT/sweep.toml  the sweep     OUT/recipes/  a recipe a run      OUT/runs/  the runs      OUT/logs/  the output of each
OUT/table.csv and others: see `vitral.guidance.sweep.table`      OUT/report.html  the plots      OUT/best.toml  the best recipe of a search
"""

import dataclasses
import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from vitral.checkpoints.atomic import write_atomically
from vitral.engines.cores import cores
from vitral.errors import VitralError, counted
from vitral.guidance.sweep.cost import PASSES, Expected, Ground, check_points
from vitral.guidance.sweep.page import write_sweep_page
from vitral.guidance.sweep.runs import Runs
from vitral.guidance.sweep.scaling import PowerLaw
from vitral.guidance.sweep.search import load_optuna, sample, search
from vitral.guidance.sweep.sweep import Point, Sweep, grid, read_sweep, verify, write_sweep
from vitral.guidance.sweep.table import Row, laws, row, summary, summary_text, write_rows
from vitral.training.display import clock
from vitral.training.toml import to_toml

Say = Callable[[str], None]


@dataclass
class Plan:
    """A checked sweep."""

    sweep: Sweep
    points: list[Point]
    """The settled runs of a grid, or samples of a search."""
    ground: Ground
    expected: dict[str, Expected]
    runs: int
    """How many there will be at most."""
    decided: str
    """What the recipes left open and all runs now share, as a sentence; or ""."""


def plan(sweep: Sweep, progress: Callable[[int, int], None]) -> Plan:
    """Check every combination, first without the data and then with them, and estimate its cost."""
    verify(sweep)
    if sweep.search is None:
        points = grid(sweep)
        total = len(points)
    else:
        load_optuna()
        points = sample(sweep)
        total = sweep.search * max(1, len(sweep.seeds))
    check_points(points)
    ground = Ground(sweep.data, progress)
    settled = [ground.settle(point) for point in points]
    expected = {point.name: ground.expect(point) for point in settled}
    return Plan(sweep, settled, ground, expected, total, ground.decided(points))


def cost_text(planned: Plan, jobs: int) -> str:
    """The number of runs and their cost, as a sentence."""
    expected, share = planned.expected.values(), planned.runs / len(planned.points)
    parts = [counted(planned.runs, "run")]
    if compute := sum(one.compute or 0 for one in expected):
        parts.append(f"{compute * share:.2g} multiply-adds of training in all ({PASSES} forward passes an image)")
    if seconds := sum(one.seconds or 0 for one in expected):
        parts.append(f"{clock(seconds * share / jobs)} of training, {jobs} at a time")
    return ", ".join(parts)


def begin(sweep: Sweep, folder: Path, jobs: int) -> Sweep:
    """Write the sweep to its folder, unless it is there already; returns it with its threads a run: OMP_NUM_THREADS, or its share of the cores.

    VitralError where the folder holds another sweep.
    """
    path = folder / "sweep.toml"
    if path.exists():
        before = read_sweep(path)
        sweep = dataclasses.replace(sweep, threads=before.threads)
        if write_sweep(sweep) != write_sweep(before):
            raise VitralError(
                f"{folder}: holds another sweep; go on with it by --resume {folder}, or choose another --out"
            )
        return sweep
    said = os.environ.get("OMP_NUM_THREADS", "")
    threads = int(said) if said.isdecimal() and int(said) else max(1, cores() // jobs)
    sweep = dataclasses.replace(sweep, threads=sweep.threads or threads)
    write_atomically(path, write_sweep(sweep).encode())
    return sweep


@dataclass
class Conduct:
    """A sweep that is being run in its folder."""

    planned: Plan
    runs: Runs
    stop: threading.Event
    say: Say
    rows: dict[str, Row] = field(default_factory=dict)
    """Of the finished and failed runs, by name."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds that runs took in this session, by name."""
    points: list[Point] = field(default_factory=list)
    """All runs so far, in the table's order."""

    def go(self) -> bool:
        """Train to the end (True) or until stopped (False). The tables are written after each run."""
        sweep, self.points = self.planned.sweep, []
        if sweep.search is None:
            finished = self._train(self.planned.points)
        else:
            trials = search(sweep, self._train, self._validation, self.stop)
            finished = trials is not None
            if trials is not None and trials[1]:
                self._tell_best(trials[1])
        return finished

    def _train(self, points: list[Point]) -> bool:
        """The most expensive first, which keeps all processors busy at the end and gives the best estimate of the time left."""
        if self.planned.sweep.search is not None:
            points = [self.planned.ground.settle(point) for point in points]
        known = {point.name for point in self.points}
        self.points += [point for point in points if point.name not in known]
        new = [point for point in points if point.name not in self.rows]
        return self.runs.train(sorted(new, key=self._weight, reverse=True), self.stop, self._ended)

    def _weight(self, point: Point) -> float:
        """The cost of a run, in arbitrary units."""
        weights = {name: float(one.compute or one.seconds or 1) for name, one in self.planned.expected.items()}
        return weights.get(point.name, fmean(weights.values()))

    def _ended(self, point: Point, failure: str | None, seconds: float) -> None:
        scores = self.planned.ground.scores
        one = row(point, self.runs.path(point), failure, scores)
        self.rows[point.name] = one
        write_rows(self.runs.folder, self.points, self.ordered())
        if failure is None and not seconds:
            return  # of an earlier session
        self.seconds[point.name] = seconds
        done, value = one["state"] == "done", one[scores.HEADLINE]
        said = f"{scores.TITLE} {value:.2%} ({one['split']})" if done else f"failed: {one['message']}"
        total = max(self.planned.runs, len(self.rows)) if self.planned.sweep.search is None else self.planned.runs
        self.say(
            f"[{len(self.rows)} of {total}] {point.name}: {said}, {clock(seconds)}; {clock(self._left(total))} left"
        )

    def _left(self, total: int) -> float:
        """Seconds to the end, at the speed of the runs of this session."""
        took = sum(self.seconds.values())
        named = {point.name: point for point in self.points}
        rate = took / sum(self._weight(named[name]) for name in self.seconds)
        rest = [self._weight(point) for point in self.points if point.name not in self.rows]
        rest += [fmean(map(self._weight, self.points))] * max(0, total - len(self.points))
        return sum(max(rate * weight, min(self.seconds.values())) for weight in rest) / self.runs.jobs

    def ordered(self) -> list[Row]:
        return [self.rows[point.name] for point in self.points if point.name in self.rows]

    def _validation(self, point: Point) -> float | None:
        """The headline of a finished run on the validation images; settings are never chosen by the test images."""
        one = self.rows[point.name]
        assert one["state"] == "failed" or one["split"] == "val", f"{point.name} was scored on {one['split']}"
        return one[self.planned.ground.scores.HEADLINE]

    def _tell_best(self, trials: Sequence[tuple[float, list[Point]]]) -> None:
        """Write the recipe of the trial with the best mean validation score, and of equal ones the lowest loss."""
        best, points = max(trials, key=lambda trial: (trial[0], -fmean(self.rows[p.name]["loss"] for p in trial[1])))
        recipe = next(point.recipe for point in self.points if point.name == points[0].name)
        recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, score_split="test"))
        path = self.runs.folder / "best.toml"
        write_atomically(path, to_toml(recipe).encode())
        self.say(
            f"best on validation: {self.planned.ground.scores.TITLE} {best:.2%}, {points[0].name}; its recipe is {path}"
        )

    def finish(self) -> dict[str, Any]:
        """Write the page; returns the tables and laws for JSON."""
        rows = self.ordered()
        write_sweep_page(self.runs.folder, self.planned.sweep, self.points, rows)
        means, fitted = summary(self.points, rows), laws(self.points, rows)
        if means:
            self.say("\n" + summary_text(means, list(self.planned.sweep.values)))
        for against, named in fitted.items():
            for name, law in named.items():
                self.say(f"{name}, against {against}: {law}")
        shown = {against: {name: _plain(law) for name, law in named.items()} for against, named in fitted.items()}
        table = json.loads((self.runs.folder / "table.json").read_text())
        return {"runs": table, "summary": means, "laws": shown}


def _plain(law: PowerLaw | str) -> dict[str, Any]:
    return {"none": law} if isinstance(law, str) else dataclasses.asdict(law)
