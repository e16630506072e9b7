"""An exported file in whole numbers of 8 bits, with ranges taken from images: smaller, and on some processors faster. What it costs in answers, and
whether it is faster here, `vitral.deploy.fastest.contest` measures.

Weights have a scale for each row, activations one for each place in the graph (https://arxiv.org/abs/2103.13630, section III). Without instructions
that add products of 8 bits into 32 (VNNI, AMX), weights get 7 bits: two products would not fit into the 16 that are used there.
"""

import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

from vitral.data.resample import Pixels
from vitral.deploy.export.graph import quietly
from vitral.engines.exported import CARD, first_line
from vitral.engines.openvino import core
from vitral.errors import VitralError

IMAGES = 128
"""From which ranges are taken, at most."""
BATCH = 4
SUMS = ("avx512_vnni", "avx_vnni", "amx_int8")
"""Instructions that add products of 8 bits into 32."""


def adds_in_32_bits() -> bool:
    """Whether the processor has such instructions; taken for granted where it does not say (as outside Linux)."""
    try:
        flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    except OSError:
        return True
    return not flags or any(each in flags for each in SUMS)


def quantise_onnx(path: Path, out: Path, views: Sequence[Pixels]) -> None:
    """Of an exported .onnx file: scales beside the operators (QDQ), those of weights by channel."""
    try:
        import onnx
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError:
        raise VitralError("8 bits in ONNX need onnx and onnxruntime; run pip install 'vitral[export]'") from None
    taken = onnx.load(path, load_external_data=False).graph.input[0]
    whole = taken.type.tensor_type.elem_type == onnx.TensorProto.UINT8

    class Images(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = batches(views)

        def get_next(self) -> dict[str, Pixels] | None:
            return next(({taken.name: _as_taken(each, whole=whole)} for each in self.left), None)

    with tempfile.TemporaryDirectory() as folder, quietly():
        prepared = Path(folder, "prepared.onnx")
        quant_pre_process(path, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared, out, Images(), quant_format=quantization.QuantFormat.QDQ, per_channel=True, reduce_range=not adds_in_32_bits(),
            activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm", "Conv"],
        )  # fmt: skip


def quantise_openvino(path: Path, out: Path, views: Sequence[Pixels], smooth: bool = True) -> None:
    """Of an exported .xml file, by NNCF for transformers; smooth: move scale from activations to weights first (https://arxiv.org/abs/2211.10438)."""
    try:
        import nncf
        import openvino
        from nncf.quantization.advanced_parameters import (
            AdvancedQuantizationParameters,
            AdvancedSmoothQuantParameters,
            OverflowFix,
        )
    except ImportError:
        raise VitralError("8 bits in OpenVINO need nncf; run pip install 'vitral[export]'") from None
    nncf.set_log_level(logging.ERROR)
    model = core().read_model(path)
    card = model.get_rt_info([CARD]).astype(str)
    parameters = AdvancedQuantizationParameters(
        overflow_fix=OverflowFix.DISABLE if adds_in_32_bits() else OverflowFix.ENABLE,
        smooth_quant_alphas=AdvancedSmoothQuantParameters() if smooth else AdvancedSmoothQuantParameters(-1, -1),
    )
    with quietly(), redirect_stdout(sys.stderr):
        made = nncf.quantize(
            model, nncf.Dataset(list(batches(views))), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(views),
            advanced_parameters=parameters,
        )  # fmt: skip
    made.set_rt_info(card, [CARD])
    openvino.save_model(made, out, compress_to_fp16=False)


def _as_taken(pixels: Pixels, *, whole: bool) -> Pixels:
    """In whole numbers or not, as a graph takes them: files of more than 8 bits and of 8 may be among the same images."""
    return pixels.round().astype(np.uint8) if whole else pixels.astype(np.float32)


def batches(views: Sequence[Pixels]) -> Iterator[Pixels]:
    """[B, C, H, W], the last perhaps of fewer."""
    for start in range(0, len(views), BATCH):
        yield np.stack(views[start : start + BATCH])


def quantised(how: "Quantise", path: Path, out: Path, views: Sequence[Pixels]) -> None:
    """One of `WAYS`: `out` from an exported file. Raises VitralError where the library cannot."""
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        how(path, out, views)
    except VitralError:
        raise
    except Exception as error:  # the libraries' exceptions have no common class
        raise VitralError(f"cannot be brought to 8 bits ({first_line(error)})") from error


Quantise = Callable[[Path, Path, Sequence[Pixels]], None]
WAYS: Mapping[str, dict[str, Quantise]] = {
    "onnx": {"8 bits": quantise_onnx},
    "openvino": {
        "8 bits, smoothed": quantise_openvino,
        "8 bits": lambda path, out, views: quantise_openvino(path, out, views, smooth=False),
    },
}
"""Engine -> ways of getting to 8 bits, by name."""
