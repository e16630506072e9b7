"""A model in ONNX Runtime: one file with the weights, the model card, and the way from pixels to probabilities.

Axes: B images, C channels, H height, W width, K labels.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitral.checkpoints.card import read_card
from vitral.data.resample import Pixels
from vitral.engines.cores import cores
from vitral.engines.engine import Engine
from vitral.errors import VitralError

CARD = "vitral"
"""Key of the model card among the file's metadata."""
PIXELS, PIXEL_VALUES = "pixels", "pixel_values"
"""Names of a graph's input: pixels on the 0..255 scale, or normalised as Hugging Face's tools expect them."""
PROBABILITIES, LOGITS = "probabilities", "logits"
"""Names of its output."""


class OnnxEngine(Engine):
    """Runs an exported file on the CPU, on as many threads as the process may use.

    Raises VitralError where the file is no ONNX model, is damaged or without a card, or ONNX Runtime is missing.
    """

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise VitralError(f"{path}: needs ONNX Runtime; run pip install 'vitral[onnx]'") from None
        if not path.is_file():
            raise VitralError(f"{path}: there is no such file")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cores()
        options.log_severity_level = 3  # errors
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common class of their own
            raise VitralError(
                f"{path}: ONNX Runtime cannot load it ({_first_line(error)}); export the model again"
            ) from error
        self.path = path
        self.metadata: dict[str, str] = dict(self.session.get_modelmeta().custom_metadata_map)
        self.card = read_card(path, self.metadata)
        self.input = self.session.get_inputs()[0].name
        self.probabilities = self.input == PIXELS

    def __call__(self, pixels: Pixels) -> NDArray[np.float32]:
        """[B, C, H, W] on the 0..255 scale to probabilities [B, K], or of a raw graph to logits."""
        if not self.probabilities:
            pixels = self.card.preprocess.normalise(pixels)
        try:
            (found,) = self.session.run(None, {self.input: pixels})
        except Exception as error:
            raise VitralError(
                f"{self.path}: {pixels.dtype} {pixels.shape} does not fit ({_first_line(error)})"
            ) from error
        return np.asarray(found, np.float32)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
