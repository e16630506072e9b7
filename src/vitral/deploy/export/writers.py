"""A graph written for ONNX Runtime, OpenVINO or PyTorch: each traces it once, and gives what writes it with metadata."""

import contextlib
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitral.deploy.export.graph import Graph
from vitral.engines.exported import CARD, PIXEL_VALUES, PIXELS, Form
from vitral.engines.openvino import core
from vitral.errors import VitralError

OPSET = 18
"""The oldest set of ONNX's operators that torch's exporter writes: more runtimes read it."""
Writer = Callable[[Path, dict[str, str]], None]
"""write(path, metadata)"""


def onnx_writer(graph: Graph, example: Tensor, form: Form) -> Writer:
    """One .onnx file."""
    try:
        import onnx
    except ImportError:
        raise VitralError(
            "export to ONNX needs onnx, onnxscript and onnxruntime; run pip install 'vitral[export]'"
        ) from None
    with quietly():
        program = torch.onnx.export(
            graph, (example,), dynamo=True, opset_version=OPSET, external_data=False, verbose=False, **_any_number(),
            input_names=[PIXEL_VALUES if form.raw else PIXELS], output_names=list(form.given),
        )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    if proto.ByteSize() >= 2**31 - 1:
        raise VitralError(
            f"weights of {proto.ByteSize() / 1e9:.1f} GB do not fit into one ONNX file (2 GB); use --to torch"
        )

    def write(path: Path, metadata: dict[str, str]) -> None:
        onnx.helper.set_model_props(proto, metadata)
        path.write_bytes(proto.SerializeToString())

    return write


def openvino_writer(graph: Graph, example: Tensor, form: Form) -> Writer:
    """An .xml with the metadata and a .bin with the weights, in float32."""
    try:
        import openvino
    except ImportError:
        raise VitralError("export to OpenVINO needs openvino; run pip install 'vitral[export]'") from None
    as_onnx = onnx_writer(graph, example, form)
    with tempfile.TemporaryDirectory() as folder:
        as_onnx(Path(folder, "graph.onnx"), {})
        model = core().read_model(Path(folder, "graph.onnx"))
        model = model.clone()  # of constants that lie in the file which now goes

    def write(path: Path, metadata: dict[str, str]) -> None:
        model.set_rt_info(json.dumps(metadata), [CARD])
        openvino.save_model(model, path, compress_to_fp16=False)

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


def torch_writer(graph: Graph, example: Tensor, form: Form) -> Writer:
    """One .pt2 file, which `torch.export.load` reads."""
    with quietly():
        program = torch.export.export(graph, (example,), **_any_number())
    for node in list(program.graph.nodes):  # pixels of more than 8 bits come as float32
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            program.graph.erase_node(node)
    program.graph_module.recompile()

    def write(path: Path, metadata: dict[str, str]) -> None:
        torch.export.save(program, path, extra_files={CARD: json.dumps(metadata)})

    return write


def _any_number() -> dict[str, Any]:
    """For exporters: the first axis is of any length."""
    return {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without what exporters and quantisers log and warn of."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
