"""Optimisers against computations by hand, groups of parameters, rates of layers, and schedules against their formulas."""

import math
import re
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from families import CLASSIFIERS
from vitral.data.options import DataOptions
from vitral.data.sources import open_data
from vitral.errors import VitralError
from vitral.models.zoo import build, model_config
from vitral.training.config import Recipe
from vitral.training.defaults import resolve
from vitral.training.optim import build_optimizers, decays, rate_scales, set_rates
from vitral.training.optimizers import Lamb, Lars, Muon, orthogonal
from vitral.training.options import ModelOptions, OptimOptions, TrainOptions
from vitral.training.schedule import Schedule
from vitral.training.state import Checkpoints, Progress, collect, restore

OPTIMIZERS = ("adamw", "sgd", "lamb", "lars", "muon")

PLAIN = {"patch_size": 8, "dim": 24, "depth": 3, "num_heads": 2}
SWIN = {"dim": 8, "depths": (2, 3), "num_heads": (2, 2), "window": 4}
PVT = {"dims": (8, 8, 16, 16), "depths": (1, 2, 1, 1), "num_heads": (1, 1, 2, 2)}
SMALL = {
    "vit": PLAIN,
    "hybrid": PLAIN | {"patch_size": 16, "stages": (1, 2)},
    "deit": PLAIN | {"distilled": True},
    "cait": PLAIN,
    "beit": PLAIN | {"relative": "shared", "absolute": True},
    "mae": PLAIN | {"decoder_dim": 16, "decoder_depth": 1, "decoder_num_heads": 2, "num_classes": 0},
    "dino": PLAIN | {"hidden": 32, "num_registers": 2},
    "swin": SWIN,
    "swinv2": SWIN,
    "pvt": PVT,
    "pvt_v2": PVT,
    "resnet": {"depths": (1, 2, 1, 1), "width": 8, "bottleneck": False},
}


def small(family, **more):
    torch.manual_seed(0)
    return build(model_config(family, **({"image_size": 64, "num_classes": 6} | SMALL[family] | more)))


def test_every_family_is_tried():
    assert SMALL.keys() == set(CLASSIFIERS)


# Optimisers


def by_hand(shapes, steps, rule):
    """Random parameters and gradients in float64, and what `rule(parameter, gradient, state, step)` makes of the parameters, number by number."""
    generator = torch.Generator().manual_seed(1)
    params = [nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for s in shapes]
    params[-1].data.zero_()  # no norm to scale by at first
    grads = [[torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes] for _ in range(steps)]
    grads[0][0].zero_()
    wanted = []
    for i, p in enumerate(params):
        numbers, state = p.flatten().tolist(), {}
        for step in range(steps):
            numbers = rule(numbers, grads[step][i].flatten().tolist(), state, step, i)
        wanted.append(numbers)
    return params, grads, wanted


def norm(numbers):
    return math.sqrt(sum(x * x for x in numbers))


def check(optimizer, params, grads, wanted, rates):
    for step, step_grads in enumerate(grads):
        for p, g in zip(params, step_grads, strict=True):
            p.grad = g.clone()
        for group in optimizer.param_groups:
            group["lr"] = rates[step]
        optimizer.step()
    for p, numbers in zip(params, wanted, strict=True):
        assert p.flatten().tolist() == pytest.approx(numbers, rel=1e-10, abs=1e-13)


RATES = [0.1, 0.3, 0.2, 0.05, 0.1]


def test_lamb_is_algorithm_2():
    beta1, beta2, eps = 0.8, 0.95, 1e-6

    def rule(p, g, state, step, i):
        decay = [0.2, 0.2, 0.0, 0.2][i]
        m, v = state.get("m", [0.0] * len(p)), state.get("v", [0.0] * len(p))
        state["m"] = m = [beta1 * a + (1 - beta1) * b for a, b in zip(m, g, strict=True)]
        state["v"] = v = [beta2 * a + (1 - beta2) * b * b for a, b in zip(v, g, strict=True)]
        c1, c2 = 1 - beta1 ** (step + 1), 1 - beta2 ** (step + 1)
        u = [(a / c1) / (math.sqrt(b / c2) + eps) + decay * x for a, b, x in zip(m, v, p, strict=True)]
        ratio = norm(p) / norm(u) if decay and norm(p) and norm(u) else 1.0
        return [x - RATES[step] * ratio * y for x, y in zip(p, u, strict=True)]

    params, grads, wanted = by_hand([(3, 4), (2, 3, 2), (5,), (4, 2)], len(RATES), rule)
    groups = [
        {"params": [params[0], params[1], params[3]], "weight_decay": 0.2},
        {"params": [params[2]], "weight_decay": 0.0},
    ]
    check(Lamb(groups, 1.0, (beta1, beta2), eps), params, grads, wanted, RATES)


def test_lars_is_algorithm_1():
    decay, momentum, trust = 0.1, 0.9, 0.001

    def rule(p, g, state, step, i):
        u = g
        if i != 2:  # the third has one dimension
            u = [a + decay * x for a, x in zip(g, p, strict=True)]
            ratio = trust * norm(p) / norm(u) if norm(p) and norm(u) else 1.0
            u = [ratio * a for a in u]
        state["v"] = v = [momentum * a + b for a, b in zip(state.get("v", [0.0] * len(p)), u, strict=True)]
        return [x - RATES[step] * a for x, a in zip(p, v, strict=True)]

    params, grads, wanted = by_hand([(3, 4), (2, 3, 2), (5,), (4, 2)], len(RATES), rule)
    check(
        Lars([{"params": params, "weight_decay": decay}], 1.0, momentum, trust),
        params,
        grads,
        wanted,
        RATES,
    )


def gradients(model, step):
    """Random gradients that depend on the step and the parameter's name only."""
    for i, p in enumerate(model.parameters()):
        if p.requires_grad:
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(1000 * step + i))


def test_torchs_own_are_used_as_they_are():
    def reference(name, named):
        some = [p for n, p in named if decays(n, p)], [p for n, p in named if not decays(n, p)]
        groups = [{"params": some[0], "weight_decay": 0.2}, {"params": some[1], "weight_decay": 0.0}]
        if name == "sgd":
            return torch.optim.SGD(groups, 0.1, momentum=0.7)
        return torch.optim.AdamW(groups, 0.1, (0.8, 0.95), fused=True)

    for name in ("sgd", "adamw"):
        ours, theirs = small("vit"), small("vit")
        options = OptimOptions(name, lr=0.1, weight_decay=0.2, momentum=0.7, beta1=0.8, beta2=0.95)
        (optimizer,) = build_optimizers(ours, options)
        reference_ = reference(name, list(theirs.named_parameters()))
        for step in range(3):
            for model, each in ((ours, optimizer), (theirs, reference_)):
                gradients(model, step)
                each.step()
        start = dict(small("vit").named_parameters())
        for (n, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a, b), (name, n)
            assert not torch.equal(a, start[n]), (name, n)


# Muon


def torchs_muon(monkeypatch, params, **options):
    """torch's, whose orthogonalisation is then in float32, too."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    return torch.optim.Muon(params, adjust_lr_fn="match_rms_adamw", **options)


@pytest.mark.parametrize(
    "shapes", [[(24, 24)] * 3, [(16, 48), (48, 16), (16, 48)], [(8, 9), (40, 8), (1, 5), (7, 1), (33, 70)]]
)
def test_muon_equals_torchs_where_both_are_in_float32(monkeypatch, shapes):
    def parameters():
        generator = torch.Generator().manual_seed(3)
        return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]

    ours, theirs = parameters(), parameters()
    optimizers = (
        Muon(ours, 0.1, weight_decay=0.2),
        torchs_muon(monkeypatch, theirs, lr=0.1, weight_decay=0.2),
    )
    for step in range(4):
        generator = torch.Generator().manual_seed(step)
        for a, b in zip(ours, theirs, strict=True):
            # Singular values over five decades, as gradients of few images have them.
            decay = torch.logspace(0, -5, a.shape[1])
            a.grad = torch.randn(a.shape, generator=generator) * decay
            b.grad = a.grad.clone()
        if step == 2:  # a matrix that learns nothing for once stays as it is
            ours[0].grad = theirs[0].grad = None
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5)


def test_muon_takes_a_kernel_as_a_matrix():
    torch.manual_seed(0)
    kernel = torch.nn.Parameter(torch.randn(6, 4, 3, 3))
    matrix = torch.nn.Parameter(kernel.detach().flatten(1).clone())
    both = Muon([kernel], 0.1), Muon([matrix], 0.1)
    for _ in range(2):
        kernel.grad = torch.randn(6, 4, 3, 3)
        matrix.grad = kernel.grad.flatten(1).clone()
        for each in both:
            each.step()
    assert torch.allclose(kernel.flatten(1), matrix, atol=1e-6)


def test_muon_computes_layers_at_rates_of_their_own_and_in_parts(monkeypatch):
    def trained(stacked):
        monkeypatch.setattr("vitral.training.optimizers.STACKED", stacked)
        model = small("vit")
        optimizers = build_optimizers(model, OptimOptions("muon", lr=0.01, weight_decay=0.1, layer_decay=0.5))
        for step in range(2):
            gradients(model, step)
            for optimizer in optimizers:
                optimizer.step()
        return dict(model.named_parameters())

    start, together, apart = dict(small("vit").named_parameters()), trained(2**24), trained(1)
    for name, p in together.items():
        torch.testing.assert_close(p, apart[name], rtol=1e-5, atol=1e-6)
    moved = [float((together[n] - start[n] * (1 - 0.01 * 0.1 * s) ** 2).detach().norm())
             for n, s in (("blocks.0.mlp.fc1.weight", 0.125), ("blocks.1.mlp.fc1.weight", 0.25), ("blocks.2.mlp.fc1.weight", 0.5))]  # fmt: skip
    assert moved[1] == pytest.approx(2 * moved[0], rel=0.1)
    assert moved[2] == pytest.approx(2 * moved[1], rel=0.1)


@pytest.mark.parametrize("shape", [(3, 40, 40), (2, 40, 100)])
def test_orthogonalised_matrices_have_singular_values_near_one_in_every_precision(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    exact = orthogonal(matrices.double(), torch.float64)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float16, 2e-2), (torch.bfloat16, 1e-1)):
        result = orthogonal(matrices, dtype)
        assert result.dtype == torch.float32
        assert float((result - exact).abs().max() / exact.abs().max()) < tolerance
    values = torch.linalg.svdvals(exact)
    assert float(values.max()) < 1.3
    if shape[2] > shape[1]:  # a square one has tiny singular values, which five iterations do not bring up
        assert float(values.min()) > 0.6
    assert torch.equal(orthogonal(torch.zeros(1, 4, 8), torch.float32), torch.zeros(1, 4, 8))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_restored_optimiser_goes_on_bit_for_bit(tmp_path, name):
    options = OptimOptions(name, lr=0.01, weight_decay=0.1, layer_decay=0.7)

    def session():
        model = small("vit")
        return model, build_optimizers(model, options)

    def train(model, optimizers, steps):
        for step in steps:
            gradients(model, step)
            set_rates(optimizers, 0.01 / (step + 1), 0.1 * (step + 1))
            for optimizer in optimizers:
                optimizer.step()

    whole = session()
    train(*whole, range(5))
    first = session()
    train(*first, range(2))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(collect(*first, None), Progress(step=2), best=False)
    second = session()
    restore(checkpoints.load()[0], *second, None)
    train(*second, range(2, 5))
    a, b = collect(*whole, None), collect(*second, None)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
    states = {key for optimizer in whole[1] for state in optimizer.state.values() for key in state}
    wanted = {"sgd": {"momentum_buffer"}, "lars": {"momentum_buffer"}}.get(name, {"step", "exp_avg", "exp_avg_sq"})
    assert states == wanted | ({"momentum_buffer"} if name == "muon" else set())


# Groups


@pytest.mark.parametrize("family", SMALL)
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_parameter_is_in_one_group_with_its_rate_and_decay(family, name):
    model = small(family)
    options = OptimOptions(name, lr=2.0, weight_decay=0.3, layer_decay=0.5)
    optimizers = build_optimizers(model, options)
    set_rates(optimizers, 4.0, 0.7)
    named = {id(p): (n, p) for n, p in model.named_parameters()}
    scales = rate_scales(model, 0.5)
    seen = []
    for group in (g for optimizer in optimizers for g in optimizer.param_groups):
        for p in group["params"]:
            n, _ = named[id(p)]
            seen.append(n)
            assert group["lr"] == 4.0 * scales[n]
            assert group["weight_decay"] == (0.7 if decays(n, p) else 0.0)
    assert sorted(seen) == sorted(n for n, p in named.values() if p.requires_grad)


def test_muon_takes_the_matrices_of_the_blocks_wherever_the_encoder_is():
    for model in (
        small("vit"),
        small("mae"),
        nn.ModuleDict({"student": small("beit", relative="layer"), "head": nn.Linear(3, 3)}),
    ):
        _, muon = build_optimizers(model, OptimOptions("muon", lr=1.0))
        taken = {id(p) for group in muon.param_groups for p in group["params"]}
        names = {n for n, p in model.named_parameters() if id(p) in taken}
        assert names == {
            n for n, p in model.named_parameters() if "blocks." in n and p.ndim == 2 and "bias_table" not in n
        }
        assert len(names) >= 4 * 3


def test_frozen_parameters_are_left_out():
    model = small("vit")
    for n, p in model.named_parameters():
        p.requires_grad_(n.startswith("head."))
    for name in OPTIMIZERS:
        (optimizer,) = build_optimizers(model, OptimOptions(name, lr=1.0, layer_decay=0.5))
        held = [p for group in optimizer.param_groups for p in group["params"]]
        assert {id(p) for p in held} == {id(model.head.weight), id(model.head.bias)}
        assert [group["lr"] for group in optimizer.param_groups] == [1.0, 1.0]


# Layers


def test_the_layers_of_a_vit():
    wanted = {"cls_token": 0, "pos_embed": 0, "patch_embed.proj.weight": 0, "patch_embed.proj.bias": 0}
    for i in range(3):
        for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"):
            wanted |= {f"blocks.{i}.{part}.weight": i + 1, f"blocks.{i}.{part}.bias": i + 1}
    wanted |= {"norm.weight": 4, "norm.bias": 4, "head.weight": 4, "head.bias": 4}
    assert small("vit").layer_numbers() == wanted


# Layers of the parameters that start with each prefix.
LAYERS = {
    "hybrid": {
        "cls_token": 0,
        "patch_embed.backbone.stem": 0,
        "patch_embed.backbone.stages.0.blocks.0": 1,
        "patch_embed.backbone.stages.1.blocks.0": 2,
        "patch_embed.backbone.stages.1.blocks.1": 3,
        "patch_embed.proj": 3,
        "blocks.0": 4,
        "blocks.2": 6,
        "norm": 7,
        "head": 7,
    },
    "deit": {"dist_token": 0, "blocks.2": 3, "head.dist": 4},
    "cait": {"blocks.0": 1, "blocks.2": 3, "blocks_token_only.0": 4, "blocks_token_only.1": 5, "norm": 6, "head": 6},
    "beit": {"cls_token": 0, "rel_pos_bias": 4, "blocks.0": 1, "fc_norm": 4, "head": 4},
    "dino": {"reg_token": 0, "blocks.0": 1, "norm": 4},
    "swin": {
        "patch_embed": 0,
        "layers.0.blocks.0": 1,
        "layers.0.blocks.1": 2,
        "layers.1.downsample": 2,
        "layers.1.blocks.0": 3,
        "layers.1.blocks.2": 5,
        "norm": 6,
        "head": 6,
    },
    "pvt": {
        "patch_embed1": 0,
        "pos_embed1": 0,
        "block1.0": 1,
        "pos_embed2": 1,
        "patch_embed2": 1,
        "block2.0": 2,
        "block2.1": 3,
        "pos_embed3": 3,
        "patch_embed4": 4,
        "pos_embed4": 4,
        "cls_token": 4,
        "block4.0": 5,
        "norm": 6,
        "head": 6,
    },
    "pvt_v2": {
        "patch_embed": 0,
        "stages.0.norm": 1,
        "stages.1.downsample": 1,
        "stages.1.blocks.1": 3,
        "stages.3.norm": 6,
        "head": 6,
    },
    "resnet": {"conv1": 0, "bn1": 0, "layer1.0": 1, "layer2.0.downsample": 2, "layer2.1": 3, "layer4.0": 5, "head": 6},
}


@pytest.mark.parametrize("family", LAYERS)
def test_the_layers_of_the_other_families(family):
    layers = small(family).layer_numbers()
    for prefix, wanted in LAYERS[family].items():
        found = {layer for name, layer in layers.items() if name == prefix or name.startswith(f"{prefix}.")}
        assert found == {wanted}, prefix
    assert set(layers.values()) == set(range(max(layers.values()) + 1))


@pytest.mark.parametrize("family", [f for f in SMALL if f != "mae"])
def test_layers_rise_in_the_order_of_computation(family):
    model = small(family).eval()
    layers, called = model.layer_numbers(), []
    for name, module in model.named_modules():
        own = [f"{name}.{n}" for n, _ in module.named_parameters(recurse=False)]
        if own and name and "rel_pos_bias" not in name:
            module.register_forward_hook(lambda *_, own=own: called.append(layers[own[0]]))
    model(torch.randn(1, 3, 64, 64))
    assert called == sorted(called)
    assert {0, *called} == set(layers.values())  # linear patches are computed without a call of their module


def test_a_wrapped_model_has_the_rates_of_the_model_alone():
    alone = rate_scales(small("vit"), 0.5)
    assert alone["cls_token"] == 0.5**4
    assert alone["blocks.1.norm1.weight"] == 0.5**2
    assert alone["head.bias"] == 1.0
    wrapped = rate_scales(nn.ModuleDict({"student": small("vit"), "head": nn.Linear(3, 3)}), 0.5)
    assert wrapped == {f"student.{n}": s for n, s in alone.items()} | {"head.weight": 1.0, "head.bias": 1.0}
    mae = rate_scales(small("mae"), 0.5)
    assert mae["encoder.cls_token"] == 0.5**4
    assert mae["encoder.norm.weight"] == 1.0
    assert {s for n, s in mae.items() if not n.startswith("encoder.")} == {1.0}
    assert set(rate_scales(small("swin"), 1.0).values()) == {1.0}


# Schedules

SHAPES = {
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "linear": lambda done: 1 - done,
}


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["cosine", "linear"]),
    st.integers(1, 2000),
    st.integers(0, 300),
    st.floats(0, 1e-4),
    st.floats(0, 1e-4),
    st.floats(0, 0.5),
)
def test_cosine_and_linear_in_steps(name, total, warm, low, start, cooldown):
    options = OptimOptions(lr=1e-3, min_lr=low, warmup_lr=start, warmup_steps=warm, schedule=name, cooldown=cooldown)
    schedule = Schedule.of(options, total, 10)
    end = total * (1 - cooldown)
    for step in range(0, total + 1, max(1, total // 97)):
        rate = schedule.learning_rate(step / total, step)
        if step + 1 <= warm:
            assert rate == pytest.approx(start + (1e-3 - start) * (step + 1) / warm)
        elif step >= max(end, warm + 1e-6):
            assert rate == pytest.approx(low, abs=1e-12)
        elif step >= warm and end > warm:
            wanted = low + (1e-3 - low) * SHAPES[name]((step - warm) / (end - warm))
            assert rate == pytest.approx(wanted, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["rsqrt", "constant"]),
    st.floats(0.01, 0.3),
    st.sampled_from([0.0]) | st.floats(0.001, 0.5),
    st.floats(0, 1e-4),
    st.floats(0, 1),
)
def test_rsqrt_and_constant_by_the_clock(name, warm, cooldown, low, progress):
    options = OptimOptions(lr=1e-3, min_lr=low, warmup_fraction=warm, schedule=name, cooldown=cooldown)
    rate = Schedule.of(options, None, 10).learning_rate(progress, 5)
    if progress < warm:
        assert rate == pytest.approx(1e-3 * max(progress / warm, 1e-3))
    else:
        shape = math.sqrt(warm / progress) if name == "rsqrt" else 1.0
        if progress > 1 - cooldown:
            shape *= (1 - progress) / cooldown
        assert rate == pytest.approx(low + (1e-3 - low) * shape)


@pytest.mark.parametrize("name", ["cosine", "linear", "rsqrt", "constant"])
@pytest.mark.parametrize("warm", [{"warmup_steps": 100}, {"warmup_epochs": 2.5}, {"warmup_fraction": 0.1}])
@pytest.mark.parametrize("timed", [False, True])
def test_a_schedule_has_no_jumps_and_ends_at_its_least(name, warm, timed):
    """In steps or by a clock at which steps are of equal length, 1,000 of them."""
    options = OptimOptions(lr=1.0, min_lr=0.01, warmup_lr=0.02, schedule=name, cooldown=0.2, **warm)
    schedule = Schedule.of(options, None if timed else 1000, 40)
    rates = [schedule.learning_rate(step / 1000, step) for step in range(1001)]
    assert all(abs(a - b) <= 0.0101 for a, b in pairwise(rates))  # 1 over the steps of the warm-up
    assert rates[0] == pytest.approx(0.02, abs=0.01)
    assert max(rates) == pytest.approx(1.0, abs=0.13 if timed else 1e-9)
    assert rates.index(max(rates)) in range(90, 102)
    assert rates[-1] == pytest.approx(0.01)
    assert all(a >= b for a, b in pairwise(rates[101:]))


def test_the_warm_up_in_epochs_is_the_one_in_steps():
    in_epochs = Schedule.of(OptimOptions(lr=1.0, warmup_epochs=1.5), 1000, 40)
    in_steps = Schedule.of(OptimOptions(lr=1.0, warmup_steps=60), 1000, 40)
    for step in range(0, 1000, 7):
        assert in_epochs.learning_rate(step / 1000, step) == in_steps.learning_rate(step / 1000, step)


def test_the_weight_decay_follows_dinos_cosine():
    schedule = Schedule.of(OptimOptions(lr=1.0, weight_decay=0.04, weight_decay_end=0.4), 100, 10)
    for progress in (0.0, 0.25, 0.5, 1.0):
        wanted = 0.4 + (0.04 - 0.4) * (1 + math.cos(math.pi * progress)) / 2
        assert schedule.weight_decay(progress) == pytest.approx(wanted)
    assert Schedule.of(OptimOptions(lr=1.0, weight_decay=0.04), 100, 10).weight_decay(0.7) == 0.04


# Options


def test_the_rate_follows_the_batch(shapes_folder):
    data = open_data(shapes_folder, DataOptions())
    said = Recipe(
        model=ModelOptions("vit_tiny_patch16_224"),
        optim=OptimOptions("adamw", lr=1e-3, lr_per=512, min_lr=1e-5, warmup_lr=1e-6),
        train=TrainOptions(batch_size=16, accumulation=4, steps=3),
    )
    recipe, reasons = resolve(said, data, "cpu")
    assert recipe.optim == replace(said.optim, lr=1e-3 * 64 / 512, lr_per=None)
    assert any(re.search(r"0\.000125: 0\.001 for 512 images, and a step has 64", reason) for reason in reasons)
    assert resolve(recipe, data, "cpu") == (recipe, [])
    with pytest.raises(VitralError, match=r"lr_per 512.*give --lr too"):
        resolve(replace(said, optim=OptimOptions(lr_per=512)), data, "cpu")


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"optimizer": "adam"}, "optim.optimizer 'adam': choose one of adamw, sgd, lamb, lars, muon"),
        ({"schedule": "step"}, "optim.schedule 'step': choose one of cosine, linear, rsqrt, constant"),
        ({"lr": 0.0}, "optim.lr 0.0: must be above 0"),
        ({"lr": math.nan}, "optim.lr nan"),
        ({"lr_per": 0}, "optim.lr_per 0"),
        ({"layer_decay": 1.5}, "optim.layer_decay 1.5"),
        ({"layer_decay": 0.0}, "optim.layer_decay 0.0"),
        ({"weight_decay": -0.1}, "optim.weight_decay -0.1: must be 0 or more"),
        ({"beta2": 1.0}, "optim.beta2 1.0"),
        ({"ema": -0.5}, "optim.ema -0.5"),
        ({"warmup_fraction": 1.5}, "optim.warmup_fraction 1.5: a share"),
        ({"cooldown": -1.0}, "optim.cooldown -1.0: a share"),
        ({"warmup_steps": 3, "warmup_epochs": 1.0}, "one warm-up"),
        ({"schedule": "rsqrt", "warmup_epochs": 0.0}, "measured by the warm-up"),
    ],
)
def test_options_that_cannot_be_meant(wrong, what):
    with pytest.raises(VitralError, match=re.escape(what)):
        OptimOptions(**wrong)
