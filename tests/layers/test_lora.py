"""LoRA and the norm before the head: nothing changes at first, little learns, and what is merged answers alike."""

import pytest
import torch
from torch import nn

import reference
from families import CLASSIFIERS, small
from vitral.layers.attention import AttentionLayer
from vitral.layers.lora import Adapted, LoraLinear, NormedLinear, add_head_norm, add_lora, merged

TRANSFORMERS = [family for family in CLASSIFIERS if family not in ("resnet", "mae")]


def shake(model):
    """LoRA's B away from zero, and statistics in the head's norm."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, LoraLinear):
                module.b.normal_(std=0.2)
            elif isinstance(module, NormedLinear):
                mean, variance = module.statistics()
                mean.normal_()
                variance.uniform_(0.5, 2)


@pytest.mark.parametrize("options", [("dino", {"key_bias": False}), *((f, {}) for f in TRANSFORMERS)])
def test_merged_answers_alike_in_every_family(options):
    family, overrides = options
    model = small(family, **overrides)
    images = reference.make_images((2, 3, 32, 32))
    with torch.no_grad():
        before = model(images)
        add_lora(model, rank=2, alpha=4.0)
        assert torch.allclose(model(images), before, atol=1e-6)  # B is zero
        model.head = add_head_norm(model.head)
    shake(model.eval())
    names = set(small(family, **overrides).state_dict())
    with torch.no_grad():
        adapted, plain = model(images), merged(model)
        assert not torch.allclose(adapted, before, atol=1e-3)
        assert reference.difference(plain(images), adapted.numpy()) <= 3e-6
    assert set(plain.state_dict()) == names
    assert any(isinstance(m, Adapted) for m in model.modules())  # the one that goes on learning is as it was


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_every_matrix_of_attention_and_mlp_is_adapted(family):
    model = small(family)
    owners = [m for m in model.modules() if isinstance(m, AttentionLayer)]
    perceptrons = [m for m in model.modules() if {"fc1", "fc2"} <= dict(m.named_children()).keys()]
    matrices = sum(
        isinstance(child, nn.Linear) and min(child.weight.shape) > 2
        for m in (*owners, *perceptrons)
        for child in m.children()
    )
    assert matrices >= 2 * len(owners) + 2 * len(perceptrons) > 0
    assert add_lora(model, 2, 4.0) == matrices


def test_a_matrix_used_without_its_module_is_adapted_too():
    linear = nn.Linear(6, 5)
    lora = LoraLinear(linear, 2, 3.0)
    nn.init.normal_(lora.b)
    x = torch.randn(4, 6)
    wanted = x @ (linear.weight + 1.5 * lora.b @ lora.a).T + linear.bias
    assert torch.allclose(lora(x), wanted, atol=1e-6)
    assert torch.allclose(nn.functional.linear(x, lora.weight, lora.bias), wanted, atol=1e-6)
    wanted.sum().backward()
    assert linear.weight.grad is None
    assert lora.a.grad is not None


def test_a_model_without_adapted_layers_is_its_own_merged_form():
    model = small("resnet")
    assert add_lora(model, 2, 4.0) == 0
    assert merged(model) is model


def test_the_norm_before_the_head_whitens_in_training_and_keeps_statistics():
    linear = nn.Linear(3, 2)
    normed = NormedLinear(linear)
    assert {n for n, _ in normed.named_parameters()} == {"linear.weight", "linear.bias"}
    x = torch.randn(64, 3) * torch.tensor([1.0, 10.0, 0.1]) + 5
    white = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-6).sqrt()
    assert torch.allclose(normed(x), linear(white), atol=1e-4)
    lone = normed(x[:1])  # the short last batch of an epoch
    assert lone.isfinite().all()
    normed.eval()
    assert torch.allclose(normed(x), normed.plain()(x), atol=1e-4)
    assert torch.allclose(normed(x[:1]), lone)
