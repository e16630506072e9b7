"""A model as a program of PyTorch (.pt2): run where PyTorch is, and none of the model's own code is needed."""

import json
import zipfile
from collections.abc import Sequence
from typing import Any

import torch

from vitral.data.resample import Pixels
from vitral.engines.exported import CARD, ExportedEngine, first_line
from vitral.errors import VitralError


class ProgramEngine(ExportedEngine):
    """Runs an exported file on the CPU."""

    library = "PyTorch"

    def open(self) -> dict[str, str]:
        _refuse_pickles(str(self.path))
        extra = {CARD: ""}
        self.program = torch.export.load(self.path, extra_files=extra).module(check_guards=False)
        stored: dict[str, str] = json.loads(extra[CARD] or "{}")
        return stored

    @torch.inference_mode()
    def run(self, pixels: Pixels) -> Sequence[Any]:
        found = self.program(torch.from_numpy(pixels))
        return [found] if isinstance(found, torch.Tensor) else found


def _refuse_pickles(path: str) -> None:
    """A VitralError for a file of which parts would be unpickled, which can run any code."""
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
            lists = [json.loads(file.read(name))["config"] for name in names if name.endswith("_config.json")]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise VitralError(f"{path}: PyTorch cannot load it ({first_line(error)}); export the model again") from error
    if not lists:
        raise VitralError(f"{path}: is no whole program of torch.export; export the model again")
    if any(entry["use_pickle"] for entries in lists for entry in entries.values()):
        raise VitralError(
            f"{path}: holds Python pickles, which can run any code as they are read; export the model again"
        )
