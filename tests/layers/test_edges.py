"""Edges and colours against counts by hand."""

import math

import pytest
import torch

from vitral.layers.described import CELL, DIRECTIONS, SIDE, EdgesAndColours, colours, describe, edges


def test_a_block_counts_the_directions_of_its_edges():
    grey = (torch.rand(2, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 255).double()
    votes = torch.zeros(2, DIRECTIONS, SIDE // CELL, SIDE // CELL, dtype=torch.float64)
    for b in range(2):
        for y in range(SIDE):
            for x in range(SIDE):
                dx = grey[b, y, x + 1] - grey[b, y, x - 1] if 0 < x < SIDE - 1 else torch.tensor(0.0)
                dy = grey[b, y + 1, x] - grey[b, y - 1, x] if 0 < y < SIDE - 1 else torch.tensor(0.0)
                place = math.atan2(dy, dx) % math.pi / math.pi * DIRECTIONS
                low, part = int(place) % DIRECTIONS, place - int(place)
                strength = math.hypot(dx, dy) / CELL**2
                votes[b, low, y // CELL, x // CELL] += strength * (1 - part)
                votes[b, (low + 1) % DIRECTIONS, y // CELL, x // CELL] += strength * part
    block = votes[:, :, 2:4, 5:7].flatten(1)  # the third row's sixth
    wanted = (block / (block.norm(dim=1, keepdim=True) + 10)).clamp(max=0.2)
    found = edges(grey).view(2, -1, 7, 7)[:, :, 2, 5]
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("C", [1, 3, 5])
def test_a_quarter_counts_its_colours(C):
    images = (torch.rand(2, C, SIDE, SIDE, generator=torch.Generator().manual_seed(C)) * 255).round()
    found = colours(images).square()
    kinds = 64 if C == 3 else 8 * C
    assert found.shape == (2, 4 * kinds)
    torch.testing.assert_close(found.sum(1), torch.full((2,), 4.0 if C == 3 else 4.0 * C))
    lower_left = images[1, :, SIDE // 2 :, : SIDE // 2]
    if C == 3:
        inside = (lower_left[0] >= 128) & (lower_left[0] < 192) & (lower_left[1] < 64) & (lower_left[2] >= 192)
        kind = 2 * 16 + 0 * 4 + 3
    else:
        inside, kind = (lower_left[0] >= 96) & (lower_left[0] < 128), 3
    assert found[1, 4 * kind + 2].item() == pytest.approx(inside.float().mean().item(), abs=1e-6)


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (96, 160), (28, 28)])
def test_the_layer_undoes_the_normalisation_and_takes_any_size(size):
    plain = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    layer = EdgesAndColours(3, 4)
    layer.mean += torch.tensor([0.4, 0.5, 0.6])[:, None, None]
    layer.std.mul_(0.25)
    layer.weight.normal_()
    layer.bias.normal_()
    assert layer.features((plain - layer.mean) / layer.std).shape == (2, layer.weight.shape[1])
    if size == (64, 64):
        wanted = describe(plain * 255) @ layer.weight.T + layer.bias
        given = ((plain - layer.mean) / layer.std).requires_grad_()
        torch.testing.assert_close(
            layer(given), wanted, atol=1e-2, rtol=0
        )  # a value on a bin's edge may fall to either side
        assert not layer(given).requires_grad
