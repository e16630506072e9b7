"""The page of a run without labels: curves, how useful the features are, and what the objective makes of some images."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitral.report.frame import About, picture, write_run_page
from vitral.report.parts import escape


def write_pretraining_report(run: Path, about: About, subtitle: str, pictures: dict[str, NDArray[np.uint8]]) -> Path:
    """Write `run/report.html`, whole or not at all; returns its path.

    Args:
        run: the run's folder; it exists.
        subtitle: what was learned from.
        pictures: in the objective's order, name -> [n, H, W, 1 or 3]; row i of each is of image i.

    Raises:
        VitralError: the file cannot be written.
    """
    judged = [line["knn"] for line in about.curves if line.get("event") == "val" and "knn" in line]
    losses = [line["loss"] for line in about.curves if line.get("event") == "train"]
    numbers = [(f"{judged[-1]:.2%}", "top-1 of nearest neighbours, validation images")] if judged else []
    numbers += [(f"{losses[-1]:.4f}", "loss at the end")] if losses else []
    return write_run_page(run, about, subtitle, numbers, [_gallery(pictures)])


def _gallery(pictures: dict[str, NDArray[np.uint8]]) -> str:
    """A strip for each image, its stages from left to right."""
    if not pictures:
        return ""
    names = "".join(f"<span>{escape(name)}</span>" for name in pictures)
    strips = []
    for i in range(min(len(images) for images in pictures.values())):
        stages = "".join(
            picture(np.repeat(images[i], 3 // images.shape[-1], axis=-1), f"image {i + 1}: {name}")
            for name, images in pictures.items()
        )
        strips.append(f"<figure><div class=strip>{stages}</div><figcaption class=strip>{names}</figcaption></figure>")
    return (
        "<section><h2>What the objective makes of images</h2><p class=soft>Training images as the model gets them, and what has become of them "
        f'at the end of training.</p><div class="gallery wide">{"".join(strips)}</div></section>'
    )
