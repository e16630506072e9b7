"""A model described in words: the name in the zoo says little of one that is narrower, shallower or for images of another size."""

from dataclasses import replace
from typing import Any

from vitral.errors import counted
from vitral.models.common import ModelConfig
from vitral.models.zoo import MODELS, family_of

TITLES = {
    "vit": "ViT", "hybrid": "hybrid ViT", "deit": "DeiT", "cait": "CaiT", "beit": "BEiT", "mae": "MAE", "dino": "DINO", "swin": "Swin",
    "swinv2": "Swin V2", "pvt": "PVT", "pvt_v2": "PVT v2", "resnet": "ResNet", "yolos": "YOLOS", "eomt": "EoMT", "tokenizer": "tokenizer",
}  # fmt: skip


def model_in_words(config: ModelConfig, name: str | None = None) -> str:
    """ViT, width 64, 4 layers, patches of 16 at 128 px (from vit_tiny_patch16_224).

    name: what the zoo calls it, or what it was changed from; "from" is left out where nothing but classes and channels differs.
    """
    family = family_of(config)
    parts = [TITLES.get(family, family)]
    if (width := _field(config, "dim", "dims", "width")) is not None:
        parts.append(f"width {_joined(width, ' to ')}")
    if (depth := _field(config, "depth", "depths", "stages")) is not None:
        parts.append(counted(depth, "layer") if isinstance(depth, int) else f"{_joined(depth, ' + ')} blocks")
    height, width_px = config.image_size
    size = f"{height} px" if height == width_px else f"{height}x{width_px} px"
    patch = getattr(config, "patch_size", None)
    stem = " by convolutions" if getattr(config, "stem", ()) else ""
    parts.append(f"images of {size}" if patch is None else f"patches of {patch}{stem} at {size}")
    if getattr(config, "beside", "none") == "edges":
        parts.append("beside edges and colours")
    return ", ".join(parts) + _origin(config, name)


def _origin(config: ModelConfig, name: str | None) -> str:
    if name not in MODELS:
        return ""
    row = replace(MODELS[name].config, num_classes=config.num_classes, in_channels=config.in_channels)
    return f" ({name})" if row == config else f" (from {name})"


def _field(config: ModelConfig, *names: str) -> Any:
    """The first of these fields that the family has and that is not empty."""
    return next((value for name in names if (value := getattr(config, name, None))), None)


def _joined(value: int | tuple[int, ...], sign: str) -> str:
    """A number a stage, or one."""
    if isinstance(value, int):
        return str(value)
    return f"{value[0]} to {value[-1]}" if sign == " to " else sign.join(map(str, value))
