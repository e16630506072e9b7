"""A model in ONNX Runtime: one file with the weights, the model card, and the way from pixels to answers."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitral.data.resample import Pixels
from vitral.engines.cores import cores
from vitral.engines.exported import THREADING, ExportedEngine
from vitral.engines.files import state_of
from vitral.errors import VitralError

INPUT_TYPE = (7, 11, 2, 1, 1)
"""Fields of the format that lead to the type of a graph's input: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto"""
FLOAT, UINT8 = 1, 2


class OnnxEngine(ExportedEngine):
    """Runs an exported file on the CPU; threads: default, as many as the process may use."""

    library = "ONNX Runtime"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self.threads = threads or cores()
        super().__init__(path)

    def open(self) -> dict[str, str]:
        self.blocking, self.state = False, state_of(self.path)
        self.session = self._session(self.path)
        stored = dict(self.session.get_modelmeta().custom_metadata_map)
        if stored.get(THREADING) == "blocking":
            self.blocking = True
            self.session = self._session(self.path)
        self.input = self.session.get_inputs()[0]
        return stored

    def _session(self, model: Path | bytes) -> Any:
        try:
            import onnxruntime
        except ImportError:
            raise VitralError(f"{self.path}: needs ONNX Runtime; run pip install 'vitral[onnx]'") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3  # errors
        if self.blocking:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(self, pixels: Pixels) -> Sequence[Any]:
        fits = self.input.type != "tensor(uint8)" or pixels.dtype == np.uint8
        session = self.session if fits else self._between_levels
        if self.input.type == "tensor(float)":
            pixels = pixels.astype(np.float32, copy=False)
        return session.run(None, {self.input.name: pixels})

    @functools.cached_property
    def _between_levels(self) -> Any:
        """The graph as it takes float32, for files of more than 8 bits: its first node casts whatever comes."""
        model = bytearray(self.path.read_bytes())
        if state_of(self.path) != self.state:
            raise VitralError(
                f"{self.path}: is another file now, and for images of more than 8 bits it is needed again; open it anew"
            )
        place = place_of(model, INPUT_TYPE)
        assert model[place] == UINT8
        model[place] = FLOAT
        return self._session(bytes(model))


def place_of(message: bytes | bytearray, fields: Sequence[int]) -> int:
    """Where in a protobuf message the value lies that these field numbers lead to, of each the first
    (https://protobuf.dev/programming-guides/encoding)."""

    def varint(at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            value |= (message[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if message[at - 1] < 128:
                return value, at

    at, (wanted, *deeper) = 0, fields
    while True:
        key, at = varint(at)
        kind = key & 7
        if key >> 3 == wanted:
            if not deeper:
                return at
            _, at = varint(at)  # its length
            wanted, *deeper = deeper
        elif kind == 0:
            _, at = varint(at)
        elif kind == 2:
            length, at = varint(at)
            at += length
        else:
            at += {1: 8, 5: 4}[kind]
