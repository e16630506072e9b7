"""Which engine runs which exported file."""

import importlib
import os
from pathlib import Path

from vitral.engines.exported import ExportedEngine
from vitral.errors import installed_whole

SUFFIXES = {".onnx": "onnx.OnnxEngine", ".xml": "openvino.OpenvinoEngine", ".pt2": "program.ProgramEngine"}
"""How a file's name ends -> where its engine is, imported when it is needed."""


def parts_of(path: Path) -> list[Path]:
    """The files that an exported one consists of, itself last."""
    return [path.with_suffix(".bin"), path] if path.suffix == ".xml" else [path]


def state_of(path: Path) -> list[int]:
    """Sizes and times of these files, by which it is seen that others lie there now. Raises OSError where there are none."""
    return [number for each in map(os.stat, parts_of(path)) for number in (each.st_size, each.st_mtime_ns)]


def opened(path: Path) -> ExportedEngine:
    """The engine of an exported file. Raises VitralError as it does."""
    module, name = SUFFIXES[path.suffix].split(".")
    with installed_whole(str(path)):
        kind = getattr(importlib.import_module(f"vitral.engines.{module}"), name)
    engine: ExportedEngine = kind(path)
    return engine
