"""A trained model as one file for another engine, compared with the model before it is kept.

The graph takes images of any number, as the stored preprocessing leaves them on the 0..255 scale, and gives probabilities: what is left to do
outside is to decode, resize and crop, which `card` describes. `raw` graphs take normalised pixels and give logits, as Hugging Face's tools expect.
"""

import contextlib
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import vitral
from vitral.checkpoints.atomic import write_atomically
from vitral.checkpoints.card import ModelCard
from vitral.data.preprocess import Preprocess
from vitral.engines.onnx import CARD, LOGITS, PIXEL_VALUES, PIXELS, PROBABILITIES, OnnxEngine
from vitral.errors import VitralError, counted, some
from vitral.predict import ImageLike, Predictor

BATCHES = (1, 2, 3, 7)
"""Numbers of images at which an exported file must answer as the model does."""
TOLERANCE = 1e-4
"""By how much a probability may differ; of raw graphs a logit, as a share of the largest."""
OPSET = 18
"""The oldest set of ONNX's operators that torch's exporter writes: more runtimes read it."""


@dataclass(frozen=True)
class Verified:
    """How an exported file answers beside the model that it was made of."""

    images: int
    difference: float
    """The largest: of a probability, or of a logit as a share of the largest."""

    def __str__(self) -> str:
        sizes = ", ".join(map(str, BATCHES))
        return f"{counted(self.images, 'image')} from file to answer, in batches of {sizes}: no answer differs by more than {self.difference:.1e}"


class Graph(nn.Module):
    """From what `Preprocess.view` gives to probabilities [B, K]; raw: from normalised pixels to logits."""

    mean: Tensor
    std: Tensor

    def __init__(self, predictor: Predictor, raw: bool) -> None:
        super().__init__()
        self.model, self.raw = predictor.model, raw
        self.probabilities = predictor.answers.probabilities
        mean, std = predictor.card.preprocess.moments()
        self.register_buffer("mean", torch.from_numpy(mean), persistent=False)
        self.register_buffer("std", torch.from_numpy(std), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        if self.raw:
            return self.model(pixels)
        return self.probabilities(self.model((pixels.float() - self.mean) / self.std))


def export_onnx(
    predictor: Predictor, out: Path, *, raw: bool = False, images: Sequence[ImageLike] | None = None
) -> Verified:
    """Write `out`, which answers as the predictor does, or raise VitralError and leave no file.

    raw: see the module. images: what to compare on; default: seven pictures cut from scikit-learn's two photographs.
    """
    predictor.check_head()
    predictor.check_whole()
    try:
        import onnx
    except ImportError:
        raise VitralError(
            "export to ONNX needs onnx, onnxscript and onnxruntime; run pip install 'vitral[onnx]'"
        ) from None
    if out.suffix != ".onnx":
        raise VitralError(f"{out}: an ONNX file ends in .onnx; name it {out.name}.onnx")
    if not out.absolute().parent.is_dir():
        raise VitralError(f"{out}: there is no folder {out.parent}; make it, or choose another place")
    steps = predictor.card.preprocess
    example = torch.zeros(2, steps.channels, steps.height, steps.width, dtype=torch.uint8)
    taken, given = (PIXEL_VALUES, LOGITS) if raw else (PIXELS, PROBABILITIES)
    with _quietly():
        program = torch.onnx.export(
            Graph(predictor, raw).eval(),
            (example.float() if raw or not stays_uint8(steps) else example,),
            dynamo=True, opset_version=OPSET, external_data=False, verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=[taken], output_names=[given],
        )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    described = _described(predictor.card, raw)
    onnx.helper.set_model_props(proto, described)
    if proto.ByteSize() >= 2**31 - 1:
        raise VitralError(f"{out}: weights of {proto.ByteSize() / 1e9:.1f} GB do not fit into one ONNX file (2 GB)")
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out.absolute().parent) as folder:
        draft = Path(folder, out.name)
        draft.write_bytes(proto.SerializeToString())
        verified = verify(draft, predictor, images or pictures(Path(folder), steps.channels))
    report = json.dumps({"images": verified.images, "batches": BATCHES, "difference": verified.difference})
    onnx.helper.set_model_props(proto, {**described, "verified": report})
    write_atomically(out, proto.SerializeToString())
    return verified


def stays_uint8(steps: Preprocess) -> bool:
    """Whether 8-bit images are 8-bit images still when the model sees them."""
    grey = np.zeros((steps.channels, 2 * steps.height, 2 * steps.width), np.uint8)
    return steps.bit_depth == 8 and steps.view(grey).dtype == np.uint8


def _described(card: ModelCard, raw: bool) -> dict[str, str]:
    """The file's metadata: the card, and the usual entries for other tools."""
    return {
        CARD: card.to_json(),
        "task": card.task,
        "names": json.dumps(dict(enumerate(card.labels))),
        "imgsz": json.dumps([card.preprocess.height, card.preprocess.width]),
        "channels": str(card.preprocess.channels),
        "input": PIXEL_VALUES if raw else PIXELS,
        "version": vitral.__version__,
        "torch": torch.__version__,
    }


def verify(path: Path, predictor: Predictor, images: Sequence[ImageLike]) -> Verified:
    """Compare what the file, by its own card, says of the images with what the predictor says.

    Raises VitralError where a label is missing, an answer differs, or a number of images does not go through.
    """
    engine = OnnxEngine(path)
    if engine.card.labels != predictor.labels:
        raise VitralError(
            f"{path}: its labels are not the model's, or in another order ({some(engine.card.labels)}); nothing was written"
        )
    seen = [engine.card.preprocess.view(predictor.read(image)) for image in images]
    logits = torch.cat([predictor.logits(predictor.preprocess(image)[None]) for image in images])
    wanted = (predictor.probabilities(logits) if engine.probabilities else logits).numpy()  # [n, K]
    scale = 1.0 if engine.probabilities else float(np.abs(wanted).max())
    worst = 0.0
    for size in BATCHES:
        for start in range(0, len(images), size):
            rows = [i % len(images) for i in range(start, start + size)]
            found = engine(np.stack([seen[i] for i in rows]))
            worst = max(worst, float(np.abs(found - wanted[rows]).max()) / scale)
    if not worst <= TOLERANCE:  # NaN is no agreement either
        raise VitralError(
            f"{predictor.card.model}: exported it answers otherwise (a difference of {worst:.1e}, and {TOLERANCE:.0e} is allowed); "
            "nothing was written"
        )
    return Verified(len(images), worst)


def pictures(folder: Path, channels: int) -> list[ImageLike]:
    """Seven pictures of several shapes and kinds, cut from scikit-learn's photographs: files, or arrays where bands are wanted."""
    from sklearn.datasets import load_sample_images

    found: list[ImageLike] = []
    photographs = [np.asarray(each) for each in load_sample_images().images]  # [h, w, 3]
    for i, (height, width) in enumerate(
        ((427, 640), (300, 300), (200, 420), (420, 120), (97, 131), (256, 256), (150, 400))
    ):
        pixels = photographs[i % 2][:height, i * 20 : i * 20 + width]
        if channels not in (1, 3):
            found.append(np.ascontiguousarray(pixels[..., np.arange(channels) % 3]))
            continue
        path = folder / f"{i}.{'jpg' if i % 2 else 'png'}"
        Image.fromarray(pixels).save(path)
        found.append(path)
    return found


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's log of operators that it knows and this model has not."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
