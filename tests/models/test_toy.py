"""A family of one file and a row: it trains, is fine-tuned, explained, inspected, converted and counted as the others are."""

import json

import numpy as np
import pytest
import torch
from toy import Toy, ToyConfig

import vitral
from vitral.checkpoints.exchange import exchange
from vitral.cli import main
from vitral.explain.methods import METHODS, undefined
from vitral.models import zoo
from vitral.models.measure import measure
from vitral.training.optim import build_optimizers
from vitral.training.options import OptimOptions

TRAIN = "--epochs 1 --batch-size 64 --image-size 8 8 --patch-size 2 --device cpu --workers 0 --keep last --lr 1e-3"


@pytest.fixture(autouse=True)
def row(monkeypatch):
    monkeypatch.setitem(zoo.FAMILIES, "toy", (ToyConfig, Toy))
    monkeypatch.setitem(zoo.MODELS, "toy_tiny", zoo.Entry("toy", ToyConfig(), "none"))


def command(*words):
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert not stop.value.code


@pytest.fixture
def run(tmp_path, capsys):
    command("train", "digits", "--model", "toy_tiny", *TRAIN.split(), "--out", tmp_path / "run")
    capsys.readouterr()
    return tmp_path / "run"


def test_it_trains_is_explained_inspected_and_converted(run, tmp_path, capsys):
    vit = vitral.load(run)
    assert isinstance(vit.model, Toy)
    image = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    for method in METHODS:
        assert undefined(vit.model, method) is None
        found = vit.explain(image, method=method)
        assert np.isfinite(found.map).all()
        assert found.map.shape[:2] == (8, 8)
    assert "mark" in vit.explain(image, query=0).method
    command("inspect", run, "digits", "--images", 8, "--json", "--out", tmp_path / "inside.html")
    inside = json.loads(capsys.readouterr().out)
    assert [layer["layer"] for layer in inside["layers"]] == ["embedding", "trunk.0", "trunk.1", "trunk.2"]
    assert [table["name"] for table in inside["positions"]] == ["where"]
    command("models", "toy_tiny", "--json")
    assert json.loads(capsys.readouterr().out)["parameters"] == measure(ToyConfig()).parameters
    written = tmp_path / "again.safetensors"
    exchange(str(run), written)
    again = vitral.load(written)
    assert torch.equal(again.model(torch.ones(1, 1, 8, 8)), vit.model(torch.ones(1, 1, 8, 8)))


def test_it_is_fine_tuned_with_its_embedding_frozen_and_positions_resized(run, tmp_path):
    words = [*TRAIN.split(), "--image-size", 16, 16, "--init", run, "--freeze", "embed"]
    command("train", "digits", *words, "--out", tmp_path / "tuned")
    before, after = (vitral.load(path).model.state_dict() for path in (run, tmp_path / "tuned"))
    assert torch.equal(before["mark"], after["mark"])
    assert torch.equal(before["cut.proj.weight"], after["cut.proj.weight"])
    assert after["where"].shape == (1, 64, 16)
    assert not torch.equal(before["trunk.0.attn.qkv.weight"], after["trunk.0.attn.qkv.weight"])


def test_its_layers_decay_matrices_and_cost_are_counted():
    model = zoo.build(ToyConfig(num_classes=5))
    layers = model.layer_numbers()
    assert {layers[name] for name in model.embedding_parameters()} == {0}
    assert [layers[f"trunk.{i}.mlp.fc1.weight"] for i in range(3)] == [1, 2, 3]
    assert layers["last.weight"] == layers["head.bias"] == 4
    others, muon = build_optimizers(model, OptimOptions("muon", lr=1.0, weight_decay=0.1, layer_decay=0.5))
    taken = {id(p) for group in muon.param_groups for p in group["params"]}
    matrices = {n for n, p in model.named_parameters() if n.startswith("trunk.") and p.ndim == 2}
    assert {n for n, p in model.named_parameters() if id(p) in taken} == matrices
    plain = {id(p) for group in others.param_groups if not group["decays"] for p in group["params"]}
    assert {id(model.mark), id(model.where)} < plain
    assert {group["scale"] for group in muon.param_groups} == {0.5, 0.25, 0.125}
    cost = measure(model.config)
    assert sum(part.parameters for part in cost.parts) == cost.parameters
    assert {"cut", "trunk", "last", "head"} <= {part.name for part in cost.parts}
    assert [m.shape for m in model.features(torch.zeros(1, 3, 12, 10))] == [(1, 3, 3, 16)] * 3
