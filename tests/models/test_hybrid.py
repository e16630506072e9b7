"""The hybrid ViT against timm's answers, the published sizes, its ResNet written out, and the contract of every model."""

import zlib

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vitral.errors import VitralError
from vitral.layers.bit import StdConv2d, pad_same
from vitral.models.hybrid import HybridConfig, HybridTransformer

R26, R50, R50_32 = (2, 2, 2, 2), (3, 4, 9), (3, 4, 6, 3)
# patch, stages, width, layers, heads: parameters with a 1,000-class head at 224 and 384 pixels, as timm counts them.
SIZES = [
    ((32, (), 192, 12, 3), 6_337_704, 6_355_944),
    ((32, R26, 384, 12, 6), 36_431_912, 36_468_392),
    ((32, R26, 768, 12, 12), 101_383_976, None),
    ((16, R50, 768, 12, 12), 98_659_112, 98_950_952),
    ((32, R50_32, 1024, 24, 16), 328_994_856, 329_092_136),
]


@pytest.mark.parametrize("size", [224, 384])
@pytest.mark.parametrize(("row", "at_224", "at_384"), SIZES)
def test_parameter_counts_are_timms(row, at_224, at_384, size):
    patch, stages, dim, depth, heads = row
    config = HybridConfig(image_size=size, patch_size=patch, stages=stages, dim=dim, depth=depth, num_heads=heads)
    with torch.device("meta"):
        model = HybridTransformer(config)
    wanted = at_224 if size == 224 else at_384
    assert wanted is None or sum(p.numel() for p in model.parameters()) == wanted
    assert model.grid == (size // patch, size // patch)


def small(stages=(1, 2), **overrides):
    """A tiny model in evaluation mode with every branch alive."""
    torch.manual_seed(0)
    options = {"image_size": 32, "patch_size": 8, "dim": 32, "depth": 2, "num_heads": 4, "num_classes": 5} | overrides
    model = HybridTransformer(HybridConfig(stages=stages, **options)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return model


def reference(key, shape):
    """The weight that the parity fixtures give the state-dict entry `key`: drawn from a generator seeded by the key."""
    x = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape, dtype=np.float32)
    if len(shape) <= 1:
        return 1 + 0.1 * x if key.endswith("weight") else 0.1 * x
    return x / np.sqrt(np.prod(shape[1:]), dtype=np.float32) if key.endswith("weight") else 0.5 * x


def reference_image(b, c, h, w):
    rng = np.random.default_rng(0)
    ys, xs = np.meshgrid(np.linspace(0, 1, h, dtype=np.float32), np.linspace(0, 1, w, dtype=np.float32), indexing="ij")
    image = np.empty((b, c, h, w), np.float32)
    for plane in image.reshape(-1, h, w):
        fy, fx, phase = rng.uniform(1, 9, 3).astype(np.float32)
        plane[:] = np.sin(6.2832 * (fy * ys + fx * xs) + phase)
    return torch.from_numpy(image + 0.3 * rng.standard_normal((b, c, h, w), dtype=np.float32))


def test_stem_hybrid_answers_as_timms():
    """timm's vit_tiny_r_s16_p8_224 with weights drawn from their names; its logits of every 200th class."""
    model = HybridTransformer(HybridConfig(patch_size=32, stages=(), dim=192, num_heads=3)).eval()
    for key, tensor in model.state_dict().items():
        tensor.copy_(torch.from_numpy(reference(key, tuple(tensor.shape))))
    wanted = torch.tensor(TIMM_VIT_TINY_R)
    with torch.no_grad():
        logits = model(reference_image(2, 3, 224, 224))[:, ::200]
    assert (logits - wanted).abs().max() < 1e-5 * wanted.abs().max()


TIMM_VIT_TINY_R = [
    [-0.7544475, 0.043345, 1.4476644, -0.6608459, -0.3473345],
    [-0.9479484, -0.3741146, 1.3350625, -0.6511436, -0.9641064],
]


def standardised(weight):
    """Each output channel's weights less their mean, over their biased deviation."""
    mean = weight.mean((1, 2, 3), keepdim=True)
    return (weight - mean) / ((weight - mean).square().mean((1, 2, 3), keepdim=True) + 1e-8).sqrt()


def group_norm(x, norm):
    groups = x.unflatten(1, (32, -1))
    centred = groups - groups.mean((2, 3, 4), keepdim=True)
    x = (centred / (centred.square().mean((2, 3, 4), keepdim=True) + 1e-5).sqrt()).flatten(1, 2)
    return x * norm.weight[:, None, None] + norm.bias[:, None, None]


@pytest.mark.parametrize(("size", "before", "after"), [((8, 12), 0, 1), ((7, 9), 1, 1)])
def test_bottleneck_written_out(size, before, after):
    """Norms after the convolutions, the stride in the 3x3, SAME padding: at even sizes only at the bottom and the right."""
    block = small().patch_embed.backbone.stages[1].blocks[0].double()
    x = torch.randn(2, 256, *size, dtype=torch.float64)
    y = group_norm(F.conv2d(x, standardised(block.conv1.weight)), block.norm1).clamp(min=0)
    y = F.pad(y, (before, after, before, after))
    y = group_norm(F.conv2d(y, standardised(block.conv2.weight), stride=2), block.norm2).clamp(min=0)
    y = group_norm(F.conv2d(y, standardised(block.conv3.weight)), block.norm3)
    shortcut = group_norm(F.conv2d(x, standardised(block.downsample.conv.weight), stride=2), block.downsample.norm)
    assert torch.allclose(block(x), (y + shortcut).clamp(min=0), atol=1e-10)
    assert block(x).shape == (2, 512, -(-size[0] // 2), -(-size[1] // 2))


def test_same_padding_is_tensorflows():
    assert pad_same(torch.ones(1, 1, 224, 225), 7, 2)[0, 0].shape == (229, 231)
    assert pad_same(torch.ones(1, 1, 4, 4), 3, 2)[0, 0].tolist() == [[1, 1, 1, 1, 0]] * 4 + [[0] * 5]
    x = torch.ones(1, 1, 5, 6)
    assert pad_same(x, 1, 2) is x


def test_a_convolution_ignores_scale_and_shift_of_its_weights():
    conv, x = StdConv2d(3, 4, 3), torch.randn(1, 3, 6, 6)
    wanted = conv(x)
    with torch.no_grad():
        conv.weight.mul_(7).add_(3)
    assert torch.allclose(conv(x), wanted, atol=1e-4)


@pytest.mark.parametrize("stages", [(), (1,), (1, 2), (1, 1, 1, 1)])
@pytest.mark.parametrize(("size", "channels"), [((28, 28), 1), ((64, 96), 3), ((75, 33), 4)])
def test_any_size_and_channel_count(stages, size, channels):
    patch = 32 if len(stages) == 4 else 8
    model = small(stages, image_size=(32, 64), patch_size=patch, in_channels=channels, num_classes=3)
    images = torch.randn(2, channels, *size)
    grid = (-(-size[0] // patch), -(-size[1] // patch))
    logits, attention = model.forward_with_attention(images)
    assert logits.shape == (2, 3)
    assert torch.allclose(logits, model(images), atol=1e-5)
    assert [a.shape for a in attention] == [(2, 4, 1 + grid[0] * grid[1], 1 + grid[0] * grid[1])] * 2
    assert [m.shape for m in model.features(images)] == [(2, *grid, 32)] * 2
    assert model.strides == [patch] * 2
    assert model.pos_embed.shape == (1, 1 + 32 * 64 // patch**2, 32)


def test_contract():
    model, images = small(), torch.randn(2, 3, 32, 32)
    tokens = model.encode(model.embed(images), model.grid_of(images))
    assert tokens.shape == (2, 1 + 16, 32)
    assert torch.equal(model.head(model.pool(tokens)), model(images))
    assert (model.patch_size, model.num_prefix, model.image_size, model.num_classes) == (8, 1, (32, 32), 5)
    headless = small(num_classes=0)
    headless.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("head")})
    assert torch.equal(headless(images), model.pool(tokens))
    assert HybridConfig(**model.config.arguments()) == model.config
    with pytest.raises(VitralError, match="1 channels"):
        model(images[:, :1])
    for wrong in ({"patch_size": 8}, {"stages": (1, 0)}, {"stages": (1,) * 5, "patch_size": 64}):
        with pytest.raises(VitralError, match=r"patch_size|stages"):
            HybridConfig(**({"stages": R50} | wrong))


def test_initialisation_is_the_papers():
    """The ResNet's blocks begin as shortcuts, embeddings at unit scale, the head at 0."""
    model = HybridTransformer(HybridConfig(stages=(1, 2), patch_size=8, dim=64, depth=1, num_heads=4, image_size=32))
    block, x = model.patch_embed.backbone.stages[0].blocks[0], torch.rand(1, 64, 4, 4)
    assert torch.equal(block(x), block.downsample(x).relu())
    assert model.patch_embed.proj.weight.std().item() == pytest.approx(512**-0.5, rel=0.05)
    assert not model.head.weight.any()


def test_every_parameter_learns():
    model = small()
    model(torch.randn(4, 3, 32, 32)).square().sum().backward()
    dead = [n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert not dead
