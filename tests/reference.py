"""Weights and images that are the same on every machine, and what reference implementations answered to them (tests/parity).

A fixture's .json says the reference's model and the names and shapes of its tensors; each tensor is drawn from a generator seeded by its name.
"""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

FIXTURES = Path(__file__).parent / "parity"


def names(library: str) -> list[str]:
    return sorted(p.stem for p in FIXTURES.glob("*.json") if json.loads(p.read_text())["library"] == library)


def spec(name: str) -> dict:
    return json.loads((FIXTURES / f"{name}.json").read_text())


def answers(name: str) -> dict[str, np.ndarray]:
    with np.load(FIXTURES / f"{name}.npz") as stored:
        return dict(stored)


def tensor(key: str, shape) -> np.ndarray:
    """float32 values for a tensor called `key`: norm scales near 1, matrices of fan-in scale, layer scales near 0.3."""
    x = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(tuple(shape), dtype=np.float32)
    leaf = key.rpartition(".")[2]
    if leaf == "attn_mask_probs":  # of a model that is trained to the end
        return 0 * x
    if leaf == "running_var":
        return np.abs(1 + 0.1 * x)
    if leaf == "running_mean":
        return 0.1 * x
    if leaf.startswith("gamma") or leaf in ("lambda1", "lambda_1", "lambda_2"):
        return 0.3 + 0.05 * x
    if leaf == "weight":
        return 1 + 0.1 * x if len(shape) <= 1 else x / np.sqrt(np.prod(shape[1:]), dtype=np.float32)
    return 0.1 * x if len(shape) <= 1 else 0.5 * x


def state_dict(name: str) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(np.asarray(tensor(key, shape))) for key, shape in spec(name)["keys"].items()}


def google_arrays(name: str) -> dict[str, np.ndarray]:
    arrays = {}
    for key, shape in spec(name)["keys"].items():
        x, leaf = tensor(key, shape), key.rpartition("/")[2]
        if leaf == "kernel":
            fan_in = (
                math.prod(shape[:3])
                if key.startswith("embedding")
                else math.prod(shape[:2])
                if "/out/" in key
                else shape[0]
            )
            x = 2 * x / np.sqrt(np.float32(fan_in))
        arrays[key] = 1 + 0.2 * x if leaf == "scale" else x
    return arrays


def images(name: str) -> torch.Tensor:
    return make_images(spec(name)["input"])


def make_images(shape, seed: int = 0) -> torch.Tensor:
    """Waves of random direction and a little noise, [B, C, H, W]."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(*(np.linspace(0, 1, side, dtype=np.float32) for side in shape[2:]), indexing="ij")
    batch = np.empty(shape, np.float32)
    for b in range(shape[0]):
        for c in range(shape[1]):
            down, right, phase = rng.uniform(1, 9, 3).astype(np.float32)
            batch[b, c] = np.sin(6.2832 * (down * y + right * x) + phase)
    return torch.from_numpy(batch + 0.3 * rng.standard_normal(tuple(shape), dtype=np.float32))


def transformers_folder(name: str, folder: Path) -> Path:
    """A Hugging Face folder as it would be downloaded."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(spec(name)["hf_config"]))
    save_file(state_dict(name), folder / "model.safetensors", {"format": "pt"})
    return folder


def difference(ours: torch.Tensor, theirs: np.ndarray) -> float:
    """max |ours - theirs| / max |theirs|"""
    return float(np.abs(ours.detach().numpy() - theirs).max() / np.abs(theirs).max())
