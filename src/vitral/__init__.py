"""vitral: from a folder of images to a trained Vision Transformer, its predictions and a picture of what it looked at.

The public names are imported when they are first used, so that `import vitral` stays free of torch.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "create_model": "vitral.checkpoints.create",
    "load": "vitral.api",
    "load_weights": "vitral.checkpoints.convert",
    "Predictor": "vitral.api",
    "visualize_attention": "vitral.explain.explain",
    "VitralError": "vitral.errors",
}
__all__ = ["Predictor", "VitralError", "create_model", "load", "load_weights", "visualize_attention"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vitral' has no attribute {name!r}")
    with importlib.import_module("vitral.errors").installed_whole(f"vitral.{name}"):
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
