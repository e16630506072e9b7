"""Swin V1 and V2: sizes of the papers' models, windows against a token-by-token reference, and the contract at awkward sizes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitral.errors import VitralError
from vitral.models.swin import SwinConfig, SwinTransformer, partition
from vitral.models.swinv2 import SwinTransformerV2, SwinV2Config, log_offsets

VERSIONS = [(SwinTransformer, SwinConfig), (SwinTransformerV2, SwinV2Config)]
TINY = {"depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "dim": 96}
SMALL = TINY | {"depths": (2, 2, 18, 2)}
BASE = {"depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32), "dim": 128}
LARGE = {"depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48), "dim": 192}


def small(model, config, **overrides):
    """A model of three stages in evaluation mode whose every parameter matters."""
    torch.manual_seed(0)
    options = {"image_size": 64, "in_channels": 1, "num_classes": 5, "dim": 16, "depths": (2, 2, 2), "num_heads": (1, 2, 4), "window": 4}  # fmt: skip
    built = model(config(**(options | overrides))).eval()
    for p in built.parameters():
        torch.nn.init.normal_(p, std=0.2)
    return built


@pytest.mark.parametrize(
    ("version", "size", "window", "arguments", "parameters"),
    [
        (0, 224, 7, TINY, 28_288_354),
        (0, 224, 7, SMALL, 49_606_258),
        (0, 224, 7, BASE, 87_768_224),
        (0, 384, 12, BASE, 87_903_584),
        (0, 224, 7, LARGE, 196_532_476),
        (0, 384, 12, LARGE, 196_735_516),
        (1, 256, 8, TINY, 28_347_154),
        (1, 256, 16, TINY, 28_347_154),
        (1, 256, 8, SMALL, 49_728_418),
        (1, 256, 16, SMALL, 49_728_418),
        (1, 256, 8, BASE, 87_918_816),
        (1, 256, 16, BASE, 87_918_816),
        (1, 256, 16, BASE | {"pretrained_windows": (12, 12, 12, 6)}, 87_918_816),
        (1, 384, 24, BASE | {"pretrained_windows": (12, 12, 12, 6)}, 87_918_816),
        (1, 256, 16, LARGE | {"pretrained_windows": (12, 12, 12, 6)}, 196_739_932),
        (1, 384, 24, LARGE | {"pretrained_windows": (12, 12, 12, 6)}, 196_739_932),
    ],
)
def test_parameter_counts_are_the_papers(version, size, window, arguments, parameters):
    model, config = VERSIONS[version]
    with torch.device("meta"):
        built = model(config(image_size=size, window=window, **arguments))
    assert sum(p.numel() for p in built.parameters()) == parameters


def test_the_state_dict_holds_timms_names_and_nothing_derived():
    blocks = {
        0: {"norm1.weight", "norm1.bias", "attn.relative_position_bias_table", "attn.qkv.weight", "attn.qkv.bias"}
    }
    blocks[1] = {"norm1.weight", "norm1.bias", "attn.logit_scale", "attn.q_bias", "attn.v_bias", "attn.cpb_mlp.0.weight",
                 "attn.cpb_mlp.0.bias", "attn.cpb_mlp.2.weight", "attn.qkv.weight"}  # fmt: skip
    common = {"attn.proj.weight", "attn.proj.bias", "norm2.weight", "norm2.bias"}
    common |= {f"mlp.{fc}.{kind}" for fc in ("fc1", "fc2") for kind in ("weight", "bias")}
    merging = {
        f"layers.{i}.downsample.{name}" for i in (1, 2) for name in ("norm.weight", "norm.bias", "reduction.weight")
    }
    ends = {f"{name}.{kind}" for name in ("patch_embed.proj", "patch_embed.norm", "norm", "head") for kind in ("weight", "bias")}  # fmt: skip
    for version, (model, config) in enumerate(VERSIONS):
        inner = {f"layers.{i}.blocks.{j}.{n}" for i in range(3) for j in range(2) for n in blocks[version] | common}
        assert set(small(model, config).state_dict()) == ends | merging | inner


def naive_attention(attn, x, shifted, table, scores):
    """Attention of every pair of tokens that the definition allows, one pair at a time, in place of windows, rolls and masks."""
    windows = attn.windows
    (a, b), (h, w, D), H = windows.window, x.shape, attn.num_heads
    s, t = windows.shift(h, w) if shifted else (0, 0)
    hp, wp = h + -h % a, w + -w % b
    place = torch.zeros(hp, wp, D, dtype=x.dtype)  # the moved and padded map
    source = {}
    for r in range(h):
        for c in range(w):
            at = ((r - s) % hp, (c - t) % wp) if windows.pad_first else ((r - s) % h, (c - t) % w)
            place[at], source[at] = x[r, c], (r, c)
    q, k, v = scores(place)  # each [hp, wp, H, d]
    out = torch.zeros_like(x)
    for (i, j), home in source.items():
        near = [
            (m, n) for m in range(hp) for n in range(wp)
            if m // a == i // a and n // b == j // b and (m >= hp - s) == (i >= hp - s) and (n >= wp - t) == (j >= wp - t)
        ]  # fmt: skip
        mixed = []
        for head in range(H):
            logits = [
                q[i, j, head] @ k[m, n, head] + table[(i - m + a - 1) * (2 * b - 1) + (j - n + b - 1), head]
                for m, n in near
            ]
            p = torch.stack(logits).softmax(0)
            mixed.append(sum(p[z] * v[m, n, head] for z, (m, n) in enumerate(near)))
        out[home] = attn.proj.weight @ torch.cat(mixed) + attn.proj.bias
    return out


@pytest.mark.parametrize("windowing", ["timm", "hf"])
@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("grid", [(8, 8), (9, 6), (4, 10)])
@torch.no_grad()
def test_window_attention_is_its_definition(version, grid, windowing):
    """Even and shifted blocks on maps that the windows tile, that they do not tile, and with one side as long as the window."""
    model, config = VERSIONS[version]
    stage = small(model, config, image_size=128, dim=4, num_heads=(2, 2, 2), windowing=windowing).double().layers[0]
    x = torch.randn(1, *grid, 4, dtype=torch.float64)
    mask = stage.windows.mask(*grid, device=x.device)

    for j, block in enumerate(stage.blocks):
        attn = block.attn

        def scores(place, attn=attn):
            if version == 0:
                q, k, v = (place @ attn.qkv.weight.T + attn.qkv.bias).unflatten(-1, (3, 2, 2)).unbind(2)
                return q / math.sqrt(2), k, v
            q, k, v = (place @ attn.qkv.weight.T).unflatten(-1, (3, 2, 2)).unbind(2)
            q, v = q + attn.q_bias.view(2, 2), v + attn.v_bias.view(2, 2)
            scale = attn.logit_scale.view(2, 1).exp()
            return q / q.norm(dim=-1, keepdim=True).clamp(min=1e-12) * scale, k / k.norm(dim=-1, keepdim=True).clamp(min=1e-12), v  # fmt: skip

        if version == 0:
            table = attn.relative_position_bias_table
        else:
            offsets = [(y * 8 / 3, z * 8 / 3) for y in range(-3, 4) for z in range(-3, 4)]
            logs = [[math.copysign(math.log2(1 + abs(o)) / math.log2(8), o) for o in pair] for pair in offsets]
            table = 16 * attn.cpb_mlp(torch.tensor(logs, dtype=torch.float64)).sigmoid()
        shifted = j == 1 and mask is not None
        ours = attn(x, mask) if shifted else attn(x)
        assert torch.allclose(ours[0], naive_attention(attn, x[0], shifted, table, scores), atol=1e-6)
    # with one side as long as the window timm still shifts the other axis, Hugging Face none
    assert (mask is None) == (grid == (4, 10) and windowing == "hf" and version == 0)


def test_blocks_are_pre_norm_and_res_post_norm():
    x = torch.randn(1, 8, 8, 16)
    block = small(*VERSIONS[0]).layers[0].blocks[0]
    y = x + block.attn(block.norm1(x))
    assert torch.allclose(block(x), y + block.mlp(block.norm2(y)), atol=1e-6)
    block = small(*VERSIONS[1]).layers[0].blocks[0]
    y = x + block.norm1(block.attn(x))
    assert torch.allclose(block(x), y + block.norm2(block.mlp(y)), atol=1e-6)


@pytest.mark.parametrize("windowing", ["timm", "hf"])
def test_tokens_of_different_regions_do_not_attend(windowing):
    """In a shifted block a change at the top left reaches its own half window, and not the opposite edges that moved beside it."""
    stage = small(SwinTransformer, SwinConfig, windowing=windowing).layers[0]
    x = torch.randn(1, 16, 16, 16)
    changed = x.clone()
    changed[0, 0, 0] += 3
    mask = stage.windows.mask(16, 16, x.device)
    attn = stage.blocks[1].attn
    moved = (attn(x, mask) != attn(changed, mask)).any(-1)[0]
    assert moved[:2, :2].all()
    assert moved.sum() == 4
    moved = (attn(x) != attn(changed)).any(-1)[0]  # the same windows unshifted
    assert moved[:4, :4].all()
    assert moved.sum() == 16


@pytest.mark.parametrize(("model", "config"), VERSIONS)
def test_a_window_that_covers_the_map_is_global_attention(model, config):
    """One window, no shift, on each axis; the configured window may be larger than the map."""
    built = small(model, config, image_size=(64, 32), window=16)
    attn = built.layers[0].blocks[1].attn
    assert attn.windows.window == (16, 8)
    assert attn.windows.shift(16, 8) == (0, 0)
    assert built.layers[1].windows.window == (8, 4)
    _, maps = built.forward_with_attention(torch.randn(2, 1, 64, 32))
    assert [m.shape for m in maps] == [(2, 1, 128, 128)] * 2 + [(2, 2, 32, 32)] * 2 + [(2, 4, 8, 8)] * 2
    assert all((m > 0).all() for m in maps)


def test_windows_stay_as_built_at_other_sizes():
    """A larger map is shifted, a map smaller than the window padded up to it."""
    windows = small(SwinTransformer, SwinConfig, image_size=32).layers[1].windows
    assert (windows.window, windows.shift(4, 4), windows.shift(8, 4), windows.shift(2, 3)) == (
        (4, 4),
        (0, 0),
        (2, 0),
        (0, 0),
    )
    assert windows.cut(torch.ones(2, 3, 2, 1), shifted=False).sum((1, 2)).tolist() == [6, 6]
    odd = small(SwinTransformer, SwinConfig, image_size=60, window=8).layers[1].windows  # 15 merges to 8; timm counts 7
    assert (odd.window, odd.shift(8, 8)) == ((7, 7), (0, 0))
    whole = small(SwinTransformer, SwinConfig, image_size=32, window=8, windowing="hf").layers[2].windows
    assert (whole.window, whole.shift(2, 2)) == ((8, 8), (0, 0))


@pytest.mark.parametrize(("model", "config"), VERSIONS)
@settings(max_examples=12, deadline=None)
@given(
    h=st.integers(4, 90),
    w=st.integers(4, 90),
    c=st.integers(1, 4),
    window=st.sampled_from([3, 4, 7, (4, 6)]),
    stages=st.integers(1, 4),
)
def test_any_size_goes_through_and_its_attention_sums_to_one(model, config, h, w, c, window, stages):
    shape = {"depths": (1, 2, 2, 1)[:stages], "num_heads": (1, 2, 2, 4)[:stages], "dim": 8, "in_channels": c}
    built = small(model, config, window=window, image_size=(48, 64), **shape)
    images = torch.randn(2, c, h, w)
    with torch.no_grad():
        logits, maps = built(images), built.features(images)
        recorded, attention = built.forward_with_attention(images)
    assert logits.shape == (2, 5)
    assert torch.allclose(recorded, logits, atol=1e-5)
    assert len(attention) == sum(shape["depths"])
    for windowed in attention:
        assert windowed.ndim == 4
        assert torch.allclose(windowed.sum(-1), torch.ones(()), atol=1e-5)
    assert built.strides == [4, 8, 16, 32][:stages]
    sides = [(-(-h // stride), -(-w // stride)) for stride in built.strides]
    assert [m.shape for m in maps] == [(2, *side, 8 * 2**i) for i, side in enumerate(sides)]
    assert torch.allclose(maps[-1], built.encode(built.embed(images), built.grid_of(images)), atol=1e-6)


@pytest.mark.parametrize(("model", "config"), VERSIONS)
def test_forward_is_its_four_parts(model, config):
    built, images = small(model, config), torch.randn(2, 1, 64, 48)
    tokens = built.embed(images)
    assert tokens.shape == (2, 16, 12, 16)
    encoded = built.encode(tokens, built.grid_of(images))
    assert encoded.shape == (2, 4, 3, 64)
    assert torch.equal(built.head(built.pool(encoded)), built(images))
    assert (built.patch_size, built.num_prefix, built.image_size) == (4, 0, (64, 64))
    assert small(model, config, num_classes=0)(images).shape == (2, 64)


def test_merging_takes_neighbours_column_by_column_and_pads_odd_sides():
    merging = small(*VERSIONS[0]).layers[1].downsample
    x = torch.randn(1, 3, 4, 16)
    x4 = torch.cat([x, torch.zeros(1, 1, 4, 16)], 1)
    quad = torch.cat([x4[:, 0::2, 0::2], x4[:, 1::2, 0::2], x4[:, 0::2, 1::2], x4[:, 1::2, 1::2]], -1)
    assert torch.allclose(merging(x), merging.reduction(merging.norm(quad)), atol=1e-6)
    merging = small(*VERSIONS[1]).layers[1].downsample
    assert torch.allclose(merging(x), merging.norm(merging.reduction(quad)), atol=1e-6)


def test_windows_are_cut_row_by_row():
    x = torch.arange(24.0).view(1, 4, 6, 1)
    assert partition(x, (2, 3))[..., 0].tolist()[1:3] == [[3, 4, 5, 9, 10, 11], [12, 13, 14, 18, 19, 20]]


def test_offsets_are_read_in_units_of_the_pretrained_window():
    table = log_offsets((3, 3)).view(5, 5, 2)
    assert table[0, 4].tolist() == pytest.approx([-math.log2(9) / 3, math.log2(9) / 3])
    assert table[2, 3].tolist() == pytest.approx([0, math.log2(5) / 3])
    assert torch.equal(log_offsets((8, 8), 8), log_offsets((8, 8)))
    wide = log_offsets((16, 16), 8).view(31, 31, 2)
    assert torch.allclose(wide[8:23, 8:23], log_offsets((8, 8)).view(15, 15, 2))
    assert log_offsets((1, 1)).tolist() == [[0, 0]]


def test_the_temperature_has_a_floor():
    built, images = small(*VERSIONS[1]), torch.randn(1, 1, 64, 64)
    attn = built.layers[0].blocks[0].attn
    with torch.no_grad():
        attn.logit_scale.fill_(math.log(100))
        sharpest = built(images)
        attn.logit_scale.fill_(9)
        assert torch.equal(built(images), sharpest)


def test_initialisation_is_the_papers():
    torch.manual_seed(0)
    v1 = SwinTransformer(SwinConfig(image_size=64, dim=48, depths=(2, 2), num_heads=(3, 6), num_classes=10))
    assert v1.layers[1].blocks[0].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert v1.layers[0].blocks[0].attn.relative_position_bias_table.std().item() == pytest.approx(0.02, rel=0.1)
    assert v1.head.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not v1.head.bias.any()
    assert not v1.layers[0].blocks[0].attn.qkv.bias.any()
    v2 = SwinTransformerV2(SwinV2Config(image_size=64, dim=48, depths=(2, 2), num_heads=(3, 6)))
    block, x = v2.layers[0].blocks[1], torch.randn(1, 16, 16, 48)
    assert torch.equal(block(x), x)
    assert block.attn.logit_scale.flatten().tolist() == pytest.approx([math.log(10)] * 3)
    assert not block.attn.q_bias.any()
    assert (v2.layers[1].downsample.norm.weight == 1).all()


def test_drop_path_grows_over_all_stages():
    built = small(*VERSIONS[1], drop_path=0.5)
    assert [b.drop_path for s in built.layers for b in s.blocks] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    images = torch.randn(8, 1, 64, 64)
    assert torch.equal(built(images), built(images))
    built.train()
    assert not torch.equal(built(images), built(images))


def test_bias_tables_are_named_with_their_windows():
    built = small(SwinTransformer, SwinConfig, image_size=(64, 32), window=(4, 6))
    tables = built.bias_tables()
    assert list(tables.values()) == [(4, 6)] * 2 + [(4, 4)] * 2 + [(4, 2)] * 2
    for name, (a, b) in tables.items():
        assert len(built.state_dict()[name]) == (2 * a - 1) * (2 * b - 1)
    assert small(*VERSIONS[1]).bias_tables() == {}


@pytest.mark.parametrize(("model", "config"), VERSIONS)
def test_gradients_reach_everything_and_bfloat16_stays_finite(model, config):
    built, images = small(model, config).train(), torch.randn(2, 1, 50, 72)
    with torch.autocast("cpu", torch.bfloat16):
        logits = built(images)
    assert logits.isfinite().all()
    built(images).square().sum().backward()
    for name, p in built.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        assert p.grad.any(), name


def test_what_cannot_be_built_or_read_is_refused():
    with pytest.raises(VitralError, match="one entry a stage"):
        SwinConfig(depths=(2, 2))
    with pytest.raises(VitralError, match="windowing"):
        SwinConfig(windowing="torchvision")
    with pytest.raises(VitralError, match="give one number"):
        SwinConfig(window=(4, 6), windowing="hf")
    with pytest.raises(VitralError, match="at least 1"):
        SwinConfig(window=0)
    with pytest.raises(VitralError, match="pretrained_windows"):
        SwinV2Config(pretrained_windows=(8, 8))
    with pytest.raises(VitralError, match="does not divide"):
        small(*VERSIONS[1], num_heads=(3, 3, 3))
    with pytest.raises(VitralError, match="3 channels"):
        small(*VERSIONS[0])(torch.randn(1, 3, 64, 64))
    assert SwinConfig(window=[5, 6]).window == (5, 6)
    assert SwinV2Config(depths=(1, 1), num_heads=(1, 1)).arguments()["pretrained_windows"] == [0, 0]
