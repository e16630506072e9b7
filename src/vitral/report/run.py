"""From a run folder to its page: reads what training wrote, looks at some images again, and hands all of it to `write_report`."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from vitral.checkpoints.atomic import write_atomically
from vitral.data.sources import DataSet, Split, open_data
from vitral.errors import VitralError
from vitral.evaluation.metrics import score
from vitral.explain.explain import Plain, look
from vitral.predict import Predictor, load, to_rgb
from vitral.report.page import Example, choose_examples, write_report
from vitral.training.display import clock
from vitral.training.toml import read_recipe

ENLARGED = 160  # pixels: overlays of smaller images are enlarged to at least this


def report_run(run: Path, data: DataSet | None = None) -> Path:
    """Write RUN/report.html of a finished run, and RUN/example.png, one image to try the next commands on; returns the page's path.

    Without `data` the run's own data are opened again.
    """
    try:
        described = json.loads((run / "run.json").read_text())
        scores = json.loads((run / "scores.json").read_text())
        metrics = (run / "metrics.jsonl").read_text().splitlines()
    except (OSError, ValueError) as error:
        raise VitralError(f"{run}: not a finished run ({_why(run, error)}") from error
    recipe = read_recipe(run / "recipe.toml")
    predictor = load(run)
    if data is None:
        data = open_data(described["data"], recipe.data)
        if data.fingerprint != described["fingerprint"]:
            raise VitralError(
                f"{described['data']}: the images or labels changed since the run; restore them to report on it"
            )
    split = data.splits[scores["split"]]
    with np.load(run / "predictions.npz") as stored:
        answers = {name: stored[name] for name in ("logits", "targets")}
    examples = [_example(predictor, split, i) for i in choose_examples(answers["logits"], answers["targets"])]
    picture = to_rgb(split.read(0, predictor.card.preprocess.channels))
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    write_atomically(run / "example.png", buffer.getvalue())
    counts = ", ".join(f"{n:,} {name}" for name, n in described["images"].items())
    seconds = scores["training_seconds"]
    return write_report(
        run,
        title=f"{described['name']}: {predictor.card.architecture}",
        command=described["command"],
        labels=predictor.labels,
        evaluation=score(answers["logits"], answers["targets"], predictor.labels),
        curves=[json.loads(line) for line in metrics],
        examples=examples,
        facts={
            "parameters": f"{described['parameters']:,}",
            "training time": clock(seconds),
            "data": f"{described['data']} ({counts} images)",
            "data fingerprint": described["fingerprint"],
            "cost": f"{seconds:,.0f} s of training on {described['machine']}",
            "seed": str(described["seed"]),
            **({"about the data": "; ".join(described["notes"])} if described["notes"] else {}),
            "decided from the data": "; ".join(described["reasons"]),
            "versions": f"vitral {described['version']}, torch {described['torch']}",
        },
        recipe=(run / "recipe.toml").read_text(),
        split=scores["split"],
    )


def _why(run: Path, error: Exception) -> str:
    """What a run's folder lacks, and the remedy."""
    if not run.is_dir():
        return "there is no such folder); give the folder that --out named"
    if not (run / "run.json").exists():
        return "there is no run.json); give the folder that --out named"
    if not isinstance(error, FileNotFoundError):
        return f"its files cannot be read: {error}); restore them, or train again"
    return f"it has no scores yet); train it to the end with vitral train --resume {run}"


def _example(predictor: Predictor, split: Split, index: int) -> Example:
    """One image with the attention of the last layer over it."""
    pixels = split.read(index, predictor.card.preprocess.channels)
    best = predictor.predict_batch([predictor.card.preprocess(pixels)], [split.names[index]], top_k=1)[0]
    overlay = None
    if isinstance(predictor.model, Plain):
        explanation = look(predictor, pixels).explain()
        overlay = np.asarray(explanation.overlay(scale=max(1, -(-ENLARGED // max(pixels.shape[1:])))))
    return Example(
        name=split.names[index],
        label=predictor.labels[int(split.targets[index])],
        predicted=best.label,
        probability=best.probability,
        image=to_rgb(pixels),
        overlay=overlay,
    )
