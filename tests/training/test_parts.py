"""Optimisers, averages and checkpoints of tensors of which each of two processes holds a part, or which both hold, against those of one process."""

import subprocess
import sys
from dataclasses import replace

import pytest

from processes import PATIENCE
from vitral.training import parts
from vitral.training.config import Recipe
from vitral.training.display import Display
from vitral.training.machine import choose_device
from vitral.training.options import ModelOptions, TrainOptions
from vitral.training.parts import settle_parts
from vitral.training.settle import settle
from vitral.training.world import World

# Prints for each optimiser the largest difference from the same steps on whole tensors; what was put together equals what was taken apart.
COMPARED = """
import copy, torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from vitral import create_model
from vitral.training.optim import build_optimizers, update_average
from vitral.training.options import OptimOptions
from vitral.training.state import collect, restore
from vitral.training.whole import cut, gathered, own, whole
from vitral.training.world import ALONE, World

torch.distributed.init_process_group("gloo")
mesh, first = init_device_mesh("cpu", (2,)), torch.distributed.get_rank() == 0
together = World(torch.distributed.get_rank(), 2)
SMALL = dict(image_size=(8, 8), patch_size=4, dim=10, depth=3, num_heads=2, num_classes=3, in_channels=1)
for name in ("adamw", "sgd", "lamb", "lars", "muon"):
    torch.manual_seed(0)
    whole_model = create_model("vit_tiny_patch16_224", **SMALL)
    divided = fully_shard(copy.deepcopy(whole_model), mesh=mesh)
    options = OptimOptions(optimizer=name, lr=0.01)
    sides = []
    for model, world in ((whole_model, ALONE), (divided, together), (copy.deepcopy(whole_model), together)):
        sides.append((model, build_optimizers(model, options, world), {n: p.detach().clone() for n, p in model.named_parameters()}))
    for step in range(3):
        gradients = {n: torch.randn_like(p) for n, p in whole_model.named_parameters()}
        for model, optimizers, average in sides:
            for n, p in model.named_parameters():
                p.grad = cut(gradients[n], p.detach())
            for optimizer in optimizers:
                optimizer.step()
            update_average(average, model.named_parameters(), 0.9, step)
    expected, *others = [gathered(collect(*side), True) for side in sides]
    assert all(expected.keys() == found.keys() for found in others)
    found = others[0]
    print(name, max(float((expected[key] - other[key]).abs().max()) for key in expected for other in others)) if first else None
    fresh = fully_shard(create_model("vit_tiny_patch16_224", **SMALL), mesh=mesh)
    again = (fresh, build_optimizers(fresh, options), {n: p.detach().clone() for n, p in fresh.named_parameters()})
    restore(found, *again)
    back = gathered(collect(*again), True)
    assert back.keys() == found.keys() and all(torch.equal(back[key], found[key]) for key in found)
    held, all_of_it = (sum(own(p.detach()).numel() for p in model.parameters()) for model in (fresh, whole_model))
    assert held < 0.6 * all_of_it
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


def test_optimisers_averages_and_checkpoints_in_parts(tmp_path):
    (tmp_path / "compared.py").write_text(COMPARED)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        tmp_path / "compared.py",
    ]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    differences = dict(line.split() for line in done.stdout.splitlines())
    assert [*differences] == ["adamw", "sgd", "lamb", "lars", "muon"]
    assert all(float(value) < 2e-6 for value in differences.values()), differences


@pytest.fixture
def settled(shapes_folder):
    model = ModelOptions(name="vit_tiny_patch16_224", dim=32, depth=2, num_heads=2, image_size=(20, 20), patch_size=4)
    return settle(str(shapes_folder), Recipe(model=model, train=TrainOptions(steps=2, device="cpu")), Display())


def test_a_model_is_in_parts_where_it_does_not_fit(settled, monkeypatch):
    def decided(processes, said="auto"):
        asked = replace(settled, recipe=replace(settled.recipe, train=replace(settled.recipe.train, fsdp=said)))
        found = settle_parts(asked, choose_device("cpu"), World(0, processes))
        return found.recipe.train.fsdp, found.reasons[len(settled.reasons) :]

    assert decided(2) == ("no", ())
    monkeypatch.setattr(parts, "available_memory", lambda kind: 5 * 10**5)
    chosen, reasons = decided(2)
    assert chosen == "yes"
    assert "a part of the model" in reasons[0]
    assert "--fsdp no" in reasons[0]
    assert decided(1) == ("auto", ())  # alone it holds all
    assert decided(2, "no") == ("no", ())
