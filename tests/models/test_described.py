"""Models named by what they are."""

import pytest

from vitral.models.words import TITLES, model_in_words
from vitral.models.zoo import FAMILIES, MODELS, model_config

SMALL = {"image_size": (128, 128), "dim": 64, "depth": 4, "num_heads": 4}


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("vit_tiny_patch16_224", SMALL, "ViT, width 64, 4 layers, patches of 16 at 128 px (from vit_tiny_patch16_224)"),
        ("vit_tiny_patch16_224", {"num_classes": 3, "in_channels": 1}, "ViT, width 192, 12 layers, patches of 16 at 224 px (vit_tiny_patch16_224)"),
        ("vit_tiny_patch16_224", {"image_size": (28, 32), "patch_size": 4, "stem": (96, 192)},
         "ViT, width 192, 12 layers, patches of 4 by convolutions at 28x32 px (from vit_tiny_patch16_224)"),
        ("resnet18", {}, "ResNet, width 64, 2 + 2 + 2 + 2 blocks, images of 224 px (resnet18)"),
        ("pvt_tiny", {}, None),
    ],
)  # fmt: skip
def test_a_model_is_named_by_what_it_is(name, changes, says):
    said = model_in_words(model_config(name, **changes), name)
    assert said == says if says is not None else said.startswith("PVT, width 64 to 512, 2 + 2 + 2 + 2 blocks")


def test_every_row_of_the_zoo_has_words():
    assert set(FAMILIES) <= set(TITLES)
    for name, entry in MODELS.items():
        said = model_in_words(entry.config, name)
        assert said.endswith(f" px ({name})"), said
        assert said.startswith(TITLES[entry.family])
        assert model_in_words(entry.config) == said.removesuffix(f" ({name})")
