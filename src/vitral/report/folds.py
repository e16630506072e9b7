"""The page of a cross-validation: every image's answer by the model that did not learn from it, in one table and one page."""

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from vitral.answers import ANSWERS
from vitral.checkpoints.atomic import write_atomically
from vitral.data.dataset import DataSet
from vitral.errors import counted
from vitral.evaluation.evaluate import EVALUATORS
from vitral.evaluation.evaluator import Scores
from vitral.report.frame import About, write_run_page
from vitral.report.page import SECTIONS
from vitral.report.parts import escape, percent, table
from vitral.training.display import clock

TABLE = "out-of-fold.csv"
TESTED = "tested.json"
SEPARATOR = ";"  # between the labels of an image that has several


@dataclass(frozen=True)
class Fold:
    """What one run of a cross-validation answered to the images that it did not learn from."""

    number: int
    names: list[str]
    outputs: np.ndarray
    """float32 [n, K]"""
    targets: np.ndarray
    headline: float | None
    loss: float
    seconds: float
    """Of training."""
    without: dict[str, float]
    """By name, the share of the same images that what needs no training answers entirely right."""

    @classmethod
    def of(cls, folder: Path, number: int) -> "Fold":
        """From the folder of a finished run."""
        scores, tested = (json.loads((folder / name).read_text()) for name in ("scores.json", TESTED))
        with np.load(folder / "predictions.npz") as stored:
            outputs, targets = stored["logits"], stored["targets"]
        value = scores[EVALUATORS[tested["task"]].scores.HEADLINE]
        seconds, without = (
            scores["training_seconds"],
            {each["name"]: each["right"] for each in scores.get("beside", ())},
        )
        return cls(number, tested["names"], outputs, targets, value, scores["loss"], seconds, without)


@dataclass(frozen=True)
class Folded:
    """All folds together."""

    folds: list[Fold]
    labels: list[str]
    task: str

    @classmethod
    def of(cls, run: Path, count: int) -> "Folded":
        """From the folder of a cross-validation whose runs are finished."""
        tested = json.loads((run / "fold-1" / TESTED).read_text())
        folds = [Fold.of(run / f"fold-{number}", number) for number in range(1, count + 1)]
        return cls(folds, tested["labels"], tested["task"])

    @property
    def scores(self) -> Scores:
        """Of every image, by the model that did not learn from it."""
        evaluator = EVALUATORS[self.task](self.labels)
        for fold in self.folds:
            evaluator.take({"logits": fold.outputs, "targets": fold.targets})
        return evaluator.result()

    def spread(self, values: list[float]) -> str:
        """Mean and deviation over the folds, in words."""
        deviation = f" ± {np.std(values, ddof=1):.1%}" if len(values) > 1 else ""
        return f"{np.mean(values):.1%}{deviation}"

    @property
    def headline(self) -> str:
        return self.spread([fold.headline for fold in self.folds if fold.headline is not None])

    @property
    def without(self) -> dict[str, str]:
        """By name, mean and deviation of what needs no training."""
        return {name: self.spread([fold.without[name] for fold in self.folds]) for name in self.folds[0].without}

    def against(self) -> str | None:
        """The models beside the best of what needs no training, fold by fold, in words; None where nothing of that kind was scored."""
        if not self.folds[0].without:
            return None
        name = max(self.folds[0].without, key=lambda name: float(np.mean([fold.without[name] for fold in self.folds])))
        own = [EVALUATORS[self.task].right(fold.outputs, fold.targets) for fold in self.folds]
        gaps = [
            100 * (float(right.mean()) - fold.without[name])
            for fold, right in zip(self.folds, own, strict=True)
            if right is not None  # nor is there anything without training for a task without whole answers
        ]
        better = sum(gap > 0 for gap in gaps)
        return (
            f"against {name}, the best without training: {np.mean(gaps):+.1f} points of the images right, better in {better} of {len(gaps)} folds "
            f"({min(gaps):+.1f} to {max(gaps):+.1f})"
        )

    def summary(self) -> str:
        """A few lines for a person."""
        kind, images = EVALUATORS[self.task].scores, sum(len(fold.names) for fold in self.folds)
        lines = [
            f"{len(self.folds)} folds, {counted(images, 'image')}, each judged by a model that did not learn from it"
        ]
        lines.append(f"{kind.TITLE} {self.headline} (mean and deviation over the folds)")
        lines += [f"without training: {value} {name}" for name, value in self.without.items()]
        return "\n".join([*lines, *filter(None, [self.against()])])


def write_tested(folder: Path, data: DataSet) -> None:
    """Write beside a fold's run which images it was tested on: the fold is done."""
    tested = {"task": data.task, "labels": data.labels, "names": list(data.splits["test"].names)}
    write_atomically(folder / TESTED, json.dumps(tested).encode())


def write_folds(run: Path, folded: Folded) -> Path:
    """Writes `run/out-of-fold.csv` and `run/report.html` of finished folds, which lie in run/fold-1, run/fold-2, ...; returns the page's path."""
    _write_table(run / TABLE, folded)
    described = json.loads((run / "fold-1" / "run.json").read_text())
    sections, scores = SECTIONS[folded.task], folded.scores
    title = f"{described['name']}: {len(folded.folds)} folds"
    subtitle = (
        f"{counted(scores.images, 'image')}, {sections.counted(scores)}; each image was judged by the one model of {len(folded.folds)} that did not "
        f"learn from it. The answers to single images: {TABLE}"
    )
    if (beside := folded.against()) is not None:
        subtitle += f". {beside[0].upper()}{beside[1:]}"
    words = f"{EVALUATORS[folded.task].scores.TITLE}, mean and deviation over the folds"
    numbers = [
        (folded.headline, words),
        *((value, f"without training: {name}") for name, value in folded.without.items()),
    ]
    facts = {
        "parameters": f"{described['parameters']:,}",
        "training time": clock(sum(fold.seconds for fold in folded.folds)),
        "data": described["data"],
        "machine": described["machine"],
        "decided from the data": "\n".join(described["reasons"]),
        "versions": f"vitral {described['version']}, torch {described['torch']}",
    }
    recipe = (run / "fold-1" / "recipe.toml").read_text()
    about = About(title, described["command"], [], facts, recipe)
    numbers.append((f"{scores.images:,}", "images scored"))
    return write_run_page(run, about, subtitle, numbers, [_folds(folded), sections.body(scores)])


def _folds(folded: Folded) -> str:
    """HTML: a line for each fold, with its own page."""
    kind = EVALUATORS[folded.task].scores
    others = list(folded.folds[0].without)
    rows = [
        [
            f'<a href="fold-{fold.number}/report.html">fold {fold.number}</a>',
            percent(fold.headline),
            *(percent(fold.without[name]) for name in others),
            f"{fold.loss:.3f}",
            f"{len(fold.names):,}",
            clock(fold.seconds),
        ]
        for fold in folded.folds
    ]
    heads = ["tested on", escape(kind.TITLE), *map(escape, others), "loss", "images", "training"]
    return f"<section><h2>Folds</h2>{table(heads, rows)}</section>"


def _write_table(path: Path, folded: Folded) -> None:
    """CSV: image, fold, the truth, and the answer as `vitral predict --format csv` gives it."""
    answers = ANSWERS[folded.task](folded.labels)
    count = len(folded.labels)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "fold", "truth", *answers.columns(count, SEPARATOR)])
    for fold in folded.folds:
        told = answers(torch.from_numpy(fold.outputs), fold.names, count, ())
        for target, answer in zip(fold.targets, told, strict=True):
            truth = [folded.labels[k] for k in np.flatnonzero(target)] if np.ndim(target) else [folded.labels[target]]
            writer.writerow([answer.name, fold.number, SEPARATOR.join(truth), *answer.cells(count, SEPARATOR)])
    write_atomically(path, text.getvalue().encode("utf-8", "surrogateescape"))
