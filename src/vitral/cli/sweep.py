"""The command that trains many runs and compares them: sweep."""

import json
import shlex
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitral.cli.options import argument, names_said
from vitral.cli.parse import as_flags, at_least, program, values_said
from vitral.errors import VitralError, counted
from vitral.training.config import BUDGETS, Recipe

if TYPE_CHECKING:
    from vitral.guidance.sweep.runs import Runs
    from vitral.guidance.sweep.sweep import Sweep

AXES = ("models", "recipes", "fractions", "seeds", "search")
KEPT = {"resume", "jobs", "ray", "json", "dry_run"}  # what may be said when a sweep goes on


@dataclass
class SweepRuns:
    """Train every combination of models, recipes, shares of the images, seeds and settings, and compare them in one table and plot.

    Each combination is a vitral train of its own in OUT/runs; the flags of vitral train apply to all of them, over their recipes. After a stop
    the same command, or --resume OUT, goes on and tries failed runs again. OUT/table.csv has a row a run, OUT/summary.csv the means over
    seeds, OUT/report.html score and error against images and compute, with power laws.

    Example: vitral sweep photos/ --seeds 0 1 2 --time 5m

    Example: vitral sweep digits --models resnet18 resnet34 --fractions 0.1 1
    """

    data: str | None = argument(None)
    """Folder, table or built-in name, as for vitral train."""
    models: tuple[str, ...] = ()
    """Names in the zoo; default: the recipes' own."""
    recipes: tuple[str, ...] = ()
    """TOML files of settings; default: vitral train's own settings."""
    fractions: tuple[float, ...] = ()
    """Shares of the training images; default: the recipes' own."""
    seeds: tuple[int, ...] = ()
    """Seeds, a run for each; default: the recipes' own."""
    set: tuple[str, ...] = ()
    """Any other field of a recipe, and its values, such as optim.lr=1e-3,3e-3 optim.optimizer=muon,adamw."""
    search: int | None = None
    """Number of trials of a search by the validation score, instead of all combinations. The search is optuna's TPE; a range is --set
    optim.lr=1e-4..1e-2."""
    file: Path | None = None
    """TOML file that describes the sweep, such as the OUT/sweep.toml of another. Flags go over it."""
    out: Path | None = None
    """Folder of the sweep; default: sweeps/ and the data's name."""
    resume: Path | None = None
    """Go on with the sweep in this folder; only --jobs and --ray may change."""
    jobs: int = 1
    """Runs at the same time; they share the processor's cores."""
    ray: bool = False
    """Runs on the machines of a Ray cluster (RAY_ADDRESS, or the one that this machine is part of), which see the same folders."""
    dry_run: bool = False
    """Check everything, write the recipes, print the commands, and train nothing."""
    json: bool = False
    """Print the table, the means and the laws as JSON on stdout."""
    settings: Recipe = field(default_factory=Recipe)
    said: frozenset[str] = names_said()


def sweep(given: SweepRuns, words: list[str]) -> int:
    at_least(1, jobs=given.jobs)
    described, out = _resumed(given) if given.resume is not None else _described(given)
    return _conduct(described, out, given)


def _resumed(given: Any) -> "tuple[Sweep, Path]":
    from vitral.guidance.sweep.sweep import read_sweep

    if (changed := given.said - KEPT) or given.data is not None:
        wrong = as_flags(changed) or given.data
        raise VitralError(f"--resume keeps the sweep as it is; leave out {wrong}, or start a new one")
    return read_sweep(given.resume / "sweep.toml"), given.resume


def _described(given: Any) -> "tuple[Sweep, Path]":
    """The sweep that the file and the flags over it describe, and its folder."""
    from vitral.guidance.sweep.sweep import Sweep, parse_values, read_sweep
    from vitral.training.toml import to_table

    base = Sweep("") if given.file is None else read_sweep(given.file)
    for name in (*AXES, "set"):
        if getattr(given, name) == () and name in given.said:
            raise VitralError(f"--{name}: has no values; give at least one after it, or leave it out")
    settings = {section: dict(fields) for section, fields in base.settings.items()}
    if given.said & set(BUDGETS):  # in place of the file's
        settings["train"] = {name: v for name, v in settings.get("train", {}).items() if name not in BUDGETS}
    for section, table in to_table(given.settings).items():
        said = {name: value for name, value in table.items() if f"{section}.{name}" in given.settings.said}
        if said:
            settings[section] = settings.get(section, {}) | said
    axes = values_said(given, given.said & set(AXES))
    described = replace(base, **axes, values=base.values | dict(map(parse_values, given.set)), settings=settings)
    data = _absolute(given.data or base.data)
    name = Path(data).stem or "sweep"
    recipes = tuple(map(_absolute, described.recipes))
    return replace(described, data=data, recipes=recipes), given.out or Path("sweeps") / name


def _absolute(path: str) -> str:
    """The absolute path; a built-in name stays."""
    return str(Path(path).resolve()) if path and Path(path).exists() else path


def _on_ray() -> "type[Runs]":
    from vitral.guidance.sweep.nodes import RayRuns

    return RayRuns


def _conduct(described: "Sweep", out: Path, given: Any) -> int:
    from vitral.checkpoints.claim import Claim
    from vitral.guidance.sweep.conduct import Conduct, begin, cost_text, plan
    from vitral.guidance.sweep.runs import Runs
    from vitral.training.display import Display
    from vitral.training.window import stop_requested

    with Display() as display:
        planned = plan(described, lambda n, total: display.count("checking images", n, total))
        for line in filter(None, (cost_text(planned, given.jobs), planned.decided)):
            display.say(line)
        with Claim(out, "sweep"), stop_requested() as stop:
            described = begin(described, out, given.jobs)
            assert described.threads is not None
            kind = Runs if not given.ray or given.dry_run else _on_ray()
            runs = kind(out, described.data, given.jobs, described.threads, display.say)
            left = [point for point in planned.points if not runs.finished(point)]
            if described.search is None and len(left) < len(planned.points):
                display.say(
                    f"{len(planned.points) - len(left)} of {counted(len(planned.points), 'run')} are done already"
                )
            if given.dry_run:
                runs.prepare(planned.points)
                for point in left:
                    print(shlex.join(["vitral", *runs.words(point)]))
                return 0
            conduct = Conduct(planned, runs, stop, display.say)
            if not conduct.go():
                display.say(f"stopped; go on with: {program()} sweep --resume {shlex.quote(str(out))}")
                return 130
            result = conduct.finish()
    failed = sum(row["state"] == "failed" for row in conduct.rows.values())
    if failed:
        print(f"{failed} of {len(conduct.rows)} runs failed; why is in {out}/table.csv and {out}/logs", file=sys.stderr)
    print(f"Table: {out}/table.csv\nReport: {out}/report.html", file=sys.stderr)
    if given.json:
        print(json.dumps(result))
    return 1 if failed else 0
