"""PVT v1 and v2 against timm's and Transformers' answers, the published sizes, the papers' equations, and the contract of every model."""

import math
import re
import zlib

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vitral.errors import VitralError
from vitral.models.pvt import (
    PvtConfig,
    PvtV2Config,
    PyramidVisionTransformer,
    PyramidVisionTransformerV2,
    ReducedAttention,
)

B0 = {"dims": (32, 64, 160, 256), "depths": (2, 2, 2, 2)}
# Parameters with a 1,000-class head: https://github.com/whai362/PVT, and timm's models for version 2.
SIZES = [
    (PvtConfig(depths=(2, 2, 2, 2)), 13_229_288),
    (PvtConfig(depths=(3, 4, 6, 3)), 24_485_864),
    (PvtConfig(depths=(3, 4, 18, 3)), 44_208_104),
    (PvtConfig(depths=(3, 8, 27, 3)), 61_369_320),
    (PvtV2Config(**B0), 3_666_760),
    (PvtV2Config(depths=(2, 2, 2, 2)), 14_009_000),
    (PvtV2Config(depths=(3, 4, 6, 3)), 25_362_856),
    (PvtV2Config(depths=(3, 4, 6, 3), linear=True), 22_553_512),
    (PvtV2Config(depths=(3, 4, 18, 3)), 45_238_696),
    (PvtV2Config(depths=(3, 8, 27, 3)), 62_556_072),
    (PvtV2Config(depths=(3, 6, 40, 3), mlp_ratios=(4, 4, 4, 4)), 81_956_008),
]
SMALL = {"dims": (8, 16, 20, 32), "depths": (1, 1, 2, 1), "num_heads": (1, 2, 5, 4), "num_classes": 5, "image_size": 64}
VARIANTS = ["v1", "v2", "linear"]


def build(config):
    return PyramidVisionTransformerV2(config) if isinstance(config, PvtV2Config) else PyramidVisionTransformer(config)


def small(variant, **overrides):
    """A tiny model in evaluation mode whose biases and norms are not what they begin with."""
    torch.manual_seed(0)
    options = SMALL | overrides
    model = build(
        PvtConfig(**options) if variant == "v1" else PvtV2Config(linear=variant == "linear", **options)
    ).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return model


@pytest.mark.parametrize(("config", "wanted"), SIZES)
def test_parameter_counts_are_the_papers(config, wanted):
    with torch.device("meta"):
        model = build(config)
    assert sum(p.numel() for p in model.parameters()) == wanted


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


def huggingface_name(key):
    """Our parameter of PVT v1 in PvtForImageClassification."""
    if key.startswith("head"):
        return key.replace("head", "classifier")
    for ours, theirs in (
        (r"^pos_embed(\d)", r"patch_embed\1.position_embeddings"),
        (r"^cls_token", "patch_embed4.cls_token"),
        (r"norm(\d)", r"layer_norm_\1"),
        (r"\bnorm\.", "layer_norm."),
        (r"(embed\d)\.proj\.", r"\1.projection."),
        (r"attn\.proj", "attention.output.dense"),
        (r"attn\.q\.", "attn.query."),
        (r"attn\.sr", "attn.sequence_reduction"),
        (r"attn\.", "attention.self."),
        (r"fc(\d)", r"dense\1"),
        (r"^patch_embed", "patch_embeddings"),
        (r"^(patch_embeddings|block)(\d)", lambda m: f"{m[1]}.{int(m[2]) - 1}"),
    ):
        key = re.sub(ours, theirs, key)
    return "pvt.encoder." + key


def test_v1_answers_as_transformers():
    """Transformers' PvtForImageClassification with weights drawn from their names; every second logit."""
    model = build(
        PvtConfig(image_size=64, num_classes=10, dims=(32, 64, 80, 96), depths=(1, 1, 2, 1), conv_norm_eps=1e-6)
    )
    for key, tensor in model.state_dict().items():
        name, shape = huggingface_name(key), tuple(tensor.shape)
        if ".kv." in name:
            half = (shape[0] // 2, *shape[1:])
            value = np.concatenate([reference(name.replace("kv", part), half) for part in ("key", "value")])
        else:
            value = reference(name, shape)
        tensor.copy_(torch.from_numpy(value))
    wanted = torch.tensor(HF_PVT)
    with torch.no_grad():
        logits = model.eval()(reference_image(2, 3, 64, 64))[:, ::2]
    assert (logits - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_v2_answers_as_timm():
    """timm's pvt_v2_b0 with weights drawn from their names; its logits of every 200th class. Both epsilons matter at this precision."""
    model = build(PvtV2Config(**B0)).eval()
    for key, tensor in model.state_dict().items():
        tensor.copy_(torch.from_numpy(reference(key, tuple(tensor.shape))))
    wanted = torch.tensor(TIMM_PVT_V2_B0)
    with torch.no_grad():
        logits = model(reference_image(2, 3, 224, 224))[:, ::200]
    assert (logits - wanted).abs().max() < 2e-6 * wanted.abs().max()


HF_PVT = [
    [-0.9874827, -0.5443437, 1.6755744, -0.3806335, -0.5338627],
    [0.1752683, -0.4466273, 1.9253956, -0.0303049, 0.2898431],
]
TIMM_PVT_V2_B0 = [
    [-0.2039146, 1.6287193, 1.3357714, 1.7540332, 0.6597427],
    [0.4807878, 0.2073673, 1.7017735, 1.1770444, 0.9555604],
]


@pytest.mark.parametrize(("linear", "size"), [(False, (8, 12)), (False, (9, 11)), (True, (14, 7)), (True, (3, 9))])
def test_attention_is_the_papers(linear, size):
    """Equations 2 to 4 of PVT: each window of the map through one linear layer gives one key; PVT v2's pooling gives 7 x 7."""
    torch.manual_seed(0)
    layer = ReducedAttention(8, 2, 4, linear, qkv_bias=True, eps=1e-5).double()
    x = torch.randn(2, *size, 8, dtype=torch.float64)
    if linear:
        places = [[(-(-(i + 1) * n // 7), i * n // 7) for i in range(7)] for n in size]
        windows = [x[:, a:b, c:d].mean((1, 2)) for b, a in places[0] for d, c in places[1]]
        weight = layer.sr.weight[:, :, 0, 0]
        reduced = F.gelu(layer.norm(torch.stack(windows, 1) @ weight.T + layer.sr.bias))
    else:  # what the windows do not tile is left out, as in both releases
        windows = [x[:, i : i + 4, j : j + 4] for i in range(0, size[0] - 3, 4) for j in range(0, size[1] - 3, 4)]
        rows = torch.stack([torch.einsum("bijc,dcij->bd", t, layer.sr.weight) for t in windows], 1)
        reduced = layer.norm(rows + layer.sr.bias)
    k, v = (t.unflatten(-1, (2, 4)) for t in layer.kv(reduced).split(8, -1))
    q = layer.q(x).flatten(1, 2).unflatten(-1, (2, 4))
    probabilities = torch.einsum("bqhd,bkhd->bhqk", q, k).div(math.sqrt(4)).softmax(-1)
    wanted = layer.proj(torch.einsum("bhqk,bkhd->bqhd", probabilities, v).flatten(-2)).view(x.shape)
    assert torch.allclose(layer(x), wanted, atol=1e-12)


def test_v2_mlp_mixes_neighbours_only():
    """A pixel of the map reaches the 3 x 3 around it; the linear variant has a ReLU before the convolution."""
    for variant in ("v2", "linear"):
        mlp, x = small(variant).stages[1].blocks[0].mlp, torch.randn(1, 6, 7, 16)
        changed = x.clone()
        changed[:, 2, 3] += 1
        moved = (mlp(changed) - mlp(x)).abs().amax(-1)[0] > 0
        assert moved.nonzero().tolist() == [[i, j] for i in (1, 2, 3) for j in (2, 3, 4)]
        hidden = mlp.fc1(x).relu() if variant == "linear" else mlp.fc1(x)
        padded = F.pad(hidden, (0, 0, 1, 1, 1, 1))
        kernel = mlp.dwconv.weight[:, 0]
        mixed = (
            sum(padded[:, i : i + 6, j : j + 7] * kernel[:, i, j] for i in range(3) for j in range(3)) + mlp.dwconv.bias
        )
        assert torch.allclose(mlp(x), mlp.fc2(F.gelu(mixed)), atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("size", "channels"), [((28, 28), 1), ((64, 96), 3), ((75, 33), 4), ((5, 4), 2)])
def test_any_size_and_channel_count(variant, size, channels):
    model = small(variant, in_channels=channels, num_classes=3)
    images = torch.randn(2, channels, *size)
    logits, attention = model.forward_with_attention(images)
    maps = model.features(images)
    assert logits.shape == (2, 3)
    assert torch.allclose(logits, model(images), atol=1e-5)
    assert model.strides == [4, 8, 16, 32]
    grids = [(-(-size[0] // s), -(-size[1] // s)) for s in model.strides]
    assert [m.shape for m in maps] == [(2, *grid, dim) for grid, dim in zip(grids, SMALL["dims"], strict=True)]
    assert len(attention) == 5
    for i, layer in ((0, 0), (1, 1), (2, 3), (3, 4)):
        (h, w), sr, extra = grids[i], model.config.sr_ratios[i], int(variant == "v1" and i == 3)
        keys = 49 if variant == "linear" else max(1, h // sr) * max(1, w // sr) + extra
        assert attention[layer].shape == (2, SMALL["num_heads"][i], h * w + extra, keys)
        assert torch.allclose(attention[layer].sum(-1), torch.ones(()), atol=1e-5)


def test_v1_pads_what_patches_do_not_tile():
    """At the embedding of any stage: an image and the same image in zeros give the first stage's map alike."""
    model = small("v1")
    images = torch.randn(1, 3, 61, 42)
    assert torch.equal(model.embed(images), model.embed(F.pad(images, (0, 2, 0, 3))))


def test_v1_positions_belong_to_their_stage():
    """At the size it was made for the tables are added as they are, the class token's row to the class token."""
    model = small("v1", image_size=(64, 96))
    images = torch.randn(2, 3, 64, 96)
    assert [model.get_parameter(f"pos_embed{i}").shape[1] for i in (1, 2, 3, 4)] == [384, 96, 24, 1 + 6]
    plain = model.patch_embed1(images).flatten(1, 2) + model.pos_embed1
    assert torch.equal(model.embed(images).flatten(1, 2), plain)
    x = model.features(images)[2]
    patches = model.patch_embed4(x.permute(0, 3, 1, 2)).flatten(1, 2)
    tokens = torch.cat([model.cls_token.expand(2, -1, -1), patches], 1) + model.pos_embed4
    assert torch.allclose(
        model.norm(model.block4[0](tokens)), model.encode(model.embed(images), model.grid_of(images)), atol=1e-6
    )
    assert model.grids() == {
        "pos_embed1": ((16, 24), 0),
        "pos_embed2": ((8, 12), 0),
        "pos_embed3": ((4, 6), 0),
        "pos_embed4": ((2, 3), 1),
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_contract(variant):
    model, images = small(variant), torch.randn(2, 3, 64, 64)
    tokens = model.encode(model.embed(images), model.grid_of(images))
    assert tokens.shape == ((2, 1 + 4, 32) if variant == "v1" else (2, 2, 2, 32))
    assert torch.equal(model.head(model.pool(tokens)), model(images))
    last = model.features(images)[-1]
    assert torch.equal(last, tokens[:, 1:].unflatten(1, (2, 2)) if variant == "v1" else tokens)
    assert (model.patch_size, model.num_prefix, model.num_classes) == (32, int(variant == "v1"), 5)
    headless = small(variant, num_classes=0)
    headless.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("head")})
    assert torch.equal(headless(images), model.pool(tokens))
    with pytest.raises(VitralError, match="1 channels"):
        model(images[:, :1])


def test_wrong_arguments_are_refused():
    with pytest.raises(VitralError, match="four positive"):
        PvtConfig(dims=(8, 16))
    with pytest.raises(VitralError, match="class token"):
        small("v1", sr_ratios=(8, 4, 2, 2))
    with pytest.raises(VitralError, match="heads"):
        small("v2", num_heads=(1, 2, 3, 4))
    assert PvtV2Config(**(PvtV2Config(**B0).arguments())) == PvtV2Config(**B0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_learns_and_drop_path_drops(variant):
    model = small(variant, drop_path=0.4)
    images = torch.randn(4, 3, 64, 64)
    model(images).square().sum().backward()
    dead = [n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert not dead
    assert model(images).equal(model(images))
    model.train()
    assert not model(images).equal(model(images))
