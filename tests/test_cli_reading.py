"""Commands that use a model on files that do not say what their values and pages mean."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from asking import predictor_of
from families import small
from vitral.checkpoints.bundle import save_model
from vitral.cli import main
from vitral.deploy.viewer import serve
from vitral.models.zoo import build, model_config


def run(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


@pytest.fixture
def model(tmp_path):
    """The file of a model that learned from values of 0 to 1."""
    predictor = predictor_of(small("vit"))
    card = predictor.card
    path = tmp_path / "model.safetensors"
    save_model(path, predictor.model, replace(card, preprocess=replace(card.preprocess, value_range=(0.0, 1.0))))
    return path


@pytest.fixture
def values(tmp_path):
    """An array of values from -1 to 3, some of which lie beyond 0 to 1, and one of values within."""
    array = np.linspace(-1, 3, 32 * 32 * 3, dtype=np.float32).reshape(32, 32, 3)
    np.save(tmp_path / "wide.npy", array)
    np.save(tmp_path / "narrow.npy", (array + 1) / 4)
    return tmp_path


@pytest.fixture
def pages(tmp_path):
    """A file of two pages, black and noise."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    first = Image.new("RGB", (32, 32))
    first.save(tmp_path / "pages.tiff", save_all=True, append_images=[Image.fromarray(noise)])
    return tmp_path / "pages.tiff"


def test_values_that_were_clipped_are_said(model, values, capsys):
    code, out, err = run(capsys, "predict", model, values / "wide.npy", values / "narrow.npy")
    assert code == 0
    assert len(out.splitlines()) == 2
    assert err == "vitral: 1 image has values outside of --value-range 0 1 (from -1 to 3), which are clipped to it\n"
    code, _, err = run(capsys, "predict", model, values / "wide.npy", "--value-range", "-1", "3")
    assert (code, err) == (0, "")


def test_explain_reads_files_as_predict_does(model, values, pages, capsys, tmp_path):
    own = ("explain", model, values / "wide.npy", "--npz")
    assert run(capsys, *own, tmp_path / "clipped.npz", "-o", tmp_path / "a.png")[0] == 0
    assert run(capsys, *own, tmp_path / "whole.npz", "-o", tmp_path / "a.png", "--value-range", "-1", "3")[0] == 0
    clipped, whole = (np.load(tmp_path / f"{name}.npz") for name in ("clipped", "whole"))
    assert not np.allclose(clipped["attention"], whole["attention"])
    code, _, err = run(capsys, "explain", model, pages, "-o", tmp_path / "a.png")
    assert (code, "--page" in err) == (2, True)
    assert run(capsys, "explain", model, pages, "-o", tmp_path / "a.png", "--page", "1")[0] == 0
    code, _, err = run(capsys, "explain", model, pages, "-o", tmp_path / "a.png", "--page", "all")
    assert (code, "one page at a time" in err) == (2, True)


def test_the_viewer_reads_files_as_predict_does(model, pages, capsys, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(serve, "serve", lambda session, *_, **__: seen.append(session))
    assert run(capsys, "view", model, pages, "--page", "1")[0] == 0
    assert run(capsys, "view", model, pages, "--page", "0")[0] == 0
    noise, black = (s.models[0].decode(s.images.get(s.given[0]).data).amax() for s in seen)
    assert noise > black == 0
    assert "one page at a time" in run(capsys, "view", model, pages, "--page", "all")[2]


@pytest.mark.parametrize("to", ["hf", "timm"])
def test_what_another_format_cannot_say_is_said(model, to, capsys, tmp_path):
    vitral_file = tmp_path / "paged.safetensors"
    config = model_config("vit_tiny_patch16_224", num_classes=4, image_size=32)  # whose shape timm has a name for
    predictor = predictor_of(build(config).eval())
    steps = replace(predictor.card.preprocess, value_range=(0.0, 4095.0), page="2")
    save_model(vitral_file, predictor.model, replace(predictor.card, preprocess=steps))
    code, _, err = run(capsys, "convert", vitral_file, tmp_path / to, "--to", to)
    assert code == 0, err
    assert "left out, as that format has none: the value range 0 to 4095" in err
    assert "left out, as that format has none: page 2 of files with several" in err
    assert "left out" not in run(capsys, "convert", vitral_file, tmp_path / "again.safetensors")[2]
