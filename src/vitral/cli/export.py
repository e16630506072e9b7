"""`vitral export`: a trained model as one file for another engine."""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from vitral.cli.options import argument
from vitral.errors import VitralError


@dataclass
class Export:
    """Write a model as one file that another engine runs: weights, labels and preprocessing, from pixels to answers, for any number of images.

    Before the file is kept it is run on pictures, from file to answer, at several batch sizes; where an answer differs nothing is written.

    Example: vitral export runs/photos -o photos.onnx

    Example: vitral export runs/photos --to web -o page/
    """

    model: Path = argument()
    """Run folder or model file."""
    out: Path | None = argument(None, flags=("-o",))
    """File to write, or the page's folder; default: beside the model, of its name."""
    to: Literal["onnx", "openvino", "torch", "web"] | None = None
    """Format: onnx (.onnx, for ONNX Runtime and what else reads ONNX), openvino (.xml, with the weights in a .bin beside it), torch (.pt2, a program
    that PyTorch runs without vitral), or web (a folder that opens as a page and answers pictures on the device); default: by the name of the file, or
    onnx."""
    raw: bool = False
    """Take normalised pixels (pixel_values) and give logits, as Hugging Face's tools expect."""
    int8: str = ""
    """Write the file in 8 bits, with ranges from the training images of these data (a folder, table or built-in name) and answers compared on their
    validation images; nothing is written that loses more than 0.3 points or is not faster on this processor; default: float32."""
    check_on: tuple[str, ...] = ()
    """Image files or folders to compare the answers on; default: eight cut from scikit-learn's photographs."""


def export(given: Export, words: list[str]) -> int:
    from vitral.data.asked import find_images
    from vitral.deploy.export.formats import FORMATS
    from vitral.deploy.export.formats import export as write
    from vitral.predict import load

    out = given.out or FORMATS[given.to or "onnx"].beside(given.model)
    if given.int8:
        return _in_8_bits(given, out)
    images = [image for _, image in find_images(given.check_on)] if given.check_on else None
    say = partial(print, file=sys.stderr, flush=True)
    made = write(load(given.model), out, given.to, raw=given.raw, images=images, say=say)
    opened = f"; open {out / 'index.html'}" if out.is_dir() else ""
    print(f"{made.verified}\nwrote {out} ({made.size / 1e6:.1f} MB){opened}", file=sys.stderr)
    if made.said:
        print(f"- {made.said}", file=sys.stderr)
    return 0


def _in_8_bits(given: Export, out: Path) -> int:
    from vitral.cli.bench import labelled, scored, seen
    from vitral.deploy.export.eight_bits import export_int8
    from vitral.deploy.export.quantise import IMAGES
    from vitral.predict import load
    from vitral.training.display import Display

    if given.raw:
        raise VitralError("--raw: a file in 8 bits takes pixels and gives probabilities; leave it out")
    if given.check_on:
        raise VitralError(f"--check-on: answers in 8 bits are compared on {given.int8}; leave it out")
    predictor = load(given.model)
    with Display() as display:
        data = labelled(given.int8, given.model, predictor.card, {}, display)
        split = scored(data, None, given.int8)
        views = seen(data.splits.get("train", split), predictor.card, IMAGES)
        tried = export_int8(predictor, out, split, data.labels, views, to=given.to, say=display.say)
    print(f"{tried}\nwrote {out}", file=sys.stderr)
    return 0
