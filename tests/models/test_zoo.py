"""Every name of the zoo: its size against published tables, and one contract for all families."""

import csv
import json
from pathlib import Path

import pytest
import torch

from vitral.errors import VitralError
from vitral.models.measure import measure
from vitral.models.sizes import SIZES
from vitral.models.zoo import FAMILIES, MODELS, build, family_of, model_config

# Parameters and multiply-adds (10^9) of published models: counted on timm's and the papers' implementations.
PUBLISHED = list(csv.DictReader((Path(__file__).parent / "published.csv").read_text().splitlines()))

# A small member of each family, and what else it should be tried with.
SMALL = {
    "vit": {"patch_size": 8, "dim": 24, "depth": 2, "num_heads": 2},
    "hybrid": {"patch_size": 16, "stages": (1, 1), "dim": 24, "depth": 2, "num_heads": 2},
    "deit": {"patch_size": 8, "dim": 24, "depth": 2, "num_heads": 2, "distilled": True},
    "cait": {"patch_size": 8, "dim": 24, "depth": 2, "num_heads": 2},
    "beit": {"patch_size": 8, "dim": 24, "depth": 2, "num_heads": 2},
    "dino": {
        "patch_size": 8,
        "dim": 24,
        "depth": 2,
        "num_heads": 2,
        "hidden": 32,
        "num_registers": 2,
        "num_classes": 6,
    },
    "swin": {"dim": 8, "depths": (2, 2), "num_heads": (2, 2), "window": 4},
    "swinv2": {"dim": 8, "depths": (2, 2), "num_heads": (2, 2), "window": 4},
    "pvt": {"dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)},
    "pvt_v2": {"dims": (8, 8, 16, 16), "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)},
    "resnet": {"depths": (1, 1, 1, 1), "width": 8, "bottleneck": False},
}
VARIANTS = {
    "deit3": ("deit", {"distilled": False, "layer_scale": 0.1, "class_position": False}),
    "beit shared": ("beit", {"relative": "shared", "absolute": True, "pooling": "cls"}),
    "dinov3": ("dino", {"position": "rotary", "key_bias": False, "swiglu": True, "pooling": "cls_mean"}),
    "mean, norm after": ("vit", {"pooling": "mean", "fc_norm": True, "class_token": False}),
    "linear": ("pvt_v2", {"linear": True}),
    "bottleneck": ("resnet", {"bottleneck": True}),
}
CASES = {name: (name, {}) for name in SMALL} | VARIANTS


def small(case: str, **overrides):
    family, more = CASES[case]
    torch.manual_seed(0)
    options = {"image_size": 64, "num_classes": 6} | SMALL[family] | more | overrides
    model = build(model_config(family, **options)).eval()
    with torch.no_grad():  # no zeros that would hide a mistake
        for p in model.parameters():
            p.add_(torch.randn_like(p) * (0.1 if p.ndim < 2 else 0.02))
    return model


def images(model, *size, batch=2):
    return torch.randn(batch, model.config.in_channels, *(size or model.image_size))


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row['name']} {row['arguments']}")
def test_sizes_are_the_published_ones(row):
    """By the table of sizes, which the tests below measure; a model that is no row of the zoo is measured here."""
    config = model_config(row["name"], **json.loads(row["arguments"]))
    name = next((name for name, entry in MODELS.items() if entry.config == config), None)
    cost = measure(config) if name is None else None
    parameters, multiply_adds = (cost.parameters, cost.multiply_adds) if cost else SIZES[name]
    assert parameters == int(row["parameters"])
    assert multiply_adds / 1e9 == pytest.approx(float(row["giga_multiply_adds"]), rel=0.03)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_resnets_are_torchvisions(name):
    sizes = {"resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032, "resnet101": 44_549_160}
    assert SIZES[name][0] == sizes[name]


# Of each family, and of each thing that its rows vary, the cheapest; the others take two minutes.
MEASURED = {
    "vit_tiny_patch32_384",
    "vit_tiny_r_s16_p8_224",
    "vit_base_r50_s16_224",
    "deit_tiny_distilled_patch16_224",
    "deit3_small_patch16_224",
    "cait_xxs24_224",
    "beit_base_patch16_224",
    "mae_vit_base_patch16",
    "vit_small_patch14_reg4_dinov2",
    "vit_giant_patch14_dinov2",
    "vit_small_plus_patch16_dinov3_qkvb",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "swinv2_base_window12to24_192to384",
    "pvt_tiny",
    "pvt_v2_b0",
    "pvt_v2_b2_li",
    "resnet18",
    "resnet50",
}


def test_every_family_is_measured():
    assert {MODELS[name].family for name in MEASURED} == {entry.family for entry in MODELS.values()}


@pytest.mark.parametrize("name", [n if n in MEASURED else pytest.param(n, marks=pytest.mark.slow) for n in MODELS])
def test_the_table_of_sizes_is_what_measuring_gives(name):
    cost = measure(MODELS[name].config)
    assert (cost.parameters, cost.multiply_adds) == SIZES[name]
    assert sum(part.parameters for part in cost.parts) == cost.parameters
    assert sum(part.multiply_adds for part in cost.parts) == cost.multiply_adds


def test_every_name_has_a_size_and_no_other():
    assert SIZES.keys() == MODELS.keys()
    assert {entry.family for entry in MODELS.values()} == FAMILIES.keys() - {"tokenizer", "yolos", "eomt"}


@pytest.mark.parametrize("case", CASES)
def test_the_contract(case):
    model = small(case)
    x = images(model)
    tokens = model.encode(model.embed(x), model.grid_of(x))
    representation = model.pool(tokens)
    assert representation.ndim == 2
    assert torch.equal(model.head(representation), model(x))
    assert model(x).shape == (2, 6)
    assert isinstance(model.patch_size, int)
    assert isinstance(model.num_prefix, int)
    assert family_of(model.config) == CASES[case][0]
    assert build(type(model.config)(**model.config.arguments())).state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (77, 101)])
@pytest.mark.parametrize("case", CASES)
def test_features_have_the_strides_they_say(case, size):
    model = small(case)
    maps = model.features(images(model, *size))
    assert len(maps) == len(model.strides)
    for each, stride in zip(maps, model.strides, strict=True):
        assert each.shape[:3] == (2, -(-size[0] // stride), -(-size[1] // stride)), (each.shape, stride)


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (75, 101)])
@pytest.mark.parametrize("case", [c for c in CASES if CASES[c][0] != "resnet"])
def test_attention_is_what_made_the_logits(case, size):
    model = small(case)
    x = images(model, *size)
    logits, attention = model.forward_with_attention(x)
    assert (logits - model(x)).abs().max() <= 1e-5 * logits.abs().max()
    assert attention
    for layer in attention:
        assert layer.ndim == 4
        assert torch.allclose(layer.sum(-1), torch.ones(()), atol=1e-5)


def test_a_model_without_attention_says_so():
    model = small("resnet")
    with pytest.raises(VitralError, match="no attention"):
        model.forward_with_attention(images(model))


@pytest.mark.parametrize("case", CASES)
def test_backward_reaches_every_parameter(case):
    model = small(case, image_size=64).train()
    model(images(model, batch=4)).square().mean().backward()
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not dead


@pytest.mark.parametrize("case", CASES)
def test_other_channels_and_no_head(case):
    model = small(case, in_channels=1, num_classes=0)
    x = images(model)
    assert torch.equal(model(x), model.pool(model.encode(model.embed(x), model.grid_of(x))))
    with pytest.raises(VitralError, match="channels"):
        model(torch.randn(2, 4, 64, 64))


@pytest.mark.parametrize("case", CASES)
def test_half_precision_is_finite(case):
    model = small(case).train()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images(model, batch=4))
    logits.float().square().mean().backward()
    assert logits.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


# Cases whose graphs are those of another case with other numbers.
ALIKE = {"deit3", "beit shared", "mean, norm after", "bottleneck"}


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.slow) if c in ALIKE else c for c in CASES])
def test_compiles_and_exports_without_a_graph_break(case):
    """At a size that must be padded, and then for any number of images."""
    model, size = small(case), (40, 56)
    x = images(model, *size)
    torch._dynamo.reset()  # its limit of recompilations counts every model of a family
    with torch.no_grad():
        expected = model(x)
        assert torch.allclose(torch.compile(model, backend="eager", fullgraph=True)(x), expected, atol=1e-5)
        batch = torch.export.Dim("batch", min=1, max=64)
        exported = torch.export.export(model, (x,), dynamic_shapes=({0: batch},)).module()
        for count in (1, 5):
            x = images(model, *size, batch=count)
            assert torch.allclose(exported(x), model(x), atol=1e-5)


def test_state_dict_names_are_stable():
    """The names in a stored list: files written today must load for ever."""
    stored = json.loads((Path(__file__).parent / "names.json").read_text())
    now = {case: {k: list(v.shape) for k, v in small(case).state_dict().items()} for case in CASES}
    assert now == stored


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "pvt_v2_b0", "resnet18", "cait_xxs24_224"]
)
def test_memory_to_train_grows_with_the_batch(name):
    cost = measure(model_config(name))
    assert cost.inference_bytes == 4 * cost.parameters
    assert cost.training_bytes(8) - cost.training_bytes(4) == 4 * cost.training_bytes_an_image > 0


@pytest.mark.parametrize("case", ["vit", "cait", "swin", "pvt_v2", "resnet"])
def test_measured_activations_are_what_autograd_keeps(case):
    """Against tensors on the processor, in float32."""
    model = small(case).train()
    own = {p.data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        if tensor.data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        logits = model(images(model, batch=1))
    assert logits.requires_grad
    assert measure(model.config).training_bytes_an_image == pytest.approx(sum(kept.values()), rel=0.1)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("swin_tiny_patch4_window7_22", {}, "nearest: swin_tiny_patch4_window7_224"),
        (
            "vit_small_patch16_224.augreg_in21k",
            {},
            "create .vit_small_patch16_224., .*hf:timm/vit_small_patch16_224.augreg_in21k",
        ),
        ("pvt_v2_b0", {"dim": 3}, "no argument 'dim'"),
        ("deit_tiny_patch16_224", {"depth": 0}, "depth=0"),
        ("beit_base_patch16_224", {"relative": "both"}, "relative='both'"),
        ("dino", {"position": "rotary", "dim": 36, "num_heads": 6}, "divisible by 4"),
        ("mae", {"num_classes": 3}, "no head"),
        ("mae", {"mask_ratio": 1.0}, "mask_ratio"),
    ],
)
def test_what_cannot_be_built_is_refused(name, overrides, message):
    with pytest.raises(VitralError, match=message):
        build(model_config(name, **overrides))
