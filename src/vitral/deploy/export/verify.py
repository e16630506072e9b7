"""Whether an exported file answers as the model that it was made of: from image file to answer, by the file's own card.

Axes: B images, N rows of what is answered to an image (one, or one for each query), F numbers of a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitral.answers.squash import sigmoid, softmax
from vitral.engines.exported import Form
from vitral.engines.files import opened
from vitral.errors import VitralError, counted, some
from vitral.models.heads.outputs import ByImage
from vitral.predict import ImageLike, Predictor

BATCHES = (1, 2, 3, 7)
"""Numbers of images at which an exported file must answer as the model does."""
TOLERANCE = 1e-4
"""By how much a probability, or a box's edge as a share of the image, may differ; of raw graphs a logit, as a share of the largest."""
Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Verified:
    """How an exported file answers beside the model that it was made of."""

    images: int
    difference: float
    """The largest: of a probability or a box's edge, or of a logit as a share of the largest."""

    def __str__(self) -> str:
        sizes = ", ".join(map(str, BATCHES))
        return f"{counted(self.images, 'image')} from file to answer, in batches of {sizes}: no answer differs by more than {self.difference:.1e}"


def verify(path: Path, predictor: Predictor, images: Sequence[ImageLike]) -> Verified:
    """Compare what the file, by its own card, says of the images with what the predictor says.

    Raises VitralError where a label is missing, an answer differs, or a number of images does not go through.
    """
    engine = opened(path)
    if engine.card.labels != predictor.labels:
        raise VitralError(
            f"{path}: its labels are not the model's, or in another order ({some(engine.card.labels)}); nothing was written"
        )
    seen = [engine.card.preprocess.view(predictor.read(image)) for image in images]
    own = [predictor.outputs(predictor.preprocess(image)[None]) for image in images]
    scale = max(float(np.abs(_logits(each)).max()) for each in own) if engine.form.raw else None
    wanted = np.concatenate([rows_of(each, engine.form, scale) for each in own])
    worst = 0.0
    for size in BATCHES:
        for start in range(0, len(images), size):
            batch = [i % len(images) for i in range(start, start + size)]
            found = rows_of(engine(np.stack([seen[i] for i in batch])), engine.form, scale)
            worst = max(worst, *(difference(*pair) for pair in zip(found, wanted[batch], strict=True)))
    if not worst <= TOLERANCE:  # NaN is no agreement either
        raise VitralError(
            f"{predictor.card.model}: exported it answers otherwise (a difference of {worst:.1e}, and {TOLERANCE:.0e} is allowed); "
            "nothing was written"
        )
    return Verified(len(images), worst)


def _logits(outputs: Any) -> NDArray[np.float32]:
    return np.asarray(outputs.tensors()["logits"] if isinstance(outputs, ByImage) else outputs)


def rows_of(outputs: Any, form: Form, scale: float | None) -> Rows:
    """A model's outputs as [B, N, F]: probabilities, or logits as shares of `scale`, and of objects boxes and the probabilities of masks."""
    first = _logits(outputs)
    parts = [first / scale if scale is not None else sigmoid(first) if form.squash == "sigmoid" else softmax(first, 1)]
    if isinstance(outputs, ByImage):
        for name, values in outputs.tensors().items():
            if name == "masks":
                parts.append(sigmoid(np.asarray(values)))
            elif name != "logits":
                parts.append(np.asarray(values))
    images = len(first)
    rows = first.shape[1] if form.kind == "found" else 1
    return np.concatenate([part.reshape(images, rows, -1) for part in parts], -1)


def difference(found: Rows, wanted: Rows) -> float:
    """The largest difference between two answers [N, F]; queries that are sorted by scores which are all but equal may have changed places."""
    apart = np.abs(found - wanted).max(-1)  # [N]
    for row in np.flatnonzero(~(apart <= TOLERANCE)) if len(wanted) > 1 else ():
        apart[row] = max(np.abs(found - wanted[row]).max(-1).min(), np.abs(wanted - found[row]).max(-1).min())
    return float(apart.max())


def pictures(folder: Path, channels: int) -> list[ImageLike]:
    """Eight pictures of several shapes and kinds, the last of 16 bits, cut from scikit-learn's photographs: files, or arrays of bands."""
    from sklearn.datasets import load_sample_images

    found: list[ImageLike] = []
    photographs = [np.asarray(each) for each in load_sample_images().images]  # [h, w, 3]
    for i, (height, width) in enumerate(
        ((427, 640), (300, 300), (200, 420), (420, 120), (97, 131), (256, 256), (150, 400), (240, 180))
    ):
        pixels = photographs[i % 2][:height, i * 20 : i * 20 + width]
        if i == 7:
            pixels = pixels.astype(np.uint16) * 256 + 77
        if channels not in (1, 3):
            found.append(np.ascontiguousarray(pixels[..., np.arange(channels) % 3]))
            continue
        path = folder / f"{i}.{'jpg' if i % 2 and i < 7 else 'png'}"
        Image.fromarray(pixels[..., 1] if i == 7 else pixels).save(path)
        found.append(path)
    return found
