"""`vitral export`: a trained model as one file for another engine."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vitral.cli.options import argument


@dataclass
class Export:
    """Write a model as one file that another engine runs: weights, labels and preprocessing, from pixels to probabilities, for any number of images.

    Before the file is kept it is run on pictures, from file to answer, at several batch sizes; where an answer differs nothing is written.

    Example: vitral export runs/photos -o photos.onnx
    """

    model: Path = argument()
    """Run folder or model file."""
    out: Path | None = argument(None, flags=("-o",))
    """File to write, ending in .onnx; default: beside the model, of its name."""
    to: Literal["onnx"] = "onnx"
    """Format: onnx (ONNX Runtime and what else reads ONNX)."""
    raw: bool = False
    """Take normalised pixels (pixel_values) and give logits, as Hugging Face's tools expect."""
    check_on: tuple[str, ...] = ()
    """Image files or folders to compare the answers on; default: seven cut from scikit-learn's photographs."""


def export(given: Export, words: list[str]) -> int:
    from vitral.data.asked import find_images
    from vitral.deploy.export import export_onnx
    from vitral.predict import load

    out = given.out or _beside(given.model)
    images = [image for _, image in find_images(given.check_on)] if given.check_on else None
    verified = export_onnx(load(given.model), out, raw=given.raw, images=images)
    print(f"{verified}\nwrote {out} ({out.stat().st_size / 1e6:.1f} MB)", file=sys.stderr)
    return 0


def _beside(model: Path) -> Path:
    return model / "model.onnx" if model.is_dir() else model.with_suffix(".onnx")
