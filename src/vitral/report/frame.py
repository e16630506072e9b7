"""What all pages of runs have: large numbers, curves, pictures, and how the run was made.

Every piece of text that comes from the data (class names, file names, messages) passes through `html.escape`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitral.checkpoints.atomic import write_atomically
from vitral.drawing.charts import Series, line_chart, style
from vitral.drawing.figure import data_url
from vitral.evaluation.evaluate import headlines
from vitral.report.parts import card, pair
from vitral.report.parts import escape as _e

NAME = "report.html"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
TINY, LARGE = 128, 320  # pixels: enlarge smaller pictures without smoothing, shrink larger ones
HEADLINE_FACTS = ("parameters", "training time")
LOSS_WORDS = (
    "The training loss is of augmented images, and of smoothed labels where the recipe has them; the validation loss is of the images as they are. "
    "So the training loss can be the higher one."
)


@dataclass(frozen=True)
class About:
    """What a page says of its run.

    title: the heading. command: what made the run. curves: the lines of metrics.jsonl, in order; of two lines of one step the later counts
    (a resumed run). facts: what else there is to know, in order; "parameters" and "training time" are shown large. recipe: as resolved, TOML.
    worth: sentences on what the model is worth, the last a command ("" for none).
    """

    title: str
    command: str
    curves: Sequence[dict[str, Any]]
    facts: dict[str, str]
    recipe: str = ""
    worth: Sequence[str] = ()


def write_run_page(
    run: Path, about: About, subtitle: str, numbers: Sequence[tuple[str, str]], details: Sequence[str]
) -> Path:
    """Write `run/report.html`; returns its path. numbers: the large ones, (value, what it is). details: sections in HTML, below the curves."""
    body = [
        f"<header><h1>{_e(about.title)}</h1><p class=soft>{_e(subtitle)}</p></header>",
        _worth(about.worth),
        tiles(numbers, about.facts),
        _remarks(about.curves),
        curves_section(about.curves),
        *details,
        _how(about),
    ]
    return write_page(run, about.title, body)


def write_page(run: Path, title: str, body: Sequence[str], name: str = NAME) -> Path:
    """Write a page from its sections, whole or not at all; returns its path. VitralError where it cannot be written."""
    css = style() + resources.files("vitral.report").joinpath("report.css").read_text("utf-8")
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # so that the browser runs no script and fetches nothing, whatever the page holds
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{_e(title)}</title><style>{css}</style></head>\n<body><main>\n"
        + "\n".join(body)
        + "\n<footer>Written by vitral. This page is one file and needs no network.</footer>\n"
        "</main></body></html>\n"
    )
    write_atomically(run / name, page.encode("utf-8", "backslashreplace"))  # file names need not be valid text
    return run / name


def tiles(numbers: Sequence[tuple[str, str]], facts: dict[str, str]) -> str:
    """Large numbers, (value, what it is), and the most important facts."""
    shown = [*numbers, *((facts[key], key) for key in HEADLINE_FACTS if key in facts)]
    inside = "".join(f"<div class=tile><b>{_e(value)}</b><span>{_e(name)}</span></div>" for value, name in shown)
    return f"<div class=tiles>{inside}</div>"


def _points(curves: Sequence[dict[str, Any]], event: str, key: str) -> list[tuple[float, float]]:
    """(epoch, value) of the lines with a finite value, by step; of two lines of one step the later counts."""
    by_step: dict[int, tuple[float, float]] = {}
    for line in curves:
        value = line.get(key)
        if line.get("event") == event and value is not None and math.isfinite(value):
            by_step[int(line["step"])] = (float(line["epoch"]), float(value))
    return [by_step[step] for step in sorted(by_step)]


def curves_section(curves: Sequence[dict[str, Any]]) -> str:
    def both(key: str) -> list[Series]:
        return [
            Series("training", _points(curves, "train", key), "a", smoothed=True),
            Series("validation", _points(curves, "val", key), "b", marks=True),
        ]

    rate = [Series("learning rate", _points(curves, "train", "lr"))]
    speed = [Series("images/s", _points(curves, "train", "images_per_s"), smoothed=True)]
    charts = [
        ("Loss", line_chart("Loss over the epochs", both("loss"), "epoch")),
        *(
            (title, line_chart(f"{title} over the epochs", both(key), "epoch", lambda v, digits: f"{v:.{digits}%}"))
            for key, title in [*headlines().items(), ("knn", "Top-1 of nearest neighbours")]
        ),
        ("Learning rate", line_chart("Learning rate over the epochs", rate, "epoch", short)),
        ("Images a second", line_chart("Training speed over the epochs", speed, "epoch", lambda v, d: f"{v:,.{d}f}")),
    ]
    words = {"Loss": LOSS_WORDS} if _points(curves, "val", "loss") else {}
    return pair([card(name, svg, words.get(name, "")) for name, svg in charts])


def picture(pixels: NDArray[np.uint8], words: str) -> str:
    """An img of a picture: a small one exactly (PNG), a large one shrunk (JPEG)."""
    picture = Image.fromarray(pixels)
    tiny = max(picture.size) <= TINY
    if not tiny:
        picture.thumbnail((LARGE, LARGE), Image.Resampling.LANCZOS)
    return f'<img class={"tiny" if tiny else "photo"} alt="{_e(words)}" src="{data_url(picture, tiny)}">'


def _how(about: About) -> str:
    listed = "".join(
        f"<dt>{_e(key)}</dt><dd>{'<br>'.join(map(_e, value.splitlines()))}</dd>"
        for key, value in about.facts.items()
        if key not in HEADLINE_FACTS
    )
    messages = [str(line.get("text", "")) for line in about.curves if line.get("event") == "message"]
    parts = [f"<h2>How it was made</h2><pre>{_e(about.command)}</pre>", f"<dl>{listed}</dl>" if listed else ""]
    for summary, text in (
        ("The resolved recipe", about.recipe),
        (f"Messages of training ({len(messages)})", "\n".join(messages)),
    ):
        parts.append(f"<details><summary>{summary}</summary><pre>{_e(text)}</pre></details>" if text else "")
    return f"<section>{''.join(parts)}</section>"


def _worth(sentences: Sequence[str]) -> str:
    if not sentences:
        return ""
    *said, command = sentences
    shown = f"<pre>{_e(command)}</pre>" if command else ""
    return f"<section><h2>Can I use it?</h2><p>{_e(' '.join(said))}</p>{shown}</section>"


def _remarks(curves: Sequence[dict[str, Any]]) -> str:
    """What the coach said during training."""
    remarks = [str(line["text"]).removeprefix("coach: ") for line in curves if line.get("event") == "remark"]
    items = "".join(f"<li>{_e(remark).replace(chr(10), '<br>')}</li>" for remark in remarks)
    return f"<section><h2>What the coach saw</h2><ul>{items}</ul></section>" if remarks else ""


def short(value: float, digits: int) -> str:
    """0.0005 as 5e-4, as learning rates are written."""
    return "0" if value == 0 else f"{value:.{digits}e}".replace("e-0", "e-") if abs(value) < 0.01 else f"{value:g}"
