"""Models named by what they are."""

import pytest

from vitral.cli import main
from vitral.deploy.viewer.images import Images
from vitral.deploy.viewer.session import Session
from vitral.models.words import TITLES, model_in_words
from vitral.models.zoo import FAMILIES, MODELS, model_config
from vitral.predict import load

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


def test_a_run_says_what_it_trained_wherever_it_names_it(shapes_run, shapes_folder, tmp_path, capsys):
    """The zoo's bare name, which is that of a model of width 192 for 224 pixels, stands nowhere for it."""
    what = "ViT, width 32, 2 layers, patches of 4 at 20 px (from vit_tiny_patch16_224)"
    predictor = load(shapes_run)
    assert predictor.card.model == what
    assert what in repr(predictor)
    assert f": {what}</h1>" in (shapes_run / "report.html").read_text()
    assert Session([predictor], ["shapes"], Images()).about()["models"][0]["model"] == what
    for words in (
        ["evaluate", shapes_run, shapes_folder, "--split", "test"],
        ["inspect", shapes_run, "-o", tmp_path / "inside.html"],
        ["train", shapes_folder, "--init", shapes_run, "--steps", "1", "--out", tmp_path / "tuned"],
    ):
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        assert stop.value.code == 0
        said = capsys.readouterr().err
        assert what in said
        assert "vit_tiny_patch16_224" not in said.replace("(from vit_tiny_patch16_224)", "")
    assert what in (tmp_path / "inside.html").read_text()
