"""A small model of every family, with no parameter at its initial value."""

import torch

from vitral.models.zoo import FAMILIES, build, model_config

CLASSIFIERS = [name for name, (kind, _) in FAMILIES.items() if name != "tokenizer" and kind.answers == "classify"]

PLAIN = {"patch_size": 8, "dim": 24, "depth": 2, "num_heads": 2}
PYRAMID = {"dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
WINDOWS = {"dim": 8, "depths": (2, 2), "num_heads": (2, 2), "window": 4}
SHAPES = {
    "hybrid": PLAIN | {"patch_size": 16, "stages": (1, 1)},
    "mae": PLAIN | {"decoder_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2, "num_classes": 0},
    "swin": WINDOWS,
    "swinv2": WINDOWS,
    "pvt": PYRAMID,
    "pvt_v2": PYRAMID,
    "resnet": {"depths": (1, 1, 1, 1), "width": 8},
    "eomt": PLAIN | {"hidden": 32, "num_queries": 3, "joint": 1, "doublings": 1},
    "yolos": PLAIN | {"num_detections": 3, "middle_positions": True, "gaps": (1,)},
}


def small(family, **overrides):
    """For images of 32x32 pixels and 4 classes unless said otherwise, in evaluation mode."""
    torch.manual_seed(0)
    options = {"image_size": 32, "num_classes": 4} | SHAPES.get(family, PLAIN) | overrides
    model = build(model_config(family, **options))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return model.eval()
