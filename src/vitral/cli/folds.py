"""vitral train --folds: a run for each fold, in RUN/fold-1, RUN/fold-2, ..., one after another, and the page and table of all.

RUN/folds.json and RUN/recipe.toml hold all that is left to do, so that a command that was stopped goes on with --resume.
"""

import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitral.cli.coach import attend
from vitral.cli.parse import program
from vitral.errors import VitralError
from vitral.training.config import Recipe, seconds

if TYPE_CHECKING:
    from vitral.data.dataset import DataSet
    from vitral.training.display import Display


LEARN_FROM_ALL = (
    "validation: none, the last weights are kept: so few images choose weights by chance, and each fold is tested on images of its own; "
    "--val-fraction says otherwise"
)


def of_fold(recipe: Recipe, number: int, count: int) -> Recipe:
    return replace(recipe, data=replace(recipe.data, fold=(number, count)))


def cross_validate(given: Any, out: Path, spoken: str, display: "Display", *, fresh: bool) -> int:
    """Plan once, write down what was asked, and run the folds. out: the folder, or with `fresh` the first free one of its kind."""
    from vitral.answers import ANSWERS
    from vitral.checkpoints.atomic import write_atomically
    from vitral.checkpoints.claim import Claim, claim_unused
    from vitral.cli.parse import unused
    from vitral.guidance.plan.plan import make_plan
    from vitral.training.settle import placed, rooted
    from vitral.training.start import FOLDS, check_place
    from vitral.training.toml import to_toml

    if given.folds < 2:
        raise VitralError(f"folds {given.folds}: give 2 or more; 5 is usual")
    if given.settings.train.score_split != "test":
        raise VitralError("folds: each is the test split of its run; leave out --score-split")
    check_place(unused(out) if fresh else out)
    recipe = of_fold(placed(given.settings), 1, given.folds)
    if recipe.transfer.init is not None:
        recipe = replace(recipe, transfer=replace(recipe.transfer, init=rooted(recipe.transfer.init)))
    made = make_plan(given.data, recipe, display, brief=True)
    if not ANSWERS[made.settled.data.task](made.settled.data.labels).of_whole:
        raise VitralError(
            f"folds: join the answers to whole images, and task {made.settled.data.task} answers places in them; train once"
        )
    train, optim, own = made.asked.train, made.asked.optim, made.recipe
    recipe = replace(
        made.asked,
        optim=replace(optim, lr=own.optim.lr, lr_per=None),
        train=replace(train, batch_size=own.train.batch_size, accumulation=own.train.accumulation),
    )
    # Between them the folds score all images: how few one fold has is no matter.
    planned, each = [str(choice) for choice in made.choices if choice.what != "scores"], made.training_seconds
    if scarce(made.settled.data, recipe):
        recipe = replace(recipe, data=replace(recipe.data, val_fraction=0.0))
        planned.append(LEARN_FROM_ALL)
        display.say(f"- {LEARN_FROM_ALL}")
    if each is None and recipe.train.time is not None:
        each = seconds(recipe.train.time)
    display.say(_foreseen(given.folds, each))
    claim = claim_unused(out) if fresh else Claim(out)
    with claim:
        asked = {"data": rooted(given.data), "folds": given.folds, "command": spoken, "planned": planned}
        write_atomically(claim.folder / "recipe.toml", to_toml(recipe).encode())
        write_atomically(claim.folder / FOLDS, json.dumps(asked, indent=1).encode())
        return _all(claim.folder, recipe, asked, display)


def scarce(data: "DataSet", recipe: Recipe) -> bool:
    """Whether validation images that we set aside, unasked, are better learned from."""
    from vitral.guidance.plan.planner import SCORABLE

    made = "val" in data.splits and "val" not in data.given
    return made and len(data.splits["val"]) < SCORABLE and "data.val_fraction" not in recipe.said


def go_on(given: Any, display: "Display") -> int:
    """Run the folds of RUN that are not finished."""
    from vitral.checkpoints.atomic import write_atomically
    from vitral.checkpoints.claim import Claim
    from vitral.training.settle import rooted
    from vitral.training.start import FOLDS
    from vitral.training.toml import read_recipe

    folder = given.resume
    asked = json.loads((folder / FOLDS).read_text())
    with Claim(folder):
        if given.moved is not None:
            asked["data"] = rooted(given.moved)
            write_atomically(folder / FOLDS, json.dumps(asked, indent=1).encode())
        recipe = read_recipe(folder / "recipe.toml", stored=True)
        return _all(folder, recipe, asked, display, given.settings.train.workers)


def _foreseen(count: int, each: float | None) -> str:
    from vitral.training.display import clock

    total = "" if each is None else f", about {clock(count * each)} of training in all"
    return f"{count} folds, one run after another{total}"


def _all(folder: Path, recipe: Recipe, asked: dict[str, Any], display: "Display", workers: int | None = None) -> int:
    """Run what is not finished, then write down what all of them say."""
    from vitral.report.folds import TABLE, TESTED, Folded, write_folds, write_tested
    from vitral.report.run import report_run
    from vitral.training.display import Display
    from vitral.training.settle import settle
    from vitral.training.start import begin, check_place, resume

    count = asked["folds"]
    for number in range(1, count + 1):
        inner = folder / f"fold-{number}"
        if (inner / TESTED).exists():
            continue
        display.say(f"\nfold {number} of {count}")
        display.close()
        display = Display()  # whose clock starts with the run
        if (inner / "run.json").exists():
            run = resume(inner, display, workers, asked["data"])
        else:
            own = of_fold(recipe, number, count)
            check_place(inner)
            settled = settle(asked["data"], own, display)
            settled = replace(settled, reasons=(*asked["planned"], *settled.reasons))
            run = begin(settled, inner, display, asked["command"])
        attend(run)
        if not run.train():
            again = f"{program()} train --resume {shlex.quote(str(folder))}"
            display.say(f"stopped and saved in fold {number}, step {run.loop.progress.step}; go on with: {again}")
            display.close()
            return 130
        display.doing("writing the report")
        report_run(inner, run.data)
        write_tested(inner, run.data)
    folded = Folded.of(folder, count)
    page = write_folds(folder, folded)
    display.say(f"\n{folded.summary()}")
    display.close()
    use = f"{program()} train {shlex.quote(str(asked['data']))} --test-fraction 0{' --skip-unreadable' * recipe.data.skip_unreadable}"
    print(
        f"\nAnswers to every image: {folder / TABLE}\nThe folds are for judging; for a model to use, train one on all images: {use}\nReport: {page}",
        file=sys.stderr,
    )
    return 0
