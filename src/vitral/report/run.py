"""From a run folder to its page: reads what training wrote, looks at some images again, and hands all of it to `write_report`."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitral.checkpoints.atomic import write_atomically
from vitral.data.listing import in_words, named
from vitral.data.sources import DataSet, Split
from vitral.errors import VitralError
from vitral.evaluation.evaluate import score_split
from vitral.explain.explain import look
from vitral.explain.methods import undefined
from vitral.predict import Predictor, load
from vitral.report.labels import choose_label_examples, furthest
from vitral.report.page import Example, choose_examples, write_report
from vitral.report.pretraining import write_pretraining_report
from vitral.training.config import Recipe
from vitral.training.display import clock
from vitral.training.reopen import data_of_run
from vitral.training.toml import read_recipe

Curves = list[dict[str, Any]]
ENLARGED = 160  # pixels: overlays of smaller images are enlarged to at least this


def report_run(run: Path, data: DataSet | None = None) -> Path:
    """Write RUN/report.html of a finished run, and RUN/example.png, one image to try the next commands on; returns the page's path.

    Without `data` the run's own data are opened again.
    """
    recipe = read_recipe(run / "recipe.toml") if (run / "recipe.toml").exists() else Recipe()
    classifies = recipe.objective.name == "classify"
    result = "scores.json" if classifies else "pictures.npz"
    try:
        described = json.loads((run / "run.json").read_text())
        (run / result).stat()
        curves = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return _classified(run, described, curves, data) if classifies else _pretrained(run, described, curves)
    except (OSError, ValueError) as error:
        if isinstance(error, VitralError):
            raise
        raise VitralError(f"{run}: not a finished run ({_why(run, error)}") from error


def _classified(run: Path, described: dict[str, Any], curves: Curves, data: DataSet | None) -> Path:
    """The page of a run that learned classes."""
    scores = json.loads((run / "scores.json").read_text())
    predictor = load(run)
    if data is None:
        data = data_of_run(run)
        assert data is not None, "its run.json has been read"
    split = data.splits[scores["split"]]
    with np.load(run / "predictions.npz") as stored:
        answers = {name: stored[name] for name in ("logits", "targets")}
    choose = choose_label_examples if predictor.card.multi_label else choose_examples
    examples = [
        _example(predictor, split, i, answers["logits"][i]) for i in choose(answers["logits"], answers["targets"])
    ]
    steps = predictor.card.preprocess
    picture = steps.shown(split.read(0, steps.channels))
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    write_atomically(run / "example.png", buffer.getvalue())
    return write_report(
        run,
        title=f"{described['name']}: {predictor.card.model}",
        command=described["command"],
        labels=predictor.labels,
        evaluation=score_split(answers["logits"], answers["targets"], predictor),
        curves=curves,
        examples=examples,
        facts=_facts(described, scores["training_seconds"], scores.get("kept")),
        recipe=(run / "recipe.toml").read_text(),
        split=scores["split"],
        baselines=described.get("baselines", {}),  # which older runs do not have
    )


def _pretrained(run: Path, described: dict[str, Any], curves: Curves) -> Path:
    """The page of a run that learned from images alone."""
    recipe = read_recipe(run / "recipe.toml")
    with np.load(run / "pictures.npz") as stored:
        pictures = {name: stored[name] for name in stored.files}
    return write_pretraining_report(
        run,
        title=f"{described['name']}: {load(run).card.model}, {recipe.objective.name}",
        subtitle=f"learned from {described['images']['train']:,} images without labels",
        command=described["command"],
        curves=curves,
        pictures=pictures,
        facts=_facts(described, next(line["seconds"] for line in reversed(curves) if "seconds" in line)),
        recipe=(run / "recipe.toml").read_text(),
    )


def _facts(described: dict[str, Any], seconds: float, kept: str | None = None) -> dict[str, str]:
    counts = ", ".join(f"{n:,} {name}" for name, n in described["images"].items())
    return {
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


def _why(run: Path, error: Exception) -> str:
    """What a run's folder lacks, and the remedy."""
    if not run.is_dir():
        return "there is no such folder); give the folder that --out named"
    if not (run / "run.json").exists():
        return "there is no run.json); give the folder that --out named"
    if not isinstance(error, FileNotFoundError):
        return f"its files cannot be read: {error}); restore them, or train again"
    return f"it has no scores yet); train it to the end with vitral train --resume {run}"


def _example(predictor: Predictor, split: Split, index: int, logits: np.ndarray) -> Example:
    """One image with the attention of the last layer over it; logits: [K], its own."""
    pixels = split.read(index, predictor.card.preprocess.channels)
    target, furthest_off = split.targets[index], None
    if predictor.card.multi_label:
        label, predicted = (in_words(named(yes, predictor.labels)) for yes in (target, logits >= 0))
        furthest_off, probability = furthest(logits, target, predictor.labels)
    else:
        best = predictor.predict_batch([predictor.card.preprocess(pixels)], [split.names[index]], top_k=1)[0]
        label, predicted, probability = predictor.labels[int(target)], best.label, best.probability
    overlay, even = None, ""
    if undefined(predictor.model, "attention") is None:
        explanation = look(predictor, pixels).explain()
        overlay = np.asarray(explanation.overlay(scale=max(1, -(-ENLARGED // max(pixels.shape[1:])))))
        even = explanation.even
    return Example(
        name=split.names[index],
        label=label,
        predicted=predicted,
        probability=probability,
        image=predictor.card.preprocess.shown(pixels),
        overlay=overlay,
        furthest=furthest_off,
        even=even,
    )
