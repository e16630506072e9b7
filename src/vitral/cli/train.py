"""Commands that make a run and its page: train, report."""

import shlex
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vitral.cli.parse import flag_given, parse, program
from vitral.errors import VitralError

if TYPE_CHECKING:
    from vitral.training.display import Display
    from vitral.training.run import Run


def train(words: list[str]) -> int:
    import tyro

    from vitral.training.config import Recipe
    from vitral.training.toml import read_recipe

    base = Recipe()
    for i, word in enumerate(words):
        if word == "--recipe" and i + 1 < len(words):
            base = read_recipe(words[i + 1])
        elif word.startswith("--recipe="):
            base = read_recipe(word.partition("=")[2])

    @dataclass
    class Train:
        """Train a Vision Transformer on labelled images.

        DATA is a folder of class folders (or of train/, val/ and test/ with class folders), a CSV, TSV or Parquet table with columns image and
        label, or a built-in name: digits, fashion-mnist, elpv. What is not said is decided from the data, with the reason.

        Example: vitral train photos/ --time 10m --out runs/photos
        """

        data: Annotated[str | None, tyro.conf.Positional] = None
        """Folder, table or built-in name."""
        recipe: Path | None = None
        """TOML file of settings; any flag below overrides it."""
        out: Path | None = None
        """Run folder to make; default runs/ and the data's name."""
        resume: Path | None = None
        """Go on with the run in this folder, exactly where its last checkpoint left it; only --workers may change."""
        settings: Recipe = field(default_factory=lambda: base)

    given = parse(Train, "train", words)
    from vitral.report.run import report_run
    from vitral.training.display import Display

    display = Display()
    try:
        run = _resumed(given, words, display) if given.resume is not None else _started(given, words, display)
        finished = run.train()
        if not finished:
            display.say(
                f"stopped and saved at step {run.loop.progress.step}; go on with: "
                f"{program()} train --resume {shlex.quote(str(run.folder))}"
            )
            return 130
        if run.scored_split is None:
            return 0
        display.say("writing the report")
        page = report_run(run.folder, run.data)
    finally:
        display.close()
    print(_what_next(run, run.scored_split, page), file=sys.stderr)
    return 0


def _resumed(given: Any, words: list[str], display: "Display") -> "Run":
    from vitral.training.run import resume

    changed = [w for w in words if w.startswith("--") and w.partition("=")[0] not in ("--resume", "--workers")]
    if changed or given.data is not None:
        raise VitralError(
            f"--resume keeps the run's data and recipe; leave out {' '.join(changed) or given.data}, or start a new run"
        )
    return resume(given.resume, display, given.settings.train.workers)


def _started(given: Any, words: list[str], display: "Display") -> "Run":
    from vitral.training.run import start

    if given.data is None:
        raise VitralError("train: which data? Give a folder, a table or a built-in name such as digits")
    settings = given.settings
    budget = {n: getattr(settings.train, n) for n in ("epochs", "steps", "time") if flag_given(words, n)}
    if budget:  # a budget on the command line replaces the recipe's of another kind
        only = {"epochs": None, "steps": None, "time": None} | budget
        settings = replace(settings, train=replace(settings.train, **only))
    out = given.out or Path("runs") / (Path(given.data).stem or "run")
    return start(given.data, settings, out, display, shlex.join(["vitral", "train", *words]))


def _what_next(run: "Run", split: str, page: Path) -> str:
    """Commands to try on a finished run."""
    from vitral.explain.explain import Plain

    image = run.data.splits[split].path(0) or run.folder / "example.png"
    vitral, folder, data, picture = program(), *(shlex.quote(str(x)) for x in (run.folder, run.source, image))
    lines = [
        f"{vitral} predict {folder} {picture}",
        *(
            [f"{vitral} explain {folder} {picture} -o {folder}/attention.png"]
            if isinstance(run.loop.model, Plain)
            else []
        ),
        f"{vitral} evaluate {folder} {data} --split {split}",
    ]
    return "\nNext:\n" + "\n".join(f"  {line}" for line in lines) + f"\nReport: {page}"


def report(words: list[str]) -> int:
    import tyro

    @dataclass
    class Report:
        """Write a finished run's report.html again.

        Example: vitral report runs/photos
        """

        run: Annotated[Path, tyro.conf.Positional]

    given = parse(Report, "report", words)
    from vitral.report.run import report_run

    print(report_run(given.run), file=sys.stderr)
    return 0
