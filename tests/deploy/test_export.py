"""An exported file answers as its model does, from image file to probability; one that would not is never written."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from families import CLASSIFIERS, small
from vitral.checkpoints.bundle import ModelCard, read_card, save_model
from vitral.cli import main
from vitral.data.preprocess import Preprocess
from vitral.deploy import export
from vitral.engines.onnx import OnnxEngine
from vitral.errors import VitralError
from vitral.predict import Predictor

NAMES = ["cross", "disc", "ring", "bar"]
FAST = ["vit", "swin", "beit"]


def predictor(family="vit", task="classify", **options):
    model = small(family, image_size=(32, 48), **options)
    channels = model.config.in_channels
    steps = Preprocess(32, 48, channels, (0.4,) * channels, (0.25,) * channels, crop_fraction=0.9)
    return Predictor(model, ModelCard(family, model.config.arguments(), NAMES, steps, task=task))


@pytest.fixture
def exported(tmp_path):
    """A ViT, and its file."""
    made = predictor()
    export.export_onnx(made, tmp_path / "vit.onnx")
    return made, tmp_path / "vit.onnx"


def test_the_file_answers_as_the_model_for_any_number_of_images(exported, tmp_path):
    made, path = exported
    engine = OnnxEngine(path)
    images = export.pictures(tmp_path, 3)
    seen = np.stack([made.card.preprocess.view(made.decode(image).numpy()) for image in images])
    assert seen.dtype == np.uint8
    wanted = made.probabilities(made.logits(torch.stack([made.preprocess(image) for image in images]))).numpy()
    for count in (1, 4, 7):
        assert np.allclose(engine(seen[:count]), wanted[:count], atol=1e-5)
    assert sorted(path.parent.iterdir()) == sorted([path, *images])  # one file, and nothing beside it


def test_the_file_describes_itself(exported):
    made, path = exported
    metadata = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert read_card(path, metadata) == made.card
    assert json.loads(metadata["names"]) == dict(zip("0123", NAMES, strict=True))
    assert json.loads(metadata["imgsz"]) == [32, 48]
    assert json.loads(metadata["verified"])["difference"] < 1e-4


EXPORTED = [
    pytest.param(family, marks=[] if family in FAST else [pytest.mark.slow])
    for family in CLASSIFIERS
    if family != "mae"  # which has no head
]


@pytest.mark.parametrize("family", EXPORTED)
def test_every_family_is_exported(family, tmp_path):
    assert export.export_onnx(predictor(family), tmp_path / "m.onnx").difference < 1e-5


def test_a_model_that_predicts_nothing_is_refused(tmp_path):
    card = ModelCard("mae", {}, [], Preprocess(32, 32, 3, (0.5,) * 3, (0.5,) * 3))
    with pytest.raises(VitralError, match="has no head"):
        export.export_onnx(Predictor(small("mae"), card), tmp_path / "m.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 5])
def test_grey_images_and_bands_are_compared_as_such(channels, tmp_path):
    made = predictor(in_channels=channels)
    assert export.export_onnx(made, tmp_path / "m.onnx").difference < 1e-5


def test_raw_graphs_take_normalised_pixels_and_give_logits_of_label_sets_too(tmp_path):
    made = predictor(task="multilabel")
    export.export_onnx(made, tmp_path / "m.onnx", raw=True)
    pixels = torch.randn(3, 3, 32, 48)
    assert np.allclose(OnnxEngine(tmp_path / "m.onnx")(pixels.numpy()), made.logits(pixels).numpy(), atol=1e-4)


def broken_mean(monkeypatch):
    init = export.Graph.__init__

    def other(self, predictor, raw):
        init(self, predictor, raw)
        self.mean += 10

    monkeypatch.setattr(export.Graph, "__init__", other)


def swapped_labels(monkeypatch):
    described = export._described

    def other(card, raw):
        stored = json.loads(described(card, raw)["vitral"])
        return described(card, raw) | {"vitral": json.dumps(stored | {"labels": stored["labels"][::-1]})}

    monkeypatch.setattr(export, "_described", other)


def baked_batch(monkeypatch):
    write = torch.onnx.export
    monkeypatch.setattr(
        torch.onnx, "export", lambda *args, **options: write(*args, **options | {"dynamic_shapes": None})
    )


@pytest.mark.parametrize(
    ("breaks", "says"),
    [(broken_mean, "answers otherwise"), (swapped_labels, "in another order"), (baked_batch, "does not fit")],
)
def test_a_file_that_answers_otherwise_is_refused_and_not_left_behind(breaks, says, tmp_path, monkeypatch):
    breaks(monkeypatch)
    with pytest.raises(VitralError, match=says):
        export.export_onnx(predictor(), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_beside_the_model_and_says_how_it_compares(tmp_path, capsys):
    made = predictor()
    save_model(tmp_path / "model.safetensors", made.model, made.card)
    Image.effect_noise((50, 40), 60).convert("RGB").save(tmp_path / "one.png")
    with pytest.raises(SystemExit) as done:
        main(["export", str(tmp_path), "--check-on", str(tmp_path / "one.png")])
    assert done.value.code == 0
    assert "1 image from file to answer, in batches of 1, 2, 3, 7" in (said := capsys.readouterr().err)
    assert f"wrote {tmp_path / 'model.onnx'}" in said


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "cannot load it"), (b"\x08\x07junk" * 9, "cannot load it"), (None, "no such file")]
)
def test_what_is_no_onnx_file_is_refused_by_name(content, says, tmp_path):
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VitralError, match=rf"m\.onnx: .*{says}"):
        OnnxEngine(path)


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    for path, says in ((tmp_path / "model.bin", r"ends in \.onnx"), (tmp_path / "no" / "m.onnx", "there is no folder")):
        with pytest.raises(VitralError, match=says):
            export.export_onnx(predictor(), path)
