"""Commands that make a run and its page: train, report."""

import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from vitral.cli.parse import flag_given, parse, program
from vitral.errors import VitralError


def train(words: list[str]) -> int:
    import dataclasses

    import tyro

    from vitral.training.config import Recipe, read_recipe

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
    from vitral.training.display import Display
    from vitral.training.run import resume, start

    display = Display()
    try:
        if given.resume is not None:
            changed = [w for w in words if w.startswith("--") and w.partition("=")[0] not in ("--resume", "--workers")]
            if changed or given.data is not None:
                raise VitralError(
                    f"--resume keeps the run's data and recipe; leave out {' '.join(changed) or given.data}, or start a new run"
                )
            run = resume(given.resume, display, given.settings.train.workers)
        else:
            if given.data is None:
                raise VitralError("train: which data? Give a folder, a table or a built-in name such as digits")
            budget = {n: getattr(given.settings.train, n) for n in ("epochs", "steps", "time") if flag_given(words, n)}
            settings = given.settings
            if budget:  # a budget on the command line replaces the recipe's of another kind
                only = {"epochs": None, "steps": None, "time": None} | budget
                settings = dataclasses.replace(settings, train=dataclasses.replace(settings.train, **only))
            out = given.out or Path("runs") / (Path(given.data).stem or "run")
            run = start(given.data, settings, out, display, shlex.join(["vitral", "train", *words]))
        finished = run.train()
        if not finished:
            display.say(
                f"stopped and saved at step {run.loop.progress.step}; go on with: "
                f"{program()} train --resume {shlex.quote(str(run.folder))}"
            )
            return 130
        split = run.scored_split
        if split is None:
            return 0
        display.say("writing the report")
        from vitral.explain.explain import Plain
        from vitral.report.run import report_run

        page = report_run(run.folder, run.data)
    finally:
        display.close()
    vitral = program()
    folder, data, image = (
        shlex.quote(str(x))
        for x in (run.folder, run.source, run.data.splits[split].path(0) or run.folder / "example.png")
    )
    explain = (
        f"  {vitral} explain {folder} {image} -o {folder}/attention.png\n" if isinstance(run.loop.model, Plain) else ""
    )
    print(
        f"\nNext:\n  {vitral} predict {folder} {image}\n{explain}  {vitral} evaluate {folder} {data} --split {split}\nReport: {page}",
        file=sys.stderr,
    )
    return 0


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
