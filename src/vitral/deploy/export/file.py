"""A trained model as a file that another engine runs, compared with the model before it is kept.

The graph takes images of any number, as the stored preprocessing leaves them on the 0..255 scale, and gives probabilities, boxes and masks, as
`vitral.engines.exported` says: what is left to do outside is to decode, resize and crop, which `card` describes.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

import vitral
from vitral.checkpoints.atomic import write_atomically
from vitral.checkpoints.card import ModelCard
from vitral.deploy.export.graph import Traced
from vitral.deploy.export.verify import BATCHES, Verified, pictures, verify
from vitral.deploy.export.writers import Writer, onnx_writer, openvino_writer, torch_writer
from vitral.engines.exported import CARD, FORM, PIXEL_VALUES, PIXELS, Form
from vitral.engines.files import parts_of
from vitral.errors import VitralError, counted
from vitral.predict import ImageLike


@dataclass(frozen=True)
class Exported:
    """What was written."""

    verified: Verified
    size: int
    """Bytes of all its files."""
    said: str = ""
    """What else there is to know of it."""


def _export(
    make: Callable[[Traced], Writer],
    suffix: str,
    traced: Traced,
    out: Path,
    images: Sequence[ImageLike] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Exported:
    """Write `out`, which answers as the traced predictor does, or raise VitralError and leave no file.

    images: what to compare on; default: eight pictures cut from scikit-learn's two photographs. say: called with what is done next.
    """
    if out.suffix != suffix:
        raise VitralError(f"{out}: the name of such a file ends in {suffix}; name it {out.name}{suffix}")
    if not out.absolute().parent.is_dir():
        raise VitralError(f"{out}: there is no folder {out.parent}; make it, or choose another place")
    for image in images or ():
        traced.predictor.read(image)  # as it cannot be compared on what cannot be read
    say("tracing the model")
    predictor, write = traced.predictor, make(traced)
    described = _described(predictor.card, traced.form)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out.absolute().parent) as folder:
        draft = Path(folder, "draft", out.name)
        draft.parent.mkdir()
        say("writing the file")
        write(draft, described)
        compared = images or pictures(Path(folder), predictor.card.preprocess.channels)
        say(f"comparing answers on {counted(len(compared), 'image')}")
        verified = verify(draft, predictor, compared)
        report = {"images": verified.images, "batches": BATCHES, "difference": verified.difference}
        write(draft, {**described, "verified": json.dumps(report)})
        place(draft, out)
    return Exported(verified, sum(each.stat().st_size for each in parts_of(out)))


def place(draft: Path, out: Path) -> None:
    """An exported file, whole or not at all: `out` from the draft of it."""
    parts = parts_of(draft)
    if len(parts) > 1:
        out.unlink(missing_ok=True)  # never beside another file's weights
    for part in parts:
        write_atomically(out.with_suffix(part.suffix), part.read_bytes())


def _described(card: ModelCard, form: Form) -> dict[str, str]:
    """The file's metadata: the card, what the outputs are, and the usual entries for other tools."""
    return {
        CARD: card.to_json(),
        FORM: form.to_json(),
        "task": card.task,
        "names": json.dumps(dict(enumerate(card.labels))),
        "imgsz": json.dumps([card.preprocess.height, card.preprocess.width]),
        "channels": str(card.preprocess.channels),
        "input": PIXEL_VALUES if form.raw else PIXELS,
        "version": vitral.__version__,
        "torch": torch.__version__,
    }


export_onnx = partial(_export, onnx_writer, ".onnx")
export_openvino = partial(_export, openvino_writer, ".xml")
export_torch = partial(_export, torch_writer, ".pt2")
