"""Commands that make a run and its page: train, pretrain, report."""

import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitral.cli.options import argument, names_said
from vitral.cli.parse import program, without
from vitral.cli.runs import check_data, placed, refuse_changes, train_run
from vitral.errors import VitralError
from vitral.objectives.options import OBJECTIVES, MaeOptions
from vitral.training.config import Recipe


@dataclass
class Train:
    """Train a Vision Transformer on labelled images. What you leave out is planned from the data and a short trial; the reasons are printed.

    Example: vitral train photos/ --time 10m --out runs/photos

    Example: vitral train photos/ --init hf:google/vit-base-patch16-224 --epochs 20
    """

    data: str | None = argument(None)
    """Folder of class folders (or of train/, val/ and test/ with class folders), a CSV, TSV or Parquet table with columns image and label, data with
    maps or boxes (docs/annotations.md), or a built-in name: digits, fashion-mnist, elpv."""
    recipe: Path | None = None
    """TOML file of settings, over which any flag goes."""
    out: Path | None = None
    """Run folder to make; default: runs/ and the data's name."""
    resume: Path | None = None
    """Go on with the run in this folder. It continues exactly where its last checkpoint left it; only --workers and --processes may change."""
    moved: str | None = argument(None, flags=("--data",))
    """With --resume: where the run's data are now, if they moved. They must be the same images and labels."""
    go_on: bool = argument(False, flags=("--continue",))
    """Start the run in --out, or go on with it if it was begun, or do nothing if it is done: one command for jobs that may be ended at any time."""
    processes: int | None = None
    """Processes on this machine that share each batch; torchrun starts them, and across machines it is called itself; default: 1."""
    folds: int | None = None
    """Cross-validation: so many runs in folders of RUN, each tested on another part of the images and trained on the rest, and the scores of all
    of them; default: one run."""
    show_augmentation: Path | None = None
    """Draw what the model would see to this PNG file, and do not train."""
    settings: Recipe = field(default_factory=Recipe)
    said: frozenset[str] = names_said()


def train(given: Train, words: list[str]) -> int:
    if not given.settings.objective.labelled:
        raise VitralError(
            f"objective {given.settings.objective.name} needs no labels: vitral pretrain {' '.join(words)}"
        )
    if given.show_augmentation is not None:
        return _show_augmentation(given, words)
    if given.folds is not None or (given.resume is not None and (given.resume / "folds.json").exists()):
        return _folded(given, words)
    return train_run(given, words, "train")


def _folded(given: Train, words: list[str]) -> int:
    """A run for each fold."""
    if given.go_on or given.processes is not None:
        raise VitralError("folds: go on with --resume, in one process; leave out --continue and --processes")
    from vitral.cli.folds import cross_validate, go_on
    from vitral.training.display import Display

    display = Display()
    display.doing("loading torch")
    try:
        if given.resume is not None:
            refuse_changes(given)
            return go_on(given, display)
        check_data(given, "train")
        out, fresh = placed(given, "train")
        return cross_validate(given, out, shlex.join(["vitral", "train", *words]), display, fresh=fresh)
    finally:
        display.close()


@dataclass
class Pretrain:
    """Pre-train a Vision Transformer on images without labels; `vitral train DATA --init RUN` then fine-tunes it.

    --objective mae paints hidden patches, beit names their visual tokens (--tokenizer: a run of --objective tokenizer), patch their mean
    colour, dino agrees with itself on two views. Labels, if there are any, only tell how useful the features are (nearest neighbours on the
    validation images).

    Example: vitral pretrain photos/ --objective mae --time 20m --out runs/mae

    Example: vitral train photos/ --init runs/mae --out runs/finetuned
    """

    data: str | None = argument(None)
    """Plain folder of images, or data as vitral train takes them: folder of class folders, table or built-in name."""
    recipe: Path | None = None
    """TOML file of settings, over which any flag goes."""
    out: Path | None = None
    """Run folder to make; default: runs/ and the data's name with -pretrained."""
    resume: Path | None = None
    """Go on with the run in this folder. It continues exactly where its last checkpoint left it; only --workers and --processes may change."""
    moved: str | None = argument(None, flags=("--data",))
    """With --resume: where the run's data are now, if they moved. They must be the same images and labels."""
    go_on: bool = argument(False, flags=("--continue",))
    """Start the run in --out, or go on with it if it was begun, or do nothing if it is done: one command for jobs that may be ended at any time."""
    processes: int | None = None
    """Processes on this machine that share each batch; torchrun starts them, and across machines it is called itself; default: 1."""
    settings: Recipe = field(default_factory=lambda: Recipe(objective=MaeOptions()))
    said: frozenset[str] = names_said()


def pretrain(given: Pretrain, words: list[str]) -> int:
    if given.settings.objective.labelled:
        without = ", ".join(name for name, kind in OBJECTIVES.items() if not kind.labelled)
        raise VitralError(f"pretrain learns without labels: choose an --objective of {without}, or use vitral train")
    if given.resume is None and (first := given.settings.objective.missing) is not None:
        raise VitralError(_in_two(given, words, first))
    return train_run(given, words, "pretrain")


def _in_two(given: Pretrain, words: list[str], first: str) -> str:
    """That a run of the objective `first` comes before this one, with the command for each."""
    check_data(given, "pretrain")
    objective, (out, _) = given.settings.objective, placed(given, "pretrain")
    before = str(out.with_name(f"{out.name}-{first}"))
    own = {"objective", "out", *vars(objective)}
    commands = (
        [*without(words, Pretrain, own), "--objective", first, "--out", before],
        [*words, f"--{first}", before],
    )
    lines = "\n".join(f"  {program()} pretrain {shlex.join(command)}" for command in commands)
    return f"objective {objective.name} needs a {first}, which is trained first; two commands do it:\n{lines}"


def _show_augmentation(given: Any, words: list[str]) -> int:
    """The contact sheet of a recipe's augmentation; nothing is trained."""
    from vitral.data.sheet import contact_sheet
    from vitral.training.display import Display
    from vitral.training.settle import settle
    from vitral.training.start import preview

    check_data(given, "train")
    display = Display()
    try:
        settled = settle(given.data, given.settings, display)
    finally:
        display.close()
    target = given.show_augmentation
    try:
        contact_sheet(preview(settled), settled.data.labels).save(target)
    except (OSError, ValueError) as error:
        raise VitralError(f"{target}: cannot be written ({error}); name a PNG file in a folder that exists") from error
    print(f"what the model will see: {target}", file=sys.stderr)
    return 0


@dataclass
class Report:
    """Write a finished run's report.html again.

    Example: vitral report runs/photos
    """

    run: Path = argument()
    """Folder of the run."""


def report(given: Report, words: list[str]) -> int:
    from vitral.guidance.coach.worth import worth
    from vitral.report.run import report_run

    found = worth(given.run)
    print(report_run(given.run, worth=found.sentences if found else ()), file=sys.stderr)
    return 0
