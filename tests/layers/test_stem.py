"""Patches by convolution, patches left out in training, blocks that are computed again, and uniform stochastic depth."""

import pytest
import torch
from torch.nn import functional as F

from vitral.errors import VitralError
from vitral.layers.block import Block, drop_path_rates
from vitral.layers.patch import ConvStem
from vitral.layers.pool import keep_some


@pytest.mark.parametrize(("widths", "patch"), [((8,), 2), ((8, 16), 4), ((8, 8, 16), 4), ((8, 8, 8, 16, 16, 32), 8)])
def test_the_stem_is_its_convolutions(widths, patch):
    torch.manual_seed(0)
    stem = ConvStem(widths, patch, 1, 24).eval()
    images = torch.randn(2, 1, 16, 24)
    tokens = stem(images)
    h, w = stem.grid(16, 24)
    assert tokens.shape == (2, h * w, 24)
    assert (h, w) == (16 // patch, 24 // patch)
    x = images
    for conv, norm in zip(stem.stem[::3], stem.stem[1::3], strict=True):
        x = F.relu(norm(F.conv2d(x, conv.weight, None, conv.stride, 1)))
    assert torch.allclose(tokens, stem.proj(x).flatten(2).transpose(1, 2), atol=1e-5)


def test_sizes_that_the_patch_does_not_tile_are_padded_below_and_right():
    stem = ConvStem((8, 16, 32), 8, 3, 24).eval()
    images = torch.randn(1, 3, 28, 17)
    assert stem.grid(28, 17) == (4, 3)
    assert torch.allclose(stem(images), stem(F.pad(images, (0, 7, 0, 4))), atol=1e-6)


def test_widths_that_do_not_make_the_patch_are_refused():
    with pytest.raises(VitralError, match=r"make patches of 4, not 8.*repeat a width"):
        ConvStem((8, 8, 16), 8, 1, 24)


def test_a_vit_with_a_stem_has_all_of_the_contract(tiny_vit):
    model = tiny_vit(image_size=(16, 24), patch_size=4, stem=(8, 8, 16))
    images = torch.randn(2, 1, 16, 24)
    logits, attention = model.forward_with_attention(images)
    assert logits.shape == (2, 5)
    assert attention[0].shape == (2, 4, 25, 25)
    assert [tuple(m.shape) for m in model.features(images)] == [(2, 4, 6, 32)] * 2
    assert torch.allclose(
        model.head(model.pool(model.encode(model.embed(images), model.grid_of(images)))), logits, atol=1e-5
    )


def test_dense_tasks_read_the_maps_of_a_deep_stem(tiny_vit):
    model = tiny_vit(image_size=(32, 48), patch_size=16, stem=(4, 8, 8, 16, 16, 24)).eval()
    assert (model.strides, model.widths, model.token_strides) == ([4, 8, 16], [8, 16, 32], [16])
    images = torch.randn(2, 1, 37, 50)
    maps = model.features(images)
    assert [tuple(m.shape) for m in maps] == [(2, 12, 16, 8), (2, 6, 8, 16), (2, 3, 4, 32)]
    assert torch.allclose(
        maps[2].flatten(1, 2), model.encode(model.embed(images), (3, 4))[:, model.num_prefix :], atol=1e-5
    )
    stem = model.patch_embed.stem
    whole = F.pad(images, (0, 14, 0, 11))
    assert torch.allclose(maps[0], stem[:9](whole).permute(0, 2, 3, 1), atol=1e-5)
    assert torch.allclose(maps[1], stem[:15](whole).permute(0, 2, 3, 1), atol=1e-5)


@pytest.mark.parametrize(("dropped", "kept"), [(0.5, 6), (0.25, 9), (0.99, 1)])
def test_each_sample_keeps_its_own_patches_and_every_prefix(dropped, kept):
    tokens = torch.arange(4 * 14 * 3.0).view(4, 14, 3)
    left = keep_some(tokens, 2, dropped)
    assert left.shape == (4, 2 + kept, 3)
    assert torch.equal(left[:, :2], tokens[:, :2])
    chosen = [set(map(tuple, sample[2:].tolist())) for sample in left]
    assert all(len(each) == kept for each in chosen)
    assert all(each <= set(map(tuple, sample[2:].tolist())) for each, sample in zip(chosen, tokens, strict=True))


def test_patches_are_left_out_in_training_only(tiny_vit):
    torch.manual_seed(0)
    model, images = tiny_vit(patch_drop=0.5), torch.randn(2, 1, 16, 16)
    seen = []
    model.blocks[0].register_forward_hook(lambda module, given, out: seen.append(given[0].shape[1]))
    model.eval()(images)
    model.train()(images)
    assert seen == [17, 9]


def test_a_block_that_is_computed_again_has_the_same_gradients(tiny_vit):
    model, images = tiny_vit(dropout=0.2, drop_path=0.3).train(), torch.randn(3, 1, 16, 16)
    gradients = []
    for recompute in (False, True):
        for module in model.modules():
            if isinstance(module, Block):
                module.recompute = recompute
        model.zero_grad()
        torch.manual_seed(1)
        model(images).square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert gradients[0].norm() > 0
    assert torch.equal(gradients[0], gradients[1])


def test_rates_of_stochastic_depth():
    assert drop_path_rates(0.3, 4) == pytest.approx([0, 0.1, 0.2, 0.3])
    assert drop_path_rates(0.3, 4, uniform=True) == [0.3] * 4
