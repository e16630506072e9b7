"""`vitral export`: a trained model as one file for another engine."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vitral.cli.options import argument
from vitral.errors import VitralError


@dataclass
class Export:
    """Write a model as one file that another engine runs: weights, labels and preprocessing, from pixels to probabilities, for any number of images.

    Before the file is kept it is run on pictures, from file to answer, at several batch sizes; where an answer differs nothing is written.

    Example: vitral export runs/photos -o photos.onnx

    Example: vitral export runs/photos --to web -o page/
    """

    model: Path = argument()
    """Run folder or model file."""
    out: Path | None = argument(None, flags=("-o",))
    """File to write, ending in .onnx, or the page's folder; default: beside the model, of its name."""
    to: Literal["onnx", "web"] = "onnx"
    """Format: onnx (ONNX Runtime and what else reads ONNX), or web (a folder that opens as a page and answers pictures on the device)."""
    raw: bool = False
    """Take normalised pixels (pixel_values) and give logits, as Hugging Face's tools expect."""
    check_on: tuple[str, ...] = ()
    """Image files or folders to compare the answers on; default: seven cut from scikit-learn's photographs."""


def export(given: Export, words: list[str]) -> int:
    from vitral.data.asked import find_images
    from vitral.deploy.export import export_onnx
    from vitral.predict import load

    if given.to == "web":
        return _page(given)
    out = given.out or _beside(given.model)
    images = [image for _, image in find_images(given.check_on)] if given.check_on else None
    verified = export_onnx(load(given.model), out, raw=given.raw, images=images)
    print(f"{verified}\nwrote {out} ({out.stat().st_size / 1e6:.1f} MB)", file=sys.stderr)
    return 0


def _page(given: Export) -> int:
    """A folder instead of a file."""
    from vitral.data.asked import find_images
    from vitral.deploy.web.page import export_web
    from vitral.predict import load

    if given.raw:
        raise VitralError("--raw: a page takes pictures, not normalised pixels; leave it out")
    out = given.out or (given.model if given.model.is_dir() else given.model.parent) / "page"
    images = [image for _, image in find_images(given.check_on)] if given.check_on else None
    made = export_web(load(given.model), out, images=images)
    print(
        f"{made.verified}\nwrote {out}{os.sep} ({made.size / 1e6:.1f} MB); open {out / 'index.html'}", file=sys.stderr
    )
    if made.transformers:
        print(f"- {made.transformers}", file=sys.stderr)
    return 0


def _beside(model: Path) -> Path:
    return model / "model.onnx" if model.is_dir() else model.with_suffix(".onnx")
