"""Cross-attention is recorded as it is computed, the box bias follows boxes, and boxes are changed and described as said."""

import pytest
import torch

from vitral.layers.attention import Attention, recording
from vitral.layers.mlp import Mlp
from vitral.layers.query import OCTAVES, BoxBias, CrossAttention, QueryLayer, refined, waves


def drawn(module):
    torch.manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(std=0.3)
    return module.eval()


def test_recorded_and_fused_attention_agree():
    layer = drawn(QueryLayer(16, Attention(16, 2), CrossAttention(16, 2), Mlp(16, 32)))
    bias = drawn(BoxBias(2))
    boxes = torch.rand(3, 50, 4).sort(-1).values[..., [0, 1, 2, 3]] * 6
    x, positions, memory = torch.randn(3, 50, 16), torch.randn(3, 50, 16), torch.randn(3, 5 * 7, 16)
    fused = layer(x, positions, memory, bias(boxes, (5, 7)))
    with recording(layer) as maps:
        explicit = layer(x, positions, memory, bias(boxes, (5, 7)))
    assert [maps[k].shape for k in (0, 1)] == [(3, 2, 50, 50), (3, 2, 50, 35)]
    assert maps[1].sum(-1).allclose(torch.ones(3, 2, 50))
    assert (fused - explicit).abs().max() < 1e-5


def test_the_bias_decides_where_a_query_looks():
    layer = drawn(CrossAttention(8, 2))
    bias = torch.full((1, 2, 1, 12), -1e4)
    bias[..., 5] = 0
    with recording(layer) as maps:
        layer(torch.randn(1, 1, 8), torch.randn(1, 12, 8), bias)
    assert maps[0][..., 5].allclose(torch.ones(1))


def test_the_bias_moves_with_its_box():
    bias = drawn(BoxBias(3))
    box = torch.tensor([1.0, 2.0, 3.0, 5.0]).view(1, 1, 4)
    there = bias(box, (8, 9)).unflatten(-1, (8, 9))
    moved = bias(box + torch.tensor([2.0, 1.0, 2.0, 1.0]), (8, 9)).unflatten(-1, (8, 9))
    assert there.shape == (1, 3, 1, 8, 9)
    assert moved[..., 1:, 2:].allclose(there[..., :-1, :-2], atol=1e-6)
    assert not moved.allclose(there, atol=1e-2)


def test_boxes_move_in_their_own_sides_and_grow_by_logarithms():
    box = torch.tensor([0.2, 0.4, 0.4, 0.8])
    assert refined(box, torch.zeros(4)).allclose(box)
    change = torch.tensor([0.5, -1.0, 0.0, torch.tensor(0.5).log()])
    assert refined(box, change).allclose(torch.tensor([0.3, 0.1, 0.5, 0.3]))
    assert refined(box, torch.full((4,), 1e9)).isfinite().all()


def test_waves_tell_boxes_apart():
    boxes = torch.tensor([[0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.5 + 1 / 512]])
    described = waves(boxes)
    assert described.shape == (2, 8 * OCTAVES)
    assert (described[0] - described[1]).abs().max() > 0.1


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(Exception, match="does not divide into 3 heads"):
        CrossAttention(16, 3)
