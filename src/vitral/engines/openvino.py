"""A model in OpenVINO: a description (.xml) that holds the model card, and the weights beside it (.bin)."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

import numpy as np

from vitral.data.resample import Pixels
from vitral.engines.cores import cores
from vitral.engines.exported import CARD, PRECISION, THREADING, ExportedEngine
from vitral.errors import VitralError


@cache
def core() -> Any:
    """OpenVINO's entry, one in a process and never let go: on processors with AMX each brings a stack for signal handlers, and of two that go in
    the order in which they came the second leaves a freed one behind, on which the next signal ends the process."""
    import openvino

    return openvino.Core()


class OpenvinoEngine(ExportedEngine):
    """Runs an exported file on the CPU; threads: default, as many as the process may use.

    Products are computed in float32, or in bfloat16 where the file says so and the processor has it; unless told, OpenVINO would take that.
    """

    library = "OpenVINO"
    mapped: ClassVar[bool] = True
    """Whether weights stay in their file, which starts faster; who goes on when that is written over, as a server does, reads them."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self.threads = threads or cores()
        self._alone = Lock()
        super().__init__(path)

    def open(self) -> dict[str, str]:
        try:
            core()
        except ImportError:
            raise VitralError(f"{self.path}: needs OpenVINO; run pip install 'vitral[openvino]'") from None
        if not self.path.with_suffix(".bin").is_file():
            raise VitralError(f"{self.path}: its weights, {self.path.with_suffix('.bin').name}, are not beside it")
        core().set_property({"ENABLE_MMAP": self.mapped})
        self.model = core().read_model(self.path)
        self._compiled: dict[str, list[Any]] = {}
        if not self.model.has_rt_info([CARD]):
            return {}
        stored: dict[str, str] = json.loads(self.model.get_rt_info([CARD]).astype(str))
        wanted = stored.get(PRECISION) == "bf16" and "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precision = "bf16" if wanted else "f32"
        self.streams = self.threads if stored.get(THREADING) == "streams" else 1
        self._for(self._own)
        return stored

    @property
    def _own(self) -> str:
        """The type of pixels that the graph was made for, u8 or f32."""
        kind: str = self.model.inputs[0].get_element_type().get_type_name()
        return kind

    def _for(self, kind: str) -> list[Any]:
        """What runs the graph, one for each stream, for pixels of this type: its own, or where that is u8 also f32, as its first step converts
        whatever comes."""
        if kind not in self._compiled:
            import openvino

            model = self.model
            if kind != self._own:
                model = model.clone()
                model.get_parameters()[0].set_element_type(getattr(openvino.Type, kind))
                model.validate_nodes_and_infer_types()
            settings = {
                "INFERENCE_PRECISION_HINT": self.precision,
                "INFERENCE_NUM_THREADS": self.threads,
            }
            settings |= {"NUM_STREAMS": self.streams} if self.streams > 1 else {"PERFORMANCE_HINT": "LATENCY"}
            compiled = core().compile_model(model, "CPU", settings)
            self._compiled[kind] = [compiled.create_infer_request() for _ in range(self.streams)]
        return self._compiled[kind]

    def run(self, pixels: Pixels) -> Sequence[Any]:
        if self._own == "f32":
            pixels = pixels.astype(np.float32, copy=False)
        with self._alone:  # a request holds one batch's outputs
            requests = self._for("u8" if pixels.dtype == np.uint8 else "f32")[: len(pixels)]
            parts = np.array_split(pixels, len(requests)) if len(requests) > 1 else [pixels]
            for request, part in zip(requests, parts, strict=True):
                request.start_async([part])
            for request in requests:
                request.wait()
            outputs = range(len(self.model.outputs))  # one by one, as the list of all takes longer to make
            return [np.concatenate([request.get_output_tensor(k).data for request in requests]) for k in outputs]
