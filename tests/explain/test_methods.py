"""Every method for every family: a map of the right shape or a sentence, about the class that was asked for, the model untouched."""

import copy
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from asking import SIZE, predictor_of, reads_evenly
from families import CLASSIFIERS, small
from vitral.checkpoints.bundle import save_model
from vitral.cli import main
from vitral.cli.explain import MethodName
from vitral.errors import VitralError
from vitral.explain import gradients
from vitral.explain.capture import capture
from vitral.explain.explain import attention_maps, explain, undefined
from vitral.explain.features import early_answers
from vitral.explain.methods import METHODS, in_titles
from vitral.explain.row import row_figure
from vitral.layers.attention import AttentionLayer
from vitral.models.tokenizer import Tokenizer
from vitral.models.zoo import build, model_config

WIDE = (40, 56)
SEVERAL = {
    "deit": [{}, {"distilled": True}, {"distilled": True, "teacher_head": False}],
    "dino": [{}, {"num_registers": 4, "pooling": "cls_mean"}, {"position": "rotary", "dim": 32}],
    "vit": [{}, {"class_token": False, "pooling": "mean", "fc_norm": True}, {"representation_dim": 12}, {"depth": 1}],
    "beit": [{}, {"pooling": "cls"}],
    "swin": [{}, {"windowing": "hf"}],
    "pvt_v2": [{}, {"linear": True}],
}
CASES = [(family, options) for family in CLASSIFIERS for options in SEVERAL.get(family, [{}])]
FOLLOWED = {"rollout", "gradient_rollout", "relevance", "legrad"}
UNDEFINED = (
    dict.fromkeys(("swin", "swinv2", "pvt", "pvt_v2"), FOLLOWED)
    | {"resnet": FOLLOWED | {"attention"}}
    | {"mae": {name for name, method in METHODS.items() if "target" in method.takes}}
)
PICTURE = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)


@pytest.fixture
def few_points(monkeypatch):
    """Integrated gradients over a few points: exact enough to be a map, where up to 256 passes and back take seconds."""
    monkeypatch.setattr(gradients, "FEWEST", 4)
    monkeypatch.setattr(gradients, "MOST", 4)


@pytest.mark.usefixtures("few_points")
@pytest.mark.parametrize(("family", "options"), CASES, ids=[f"{f}-{'-'.join(o)}" for f, o in CASES])
def test_every_method_gives_a_map_or_says_in_a_sentence_why_not(family, options):
    model = small(family, image_size=WIDE, **options)
    predictor = predictor_of(model, WIDE)
    before = copy.deepcopy(model.state_dict())
    undefined_ones = set()
    for method in METHODS:
        if (why := undefined(model, method)) is not None:
            undefined_ones.add(method)
            assert 20 < len(why) < 200
            with pytest.raises(VitralError) as refused:
                explain(predictor, PICTURE, method)
            assert str(refused.value) == why
            continue
        found, again = (explain(predictor, PICTURE, method) for _ in range(2))
        assert np.isfinite(found.grid).all()
        everyone = (
            [found] if method != "grad_cam" else [explain(predictor, PICTURE, method, target=k) for k in range(4)]
        )
        assert max(e.grid.std() for e in everyone) > 0, method  # Grad-CAM is 0 where nothing speaks for a class
        np.testing.assert_array_equal(found.grid, again.grid)
        stride = round(WIDE[0] * found.extent[0] / found.grid.shape[0])
        assert found.grid.shape == (-(-WIDE[0] // stride), -(-WIDE[1] // stride)), method
        assert found.map.shape == (60, 100)
        assert found.map.min() >= 0
        assert max(e.map.max() for e in everyone) > 0 or all(e.even for e in everyone)
        assert found.map.max() <= 1
        assert found.overlay().size == (100, 60)
        assert (found.target != "") == ("target" in METHODS[method].takes)
        assert found.label == ("" if family == "mae" else predictor.predict(PICTURE).label)
    assert undefined_ones == UNDEFINED.get(family, set())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.usefixtures("few_points")
@pytest.mark.parametrize("frozen", [False, True])
def test_a_model_is_left_as_it_was_whatever_its_state(frozen):
    model = small("deit", image_size=SIZE, distilled=True)
    predictor = predictor_of(model)
    wanted = {method: explain(predictor, PICTURE, method).grid for method in METHODS}
    model.requires_grad_(not frozen)
    model.train()
    model.blocks[1].eval()
    modes = [m.training for m in model.modules()]
    for method, grid in wanted.items():
        np.testing.assert_array_equal(explain(predictor, PICTURE, method).grid, grid)
    attention_maps(predictor, PICTURE)
    assert [m.training for m in model.modules()] == modes
    assert all(p.requires_grad is not frozen and p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(m.recorder is None for m in model.modules() if isinstance(m, AttentionLayer))


@pytest.mark.usefixtures("few_points")
def test_gradients_are_float32_even_of_a_model_in_half_precision():
    model = small("vit", image_size=SIZE).bfloat16()
    exact = copy.deepcopy(model).float()
    for method in METHODS:
        found = explain(predictor_of(model), PICTURE, method)
        np.testing.assert_array_equal(found.grid, explain(predictor_of(exact), PICTURE, method).grid)
    assert all(p.dtype == torch.bfloat16 for p in model.parameters())


@pytest.mark.usefixtures("few_points")
@pytest.mark.parametrize("family", ["vit", "cait", "swin", "resnet"])
def test_a_map_is_about_the_class_that_was_asked_for(family):
    model = small(family, image_size=WIDE)
    predictor = predictor_of(model, WIDE)
    best = predictor.predict(PICTURE).label
    for method in METHODS:
        if undefined(model, method):
            continue
        one, other, named = (explain(predictor, PICTURE, method, target=t) for t in (0, 3, "kind 3"))
        default = explain(predictor, PICTURE, method)
        same = np.array_equal(one.grid, other.grid)
        np.testing.assert_array_equal(other.grid, named.grid)
        assert {one.label, other.label, default.label} == {best}
        if "target" in METHODS[method].takes:
            assert not same, method
            assert (one.target, other.target, default.target) == ("kind 0", "kind 3", best)
            assert "kind 3" in other.method
        else:
            assert same


def test_a_model_without_classes_is_shown_what_it_does_have():
    for family, instead in (
        ("dino", "attention, rollout, similarity or pca"),
        ("swin", "attention, similarity or pca"),
        ("resnet", "similarity or pca"),
    ):
        assert undefined(small(family, num_classes=0), "relevance").endswith(f"or choose {instead}")


def test_classes_with_commas_are_told_apart():
    predictor = predictor_of(small("vit", image_size=SIZE, num_classes=2), labels=["tench, Tinca tinca", "goldfish"])
    with pytest.raises(VitralError, match=r"choose one of 'tench, Tinca tinca', 'goldfish'$"):
        explain(predictor, PICTURE, "relevance", target="tench")


@pytest.mark.parametrize(
    ("method", "options", "says"),
    [
        ("relevance", {"target": "elephant"}, "no such class; choose one of 'kind 0', 'kind 1'"),
        ("relevance", {"target": 4}, "4 classes, numbered 0 to 3"),
        ("relevance", {"target": -1}, "4 classes, numbered 0 to 3"),
        ("relevance", {"layer": 0}, "all layers and heads"),
        ("grad_cam", {"head": 0}, "grad_cam takes no head"),
        ("occlusion", {"query": (0, 0)}, "occlusion takes no query"),
        ("logit_lens", {"layer": 2}, "2 blocks, numbered 0 to 1"),
        ("pca", {"layer": "mean"}, "give its number"),
        ("similarity", {"query": "cls"}, "to a patch by its row and column"),
        ("similarity", {"query": (0, 9)}, "choose a row in"),
        ("rollout", {"query": (9, 0)}, "choose a row in"),
        ("tea leaves", {}, "choose one of attention, rollout"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_words(method, options, says):
    with pytest.raises(VitralError, match=says):
        explain(predictor_of(small("vit", image_size=SIZE)), PICTURE, method, **options)


def test_a_token_before_the_patches_is_asked_by_its_number():
    predictor = predictor_of(small("deit", image_size=SIZE, distilled=True))
    raw = attention_maps(predictor, PICTURE)
    for method in ("attention", "rollout", "gradient_rollout", "relevance"):
        found = explain(predictor, PICTURE, method, query=1)
        assert "the distillation token" in found.method
        assert found.asking is None
        with pytest.raises(VitralError, match="query 2: no such token, those before the patches are numbered 0 to 1"):
            explain(predictor, PICTURE, method, query=2)
    np.testing.assert_allclose(explain(predictor, PICTURE, query=1).grid.ravel(), raw.layers[-1].mean(0)[1, 2:])
    rolled = explain(predictor, PICTURE, "rollout", query=0).grid
    np.testing.assert_array_equal(rolled, explain(predictor, PICTURE, "rollout", query="cls").grid)
    with pytest.raises(VitralError, match="similarity is to the whole image"):
        explain(predictor, PICTURE, "similarity", query=1)
    cait = predictor_of(small("cait", image_size=SIZE))
    np.testing.assert_array_equal(
        explain(cait, PICTURE, "rollout", query=0).grid, explain(cait, PICTURE, "rollout", query="cls").grid
    )
    with pytest.raises(VitralError, match="there are only patches"):
        explain(cait, PICTURE, layer=0, query=0)


def test_the_command_takes_a_number_or_a_patch_as_its_query(tmp_path, capsys):
    predictor, picture = predictor_of(small("deit", image_size=SIZE, distilled=True)), tmp_path / "a.png"
    save_model(tmp_path / "model.safetensors", predictor.model, predictor.card)
    Image.fromarray(PICTURE).save(picture)
    words = ["explain", str(tmp_path / "model.safetensors"), str(picture), "-o", str(tmp_path / "map.png"), "--query"]
    for query, says in ((["1"], "the distillation token"), (["1", "2"], "the patch in row 1 and column 2")):
        with pytest.raises(SystemExit) as stop:
            main([*words, *query])
        assert stop.value.code == 0
        assert says in capsys.readouterr().err


EARLY = [(family, options) for family, options in CASES if family != "mae"]


@pytest.mark.parametrize(("family", "options"), EARLY, ids=[f"{f}-{'-'.join(o)}" for f, o in EARLY])
def test_answers_read_early_end_with_the_answer(family, options):
    model = small(family, image_size=WIDE, **options)
    seen = capture(model, torch.randn(1, 3, *WIDE, generator=torch.Generator().manual_seed(0)))
    answers = early_answers(model, seen)
    blocks = len(seen.features) - 1 + len(seen.class_tokens)
    first = {"cait": blocks - len(seen.class_tokens)}.get(family, max(0, seen.last_stage - 1))
    assert [block for block, _ in answers] == list(range(first, blocks))
    torch.testing.assert_close(answers[-1][1], seen.logits[0], rtol=1e-5, atol=1e-5)
    if len(answers) > 1:
        assert not torch.allclose(answers[0][1], answers[-1][1], atol=1e-3)


def test_an_early_answer_is_that_of_the_model_without_its_later_blocks():
    model = small("vit", image_size=WIDE, depth=3)
    images = torch.randn(1, 3, *WIDE, generator=torch.Generator().manual_seed(0))
    early = early_answers(model, capture(model, images))
    for depth, (_, logits) in enumerate(early, start=1):
        shorter = copy.deepcopy(model)
        shorter.blocks = shorter.blocks[:depth]
        torch.testing.assert_close(logits, shorter(images)[0].detach(), rtol=1e-5, atol=1e-6)


def test_layers_of_different_kinds_have_no_mean():
    for family in ("swin", "cait"):
        predictor = predictor_of(small(family, image_size=WIDE), WIDE)
        with pytest.raises(VitralError, match="choose one layer, 0 to 3"):
            explain(predictor, PICTURE, layer="mean")
        with pytest.raises(VitralError, match="choose one layer"):
            attention_maps(predictor, PICTURE).heads()
        assert explain(predictor, PICTURE, layer=0, head=1).grid.shape == ((10, 14) if family == "swin" else (5, 7))
    with pytest.raises(VitralError, match="choose one from 2 on"):
        explain(predictor_of(small("swin", image_size=WIDE), WIDE), PICTURE, "logit_lens", layer=1)


def test_a_tokenizer_has_nothing_to_explain():
    model = build(model_config("tokenizer", image_size=32, patch_size=8, dim=24, depth=2))
    assert isinstance(model, Tokenizer)
    assert "nothing to explain" in undefined(model, "pca")


def test_patches_that_reach_beyond_the_picture_stay_where_they_are():
    """A picture of 12 x 12 in patches of 8: the second row and column show a half of their patch."""
    predictor = predictor_of(small("vit", image_size=(12, 12)), (12, 12))
    found = explain(predictor, np.zeros((12, 12, 3), np.uint8))
    assert found.grid.shape == (2, 2)
    assert found.extent == (16 / 12, 16 / 12)
    only = np.array([[1.0, 0.0], [0.0, 0.0]])
    whole = type(found)(found.image, only, "", "", 0.0, extent=found.extent).map
    assert whole[7, 0] > 0.5 > whole[8, 0]


def test_evidence_against_a_class_is_not_drawn_as_weak_evidence_for_it():
    predictor = predictor_of(small("vit", image_size=SIZE))
    found = explain(predictor, np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8), "occlusion")
    assert found.grid.min() < 0 < found.grid.max()
    row, column = np.unravel_index(found.grid.argmin(), found.grid.shape)
    assert found.map[8 * row + 4, 8 * column + 4] < 0.5
    flat = type(found)(found.image, -np.ones((2, 2)), "", "", 0.0, floor=0.0)
    assert not flat.map.any()


COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]])


def coloured_squares(count, seed, cells, side):
    """Noise with one square in a place of cells x cells, whose colour is the class, 3 for none: pixels, classes, places.

    Noise as bright as the mean colour, for occlusion covers with that; and pictures without a square, for else a class could be known by
    the other colours' absence, which is in no place.
    """
    rng = np.random.default_rng(seed)
    pixels = rng.integers(64, 192, (count, cells * side, cells * side, 3)).astype(np.uint8)
    classes, places = rng.integers(0, 4, count), rng.integers(0, cells, (count, 2))
    for image, k, (row, column) in zip(pixels, classes, places, strict=True):
        if k < 3:
            image[side * row : side * row + side, side * column : side * column + side] = COLOURS[k]
    return pixels, classes, places


def taught(model, steps, batch, cells, side):
    """A predictor whose model learned in a few seconds to name the colour of the square."""
    predictor = predictor_of(model, (cells * side, cells * side))
    pixels, classes, _ = coloured_squares(steps * batch, 0, cells, side)
    inputs = predictor.card.preprocess.normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    optimiser = torch.optim.AdamW(model.train().parameters(), lr=4e-3)
    for x, y in zip(inputs.split(batch), torch.from_numpy(classes).split(batch), strict=True):
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()
    return predictor


@pytest.mark.parametrize(
    ("family", "options", "lesson", "methods"),
    [
        (
            "vit",
            {"patch_size": 8, "dim": 32, "depth": 2, "num_heads": 4, "pooling": "mean"},
            {"steps": 80, "batch": 32, "cells": 4, "side": 8},
            ("relevance", "rollout", "legrad", "occlusion", "integrated_gradients"),
        ),
        (
            "resnet",
            {"depths": (1, 1, 1, 1), "width": 8},
            {"steps": 40, "batch": 16, "cells": 3, "side": 32},
            ("grad_cam", "occlusion"),
        ),
    ],
)
def test_where_only_one_place_matters_the_map_points_there(family, options, lesson, methods):
    torch.manual_seed(0)
    cells, side = lesson["cells"], lesson["side"]
    predictor = taught(
        build(model_config(family, image_size=cells * side, num_classes=4, **options)),
        **lesson,
    )
    hits = {method: [] for method in methods}
    for image, k, place in zip(*coloured_squares(12, 1, cells, side), strict=True):
        for method in methods if k < 3 else ():
            found = explain(predictor, image, method)
            assert found.label == f"kind {k}", "the model learned what it was taught"
            at = np.unravel_index(found.grid.argmax(), found.grid.shape)
            there = [int((i + 0.5) * cells / n) for i, n in zip(at, found.grid.shape, strict=True)]
            hits[method].append(there == list(place))
    assert all(np.mean(found) >= 0.85 for found in hits.values()), hits


def test_integrated_gradients_say_when_they_are_rough(monkeypatch):
    predictor = predictor_of(small("vit", image_size=SIZE))
    assert "rough" not in explain(predictor, PICTURE, "integrated_gradients").method
    monkeypatch.setattr(gradients, "FEWEST", 1)
    monkeypatch.setattr(gradients, "MOST", 1)
    assert "rough: the sum is off by" in explain(predictor, PICTURE, "integrated_gradients").method


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["vit", "cait", "swin", "pvt", "resnet"])
def test_maps_are_the_same_on_an_accelerator(family):
    model = small(family, image_size=WIDE)
    on_cpu = {m: explain(predictor_of(model, WIDE), PICTURE, m) for m in METHODS if undefined(model, m) is None}
    predictor = predictor_of(model.cuda(), WIDE)
    for method, wanted in on_cpu.items():
        found = explain(predictor, PICTURE, method, target=wanted.target or None)
        np.testing.assert_allclose(found.grid, wanted.grid, atol=1e-2 * np.abs(wanted.grid).max())


def test_the_command_draws_every_method_and_several_side_by_side(tmp_path, capsys):
    model = small("vit", image_size=SIZE)
    save_model(tmp_path / "m.safetensors", model, predictor_of(model).card)
    Image.fromarray(PICTURE).save(tmp_path / "p.png")
    base = ["explain", str(tmp_path / "m.safetensors"), str(tmp_path / "p.png")]

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main([*base, *map(str, words)])
        return ended.value.code, capsys.readouterr().err

    assert get_args(MethodName) == tuple(METHODS)
    for method in METHODS:
        code, err = run("--method", method, "-o", tmp_path / f"{method}.png", "--npz", tmp_path / f"{method}.npz")
        assert code in (0, None), err
        with Image.open(tmp_path / f"{method}.png") as drawn:
            assert drawn.width / drawn.height == pytest.approx(100 / 60)
        with np.load(tmp_path / f"{method}.npz") as stored:
            assert ("attention" if method in ("attention", "rollout") else method) in stored
    code, err = run("--method", "relevance", "--target", "kind 2", "-o", tmp_path / "t.png")
    assert "relevance to kind 2" in err
    code, err = run("--compare", "rollout", "relevance", "pca", "--target", "1", "-o", tmp_path / "row.png")
    assert code in (0, None), err
    assert "relevance to kind 1" in err
    with Image.open(tmp_path / "row.png") as drawn:
        assert drawn.width > 4 * 240
    for words, says in (
        (["--target", "kind 2"], "leave it out"),
        (["--compare", "rollout", "pca", "--head", "0"], "leave it out"),
        (["--compare", "rollout", "pca", "--method", "relevance"], "give one of them"),
        (["--all", "--compare", "rollout", "pca"], "leave out"),
        (["--method", "relevance", "--target", "dog"], "no such class"),
        (["--method", "relevance", "--npz", tmp_path / "x.txt"], ".npz"),
    ):
        code, err = run("-o", tmp_path / "y.png", *words)
        assert code == 2, words
        assert says in err


def test_the_command_says_that_a_map_has_no_contrast_and_draws_none(tmp_path, capsys):
    model = reads_evenly(small("vit", image_size=SIZE))
    save_model(tmp_path / "m.safetensors", model, predictor_of(model).card)
    Image.new("RGB", (100, 60), (90, 90, 90)).save(tmp_path / "p.png")
    base = ["explain", str(tmp_path / "m.safetensors"), str(tmp_path / "p.png")]
    for name, words in (
        ("one", ["--method", "attention"]),
        ("row", ["--compare", "rollout", "attention"]),
        ("all", ["--all"]),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*base, *words, "-o", str(tmp_path / f"{name}.png")])
        err = capsys.readouterr().err
        assert ended.value.code in (0, None), err
        assert ("with uniform attention" if name == "all" else "equal everywhere: 0.0") in err
        with Image.open(tmp_path / f"{name}.png") as drawn:
            pixels = np.asarray(drawn)
        if name == "one":
            assert (pixels == pixels[0, 0]).all(), "nothing stands out of a plain picture"
        elif name == "row":
            warm = np.abs(pixels.astype(int) - pixels[..., :1]).max(-1) > 40
            assert not warm.any(), "no panel has a colour"


def test_methods_have_titles_for_people(tmp_path):
    said = {method.title: method.said for method in METHODS.values()}
    assert said["Grad-CAM"] == "Grad-CAM"
    assert said["PCA"] == "PCA"
    assert said["Integrated gradients"] == "integrated gradients"
    assert not [title for title in said if "_" in title or not title[0].isupper()]
    model = small("resnet", image_size=SIZE)
    assert in_titles(undefined(model, "attention")).endswith(
        "choose Grad-CAM, integrated gradients, occlusion, similarity or pca"
    )


def test_a_row_shows_the_picture_and_each_map_under_its_name():
    predictor = predictor_of(small("vit", image_size=SIZE))
    maps = {method: explain(predictor, PICTURE, method) for method in ("rollout", "pca", "relevance")}
    drawn = row_figure(maps, "a title")
    one = row_figure({"rollout": maps["rollout"]}, "a title")
    assert drawn.height == one.height
    assert drawn.width - one.width == (one.width - 48 + 12)
