"""The Open Inference Protocol, version 2 (https://github.com/kserve/open-inference-protocol): what a request asks for, and its answer.

Tensors are JSON, or follow it as bytes (https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md), with
the length of the JSON in a header. The protocol says nothing of images; here an input is one of
    image   BYTES [B]: encoded files, in JSON as base64; or UINT8 [B, h, w, C]: their pixels, which the model's preprocessing is for
    pixels  UINT8 or FP32 [B, C, H, W]: as the preprocessing leaves them, on the 0..255 scale
"""

import json
import math
import struct
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vitral.deploy.serve.serving import Picture
from vitral.errors import VitralError

HEADER = "inference-header-content-length"
TYPES: dict[str, Any] = {
    "BOOL": np.bool_, "UINT8": np.uint8, "INT32": np.int32, "INT64": np.int64, "FP32": np.float32,
}  # fmt: skip
TAKEN = {("image", "BYTES"): 1, ("image", "UINT8"): 4, ("pixels", "UINT8"): 4, ("pixels", "FP32"): 4}
"""Inputs by name and datatype: the number of their axes."""
DECLARED = [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
"""What a model's description says of its inputs; pixels may come in its place."""
SCALE = (-255, 510)
"""Between what pixels lie: on the 0..255 scale, from which resizing without rounding may leave them a little."""
Parameters = dict[str, Any]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Input(Strict):
    """A tensor of a request."""

    name: str
    shape: list[Annotated[int, Field(ge=0, lt=2**31)]]
    datatype: str
    parameters: Parameters = {}
    data: list[Any] | None = None


class Output(Strict):
    """A tensor that a request wants."""

    name: str
    parameters: Parameters = {}


class Asked(Strict):
    """A request without its bytes."""

    id: str = ""
    parameters: Parameters = {}
    inputs: Annotated[list[Input], Field(min_length=1, max_length=1)]
    outputs: list[Output] = []


@dataclass(frozen=True)
class Request:
    """pictures: what to answer. outputs: of each wanted tensor whether it is wanted as bytes; binary: whether those that are not named are."""

    id: str
    pictures: list[Picture]
    outputs: dict[str, bool]
    binary: bool


def parse(body: bytes, header: str | None) -> Request:
    """A request of its body and the header with its JSON's length. Raises VitralError that says what is wrong."""
    if header is not None and not (header.isdecimal() and int(header) <= len(body)):
        raise VitralError(f"{HEADER}: {header[:40]!r} is no length within the {len(body)} bytes of the body")
    end = len(body) if header is None else int(header)
    try:
        asked = Asked.model_validate_json(body[:end])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise VitralError(f"{where}: {first['msg']}; see the Open Inference Protocol, version 2") from error
    _check_known("input", asked.inputs, "binary_data_size")
    _check_known("output", asked.outputs, "binary_data")
    pictures = _pictures(asked.inputs[0], body[end:])
    binary = asked.parameters.get("binary_data_output") is True
    outputs = {each.name: each.parameters.get("binary_data", binary) is True for each in asked.outputs}
    return Request(asked.id, pictures, outputs, binary)


def _check_known(what: str, tensors: Sequence[Input | Output], known: str) -> None:
    """A VitralError for a tensor with another parameter: of classes, or of shared memory, which there is not here."""
    for each in tensors:
        if unknown := sorted(each.parameters.keys() - {known}):
            raise VitralError(
                f"{what} {each.name[:40]}: its parameter {unknown[0][:40]} is not known; there is {known}"
            )


def _pictures(given: Input, rest: bytes) -> list[Picture]:
    axes = TAKEN.get((given.name, given.datatype))
    if axes is None:
        known = ", ".join(f"{name} {kind}" for name, kind in TAKEN)
        raise VitralError(f"input {given.name[:40]!r} of {given.datatype[:40]}: is not known; send one of {known}")
    size = given.parameters.get("binary_data_size")
    if size is not None and (type(size) is not int or size != len(rest)):
        raise VitralError(
            f"input {given.name}: binary_data_size is {size!r:.40}, and {len(rest)} bytes follow the JSON"
        )
    if (size is None) == (given.data is None):
        raise VitralError(f"input {given.name}: give its tensor either as data or as bytes with binary_data_size")
    shape = tuple(given.shape)
    if given.datatype == "BYTES" and shape == (math.prod(shape), 1):
        shape = shape[:1]  # [B, 1], as models with a batch axis are asked
    if len(shape) != axes or not shape[0]:
        said = {1: "[B]", 4: "[B, h, w, C]" if given.name == "image" else "[B, C, H, W]"}[axes]
        raise VitralError(f"input {given.name}: its shape is {list(shape)}, and {said} with B of at least 1 is wanted")
    if given.datatype == "BYTES":
        files = _texts(given.data) if size is None else _split(rest)
        if len(files) != shape[0]:
            raise VitralError(f"input {given.name}: its shape says {shape[0]} files, and there are {len(files)}")
        return [Picture(f"image {i}", file) for i, file in enumerate(files)]
    array = _array(given, shape, rest if size is not None else None)
    return [Picture(f"image {i}", each, seen=given.name == "pixels") for i, each in enumerate(array)]


def _array(given: Input, shape: tuple[int, ...], rest: bytes | None) -> NDArray[Any]:
    kind = np.dtype(TYPES[given.datatype])
    wanted = math.prod(shape)
    try:
        if rest is not None:
            flat = np.frombuffer(rest, kind.newbyteorder("<"))
        else:
            told = np.array(given.data)
            if told.dtype.kind not in "iuf" or (
                kind.kind == "u" and (told.dtype.kind == "f" or told.min() < 0 or told.max() > 255)
            ):
                raise ValueError
            flat = told.ravel()
    except ValueError as error:
        raise VitralError(f"input {given.name}: its data are no {given.datatype}") from error
    if flat.size != wanted:
        raise VitralError(f"input {given.name}: its shape {list(shape)} has {wanted} values, and there are {flat.size}")
    if kind.kind == "f" and not ((flat >= SCALE[0]) & (flat <= SCALE[1])).all():  # NaN neither
        raise VitralError(f"input {given.name}: holds values that are no pixels; give them on the 0..255 scale")
    return flat.reshape(shape).astype(kind)


def _texts(data: list[Any] | None) -> list[bytes]:
    try:
        return [b64decode(each, validate=True) for each in np.array(data, object).ravel().tolist()]
    except (ValueError, TypeError) as error:
        raise VitralError("input image: its data are to be files in base64") from error


def _split(rest: bytes) -> list[bytes]:
    """The texts of a binary tensor: each after its length, four bytes, little end first."""
    found, at = [], 0
    while at < len(rest):
        if at + 4 > len(rest) or (end := at + 4 + struct.unpack_from("<I", rest, at)[0]) > len(rest):
            raise VitralError("input image: its bytes end within a file; each file follows its length in four bytes")
        found.append(rest[at + 4 : end])
        at = end
    return found


def answer(
    request: Request, tensors: Mapping[str, Sequence[Any]], model: str, version: str
) -> tuple[bytes, dict[str, str]]:
    """Body and headers. tensors: by name, of each image an array, or a text.

    Raises VitralError for a tensor that there is not, or whose images differ in shape.
    """
    wanted = request.outputs or {name: request.binary for name in tensors if _alike(tensors[name])}
    outputs, tail = [], b""
    for name, binary in wanted.items():
        if name not in tensors:
            raise VitralError(f"output {name[:40]!r}: there is none; this model gives {', '.join(tensors)}")
        if not _alike(tensors[name]):
            raise VitralError(f"output {name}: differs in shape from image to image; ask for one image at a time")
        kind, shape, data, raw = _written(tensors[name], binary)
        output: dict[str, Any] = {"name": name, "datatype": kind, "shape": shape}
        outputs.append(output | ({"parameters": {"binary_data_size": len(raw)}} if binary else {"data": data}))
        tail += raw
    said = {"model_name": model, "model_version": version, "id": request.id, "outputs": outputs}
    head = json.dumps(said).encode()
    if not any(wanted.values()):
        return head, {"content-type": "application/json"}
    return head + tail, {"content-type": "application/octet-stream", HEADER: str(len(head))}


def _alike(tensors: Sequence[Any]) -> bool:
    return len({np.shape(each) for each in tensors}) == 1


def _written(tensors: Sequence[Any], binary: bool) -> tuple[str, list[int], list[Any], bytes]:
    """(datatype, shape, data for JSON, bytes)"""
    if isinstance(tensors[0], str):
        raw = b"".join(struct.pack("<I", len(text)) + text for text in (each.encode() for each in tensors))
        return "BYTES", [len(tensors)], list(tensors), raw if binary else b""
    stacked = np.stack(tensors)
    kind = next(name for name, each in TYPES.items() if stacked.dtype == each)
    if binary:
        return kind, list(stacked.shape), [], stacked.astype(stacked.dtype.newbyteorder("<")).tobytes()
    return kind, list(stacked.shape), stacked.ravel().tolist(), b""
