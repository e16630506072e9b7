"""Attention with and without a recorder, and the shapes it comes in."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitral.errors import VitralError
from vitral.layers.attention import Attention, attend, recording


@settings(max_examples=25, deadline=None)
@given(
    prefix=st.sampled_from([(True, 0), (True, 4), (False, 0), (False, 5)]),
    patch=st.sampled_from([4, 7, 8, 16, 32]),
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    pre_norm=st.booleans(),
)
def test_capture_changes_nothing_and_is_a_distribution(prefix, patch, rows, columns, pre_norm):
    from vitral.checkpoints.create import create_model

    class_token, registers = prefix
    torch.manual_seed(0)
    size = (rows * patch, columns * patch)
    model = create_model(
        "vit_tiny_patch16_224", image_size=size, patch_size=patch, in_channels=1, num_classes=7, dim=24, depth=3, num_heads=3,
        class_token=class_token, pooling="cls" if class_token else "mean", num_registers=registers, pre_norm=pre_norm,
    ).eval()  # fmt: skip
    torch.nn.init.normal_(model.head.weight, std=0.2)
    images = torch.randn(2, 1, *size)
    plain = model(images)
    logits, layers = model.forward_with_attention(images)
    assert (logits - plain).abs().max() <= 1e-5
    assert model.num_prefix == class_token + registers
    tokens = model.num_prefix + rows * columns
    assert [a.shape for a in layers] == [(2, 3, tokens, tokens)] * 3
    for a in layers:
        assert (a.sum(-1) - 1).abs().max() < 1e-5
        assert a.min() >= 0


def test_attend_equals_the_definition():
    q, k, v = torch.randn(3, 2, 4, 9, 8, dtype=torch.float64).unbind(0)
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k) / 8**0.5
    wanted = torch.einsum("bhqk,bhkd->bhqd", scores.exp() / scores.exp().sum(-1, keepdim=True), v)
    assert torch.allclose(attend(q, k, v), wanted, atol=1e-12)
    seen = []
    assert torch.allclose(attend(q, k, v, recorder=seen.append), wanted, atol=1e-12)
    assert len(seen) == 1


def test_bfloat16_training_and_inference_agree():
    attention = Attention(32, 4).bfloat16()
    x = torch.randn(2, 20, 32, dtype=torch.bfloat16)
    with torch.no_grad():
        fused = attention(x)
    explicit = attention(x)
    assert (fused.float() - explicit.float()).abs().max() < 0.03


def test_only_the_layers_asked_for_are_recorded(tiny_vit):
    model, images = tiny_vit(depth=3), torch.randn(1, 1, 16, 16)
    with recording(model, [-1, 0]) as maps:
        model(images)
    assert sorted(maps) == [0, 2]
    with recording(model) as maps:
        pass
    assert maps == {}
    model(images)
    assert all(block.attn.recorder is None for block in model.blocks)


def test_a_layer_that_is_not_there_is_an_error(tiny_vit):
    with pytest.raises(VitralError, match="2 attention layers"), recording(tiny_vit(), [2]):
        pass


def test_recorded_attention_carries_gradients(tiny_vit):
    model = tiny_vit()
    logits, layers = model.forward_with_attention(torch.randn(1, 1, 16, 16))
    (gradient,) = torch.autograd.grad(logits[0, 0], layers[0])
    assert gradient.abs().max() > 0
