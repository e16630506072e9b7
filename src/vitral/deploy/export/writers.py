"""A traced model written for ONNX Runtime, OpenVINO or PyTorch: each gives what writes it with metadata."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from vitral.deploy.export.graph import Traced
from vitral.engines.exported import CARD
from vitral.engines.openvino import core
from vitral.errors import VitralError

Writer = Callable[[Path, dict[str, str]], None]
"""write(path, metadata)"""


def onnx_writer(traced: Traced) -> Writer:
    """One .onnx file."""
    proto = traced.proto
    if proto.ByteSize() >= 2**31 - 1:
        raise VitralError(
            f"weights of {proto.ByteSize() / 1e9:.1f} GB do not fit into one ONNX file (2 GB); use --to torch"
        )

    def write(path: Path, metadata: dict[str, str]) -> None:
        import onnx

        onnx.helper.set_model_props(proto, metadata)
        path.write_bytes(proto.SerializeToString())

    return write


def openvino_writer(traced: Traced) -> Writer:
    """An .xml with the metadata and a .bin with the weights, in float32."""
    try:
        import openvino
    except ImportError:
        raise VitralError("export to OpenVINO needs openvino; run pip install 'vitral[export]'") from None
    as_onnx = onnx_writer(traced)
    with tempfile.TemporaryDirectory() as folder:
        as_onnx(Path(folder, "graph.onnx"), {})
        model = core().read_model(Path(folder, "graph.onnx"))
        model = model.clone()  # of constants that lie in the file which now goes

    def write(path: Path, metadata: dict[str, str]) -> None:
        model.set_rt_info(json.dumps(metadata), [CARD])
        openvino.save_model(model, path, compress_to_fp16=False)

    return write


def torch_writer(traced: Traced) -> Writer:
    """One .pt2 file, which `torch.export.load` reads."""
    program = traced.program

    def write(path: Path, metadata: dict[str, str]) -> None:
        torch.export.save(program, path, extra_files={CARD: json.dumps(metadata)})

    return write


def told_anew(path: Path, out: Path, more: dict[str, str]) -> None:
    """An .onnx or .xml file with more metadata: what its products are computed in, or how its engine's threads work."""
    out.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".onnx":
        import onnx

        proto = onnx.load(path)
        onnx.helper.set_model_props(proto, {each.key: each.value for each in proto.metadata_props} | more)
        out.write_bytes(proto.SerializeToString())
        return
    import openvino

    model = core().read_model(path)
    metadata = json.loads(model.get_rt_info([CARD]).astype(str))
    model.set_rt_info(json.dumps(metadata | more), [CARD])
    openvino.save_model(model, out, compress_to_fp16=False)
