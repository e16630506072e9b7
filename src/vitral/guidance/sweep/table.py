"""The results of a sweep: a row a run, means over seeds, and scaling laws. They are bit-identical however often the sweep was killed.

OUT/table.csv, table.json  a row a run              OUT/summary.csv  means over the seeds
"model" says what a model is, "name" what the zoo calls it or what it was changed from. The score is the task's headline: top1, or map (mAP).
OUT/times.csv              seconds of training, which differ from time to time and so have a file of their own
"""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from vitral.checkpoints.atomic import write_atomically
from vitral.evaluation.evaluate import EVALUATORS
from vitral.evaluation.evaluator import Scores
from vitral.guidance.sweep.cost import compute, cost_of, seen
from vitral.guidance.sweep.scaling import PowerLaw, fit_power_law
from vitral.guidance.sweep.sweep import Point
from vitral.models.words import model_in_words
from vitral.training.shape import open_shape
from vitral.training.toml import read_recipe

Row = dict[str, Any]
Laws = dict[str, dict[str, PowerLaw | str]]
"""images or compute -> curve -> law."""
COST = ("batch", "parameters", "multiply_adds", "images_seen", "compute")
LAWS = {"images": "training images", "compute": "multiply-adds of training"}
RANGE = 2.0
"""Sizes along a curve must differ by at least this factor for it to be drawn."""


def row(point: Point, run: Path, failure: str | None, scores: type[Scores]) -> Row:
    """A run's row: its settings and its results, the task's headline under its own name; or why it failed."""
    outcome = {} if failure is not None else _outcome(run, scores.HEADLINE)
    if outcome and outcome[scores.HEADLINE] is None:
        failure = (
            f"{scores.TITLE} is undefined on the {outcome['split']} images; give a larger --{outcome['split']}-fraction"
        )
    recipe = point.recipe
    return {
        "recipe": point.recipe_name,
        "model": point.model,
        "name": point.model,
        "fraction": recipe.data.train_fraction,
        "images": None,
        "seed": recipe.train.seed,
        **{name: list(value) if isinstance(value, tuple) else value for name, value in point.values.items()},
        **dict.fromkeys((*COST, "split", scores.HEADLINE, "loss", "steps", "epochs")),
        "state": "done" if failure is None else "failed",
        "message": failure or "",
        "run": point.name,
        "setting": repr(point.setting),
        **outcome,
    }


def scores_in(row: Row) -> type[Scores]:
    """What a row or a mean is scored by: the task whose headline it has."""
    return next(kind.scores for kind in EVALUATORS.values() if kind.scores.HEADLINE in row)


def _outcome(run: Path, headline: str) -> Row:
    described, scores = (json.loads((run / name).read_text()) for name in ("run.json", "scores.json"))
    recipe = read_recipe(run / "recipe.toml", stored=True)
    assert recipe.view.mean is not None
    assert recipe.train.batch_size is not None
    config = open_shape(recipe, in_channels=len(recipe.view.mean), num_classes=len(described["labels"]))
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    steps = max(int(line["step"]) for line in lines if line["event"] == "train")
    images, batch = described["images"]["train"], recipe.train.batch_size * recipe.train.accumulation
    multiply_adds, images_seen = cost_of(config).multiply_adds, seen(steps, images, batch)
    return {
        "model": model_in_words(config, recipe.model.name),
        "name": recipe.model.name,
        "images": images,
        "batch": min(batch, images),
        "parameters": described["parameters"],
        "multiply_adds": multiply_adds,
        "images_seen": images_seen,
        "compute": compute(multiply_adds, images_seen),
        "split": scores["split"],
        headline: scores[headline],
        "loss": scores["loss"],
        "steps": steps,
        "epochs": round(steps / -(-images // batch), 4),
        "scored": scores["images"],
    }


def write_rows(folder: Path, points: Sequence[Point], rows: Sequence[Row]) -> None:
    """The table as CSV and JSON, the means, and the times, in the order of `points`."""
    shown = [{k: v for k, v in one.items() if k not in ("scored", "setting")} for one in rows]
    _write_csv(folder / "table.csv", shown)
    write_atomically(folder / "table.json", (json.dumps(shown, indent=1) + "\n").encode())
    _write_csv(folder / "summary.csv", summary(points, rows))
    done = [one["run"] for one in rows if one["state"] == "done"]
    scores = [json.loads((folder / "runs" / name / "scores.json").read_text()) for name in done]
    times = [{"run": name, "training_seconds": s["training_seconds"]} for name, s in zip(done, scores, strict=True)]
    _write_csv(folder / "times.csv", times)


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def summary(points: Sequence[Point], rows: Sequence[Row]) -> list[Row]:
    """Runs that differ only in their seed as one: how many, and the mean and sample deviation (none for one run) of headline and loss."""
    named = {point.name: point for point in points}
    groups: dict[str, list[Row]] = {}
    for one in rows:
        if one["state"] == "done":
            groups.setdefault(one["setting"], []).append(one)
    means = []
    for group in groups.values():
        first = group[0]
        chosen = ("recipe", "model", "fraction", "images", *named[first["run"]].values)
        mean: Row = {
            **{name: first[name] for name in (*chosen, "batch", "parameters", "multiply_adds")},
            "images_seen": fmean(one["images_seen"] for one in group),
            "compute": fmean(one["compute"] for one in group),
            "split": first["split"],
            "runs": len(group),
        }
        for name in (scores_in(first).HEADLINE, "loss"):
            values = [one[name] for one in group]
            mean |= {name: fmean(values), f"{name}_deviation": stdev(values) if len(group) > 1 else None}
        means.append(mean)
    return means


def mean_text(one: Row, name: str, form: str) -> str:
    """A mean and its deviation, where it has one."""
    deviation = one[f"{name}_deviation"]
    return f"{one[name]:{form}}" + ("" if deviation is None else f" ± {deviation:{form}}")


def curves(points: Sequence[Point], rows: Sequence[Row], against: str) -> dict[str, list[Row]]:
    """The finished runs of each scaling curve, by a name that holds only what tells it from the other curves."""
    named = {point.name: point for point in points}
    groups: dict[str, list[Row]] = {}
    for one in rows:
        if one["state"] == "done":
            groups.setdefault(repr(named[one["run"]].curve(against)), []).append(one)
    parts = [named[members[0]["run"]].curve(against) | {"model": members[0]["model"]} for members in groups.values()]
    different = [name for name in (parts[0] if parts else ()) if len({repr(words[name]) for words in parts}) > 1]
    names = [", ".join(_said(name, words[name]) for name in different or ["model"]) for words in parts]
    return dict(zip(names, groups.values(), strict=True))


def _said(name: str, value: object) -> str:
    return str(value) if name in ("recipe", "model") else f"{name.rpartition('.')[2]} {value}"


def axes(points: Sequence[Point], rows: Sequence[Row]) -> list[str]:
    """The sizes of `LAWS` that vary along some curve; if none does, the images."""
    varied = [
        against
        for against in LAWS
        if any(
            max(one[against] for one in members) >= RANGE * min(one[against] for one in members)
            for members in curves(points, rows, against).values()
        )
    ]
    return varied or ["images"]


def laws(points: Sequence[Point], rows: Sequence[Row]) -> Laws:
    """The power law of each curve's error against each size that varies, or why there is none."""
    return {
        against: {
            name: fit_power_law(
                [one[against] for one in members],
                [1 - one[scores_in(one).HEADLINE] for one in members],
                resolution=0.5 / max(one["scored"] for one in members),
            )
            for name, members in curves(points, rows, against).items()
        }
        for against in axes(points, rows)
    }


def summary_text(means: Sequence[Row], fields: Sequence[str]) -> str:
    """The means as a table; the model stands above it where it is the same in all."""
    models = {one["model"] for one in means}
    above = f"{models.pop()}\n" if len(models) == 1 else ""
    heads = ["recipe", "model", "images", "batch", *fields, "runs", scores_in(means[0]).TITLE]
    lines = [heads]
    for one in means:
        counts = [f"{one[name]:,}" for name in ("images", "batch")]
        chosen = [one["recipe"], "" if above else one["model"], *counts, *(str(one[name]) for name in fields)]
        lines.append([*chosen, str(one["runs"]), mean_text(one, scores_in(one).HEADLINE, ".2%")])
    shown = [i for i in range(len(heads)) if any(line[i] for line in lines[1:])]
    wide = {i: max(len(line[i]) for line in lines) for i in shown}
    return above + "\n".join("  ".join(line[i].ljust(wide[i]) for i in shown).rstrip() for line in lines)
