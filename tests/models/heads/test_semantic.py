"""The heads of semantic maps on every family: shapes, gradients, layers, and files."""

import pytest
import torch
from torch.nn import functional as F

from families import small
from vitral.checkpoints.bundle import load_model, save_model
from vitral.checkpoints.card import ModelCard
from vitral.data.preprocess import Preprocess
from vitral.models.heads.dense import Dense
from vitral.models.heads.linear import enlarged
from vitral.models.heads.options import HEADS, LinearOptions, QueryOptions, SegformerOptions, head_options
from vitral.models.zoo import FAMILIES, family_of
from vitral.training.optim import build_optimizers, decays, rate_scales
from vitral.training.options import OptimOptions

BACKBONES = [name for name in FAMILIES if name not in ("mae", "tokenizer")]  # those are for pre-training only
MAPPED = ("linear", "segformer")


@pytest.mark.parametrize("family", BACKBONES)
def test_the_widths_that_a_family_states_are_those_of_its_maps(family):
    model = small(family)
    assert model.widths == [each.shape[3] for each in model.features(torch.zeros(1, 3, 40, 56))]


@pytest.mark.parametrize("name", MAPPED)
@pytest.mark.parametrize("family", BACKBONES)
def test_every_family_takes_a_step_and_answers_at_a_size_that_is_not_square(family, name):
    torch.manual_seed(0)
    model = Dense(small(family).config, HEADS[name]()).train()
    images = torch.randn(2, 3, 37, 50)
    found = model(images)
    whole = found.at_pixels(37, 50)
    assert whole.shape == (2, 4, 37, 50)
    whole.square().mean().backward()
    without = {n for n, p in model.named_parameters() if p.grad is None}
    assert {n for n in without if "fc_norm" not in n} == set()  # a norm after the pooling, which maps do not meet
    before = [p.detach().clone() for p in model.parameters()]
    for optimizer in build_optimizers(model, OptimOptions(optimizer="muon", lr=1e-2)):
        optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    model.eval()
    with torch.inference_mode():
        assert model(images)[:1].logits.isfinite().all()
        alone, together = model(images[:1]).logits, model(images).logits[:1]
        assert torch.allclose(alone, together, atol=1e-4)


@pytest.mark.parametrize(("old", "new"), [((3, 4), (12, 16)), ((5, 7), (10, 13)), ((1, 2), (4, 4)), ((6, 6), (4, 3))])
def test_maps_are_enlarged_as_pytorch_does(old, new):
    maps = torch.randn(2, 3, *old)
    expected = F.interpolate(maps, new, mode="bilinear", align_corners=False)
    assert torch.allclose(enlarged(maps, new), expected, atol=1e-5)


def test_muon_learns_what_is_neither_first_nor_last():
    options = SegformerOptions(head_dim=16)
    model = Dense(small("vit", patch_size=8, image_size=(40, 56), stem=(8, 16, 16, 32)).config, options)
    taken = model.whole_matrices()
    assert {
        "encoder.patch_embed.stem.3.weight",
        "encoder.patch_embed.proj.weight",
        "encoder.blocks.0.mlp.fc1.weight",
    } <= taken
    assert {"head.linear_c.0.weight", "head.linear_fuse.weight"} <= taken
    assert not taken & {"encoder.patch_embed.stem.0.weight", "head.classifier.weight", "encoder.cls_token"}
    objects = Dense(small("pvt_v2").config, QueryOptions(query_dim=16, query_heads=2)).whole_matrices()
    assert "head.neck.local.conv.weight" in objects
    assert not any(".label." in name or ".box.4." in name or "dwconv" in name for name in objects)


def test_layers_and_decay_are_the_backbones_and_the_head_is_of_the_last():
    model = Dense(small("vit", depth=3).config, LinearOptions())
    scales = rate_scales(model, 0.5)
    assert scales["encoder.patch_embed.proj.weight"] == 0.5**4
    assert scales["encoder.blocks.2.mlp.fc1.weight"] == 0.5
    assert scales["head.classifier.weight"] == scales["encoder.norm.weight"] == 1.0
    assert model.layer_numbers()["head.classifier.weight"] == max(model.layer_numbers().values())
    assert {n for n, p in model.named_parameters() if n.startswith("head.") and decays(n, p)} == {
        "head.classifier.weight"
    }
    assert not any(n.startswith("head.") for n in model.inner_parameters())


@pytest.mark.parametrize("head", [LinearOptions(head_dropout=0.0), SegformerOptions(head_dim=12, batch_norm=True)])
def test_a_model_file_brings_its_head(head, tmp_path):
    torch.manual_seed(0)
    model = Dense(small("vit").config, head).eval()
    steps = Preprocess(32, 32, 3, (0.5,) * 3, (0.5,) * 3, "pad")
    card = ModelCard(
        family_of(model.config), model.config.arguments(), list("abcd"), steps, task="semantic", head=head.to_json()
    )
    save_model(tmp_path / "m.safetensors", model, card)
    back, read = load_model(tmp_path / "m.safetensors")
    assert head_options(read.head) == head
    assert "head" in read.model
    images = torch.randn(1, 3, 32, 40)
    with torch.inference_mode():
        assert torch.equal(back(images).logits, model(images).logits)
