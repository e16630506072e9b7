"""The page of a run without labels: curves, how useful the features are, and what the objective makes of some images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitral.report.frame import curves_section, how_section, picture, remarks_section, tiles, write_page
from vitral.report.parts import escape as _e


def write_pretraining_report(
    run: Path,
    *,
    title: str,
    subtitle: str,
    command: str,
    curves: Sequence[dict[str, Any]],
    pictures: dict[str, NDArray[np.uint8]],
    facts: dict[str, str],
    recipe: str,
) -> Path:
    """Writes `run/report.html`, whole or not at all.

    Args:
        run: the run's folder; it exists.
        title, subtitle: the page's heading, and what was learned from.
        command: the command that made the run, to be copied.
        curves: the lines of metrics.jsonl, in order.
        pictures: in the objective's order, name -> [n, H, W, 1 or 3]; row i of each is of image i.
        facts: what else a reader wants, in order; "parameters" and "training time" are shown large.
        recipe: the resolved recipe's text.

    Raises:
        VitralError: the file cannot be written.
    """
    judged = [line["knn"] for line in curves if line.get("event") == "val" and "knn" in line]
    lost = [line["loss"] for line in curves if line.get("event") == "train"]
    numbers = [(f"{judged[-1]:.2%}", "top-1 of nearest neighbours, validation")] if judged else []
    numbers += [(f"{lost[-1]:.4f}", "loss at the end")] if lost else []
    body = [
        f"<header><h1>{_e(title)}</h1><p class=soft>{_e(subtitle)}</p></header>",
        tiles(numbers, facts),
        remarks_section(curves),
        curves_section(curves),
        _gallery(pictures),
        how_section(command, recipe, facts, curves),
    ]
    return write_page(run, title, body)


def _gallery(pictures: dict[str, NDArray[np.uint8]]) -> str:
    """A strip for each image, its stages from left to right."""
    if not pictures:
        return ""
    names = "".join(f"<span>{_e(name)}</span>" for name in pictures)
    strips = []
    for i in range(min(len(images) for images in pictures.values())):
        stages = "".join(
            picture(np.repeat(images[i], 3 // images.shape[-1], axis=-1), f"image {i + 1}: {name}")
            for name, images in pictures.items()
        )
        strips.append(f"<figure><div class=strip>{stages}</div><figcaption class=strip>{names}</figcaption></figure>")
    return (
        "<section><h2>What it makes of images</h2><p class=soft>Training images as the model gets them, and what its objective makes of them "
        f'at the end.</p><div class="gallery wide">{"".join(strips)}</div></section>'
    )
