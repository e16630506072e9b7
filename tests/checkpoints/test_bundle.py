"""The model file: what goes in comes out, and what is no model file is named for what it is."""

import json
import os
import pickle
import resource

import pytest
import torch
from safetensors.torch import save_file

from vitral.checkpoints.atomic import write_atomically
from vitral.checkpoints.bundle import load_model, save_model
from vitral.checkpoints.card import ModelCard
from vitral.checkpoints.convert import load_weights
from vitral.data.preprocess import Preprocess
from vitral.errors import VitralError
from vitral.predict import load


@pytest.fixture
def saved(tmp_path, tiny_vit):
    model = tiny_vit(num_registers=2)
    steps = Preprocess(16, 16, 1, (0.4,), (0.2,), "squash", 0.9, "bilinear", 16, 4)
    card = ModelCard(
        "vit_tiny_patch16_224",
        model.config.arguments(),
        ["a", "b", "ç", "<d>", "e"],
        steps,
        scores={"val": {"top1": 0.5}},
    )
    save_model(tmp_path / "model.safetensors", model, card)
    return tmp_path / "model.safetensors", model, card


def test_everything_comes_back(saved):
    path, model, card = saved
    again, its_card = load_model(path)
    assert its_card == card
    assert not again.training
    for (name, a), (_, b) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    images = torch.randn(2, 1, 16, 16)
    assert torch.equal(model(images), again(images))


def test_a_cut_file_is_refused_at_any_length(saved):
    path, _, _ = saved
    whole = path.read_bytes()
    for length in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(VitralError, match=r"model.safetensors: is (empty|cut short|not a safetensors)"):
            load(path)


def test_other_files_are_named_for_what_they_are(tmp_path, tiny_vit):
    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'ran'}",))

    cases = {
        "page.safetensors": (b"<!doctype html><html>404</html>", "web page"),
        "pickle.safetensors": (pickle.dumps(Evil()), "pickle"),
        "zip.safetensors": (b"PK\x03\x04 torch.save", "pickle"),
        "text.safetensors": (b"hello " * 50, "not a safetensors"),
    }
    for name, (content, what) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(VitralError, match=rf"{name}: is .*{what}"):
            load(tmp_path / name)
        with pytest.raises(VitralError, match=what):
            load_weights(tiny_vit(), tmp_path / name)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(VitralError, match="no such file"):
        load(tmp_path / "nothing.safetensors")
    with pytest.raises(VitralError, match=r"holds no model.safetensors"):
        load(tmp_path)


def test_weights_without_a_description_predict_nothing(tmp_path, tiny_vit):
    save_file(tiny_vit().state_dict(), tmp_path / "bare.safetensors")
    with pytest.raises(VitralError, match="description"):
        load(tmp_path / "bare.safetensors")
    assert load_weights(tiny_vit(), tmp_path / "bare.safetensors").complete


def test_a_damaged_or_newer_description_is_refused(saved):
    path, model, card = saved
    for change, what in (({"format": "99"}, "newer"), ({"preprocess": 3}, "damaged")):
        text = json.dumps({**json.loads(card.to_json()), **change})
        save_file(model.state_dict(), path, {"vitral": text})
        with pytest.raises(VitralError, match=what):
            load(path)


def test_weights_of_another_model_show_both_sides(tmp_path, tiny_vit):
    save_file(tiny_vit(dim=64).state_dict(), tmp_path / "wide.safetensors")
    model = tiny_vit(depth=3)
    with pytest.raises(
        VitralError, match=r"(?s)1 of 44 tensors.*only in the model.*blocks\.2.*of another shape"
    ) as error:
        load_weights(model, tmp_path / "wide.safetensors")
    assert "blocks.0.mlp.fc2.weight: (64, 256), (32, 128)" in str(error.value)
    save_file(tiny_vit(depth=2).state_dict(), tmp_path / "shallow.safetensors")
    report = load_weights(model, tmp_path / "shallow.safetensors", strict=False)
    assert report.loaded == report.total - len(report.missing)
    assert all(name.startswith("blocks.2.") for name in report.missing)


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """The kernel's file size limit stands in for the full disk: both fail in write()."""
    path = tmp_path / "model.safetensors"
    write_atomically(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(VitralError, match=r"model.safetensors: could not be written.*free some space"):
            write_atomically(path, b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.safetensors"]
