"""The coach: reads a run's log as it is written, or later, and says once what seems to go wrong, with the number that shows it.

One state machine over the lines of metrics.jsonl does both, so a run's own remarks are those of `vitral coach RUN`.
"""

import json
import shlex
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from vitral.errors import VitralError, ratio
from vitral.evaluation.words import against, beside_commonest
from vitral.guidance.coach import generalise, symptoms
from vitral.guidance.coach.history import History, Line
from vitral.guidance.coach.symptoms import Remark, Symptom
from vitral.training.config import Recipe
from vitral.training.toml import read_recipe

# In this order: a cause comes before what it causes.
SYMPTOMS: tuple[Symptom, ...] = (
    symptoms.inputs,
    symptoms.leak,
    symptoms.dead,
    symptoms.frozen,
    symptoms.exploding,
    symptoms.rate_high,
    symptoms.rate_low,
    symptoms.stuck,
    symptoms.collapsed,
    generalise.memorised,
    generalise.noise,
    generalise.overfitting,
    generalise.starved,
    generalise.budget,
)
# What has been said explains these, so they are not said as well.
EXPLAINED = {
    "inputs": {"dead", "exploding", "rate_high", "rate_low", "stuck", "collapsed", "memorised"},
    "frozen": {"dead", "exploding", "rate_high", "rate_low", "stuck", "collapsed"},
    "dead": {"frozen", "stuck", "rate_high", "rate_low", "collapsed"},
    "exploding": {"rate_high", "stuck", "collapsed"},
    "rate_high": {"exploding", "stuck", "collapsed"},
    "rate_low": {"stuck", "collapsed"},
    "stuck": {"collapsed"},
    "memorised": {"noise", "overfitting"},
    "noise": {"overfitting"},
    "overfitting": {"noise"},
}


class Coach:
    """Lines in, remarks out; each kind of remark once."""

    def __init__(self, recipe: Recipe, described: Line) -> None:
        """described: run.json, with `folder`, the run's."""
        self.run = History(recipe, described)
        self.said: set[str] = set()

    @classmethod
    def of(cls, folder: Path) -> "Coach":
        """Of a run's folder, before any line is seen. A VitralError where there is no run."""
        what, path = "give the folder that --out named", folder / "run.json"
        if not folder.exists():
            raise VitralError(f"{folder}: there is no such folder; {what}")
        if (folder / "sweep.toml").exists():
            runs = shlex.quote(f"{folder}/runs/NAME")
            raise VitralError(f"{folder}: this is a sweep; see its report.html, or vitral coach {runs}")
        if not path.exists():
            raise VitralError(f"{folder}: holds no run (there is no run.json in it); {what}")
        try:
            described = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise VitralError(f"{path}: is damaged or cannot be read; {what}, or train again") from error
        return cls(read_recipe(folder / "recipe.toml", stored=True), described | {"folder": str(folder)})

    def see(self, line: Line) -> list[Remark]:
        """What the line, after those before it, gives reason to say."""
        if line.get("event") not in ("data", "train", "val"):
            return []
        self.run.add(line)
        remarks = []
        for symptom in SYMPTOMS:
            remark = symptom(self.run)
            if remark is not None and not self._known(remark.kind):
                self.said.add(remark.kind)
                when = f"step {line['step']}: " if line["event"] != "data" else ""
                remarks.append(replace(remark, seen=when + remark.seen))
        return remarks

    def _known(self, kind: str) -> bool:
        return kind in self.said or any(kind in EXPLAINED.get(cause, ()) for cause in self.said)

    def watch(self, line: Line) -> Iterable[tuple[str, str]]:
        """`see` in the form that a run takes."""
        return [(remark.kind, str(remark)) for remark in self.see(line)]


def lines_of(folder: Path) -> list[Line]:
    """The lines of a run's metrics.jsonl, without a last one that a kill cut short; none where it has not begun."""
    path, lines = folder / "metrics.jsonl", []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def replay(folder: Path) -> tuple[Coach, list[Remark]]:
    """The coach after all that the folder's log holds, and what it had to say."""
    coach = Coach.of(folder)
    return coach, [remark for line in lines_of(folder) for remark in coach.see(line)]


ROOM = 0.02  # in top-1 between training and validation, above which more variety may help
MASTERED = 0.98  # top-1 on training images, below which longer training may help


def summary(run: History) -> tuple[str, str]:
    """In one line how the run stands, with its numbers, and the command to try next."""
    if not run.train:
        return "no step has been logged yet", f"vitral train --resume {run.described['folder']}"
    line = run.train[-1]
    parts = [f"step {line['step']}, {line['share']:.0%} of the budget", f"training loss {line['loss']:.3f}"]
    train, _, images = run.seen_score()
    scored = [v for v in run.val if v.get("top1") is not None]
    if scored and run.one_class_an_image:
        best = max(v["top1"] for v in scored)
        n = run.size("val")
        parts.append(f"validation top-1 {ratio(scored[-1]['top1'], n, 1)} (best {ratio(best, n, 1)})")
    if images:
        gap = 100 * (train - scored[-1]["top1"])
        parts.append(f"training images in the same view {ratio(train, images, 1)}, gap {gap:+.1f} points")
    for name, text in (("knn", "nearest neighbours"), ("map", "mAP")):
        values = [v[name] for v in run.val if v.get(name) is not None]
        parts += [f"{text} {values[-1]:.1%}"] if values else []
    luck = by_luck(run)
    said = "; ".join([*parts, luck] if luck else parts)
    if line["share"] < 1:
        return said, f"vitral {_command(run)} --resume {run.described['folder']}"
    if luck or (images and train < MASTERED and train - scored[-1]["top1"] < ROOM):
        return said, run.again(**_twice(run))
    if images and train - scored[-1]["top1"] >= ROOM:
        return said, run.again(mixup=max(0.2, 2 * run.recipe.augment.mixup))
    return (
        said,
        f"vitral {'report' if run.recipe.objective.labelled else 'probe'} {run.described['folder']}"
        + ("" if run.recipe.objective.labelled else f" {run.source()}"),
    )


def by_luck(run: History) -> str | None:
    """That a finished run is not shown to be better than naming the commonest class, by the images that were scored (Wilson's 95 % interval)."""
    if not run.train or run.train[-1]["share"] < 1 or not run.one_class_an_image:
        return None
    path = Path(run.described["folder"]) / "scores.json"
    if path.exists():
        scores = json.loads(path.read_text())
        split, top1, images = scores["split"], scores["top1"], scores["images"]
    elif run.val and run.val[-1].get("top1") is not None:
        split, top1, images = "val", run.val[-1]["top1"], run.size("val")
    else:
        return None
    chance = run.chance(split)
    if against(top1, chance, images) == "better":
        return None
    return beside_commonest(top1, chance, images, "validation image" if split == "val" else f"{split} image")


def _command(run: History) -> str:
    return "train" if run.recipe.objective.labelled else "pretrain"


def _twice(run: History) -> dict[str, object]:
    """Twice the budget, as the flag that gives it."""
    train = run.recipe.train
    if train.time is not None:
        return {"time": f"{2 * float(train.time[:-1]):g}{train.time[-1]}"}
    return {"steps": 2 * train.steps} if train.steps is not None else {"epochs": f"{2 * (train.epochs or 1):g}"}
