"""An exported file answers as its model does, from image file to probability; one that would not is never written."""

import json
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import vitral
from families import CLASSIFIERS, small
from vitral.checkpoints.bundle import save_model
from vitral.checkpoints.card import ModelCard, read_card
from vitral.cli import main
from vitral.data.preprocess import Preprocess
from vitral.deploy import export
from vitral.engines.onnx import OnnxEngine
from vitral.errors import VitralError
from vitral.predict import Predictor, load

NAMES = ["cross", "disc", "ring", "bar"]
FAST = ["vit", "swin", "beit"]


def predictor(family="vit", task="classify", **options):
    model = small(family, image_size=(32, 48), **options)
    channels = model.config.in_channels
    steps = Preprocess(32, 48, channels, (0.4,) * channels, (0.25,) * channels, crop_fraction=0.9)
    return Predictor(model, ModelCard(family, model.config.arguments(), NAMES, steps, task=task))


def alike(found, wanted):
    """Whether two predictions say the same, to 1e-4."""
    pairs = zip(found.top, wanted.top, strict=True)
    return all(a == b and abs(p - q) < 1e-4 for (a, p), (b, q) in pairs)


WITHOUT_TORCH = """
import sys
class Missing:  # as where they are not installed
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "sklearn", "scipy", "safetensors", "onnx"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
import vitral
print(vitral.load(sys.argv[1]).predict(sys.argv[2]).line(4))
from vitral.cli import main
main(["predict", *sys.argv[1:], "--format", "jsonl"])
"""


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
    assert load(path).labels == NAMES
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
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    (found,) = session.run(["logits"], {"pixel_values": pixels.numpy()})
    assert np.allclose(found, made.logits(pixels).numpy(), atol=1e-4)
    image = export.pictures(tmp_path, 3)[0]
    assert alike(load(tmp_path / "m.onnx").predict(image), made.predict(image))


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


def test_it_predicts_where_pytorch_is_not_installed(exported, tmp_path):
    """In a process of its own, from Python and from the command line, bytes and arrays alike."""
    made, path = exported
    image = export.pictures(tmp_path, 3)[1]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(path), str(image)], capture_output=True, text=True, check=True
    )
    line, row = done.stdout.splitlines()
    assert line == made.predict(image).line(4)
    found = json.loads(row)
    assert found["label"] == made.predict(image).label
    assert found["probability"] == pytest.approx(made.predict(image).probability, abs=1e-5)


def test_what_needs_the_model_says_so(exported):
    _, path = exported
    with pytest.raises(VitralError, match="an exported file gives answers and cannot be looked into"):
        vitral.load(path).explain(np.zeros((40, 40, 3), np.uint8))


def test_every_kind_of_image_is_taken(exported, tmp_path):
    made, path = exported
    found = load(path)
    image = export.pictures(tmp_path, 3)[0]
    pixels = np.asarray(Image.open(image))
    for each in (
        image,
        str(image),
        image.read_bytes(),
        Image.open(image),
        pixels,
        torch.from_numpy(pixels.copy()).permute(2, 0, 1),
    ):
        assert alike(found.predict(each), made.predict(image))
