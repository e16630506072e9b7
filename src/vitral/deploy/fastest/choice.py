"""Which engine runs a model here: what `vitral optimize` found fastest is kept in the user's cache, by model, processor, cores and versions."""

import contextlib
import hashlib
import importlib.metadata
import json
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import vitral
from vitral.data.files import cache_folder
from vitral.engines.cores import cores
from vitral.engines.files import state_of
from vitral.errors import VitralError

if TYPE_CHECKING:
    from vitral.predict import Predictor

FILES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}


@dataclass(frozen=True)
class Choice:
    """What was found fastest."""

    engine: str
    """torch, onnx or openvino."""
    precision: str = "fp32"
    compiled: bool = False
    file: str = ""
    """That it runs; none of torch."""

    @property
    def in_words(self) -> str:
        name = {"torch": "PyTorch", "onnx": "ONNX Runtime", "openvino": "OpenVINO"}[self.engine]
        return f"{name}{', compiled' if self.compiled else ''} in {self.precision}"


def here() -> str:
    """A hash of what speeds depend on."""
    versions = []
    for name in ("torch", "onnxruntime", "openvino"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{name} {importlib.metadata.version(name)}")
    processor = platform.processor()
    with contextlib.suppress(OSError):  # which only Linux has
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        processor = "\n".join(line for line in first if line.startswith(("vendor_id", "model", "flags")))
    told = json.dumps([processor, platform.machine(), cores(), vitral.__version__, versions])
    return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()


def weights_of(model: Path) -> Path:
    """The file of a model: of a run folder, the one inside."""
    return model / "model.safetensors" if model.is_dir() else model


def _state(file: str) -> list[int] | None:
    """`state_of` the file of a choice; None where it has gone."""
    with contextlib.suppress(OSError):
        return state_of(Path(file)) if file else []
    return None


def digest_of(model: Path) -> str:
    with open(weights_of(model), "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()


def _choices() -> Path:
    return cache_folder() / "engines" / "choices.json"


def remember(model: Path, choice: Choice) -> None:
    """Keep it for this model on this machine."""
    from vitral.checkpoints.atomic import write_atomically

    kept = _kept() | {f"{here()} {digest_of(model)}": {**asdict(choice), "state": _state(choice.file)}}
    write_atomically(_choices(), json.dumps(kept, indent=1).encode())


def _kept() -> dict[str, dict[str, object]]:
    with contextlib.suppress(OSError, ValueError):  # nothing is kept yet, or it is damaged
        found = json.loads(_choices().read_text())
        return found if isinstance(found, dict) else {}
    return {}


def chosen(model: Path) -> Choice | None:
    """What was found fastest for this model on this machine, if that is known and its file is still there, and still the same."""
    kept = _kept()
    if not kept or not weights_of(model).is_file():
        return None
    found = kept.get(f"{here()} {digest_of(model)}", {})
    state = found.pop("state", None)
    try:
        choice = Choice(**found)  # type: ignore[arg-type]
    except TypeError:  # none, or of another version
        return None
    return choice if state is not None and state == _state(choice.file) else None


def opened(model: str | Path, engine: str = "auto", say: Callable[[str], None] | None = None) -> "Predictor":
    """A predictor of the model in this engine.

    auto: the one that `vitral optimize` found fastest here, which is said; where it was not asked, the model's own. onnx, openvino: of a model in
    PyTorch a file is exported into the user's cache when it is first asked for. own: as the model is. say: takes what is done in a sentence; default:
    to stderr.

    Raises VitralError for an exported file that is asked for in another engine than its own.
    """
    from vitral.predict import exported_file, load

    path, tell = Path(model), say or (lambda text: print(f"vitral: {text}", file=sys.stderr))
    own = exported_file(path)
    if engine == "own":
        choice = None
    elif engine == "auto":
        if (choice := None if own else chosen(path)) is not None:
            tell(f"run by {choice.in_words}, as vitral optimize chose here; --engine torch runs it as it is")
    elif own and FILES[engine] != own.suffix:
        raise VitralError(
            f"{own}: --engine {engine} cannot run it; leave the engine out, or give the run that it was exported from"
        )
    else:
        choice = None if own else Choice(engine)
    if choice is None:
        return load(model)
    if choice.engine == "torch":
        return in_torch(load(model), choice.precision, compiled=choice.compiled)
    if choice.file:
        return load(choice.file)
    kept = cache_folder() / "engines" / f"{_name(path)}{FILES[engine]}"
    if not kept.is_file():
        from vitral.deploy.export.formats import export

        tell(f"exporting {model} for --engine {engine}, once, into {kept.parent}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        export(load(model), kept)
    return load(kept)


def _name(model: Path) -> str:
    """Of an export in the cache; a folder of Hugging Face's has none."""
    if not weights_of(model).is_file():
        raise VitralError(
            f"{model}: --engine is for runs and model files; export it, and give the file that this makes"
        )
    return f"{digest_of(model)}-{vitral.__version__}"


def in_torch(predictor: "Predictor", precision: str, *, compiled: bool = False) -> "Predictor":
    """The same predictor, computing so."""
    from vitral.engines.torch import TorchEngine

    engine = TorchEngine(predictor.model, predictor.card.preprocess, precision, compiled=compiled)
    return type(predictor)(engine, predictor.card)
