"""A model in a file of `vitral export`: what the file says of itself, and how what its graph gives becomes the model's outputs again.

A graph takes `pixels`, images as the stored preprocessing leaves them, on the 0..255 scale, and gives first a probability for each class:
`probabilities` [B, K] of images, [B, K, h, w] of the cells of maps, or `scores` [B, Q, K] of objects. Of objects it also gives `boxes` [B, Q, 4],
x0, y0, x1, y1 as shares of the model's view, and perhaps `masks` [B, Q, h, w], above 0 where the object is. A raw graph takes `pixel_values`,
normalised, and gives `logits` instead of probabilities, as Hugging Face's tools expect. Cells are squares of `stride` pixels that begin in the
view's upper left corner.

Axes: B images, C channels, H height, W width, K classes, Q objects, h w cells.
"""

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitral.checkpoints.card import read_card
from vitral.data.resample import Pixels
from vitral.engines.engine import Engine
from vitral.errors import VitralError, counted
from vitral.models.heads.outputs import Found, Maps

CARD = "vitral"
"""Key of the model card among a file's metadata."""
FORM = "outputs"
"""Key of its `Form`."""
PRECISION = "precision"
"""Key of what products are computed in where that is not float32: bf16."""
THREADING = "threading"
"""Key of how the engine's threads work where `vitral optimize` found another way than the engine's own fastest: streams (OpenVINO: each core computes
its share of a batch), or blocking (ONNX Runtime: threads that wait give their core away)."""
PIXELS, PIXEL_VALUES = "pixels", "pixel_values"
"""Names of a graph's input: pixels on the 0..255 scale, or normalised as Hugging Face's tools expect them."""
KINDS = {kind.__name__.lower(): kind for kind in (Maps, Found)}
LEAST, MOST = np.float32(1e-45), np.float32(1 - 2**-24)  # probabilities whose logits are finite


def _log(p: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.log(np.maximum(p, LEAST))


def _log_odds(p: NDArray[np.float32]) -> NDArray[np.float32]:
    p = np.clip(p, LEAST, MOST)
    return np.log(p) - np.log1p(-p)


LOGITS: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {"softmax": _log, "sigmoid": _log_odds}
"""What makes logits of probabilities, by what these were made with; those of a softmax up to a number that all classes have in common."""


@dataclass(frozen=True)
class Form:
    """What a graph gives."""

    raw: bool
    squash: str
    """What made the probabilities, a key of `LOGITS`."""
    names: tuple[str, ...]
    """Of the outputs, in order, as fields of the kind; of an answer for each image only the first."""
    kind: str = ""
    """A key of `KINDS`; empty for an answer for each image."""
    constants: Mapping[str, Any] | None = None
    """The kind's other fields."""

    @property
    def given(self) -> tuple[str, ...]:
        """The graph's names of its outputs."""
        first = "logits" if self.raw else "scores" if "boxes" in self.names else "probabilities"
        return first, *self.names[1:]

    def outputs(self, arrays: Sequence[Any]) -> Any:
        """The model's outputs of the graph's."""
        first, *others = (np.asarray(each, np.float32) for each in arrays)
        logits = first if self.raw else LOGITS[self.squash](first)
        if not self.kind:
            return logits
        values: dict[str, Any] = dict(zip(self.names, (logits, *others), strict=True))
        return KINDS[self.kind](**values, **(self.constants or {}))

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=sorted)

    @classmethod
    def from_json(cls, text: str) -> "Form":
        """Raises KeyError, TypeError or ValueError for a text that is none."""
        stored = dict(json.loads(text))
        constants = stored.pop("constants") or {}
        if "stuff" in constants:
            constants["stuff"] = frozenset(constants["stuff"])
        form = cls(**{**stored, "names": tuple(stored["names"])}, constants=constants)
        if form.kind not in ("", *KINDS) or form.squash not in LOGITS:
            raise ValueError(f"{form.kind!r}, {form.squash!r}")
        return form


class ExportedEngine(Engine):
    """Runs a file of `vitral export`.

    Raises VitralError where the file is not there, damaged or without a card, or what runs it is not installed.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise VitralError(f"{path}: there is no such file")
        self.path = path
        try:
            self.metadata = self.open()
        except VitralError:
            raise
        except Exception as error:  # the libraries' exceptions have no common class
            raise VitralError(
                f"{path}: {self.library} cannot load it ({first_line(error)}); export the model again"
            ) from error
        self.card = read_card(path, self.metadata)
        try:
            self.form = Form.from_json(self.metadata[FORM])
        except (KeyError, TypeError, ValueError) as error:
            raise VitralError(
                f"{path}: does not say what its outputs are ({error!r}); export the model again"
            ) from error

    @abstractmethod
    def open(self) -> dict[str, str]:
        """Load the file and make it ready; its metadata."""

    @abstractmethod
    def run(self, pixels: Pixels) -> Sequence[Any]:
        """The graph's outputs."""

    def __call__(self, pixels: Pixels) -> Any:
        given = self.card.preprocess.normalise(pixels) if self.form.raw else pixels
        try:
            found = self.form.outputs(self.run(np.ascontiguousarray(given)))
        except Exception as error:
            raise VitralError(
                f"{self.path}: {pixels.dtype} {pixels.shape} does not fit ({first_line(error)})"
            ) from error
        logits = found.logits if self.form.kind else found
        classes = logits.shape[2 if self.form.kind == "found" else 1]
        if classes != len(self.card.labels):
            raise VitralError(
                f"{self.path}: has {counted(len(self.card.labels), 'label')} for {counted(classes, 'output')}; export the model again"
            )
        return found


PLACES = ("Exception from ", "Check '", "Caught exception: Check '")
"""Beginnings of lines in which OpenVINO says where in its source an error was found, before the one that says what it is."""


def first_line(error: Exception) -> str:
    """Of an error's text what says most, short enough for a message."""
    lines = [line for line in str(error).strip().splitlines() if not line.startswith(PLACES)]
    return lines[0][:200] if lines else type(error).__name__
