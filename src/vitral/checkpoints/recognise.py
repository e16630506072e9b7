"""Any source of weights: our file, a bare safetensors, Google's .npz, a pickle, a Hugging Face or timm folder, the Hub."""

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitral.checkpoints.atomic import is_pickle, read_safetensors, what_it_is
from vitral.errors import VitralError

ENDINGS = (".safetensors", ".npz", ".pt", ".pth", ".bin", ".ckpt", ".tar", ".pkl")
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
WRAPPERS = ("state_dict", "model", "teacher", "module", "params")
PREFIXES = ("module.", "_orig_mod.", "backbone.", "teacher.")


@dataclass
class Source:
    """Weights under their own names, and what came with them."""

    name: str
    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)
    """That of a safetensors file."""
    config: dict[str, Any] = field(default_factory=dict)
    """A folder's config.json."""
    processor: dict[str, Any] = field(default_factory=dict)
    """A folder's preprocessor_config.json."""


def is_source(name: str) -> bool:
    """Whether `name` means a file, a folder or a repository of the Hub, and not a model of the zoo."""
    return "/" in name or name.startswith("hf:") or Path(name).exists() or Path(name).suffix in ENDINGS


def read_source(source: str | Path | Mapping[str, Any], allow_pickle: bool = False) -> Source:
    """What `source` holds: a path, "hf:org/name" (or "hf:org/name@revision"), or a state dict of tensors or arrays.

    Pickles (.pt, .pth, .bin) are refused unless `allow_pickle`, and then read with `weights_only=True`.
    """
    if isinstance(source, Mapping):
        tensors = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in source.items()}
        return Source("the given state dict", unwrap(tensors, "the given state dict"))
    name = str(source)
    if name.startswith("hf:"):
        return _read_folder(_download(name), name, allow_pickle)
    path = Path(source)
    if path.is_dir():
        return _read_folder(path, name, allow_pickle)
    tensors, metadata = _read_file(path, allow_pickle)
    return Source(name, tensors, metadata)


def unwrap(stored: dict[str, Any], name: str) -> dict[str, Tensor]:
    """The state dict inside the wrappers and without the prefixes that training scripts save it with."""
    while not any(isinstance(v, Tensor) for v in stored.values()):
        inner = next((key for key in WRAPPERS if isinstance(stored.get(key), dict)), None)
        if inner is None:
            raise VitralError(f"{name}: holds no weights, only {', '.join(map(str, list(stored)[:8])) or 'nothing'}")
        stored = stored[inner]
    tensors = {str(k): v for k, v in stored.items() if isinstance(v, Tensor)}
    for prefix in PREFIXES:
        if any(key.startswith(prefix) for key in tensors):
            # What is saved beside a backbone is the head of its pre-training, which no classifier here has.
            tensors = {k.removeprefix(prefix) if k.startswith(prefix) else f"dino_{k}": v for k, v in tensors.items()}
    return tensors


def _read_folder(folder: Path, name: str, allow_pickle: bool) -> Source:
    config = _json(folder / "config.json")
    weights = next((folder / file for file in WEIGHT_FILES if (folder / file).is_file()), None)
    if weights is None:
        raise VitralError(f"{name}: holds none of {', '.join(WEIGHT_FILES)}; give the folder of a model, or a file")
    if weights.name.endswith(".index.json"):
        tensors: dict[str, Tensor] = {}
        metadata: dict[str, str] = {}
        for part in sorted(set(_json(weights)["weight_map"].values())):
            tensors.update(read_safetensors(folder / part)[0])
    else:
        tensors, metadata = _read_file(weights, allow_pickle)
    return Source(name, tensors, metadata, config, _json(folder / "preprocessor_config.json"))


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VitralError(f"{path}: not readable as JSON ({error}); download it again") from error
    if not isinstance(content, dict):
        raise VitralError(f"{path}: not a JSON object; download it again")
    return content


def _read_file(path: Path, allow_pickle: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise VitralError(f"{path}: no such file; give weights (.safetensors, .npz, .pth), a folder or hf:org/name")
    if path.suffix == ".npz":
        return _read_npz(path), {}
    with path.open("rb") as file:
        start = file.read(9)
    if is_pickle(start):
        return _read_pickle(path, allow_pickle), {}
    tensors, metadata = read_safetensors(path)
    return unwrap(dict(tensors), str(path)), metadata


def _read_npz(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {re.sub(r"^(opt/target|params)/", "", key): stored[key] for key in stored.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise VitralError(f"{path}: {what_it_is(path, 'an .npz archive')} ({error})") from error
    return {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items() if v.dtype.kind == "f"}


def _read_pickle(path: Path, allow_pickle: bool) -> dict[str, Tensor]:
    if not allow_pickle:
        raise VitralError(
            f"{path}: is a pickle (a PyTorch .pt/.pth/.bin file), which can run code when it is opened; use a .safetensors of the same weights, "
            "or if you trust where it came from: vitral convert IN OUT.safetensors --allow-pickle (allow_pickle=True in Python)"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd protocols: what cannot be read is an error below
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise VitralError(f"{path}: holds code beside weights, and is refused; get a .safetensors") from error
    except (RuntimeError, EOFError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise VitralError(f"{path}: is cut short or damaged; copy or download it again ({error})") from error
    if not isinstance(stored, dict):
        raise VitralError(f"{path}: holds a {type(stored).__name__}, not a state dict")
    return unwrap(stored, str(path))


def _download(name: str) -> Path:
    """The local folder of "hf:org/name[@revision]": from the cache where there is no network."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise VitralError(f"{name}: needs the extra `hub`: pip install 'vitral[hub]'") from error
    repository, _, revision = name.removeprefix("hf:").partition("@")
    wanted = ["config.json", "preprocessor_config.json", *WEIGHT_FILES[:2], "model-*.safetensors"]
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=wanted))
    except HFValidationError as error:
        raise VitralError(f"{name}: not a repository's name; write hf:organisation/name") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        short = str(error).strip().splitlines()[0]
        raise VitralError(f"{name}: not in the local cache and could not be fetched ({short})") from error
