"""What the pages of all runs share: the page itself, its large numbers, curves, pictures, and how the run was made.

Every piece of text that comes from the data (class names, file names, messages) passes through `html.escape`.
"""

import math
from collections.abc import Sequence
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
from vitral.report.parts import escape as _e

NAME = "report.html"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
TINY, LARGE = 128, 320  # pixels: enlarge smaller pictures without smoothing, shrink larger ones
HEADLINE_FACTS = ("parameters", "training time")
LOSS_WORDS = (
    "Training loss is measured on changed images (augmentation), with smoothed labels where the recipe has them; "
    "validation loss on the images as they are. So training may lie above validation."
)


def write_page(run: Path, title: str, body: Sequence[str], name: str = NAME) -> Path:
    """Write `run/report.html`, or a page of another name, from its sections, whole or not at all; returns its path."""
    css = style() + resources.files("vitral.report").joinpath("report.css").read_text("utf-8")
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # The browser itself holds the page to its word: no script, nothing fetched.
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{_e(title)}</title><style>{css}</style></head>\n<body><main>\n"
        + "\n".join(body)
        + "\n<footer>Written by vitral. This page is one file and needs no network.</footer>\n"
        "</main></body></html>\n"
    )
    write_atomically(run / name, page.encode("utf-8", "backslashreplace"))  # file names need not be valid text
    return run / name


def tiles(numbers: Sequence[tuple[str, str]], facts: dict[str, str]) -> str:
    """The large numbers at the head of a page: (value, what it is), then the headline facts."""
    shown = [*numbers, *((facts[key], key) for key in HEADLINE_FACTS if key in facts)]
    inside = "".join(f"<div class=tile><b>{_e(value)}</b><span>{_e(name)}</span></div>" for value, name in shown)
    return f"<div class=tiles>{inside}</div>"


def _points(curves: Sequence[dict[str, Any]], event: str, key: str) -> list[tuple[float, float]]:
    """(epoch, value) of the lines with a finite value, by step; a later line replaces an earlier one."""
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
        (
            "Images a second",
            line_chart("Training speed over the epochs", speed, "epoch", lambda v, digits: f"{v:,.{digits}f}"),
        ),
    ]
    words = {"Loss": LOSS_WORDS} if _points(curves, "val", "loss") else {}
    cards = "".join(
        f"<section><h3>{name}</h3>{svg}" + (f"<p class=soft>{words[name]}</p>" if name in words else "") + "</section>"
        for name, svg in charts
        if svg
    )
    return f"<div class=pair>{cards}</div>" if cards else ""


def picture(pixels: NDArray[np.uint8], words: str) -> str:
    """A picture as a data URL: small ones exactly (PNG), large ones shrunk (JPEG)."""
    picture = Image.fromarray(pixels)
    tiny = max(picture.size) <= TINY
    if not tiny:
        picture.thumbnail((LARGE, LARGE), Image.Resampling.LANCZOS)
    return f'<img class={"tiny" if tiny else "photo"} alt="{_e(words)}" src="{data_url(picture, tiny)}">'


def how_section(command: str, recipe: str, facts: dict[str, str], curves: Sequence[dict[str, Any]]) -> str:
    rest = [(key, value) for key, value in facts.items() if key not in HEADLINE_FACTS]
    lines = [(key, "<br>".join(_e(line) for line in value.splitlines())) for key, value in rest]
    listed = "".join(f"<dt>{_e(key)}</dt><dd>{value}</dd>" for key, value in lines)
    said = [str(line.get("text", "")) for line in curves if line.get("event") == "message"]
    parts = [f"<h2>How it was made</h2><pre>{_e(command)}</pre>"]
    if listed:
        parts.append(f"<dl>{listed}</dl>")
    if recipe:
        parts.append(f"<details><summary>The recipe, as resolved</summary><pre>{_e(recipe)}</pre></details>")
    if said:
        text = _e("\n".join(said))
        parts.append(f"<details><summary>What training said ({len(said)})</summary><pre>{text}</pre></details>")
    return f"<section>{''.join(parts)}</section>"


def remarks_section(curves: Sequence[dict[str, Any]]) -> str:
    """What the coach said while the run was training, if anything."""
    remarks = [str(line["text"]).removeprefix("coach: ") for line in curves if line.get("event") == "remark"]
    items = "".join(f"<li>{_e(remark).replace(chr(10), '<br>')}</li>" for remark in remarks)
    return f"<section><h2>What the coach saw</h2><ul>{items}</ul></section>" if remarks else ""


def short(value: float, digits: int) -> str:
    """0.0005 as 5e-4, since a learning rate is said so."""
    return "0" if value == 0 else f"{value:.{digits}e}".replace("e-0", "e-") if abs(value) < 0.01 else f"{value:g}"
