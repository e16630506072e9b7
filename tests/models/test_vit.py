"""The Vision Transformer against the paper: sizes, equations, positions, initialisation, and the contract of every model."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitral.checkpoints.create import create_model
from vitral.errors import VitralError
from vitral.layers.patch import patchify
from vitral.layers.position import resize_positions, sincos2d
from vitral.models.sizes import SIZES
from vitral.models.zoo import MODELS, model_config

# Exact parameter counts with a 1,000-class head: https://arxiv.org/abs/2010.11929, table 1 (rounded there); timm's models have the same.
PARAMETERS = {
    "vit_tiny_patch16_224": 5_717_416,
    "vit_tiny_patch8_384": 6_011_560,
    "vit_small_patch14_378": 22_186_216,
    "vit_small_patch32_224": 22_878_952,
    "vit_base_patch16_224": 86_567_656,
    "vit_base_patch32_384": 88_297_192,
    "vit_large_patch16_384": 304_715_752,
    "vit_large_patch8_224": 304_338_920,
    "vit_huge_patch14_224": 632_045_800,
    "vit_huge_patch32_384": 635_081_960,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_the_papers(name):
    with torch.device("meta"):
        model = create_model(name)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", [name for name, entry in MODELS.items() if entry.family == "vit"])
def test_parameter_counts_follow_the_formula(name):
    c = MODELS[name].config
    hidden, patches = round(c.dim * c.mlp_ratio), math.prod(side // c.patch_size for side in c.image_size)
    block = 4 * c.dim**2 + 4 * c.dim + 2 * c.dim * hidden + hidden + c.dim + 4 * c.dim
    embedding = 3 * c.patch_size**2 * c.dim + c.dim
    total = embedding + c.dim + (1 + patches) * c.dim + c.depth * block + 2 * c.dim + 1000 * c.dim + 1000
    assert SIZES[name][0] == total


def test_forward_is_the_papers_equations(tiny_vit):
    """Equations 1 to 4 written out with einsum, in double precision."""
    model = tiny_vit(representation_dim=24).double()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    x = torch.randn(2, 1, 16, 16, dtype=torch.float64)
    W = dict(model.named_parameters())

    def norm(z, name):
        centred = z - z.mean(-1, keepdim=True)
        return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * W[name + ".weight"] + W[name + ".bias"]

    patches = torch.stack([x[:, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4] for i in range(4) for j in range(4)], 1)
    z = torch.einsum("bncpq,dcpq->bnd", patches, W["patch_embed.proj.weight"]) + W["patch_embed.proj.bias"]
    z = torch.cat([W["cls_token"].expand(2, -1, -1), z], 1) + W["pos_embed"]
    for i in range(2):
        b = f"blocks.{i}."
        qkv = norm(z, b + "norm1") @ W[b + "attn.qkv.weight"].T + W[b + "attn.qkv.bias"]
        q, k, v = (t.unflatten(-1, (4, 8)) for t in qkv.split(32, -1))
        a = torch.einsum("bqhd,bkhd->bhqk", q, k).div(math.sqrt(8)).softmax(-1)
        mixed = torch.einsum("bhqk,bkhd->bqhd", a, v).flatten(-2)
        z = z + mixed @ W[b + "attn.proj.weight"].T + W[b + "attn.proj.bias"]
        h = norm(z, b + "norm2") @ W[b + "mlp.fc1.weight"].T + W[b + "mlp.fc1.bias"]
        h = h * 0.5 * (1 + torch.erf(h / math.sqrt(2)))
        z = z + h @ W[b + "mlp.fc2.weight"].T + W[b + "mlp.fc2.bias"]
    y = torch.tanh(norm(z, "norm")[:, 0] @ W["pre_logits.0.weight"].T + W["pre_logits.0.bias"])
    wanted = y @ W["head.weight"].T + W["head.bias"]
    assert torch.allclose(model(x), wanted, atol=1e-10)


def test_post_norm_relu_is_the_original_transformer(tiny_vit):
    """PyTorch's own encoder layer is the independent implementation."""
    model = tiny_vit(pre_norm=False, activation="relu")
    tokens = torch.randn(2, 17, 32)
    wanted = tokens
    for block in model.blocks:
        layer = torch.nn.TransformerEncoderLayer(32, 4, 128, 0.0, "relu", 1e-6, batch_first=True, norm_first=False)
        layer.load_state_dict({
            "self_attn.in_proj_weight": block.attn.qkv.weight, "self_attn.in_proj_bias": block.attn.qkv.bias,
            "self_attn.out_proj.weight": block.attn.proj.weight, "self_attn.out_proj.bias": block.attn.proj.bias,
            "linear1.weight": block.mlp.fc1.weight, "linear1.bias": block.mlp.fc1.bias,
            "linear2.weight": block.mlp.fc2.weight, "linear2.bias": block.mlp.fc2.bias,
            **{f"norm{n}.{k}": getattr(getattr(block, f"norm{n}"), k) for n in (1, 2) for k in ("weight", "bias")},
        })  # fmt: skip
        wanted = layer(wanted)
    assert torch.allclose(model.encode(tokens, (1, 1)), wanted, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    h=st.integers(4, 40),
    w=st.integers(4, 40),
    c=st.integers(1, 5),
    position=st.sampled_from(["learned", "learned2d", "sincos2d", "none"]),
)
def test_any_height_width_and_channel_count(h, w, c, position):
    model = create_model(
        "vit_tiny_patch16_224", image_size=(16, 24), patch_size=4, in_channels=c, num_classes=3, dim=16, depth=2, num_heads=2, position=position
    ).eval()  # fmt: skip
    images = torch.randn(2, c, h, w)
    maps = model.features(images)
    grid = (-(-h // 4), -(-w // 4))
    assert model(images).shape == (2, 3)
    assert [m.shape for m in maps] == [(2, *grid, 16)] * 2
    assert model.strides == [4, 4]
    padded = torch.nn.functional.pad(images, (0, -w % 4, 0, -h % 4))
    assert torch.allclose(model(images), model(padded), atol=1e-6)


def test_forward_is_its_four_parts(tiny_vit):
    model, images = tiny_vit(), torch.randn(3, 1, 16, 16)
    tokens = model.embed(images)
    assert tokens.shape == (3, 17, 32)
    representation = model.pool(model.encode(tokens, model.grid_of(images)))
    assert representation.shape == (3, 32)
    assert torch.equal(model.head(representation), model(images))


def test_mean_pooling_leaves_prefix_tokens_out(tiny_vit):
    model = tiny_vit(pooling="mean", num_registers=3)
    tokens = torch.randn(2, 4 + 16, 32)
    changed = tokens.clone()
    changed[:, :4] = 7
    assert torch.equal(model.pool(tokens), model.pool(changed))
    assert torch.allclose(model.pool(tokens), tokens[:, 4:].mean(1))


def test_patches_are_the_convolutions(tiny_vit):
    model, images = tiny_vit(in_channels=3), torch.randn(2, 3, 16, 20)
    wanted = model.patch_embed.proj(images).flatten(2).transpose(1, 2)
    assert torch.allclose(model.patch_embed(images), wanted, atol=1e-5)
    assert patchify(images, (4, 4)).shape == (2, 20, 48)


def test_initialisation_is_the_papers(tiny_vit):
    model = create_model("vit_small_patch16_224")
    qkv = model.blocks[3].attn.qkv.weight.detach()
    assert qkv.abs().max() <= (6 / (384 + 384)) ** 0.5
    assert qkv.std().item() == pytest.approx((2 / (384 + 384)) ** 0.5, rel=0.02)
    assert model.blocks[0].mlp.fc1.weight.std().item() == pytest.approx((2 / (384 + 1536)) ** 0.5, rel=0.02)
    assert 0 < model.blocks[0].mlp.fc1.bias.abs().max() < 1e-5
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.03)
    assert not model.head.weight.any()
    assert not model.cls_token.any()
    assert model.patch_embed.proj.weight.std().item() == pytest.approx((3 * 256) ** -0.5, rel=0.15)


def test_dropout_and_drop_path_act_in_training_only(tiny_vit):
    model, images = tiny_vit(dropout=0.3, drop_path=0.5), torch.randn(8, 1, 16, 16)
    assert torch.equal(model(images), model(images))
    model.train()
    assert not torch.equal(model(images), model(images))
    assert [block.drop_path for block in tiny_vit(depth=3, drop_path=0.5).blocks] == [0, 0.25, 0.5]


def test_drop_path_keeps_the_mean():
    from vitral.layers.block import drop_path

    torch.manual_seed(0)
    x = torch.ones(20_000, 1, 1)
    dropped = drop_path(x, 0.2, training=True)
    assert sorted({round(v, 6) for v in dropped.flatten().tolist()}) == [0, 1.25]
    assert dropped.mean() == pytest.approx(1, abs=0.02)


def test_sine_positions_are_distinct_and_resizing_keeps_corners():
    table = sincos2d(5, 7, 16)
    assert table.shape == (35, 16)
    assert torch.cdist(table, table).fill_diagonal_(9).min() > 0.1
    flat = torch.ones(1, 6, 4)
    assert torch.allclose(resize_positions(flat, (2, 3), (5, 4)), torch.ones(1, 20, 4), atol=1e-6)


def test_names_and_arguments_that_do_not_exist_suggest_the_nearest():
    with pytest.raises(VitralError, match="vit_small_patch16_224"):
        create_model("vit_smal_patch16_224")
    with pytest.raises(VitralError, match="num_classes"):
        create_model("vit_small_patch16_224", num_clases=3)
    with pytest.raises(VitralError, match="does not divide"):
        create_model("vit_small_patch16_224", num_heads=7)
    with pytest.raises(VitralError, match="smaller than one patch"):
        create_model("vit_small_patch16_224", image_size=12)
    with pytest.raises(VitralError, match="class token"):
        model_config("vit_small_patch16_224", class_token=False)


def test_an_image_smaller_than_a_patch_or_of_other_channels_is_refused(tiny_vit):
    model = tiny_vit()
    with pytest.raises(VitralError, match="smaller than one patch"):
        model(torch.randn(1, 1, 3, 16))
    with pytest.raises(VitralError, match="3 channels"):
        model(torch.randn(1, 3, 16, 16))


def test_no_head_gives_the_representation(tiny_vit):
    assert tiny_vit(num_classes=0)(torch.randn(2, 1, 16, 16)).shape == (2, 32)


@pytest.mark.slow
def test_compile_and_export_have_no_graph_break(tiny_vit):
    model, images = tiny_vit(), torch.randn(2, 1, 16, 16)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(images), model(images), atol=1e-5)
    exported = torch.export.export(model, (images,)).module()
    assert torch.allclose(exported(images), model(images), atol=1e-5)
