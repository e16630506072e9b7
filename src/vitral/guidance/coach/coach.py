"""The coach reads a run's log, while the run writes it or later, and says once what seems to go wrong, with the number that shows it.

Both are one state machine over the lines of metrics.jsonl, so a run's own remarks are those of `vitral coach RUN`.
"""

import json
import shlex
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from vitral.errors import VitralError, counted, ratio
from vitral.evaluation.words import against, beside_commonest
from vitral.guidance.coach import generalise, places, symptoms
from vitral.guidance.coach.history import History, Line
from vitral.guidance.coach.symptoms import Remark, Symptom
from vitral.objectives.options import ClassifyOptions
from vitral.training.config import Recipe
from vitral.training.display import clock
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
    generalise.unlike,
    generalise.memorised,
    generalise.noise,
    generalise.overfitting,
    places.overfitting,
    places.unfound,
    generalise.starved,
    generalise.budget,
)
# remark: the remarks that it explains, which are not made after it
EXPLAINED = {
    "inputs": {"dead", "exploding", "rate_high", "rate_low", "stuck", "collapsed", "memorised"},
    "frozen": {"dead", "exploding", "rate_high", "rate_low", "stuck", "collapsed"},
    "dead": {"frozen", "stuck", "rate_high", "rate_low", "collapsed"},
    "exploding": {"rate_high", "stuck", "collapsed"},
    "rate_high": {"exploding", "stuck", "collapsed"},
    "rate_low": {"stuck", "collapsed"},
    "stuck": {"collapsed"},
    "unlike": {"memorised", "noise", "overfitting", "collapsed"},
    "memorised": {"noise", "overfitting"},
    "noise": {"overfitting"},
    "overfitting": {"noise"},
}


class Coach:
    """Lines in, remarks out; each kind of remark once."""

    def __init__(self, recipe: Recipe, described: Line) -> None:
        """described: what run.json holds, and under `folder` where the run is."""
        self.run = History(recipe, described)
        self.said: set[str] = set()

    @classmethod
    def of(cls, folder: Path) -> "Coach":
        """The coach of a run's folder, before any line is read. VitralError where there is no run."""
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
        """The remarks that this line, after those before it, gives reason for."""
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
        """`see` in the form that a run calls: (kind, text)."""
        return [(remark.kind, str(remark)) for remark in self.see(line)]


def lines_of(folder: Path) -> list[Line]:
    """The lines of a run's metrics.jsonl; a last one that a kill cut short is left out. None where nothing is logged yet."""
    path, lines = folder / "metrics.jsonl", []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def replay(folder: Path) -> tuple[Coach, list[Remark]]:
    """The coach after the whole log of a run's folder, and its remarks."""
    coach = Coach.of(folder)
    return coach, [remark for line in lines_of(folder) for remark in coach.see(line)]


ROOM = 0.02  # in top-1 between training and validation, above which more variety may help
MASTERED = 0.98  # top-1 on training images, below which longer training may help


def summary(run: History) -> tuple[str, str]:
    """One line on how the run stands, with its numbers; and the command to try next, "" for none."""
    if not run.train:
        return "no step has been logged yet", advice(run)[1]
    line = run.train[-1]
    parts = [f"step {line['step']}, {line['share']:.0%} of the budget", f"training loss {line['loss']:.3f}"]
    train, _, images = run.seen_score()
    scored = [v for v in run.val if v.get("top1") is not None]
    if scored and run.one_class_an_image:
        best, now, own = max(v["in_use"] for v in scored), scored[-1]["in_use"], scored[-1]["top1"]
        n = run.size("val")
        parts.append(f"validation top-1 {ratio(now, n, 1)} (best {ratio(best, n, 1)})")
        parts += [] if own == now else [f"of the Transformer alone {ratio(own, n, 1)}"]
    if images:
        gap = 100 * (train - scored[-1]["top1"])
        parts.append(f"training images in the same view {ratio(train, images, 1)}, gap {gap:+.1f} points")
    parts += places.in_words(run)
    for name, text in (("knn", "nearest neighbours"), ("map", "mAP")):
        values = [v[name] for v in run.val if v.get(name) is not None]
        parts += [f"{text} {values[-1]:.1%}"] if values else []
    parts += _beside_plan(run, line)
    luck = by_luck(run)
    return "; ".join([*parts, luck] if luck else parts), advice(run)[1]


def _beside_plan(run: History, line: Line) -> list[str]:
    """The epochs that were made beside those that the plan foresaw, once the run has ended."""
    foreseen = run.described.get("foreseen")
    if not foreseen or line["share"] < 1:
        return []
    made = f"{line['epoch']:.1f} epochs in {clock(line['seconds'])}, where the plan foresaw {foreseen['epochs']:.1f} in {clock(foreseen['seconds'])}"
    return [made]


def advice(run: History) -> tuple[str, str]:
    """What would help most where no fault shows, in a few words, and the command for it; "" where none brings it."""
    folder = run.described["folder"]
    if not run.train or run.train[-1]["share"] < 1:
        return "the rest of the training", f"vitral {_command(run)} --resume {folder}"
    if not run.recipe.objective.labelled:
        return "a look at what its features are worth", f"vitral probe {folder} {run.source()}"
    if not isinstance(run.recipe.objective, ClassifyOptions):
        return places.more(run, _twice(run))
    train, val, images = run.seen_score()
    if by_luck(run) or (images and train < MASTERED and train - val < ROOM):
        return "a longer training", run.again(**_twice(run))
    if images and train - val >= ROOM:
        return "more augmentation, or more images", run.again(mixup=max(0.2, 2 * run.recipe.augment.mixup))
    return "more images of the classes that it confuses", ""


FINE = 0.1  # a gap between training and validation that enough images would show


def silence(run: History) -> str:
    """What to say where there was no remark: empty where a finished run is no better than luck."""
    if by_luck(run):
        return ""
    images, said = run.size("val"), "nothing looks wrong"
    if not run.one_class_an_image:
        unjudged = " in losses and gradients; scores of several labels an image are not judged"
        return f"{said}{unjudged if isinstance(run.recipe.objective, ClassifyOptions) else ''}. "
    if not images:
        return f"{said} in training, and without a validation split nothing more can be told. "
    shown = generalise.SURE * run.noise(0.5, images)
    if shown <= FINE:
        return f"{said}. "
    gap = f"a gap to training of {100 * shown:.0f} points or more"
    return f"{said} that {counted(images, 'validation image')} can show: {gap}; --folds 5 tests on every image. "


def by_luck(run: History) -> str | None:
    """A sentence where the scored images do not show that a finished run beats naming the commonest class (Wilson's 95 % interval), else None."""
    if not run.train or run.train[-1]["share"] < 1 or not run.one_class_an_image:
        return None
    path = Path(run.described["folder"]) / "scores.json"
    if path.exists():
        scores = json.loads(path.read_text())
        split, top1, images = scores["split"], scores["top1"], scores["images"]
    elif run.val and run.val[-1].get("top1") is not None:
        split, top1, images = "val", run.val[-1]["in_use"], run.size("val")
    else:
        return None
    chance = run.chance(split)
    if against(top1, chance, images) == "better":
        return None
    return beside_commonest(top1, chance, images, "validation image" if split == "val" else f"{split} image")


def _command(run: History) -> str:
    return "train" if run.recipe.objective.labelled else "pretrain"


def _twice(run: History) -> dict[str, object]:
    """The flag for twice the budget."""
    train = run.recipe.train
    if train.time is not None:
        return {"time": f"{2 * float(train.time[:-1]):g}{train.time[-1]}"}
    return {"steps": 2 * train.steps} if train.steps is not None else {"epochs": f"{2 * (train.epochs or 1):g}"}
