"""What `vitral export` can write: each format a row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitral.deploy.export.file import Exported, export_onnx, export_openvino, export_torch
from vitral.deploy.export.graph import Traced
from vitral.deploy.web.page import export_web
from vitral.errors import VitralError
from vitral.predict import ImageLike, Predictor


@dataclass(frozen=True)
class Format:
    """One of them."""

    write: Callable[..., Exported]
    """write(traced, out, images, say)"""
    suffix: str = ""
    """How the file's name ends; empty for a folder."""
    folder: str = ""
    """How the folder is called."""

    def beside(self, model: Path) -> Path:
        """What is written where nothing is said, beside a model file or in a run."""
        if self.folder:
            return (model if model.is_dir() else model.parent) / self.folder
        return model / f"model{self.suffix}" if model.is_dir() else model.with_suffix(self.suffix)


FORMATS = {
    "onnx": Format(export_onnx, ".onnx"),
    "openvino": Format(export_openvino, ".xml"),
    "torch": Format(export_torch, ".pt2"),
    "web": Format(export_web, folder="page"),
}


def export(
    predictor: Predictor,
    out: Path,
    to: str | None = None,
    *,
    raw: bool = False,
    images: Sequence[ImageLike] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Exported:
    """Write `out`, which answers as the predictor does, or raise VitralError and leave nothing.

    to: a key of `FORMATS`; default, by how the name ends. raw: take normalised pixels and give logits.
    images: what to compare on; default: eight pictures cut from scikit-learn's two photographs. say: called with what is done next.
    """
    endings = {each.suffix: name for name, each in FORMATS.items() if each.suffix}
    to = to or endings.get(out.suffix)
    if to is None:
        told = ", ".join(f"{suffix} ({name})" for suffix, name in endings.items())
        raise VitralError(f"{out}: the format is told by how the name ends: {told}; or say it with --to")
    return FORMATS[to].write(Traced(predictor, raw=raw), out, images, say)
