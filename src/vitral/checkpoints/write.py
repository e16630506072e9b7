"""Models written as other libraries read them: a Hugging Face or timm folder with config.json, weights and preprocessing."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from vitral.checkpoints.atomic import write_atomically, write_safetensors
from vitral.checkpoints.bundle import LoadReport
from vitral.checkpoints.convert import to_layout
from vitral.checkpoints.timm_pixels import write_timm
from vitral.checkpoints.to_transformers import transformers_files
from vitral.data.preprocess import Preprocess
from vitral.errors import VitralError
from vitral.models.common import ImageModel, ModelConfig
from vitral.models.heads.dense import Dense
from vitral.models.zoo import MODELS


def write_folder(
    folder: Path,
    model: ImageModel,
    layout: str,
    labels: list[str] | None,
    steps: Preprocess | None,
    like: LoadReport | None = None,
    *,
    task: str = "classify",
) -> list[str]:
    """A folder that Transformers ("hf", "hf5") or timm ("timm") loads: config.json, model.safetensors and, if known, the preprocessing.

    Returns in words where the other library's preprocessing differs slightly. Raises VitralError, before anything is written, where it has no
    such model or preprocessing.
    """
    tensors = to_layout(model, layout, like)
    if layout == "timm":
        files, unlike = timm_files(model, labels, steps)
    else:
        files, unlike = transformers_files(
            model.config, labels, steps, task, model.options if isinstance(model, Dense) else None
        )
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    for name, content in files.items():
        write_atomically(folder / name, (json.dumps(content, indent=2) + "\n").encode())
    return unlike


def timm_files(
    model: ImageModel, labels: list[str] | None, steps: Preprocess | None
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """timm's config.json, of the zoo's row with this shape; and in words what its preprocessing does otherwise."""
    config = model.config
    name = next((n for n, e in MODELS.items() if _same_shape(e.config, config)), None)
    if name is None:
        raise VitralError("timm has no model of this shape; write Hugging Face's layout or our own file instead")
    prepared: dict[str, Any] = {"input_size": [config.in_channels, *config.image_size]}
    unlike: list[str] = []
    if steps is not None:
        settings, unlike = write_timm(steps)
        prepared |= settings
    if labels:
        prepared["label_names"] = labels
    arguments: dict[str, Any] = {}
    if config.image_size != MODELS[name].config.image_size and "resnet" not in name:
        arguments["img_size"] = list(config.image_size)
    if config.in_channels != 3:
        arguments["in_chans"] = config.in_channels
    content = {
        "architecture": name,
        "num_classes": config.num_classes,
        "model_args": arguments,
        "pretrained_cfg": {"num_classes": config.num_classes, **prepared},
    }
    return {"config.json": content}, unlike


def _same_shape(row: ModelConfig, config: ModelConfig) -> bool:
    """Whether a row of the zoo is this model but for size, channels, classes, rates and initial values."""
    free = (
        "image_size", "in_channels", "num_classes", "dropout", "drop_path", "drop_path_uniform", "patch_drop", "layer_scale", "norm_eps",
        "conv_norm_eps", "windowing", "position_resize",
    )  # fmt: skip
    if type(row) is not type(config) or abs(getattr(row, "norm_eps", 0) - getattr(config, "norm_eps", 0)) > 1e-6:
        return False
    if (getattr(row, "layer_scale", None) is None) != (getattr(config, "layer_scale", None) is None):
        return False
    return all(getattr(row, f.name) == getattr(config, f.name) for f in fields(row) if f.name not in free)
