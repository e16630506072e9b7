"""A model in ONNX Runtime: one file with the weights, the model card, and the way from pixels to probabilities.

Axes: B images, C channels, H height, W width, K labels.
"""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitral.errors import VitralError

CARD = "vitral"
"""Key of the model card among the file's metadata."""
PIXELS, PIXEL_VALUES = "pixels", "pixel_values"
"""Names of a graph's input: pixels on the 0..255 scale, or normalised as Hugging Face's tools expect them."""
PROBABILITIES, LOGITS = "probabilities", "logits"
"""Names of its output."""


class OnnxEngine:
    """Runs an exported file on the CPU, on as many threads as the process may use.

    Raises VitralError where the file is no ONNX model, is damaged, or ONNX Runtime is missing.
    """

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise VitralError(f"{path}: needs ONNX Runtime; run pip install 'vitral[onnx]'") from None
        if not path.is_file():
            raise VitralError(f"{path}: there is no such file")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        options.log_severity_level = 3  # errors
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common class of their own
            raise VitralError(
                f"{path}: ONNX Runtime cannot load it ({_first_line(error)}); export the model again"
            ) from error
        self.path = path
        self.metadata: dict[str, str] = dict(self.session.get_modelmeta().custom_metadata_map)
        (self.input,), (self.output,) = (
            [each.name for each in ends] for ends in (self.session.get_inputs(), self.session.get_outputs())
        )

    @property
    def raw(self) -> bool:
        """Whether it takes normalised pixels and gives logits."""
        return self.input == PIXEL_VALUES

    def __call__(self, pixels: NDArray[np.generic]) -> NDArray[np.float32]:
        """[B, C, H, W], as the graph's input is called, to its output [B, K]. VitralError for images that the graph does not take."""
        try:
            found = self.session.run([self.output], {self.input: pixels})
        except Exception as error:
            raise VitralError(
                f"{self.path}: {pixels.dtype} {pixels.shape} does not fit ({_first_line(error)})"
            ) from error
        return np.asarray(found[0], np.float32)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
