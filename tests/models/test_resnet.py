"""ResNet against timm's answers, the published sizes, and the contract of every model."""

import zlib

import numpy as np
import pytest
import torch

from vitral.errors import VitralError
from vitral.models.resnet import ResNet, ResNetConfig

# Parameters with a 1,000-class head, as torchvision and timm count them.
SIZES = {
    18: ({"depths": (2, 2, 2, 2), "bottleneck": False}, 11_689_512),
    34: ({"depths": (3, 4, 6, 3), "bottleneck": False}, 21_797_672),
    50: ({"depths": (3, 4, 6, 3)}, 25_557_032),
    101: ({"depths": (3, 4, 23, 3)}, 44_549_160),
}


def small(**overrides):
    torch.manual_seed(0)
    return ResNet(
        ResNetConfig(**({"depths": (1, 2, 1, 1), "width": 8, "num_classes": 5, "image_size": 64} | overrides))
    )


def settled(**overrides):
    """In evaluation mode, with every branch and running statistic alive."""
    model = small(**overrides).eval()
    for name, tensor in model.state_dict().items():
        if "bn" in name and name.endswith(("weight", "running_var")):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            tensor.normal_(std=0.1)
    return model


@pytest.mark.parametrize("depth", SIZES)
def test_parameter_counts_are_torchvisions(depth):
    arguments, wanted = SIZES[depth]
    with torch.device("meta"):
        model = ResNet(ResNetConfig(**arguments))
    assert sum(p.numel() for p in model.parameters()) == wanted


def reference(key, shape):
    """The weight that the parity fixtures give the state-dict entry `key`: drawn from a generator seeded by the key."""
    x = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape, dtype=np.float32)
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "running_var":
        return np.abs(1 + 0.1 * x)
    if leaf == "running_mean":
        return 0.1 * x
    if len(shape) <= 1:
        return 1 + 0.1 * x if leaf == "weight" else 0.1 * x
    return x / np.sqrt(np.prod(shape[1:]), dtype=np.float32)


def reference_image(b, c, h, w):
    rng = np.random.default_rng(0)
    ys, xs = np.meshgrid(np.linspace(0, 1, h, dtype=np.float32), np.linspace(0, 1, w, dtype=np.float32), indexing="ij")
    image = np.empty((b, c, h, w), np.float32)
    for plane in image.reshape(-1, h, w):
        fy, fx, phase = rng.uniform(1, 9, 3).astype(np.float32)
        plane[:] = np.sin(6.2832 * (fy * ys + fx * xs) + phase)
    return torch.from_numpy(image + 0.3 * rng.standard_normal((b, c, h, w), dtype=np.float32))


def test_resnet50_answers_as_timms():
    """timm's resnet50 with weights drawn from their names, on a drawn image; its logits of every 200th class."""
    model = ResNet(ResNetConfig()).eval()
    for key, tensor in model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            tensor.copy_(torch.from_numpy(reference(key.replace("head.", "fc."), tuple(tensor.shape))))
    wanted = torch.tensor(RESNET50)
    with torch.no_grad():
        logits = model(reference_image(2, 3, 224, 224))[:, ::200]
    assert (logits - wanted).abs().max() < 1e-5 * wanted.abs().max()


RESNET50 = [
    [1.7768601, -1.259986, -0.810146, 0.1520319, 1.9716533],
    [1.7608256, -1.2631829, -0.8356995, 0.1827538, 1.9370246],
]


@pytest.mark.parametrize("bottleneck", [False, True])
def test_block_written_out(bottleneck):
    """A stage's first block with plain functions: the stride is in the 3x3, the addition before the last ReLU."""
    F = torch.nn.functional
    model = settled(bottleneck=bottleneck).double()
    block, x = model.layer2[0], torch.randn(2, 32 if bottleneck else 8, 9, 6, dtype=torch.float64)

    def norm(y, bn):
        scale = bn.weight / (bn.running_var + 1e-5).sqrt()
        return (y - bn.running_mean[:, None, None]) * scale[:, None, None] + bn.bias[:, None, None]

    if bottleneck:
        y = norm(F.conv2d(x, block.conv1.weight), block.bn1).clamp(min=0)
        y = norm(F.conv2d(y, block.conv2.weight, stride=2, padding=1), block.bn2).clamp(min=0)
        y = norm(F.conv2d(y, block.conv3.weight), block.bn3)
    else:
        y = norm(F.conv2d(x, block.conv1.weight, stride=2, padding=1), block.bn1).clamp(min=0)
        y = norm(F.conv2d(y, block.conv2.weight, padding=1), block.bn2)
    shortcut = norm(F.conv2d(x, block.downsample[0].weight, stride=2), block.downsample[1])
    assert torch.allclose(block(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), (y + shortcut).clamp(min=0), atol=1e-12)


@pytest.mark.parametrize(("size", "channels"), [((28, 28), 1), ((64, 96), 3), ((75, 33), 4)])
def test_any_size_and_channel_count(size, channels):
    model = settled(in_channels=channels, num_classes=3)
    images = torch.randn(2, channels, *size)
    maps = model.features(images)
    assert model(images).shape == (2, 3)
    assert model.strides == [4, 8, 16, 32]
    for stride, width, m in zip(model.strides, (32, 64, 128, 256), maps, strict=True):
        assert m.shape == (2, -(-size[0] // stride), -(-size[1] // stride), width)
    assert torch.equal(maps[-1], model.encode(model.embed(images), model.grid_of(images)))


def test_contract():
    model, images = settled(), torch.randn(2, 3, 64, 64)
    tokens = model.encode(model.embed(images), model.grid_of(images))
    assert tokens.shape == (2, 2, 2, 256)
    assert torch.equal(model.head(model.pool(tokens)), model(images))
    assert (model.patch_size, model.num_prefix, model.image_size, model.num_classes) == (32, 0, (64, 64), 5)
    headless = settled(num_classes=0)
    headless.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("head")})
    assert torch.equal(headless(images), model.pool(tokens))
    with pytest.raises(VitralError, match="no attention"):
        model.forward_with_attention(images)
    with pytest.raises(VitralError, match="1 channels"):
        model(images[:, :1])
    with pytest.raises(VitralError, match="four depths"):
        small(depths=(2, 2))


def test_each_block_begins_as_its_shortcut():
    block, x = small().eval().layer2[1], torch.rand(1, 4, 4, 64)
    assert torch.equal(block(x), x)


def test_every_parameter_learns():
    model = settled().train()
    model(torch.randn(4, 3, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
