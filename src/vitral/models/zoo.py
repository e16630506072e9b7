"""The only table of model names: each name is timm's, each row a size from its paper. `create_model` builds any of them."""

import difflib
from dataclasses import fields, replace

from vitral.errors import VitralError
from vitral.models.vit import VisionTransformer, ViTConfig

# name: width, layers, heads, MLP width / width. Ti, S: https://arxiv.org/abs/2106.10270; B, L, H: https://arxiv.org/abs/2010.11929, table 1;
# g, G: https://arxiv.org/abs/2106.04560, table 2.
VIT_SIZES = {
    "tiny": (192, 12, 3, 4.0),
    "small": (384, 12, 6, 4.0),
    "base": (768, 12, 12, 4.0),
    "large": (1024, 24, 16, 4.0),
    "huge": (1280, 32, 16, 4.0),
    "giant": (1408, 40, 16, 48 / 11),
    "gigantic": (1664, 48, 16, 64 / 13),
}
VIT_PATCHES = {8: (224, 384), 14: (224, 378), 16: (224, 384), 32: (224, 384)}  # patch: resolutions

MODELS: dict[str, ViTConfig] = {
    f"vit_{size}_patch{patch}_{resolution}": ViTConfig(
        image_size=(resolution, resolution), patch_size=patch, dim=dim, depth=depth, num_heads=heads, mlp_ratio=ratio
    )
    for size, (dim, depth, heads, ratio) in VIT_SIZES.items()
    for patch, resolutions in VIT_PATCHES.items()
    for resolution in resolutions
}


def model_config(name: str, **overrides: object) -> ViTConfig:
    """The row `name` with any field of its dataclass replaced."""
    if name not in MODELS:
        raise VitralError(f"model {name!r} is not known; nearest: {_nearest(name, list(MODELS))}")
    known = [f.name for f in fields(ViTConfig)]
    for key in overrides:
        if key not in known:
            raise VitralError(
                f"{name} has no argument {key!r}; nearest: {_nearest(key, known)}; all: {', '.join(known)}"
            )
    return replace(MODELS[name], **overrides)  # type: ignore[arg-type]


def create_model(name: str, **overrides: object) -> VisionTransformer:
    """A freshly initialised model: `create_model("vit_small_patch16_224", num_classes=10)`.

    Any field of the family's dataclass (image_size, patch_size, in_channels, dim, depth, num_heads, ...) can be given.
    """
    return VisionTransformer(model_config(name, **overrides))


def _nearest(word: str, known: list[str]) -> str:
    return ", ".join(difflib.get_close_matches(word, known, n=3, cutoff=0.3)) or ", ".join(known[:5])
