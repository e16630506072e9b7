"""Make the page of a finished run from its folder, looking at some images again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitral.checkpoints.atomic import write_atomically
from vitral.data.dataset import DataSet
from vitral.drawing.figure import png
from vitral.errors import VitralError
from vitral.evaluation.evaluate import score_kept
from vitral.predict import load
from vitral.report.frame import About
from vitral.report.page import SECTIONS, write_report
from vitral.report.pretraining import write_pretraining_report
from vitral.report.seen import seen_images
from vitral.training.config import Recipe
from vitral.training.display import clock
from vitral.training.reopen import data_of_run
from vitral.training.toml import read_recipe

Curves = list[dict[str, Any]]


def report_run(run: Path, data: DataSet | None = None, worth: Sequence[str] = ()) -> Path:
    """Write RUN/report.html of a finished run, and RUN/example.png, one image for the next commands; returns the page's path.

    data: those of the run, if they are open already. worth: sentences on what the model is worth, the last a command or ""; the page begins with
    them. VitralError for a folder that is no finished run.
    """
    recipe = read_recipe(run / "recipe.toml", stored=True) if (run / "recipe.toml").exists() else Recipe()
    labelled = recipe.objective.labelled
    result = "scores.json" if labelled else "pictures.npz"
    try:
        described = json.loads((run / "run.json").read_text())
        (run / result).stat()
        curves = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return _scored(run, described, curves, data, worth) if labelled else _pretrained(run, described, curves)
    except (OSError, ValueError) as error:
        if isinstance(error, VitralError):
            raise
        raise VitralError(f"{run}: not a finished run ({_why(run, error)}") from error


def _scored(run: Path, described: dict[str, Any], curves: Curves, data: DataSet | None, worth: Sequence[str]) -> Path:
    """The page of a run that learned from labels."""
    scores = json.loads((run / "scores.json").read_text())
    predictor = load(run)
    if data is None:
        data = data_of_run(run)
        assert data is not None, "its run.json has been read"
    split = data.splits[scores["split"]]
    with np.load(run / "predictions.npz") as stored:
        kept = {name: stored[name] for name in stored.files}
    task, steps = predictor.card.task, predictor.card.preprocess
    write_atomically(run / "example.png", png(Image.fromarray(steps.shown(split.read(0, steps.channels)))))
    about = _about(run, predictor.card.model, described, curves, scores["training_seconds"], scores.get("kept"), worth)
    return write_report(
        run, about, score_kept(kept, task, predictor.labels), split=scores["split"], task=task,
        pictures=SECTIONS[task].pictures(predictor, split, kept),
        baselines={each["name"]: each["right"] for each in scores.get("beside", ())},  # which older runs do not have
        seen=seen_images(split, steps),
    )  # fmt: skip


def _pretrained(run: Path, described: dict[str, Any], curves: Curves) -> Path:
    """The page of a run that learned from images alone."""
    model = f"{load(run).card.model}, {read_recipe(run / 'recipe.toml', stored=True).objective.name}"
    with np.load(run / "pictures.npz") as stored:
        pictures = {name: stored[name] for name in stored.files}
    seconds = next(line["seconds"] for line in reversed(curves) if "seconds" in line)
    subtitle = f"trained on {described['images']['train']:,} images without labels"
    return write_pretraining_report(run, _about(run, model, described, curves, seconds), subtitle, pictures)


def _about(
    run: Path,
    model: str,
    described: dict[str, Any],
    curves: Curves,
    seconds: float,
    kept: str | None = None,
    worth: Sequence[str] = (),
) -> About:
    counts = ", ".join(f"{n:,} {name}" for name, n in described["images"].items())
    facts = {
        "parameters": f"{described['parameters']:,}",
        "training time": clock(seconds),
        "data": f"{described['data']} ({counts} images)",
        "data fingerprint": described["fingerprint"],
        "cost": f"{seconds:,.0f} s of training on {described['machine']}",
        "seed": str(described["seed"]),
        **({} if kept is None else {"weights kept and scored": kept}),
        **({"about the data": "\n".join(described["notes"])} if described["notes"] else {}),
        "decided from the data": "\n".join(described["reasons"]),
        "versions": f"vitral {described['version']}, torch {described['torch']}",
    }
    fold = read_recipe(run / "recipe.toml", stored=True).data.fold
    of_fold = "" if fold is None else f", fold {fold[0]} of {fold[1]}"
    title, recipe = f"{described['name']}{of_fold}: {model}", (run / "recipe.toml").read_text()
    return About(title, described["command"], curves, facts, recipe, worth)


def _why(run: Path, error: Exception) -> str:
    """What the folder of a run lacks, and the remedy, to end a bracket."""
    if not run.is_dir():
        return "there is no such folder); give the folder that --out named"
    if not (run / "run.json").exists():
        return "there is no run.json); give the folder that --out named"
    if not isinstance(error, FileNotFoundError):
        return f"its files cannot be read: {error}); restore them, or train again"
    return f"it has no scores yet); train it to the end with vitral train --resume {run}"
