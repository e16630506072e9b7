"""A look: what is read of it is what `explain` reads, in every family, for every query, packed or not."""

import base64

import numpy as np
import pytest
import torch
from viewing import encoded

from asking import predictor_of, reads_evenly
from families import small
from vitral.deploy.viewer import attention
from vitral.deploy.viewer.attention import RowBytes
from vitral.deploy.viewer.images import Images
from vitral.deploy.viewer.looks import look_at, parse_query
from vitral.drawing.colours import normalise
from vitral.errors import VitralError
from vitral.explain.capture import capture

SIZE = (40, 56)
FAMILIES = {
    "vit": {},
    "registers": {"num_registers": 2},
    "bare": {"class_token": False, "pooling": "mean", "num_registers": 1},
    "deit": {"distilled": True},
    "hybrid": {"image_size": (48, 64)},
    "cait": {},
    "beit": {},
    "dino": {"num_classes": 0},
    "mae": {},
    "swin": {},
    "swinv2": {},
    "pvt": {"image_size": (72, 104)},
    "pvt_v2": {"image_size": (72, 104)},
    "resnet": {},
}


def predictor(name, **overrides):
    family = {"registers": "vit", "bare": "vit"}.get(name, name)
    return predictor_of(small(family, **{"image_size": SIZE} | FAMILIES[name] | overrides))


def picture(height=40, width=56):
    return Images().add(encoded(height, width), "one.png")


def maps_of(layer, described):
    """[H + 1, h, w] of one layer's answer."""
    raw = np.frombuffer(base64.b64decode(layer["data"]), np.uint8).reshape(-1, *described["grid"])
    return raw / 255 * np.array(layer["tops"])[:, None, None]


def test_heads_that_read_all_alike_are_told(monkeypatch):
    """The page draws them without contrast and has these words; it does not decide."""
    look = look_at(predictor_of(reads_evenly(small("vit", image_size=SIZE))), picture())
    h, w = look.grid
    for query in ("own", "mean", "1,2"):
        for layer in look.attention(query)["layers"]:
            assert layer["even"] == [f"equal everywhere: {100 / (h * w + 1):.4g} %"] * len(layer["tops"])
    for layer in look_at(predictor("vit"), picture()).attention("own")["layers"]:
        maps = np.frombuffer(base64.b64decode(layer["data"]), np.uint8).reshape(-1, h, w)
        assert [bool(words) for words in layer["even"]] == [int(one.min()) > 250 for one in maps]


@pytest.mark.parametrize("large", [False, True], ids=["as it is", "bytes"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_query_reads_what_the_attention_says(name, large, monkeypatch):
    if large:
        monkeypatch.setattr(attention, "LARGE", 0)
    asked, stored = predictor(name), picture()
    look = look_at(asked, stored)
    truth = capture(asked.model.backbone, asked.preprocess(stored.data)[None])
    described = look.describe()
    assert len(look.layers) == len(truth.layers) == len(described["layers"])
    assert (look.why is None) == bool(look.layers)
    h, w = look.grid
    queries = ["own", "cls", "mean", *(token["key"] for token in described["prefix"]), "0,0", f"{h - 1},{w - 1}", "1,2"]
    read = 0
    for query in queries:
        answer = look.attention(query)
        for number, (layer, true, told) in enumerate(
            zip(answer["layers"], truth.layers, described["layers"], strict=True)
        ):
            assert tuple(told["grid"]) == true.geometry.grid
            assert told["heads"] == true.attention.shape[1]
            patch = parse_query(query)
            if isinstance(patch, tuple):
                patch = look.patch_in(patch, number)
            if "why" in layer:
                with pytest.raises(VitralError) as refused:
                    true.geometry.read(true.array(), patch)
                assert layer == {"why": str(refused.value)}
                continue
            wanted = true.geometry.read(true.array(), patch)
            wanted = np.concatenate([wanted, wanted.mean(0, keepdims=True)])
            tops = wanted.max((1, 2), keepdims=True)
            assert (abs(maps_of(layer, told) - wanted) <= tops / 255 + 1e-7).all()
            assert np.shape(layer["prefix"]) == (told["heads"] + 1, true.geometry.num_prefix)
            if told["kind"] in ("tokens", "class"):
                whole = maps_of(layer, told).sum((1, 2)) + np.sum(layer["prefix"], axis=1)
                np.testing.assert_allclose(whole, 1, atol=0.15)
            read += 1
    assert read or not look.layers


def test_bytes_are_true_to_half_a_step_of_a_maps_own_largest_value():
    """Also where nearly all goes to the token before the patches."""
    rng = np.random.default_rng(0)
    attention = rng.dirichlet([500, *np.full(49, 0.05)], (3, 4)).astype(np.float32)  # [H, Q, K]
    kept = RowBytes.of(attention, 1)
    assert kept.nbytes < attention.nbytes / 2.5
    wanted = attention[:, 2]
    np.testing.assert_array_equal(kept[:, 2][:, :1], wanted[:, :1])
    off = abs(kept[:, 2] - wanted)[:, 1:]
    assert (off <= wanted[:, 1:].max(-1, keepdims=True) / 509).all()
    assert off.any()


def test_a_mean_over_patches_is_exact_where_rows_are_bytes(monkeypatch):
    """Summed, the rounding of many rows would drown a flat map."""
    monkeypatch.setattr(attention, "LARGE", 0)
    asked, stored = predictor("bare"), picture()
    (layer, _), truth = look_at(asked, stored).layers, capture(asked.model, asked.preprocess(stored.data)[None])
    maps, _ = layer.read("mean")
    np.testing.assert_allclose(maps[:-1], truth.layers[0].geometry.read(truth.layers[0].array(), "mean"), atol=1e-7)


def test_a_pyramid_is_asked_by_its_finest_patches():
    look = look_at(predictor("pvt"), picture(72, 104))
    assert look.grid == (18, 26)
    assert [layer.geometry.grid for layer in look.layers] == [(18, 26), (9, 13), (5, 7), (3, 4)]
    assert [look.patch_in((17, 25), i) for i in range(4)] == [(17, 25), (8, 12), (4, 6), (2, 3)]
    assert look.patch_in((5, 9), None) == (0, 1)
    kinds = [layer["kind"] for layer in look.describe()["layers"]]
    assert kinds == ["reduced", "reduced", "reduced", "tokens"]
    assert [layer["stage"] for layer in look.describe()["layers"]] == [0, 1, 2, 3]


def test_windows_have_borders_where_attention_ends():
    look = look_at(predictor("swin", image_size=(64, 64)), picture(64, 64))
    first, shifted = look.describe()["layers"][:2]
    assert first["borders"] == {"rows": [4, 8, 12], "columns": [4, 8, 12]}
    assert shifted["borders"] == {"rows": [2, 6, 10, 14], "columns": [2, 6, 10, 14]}
    maps = maps_of(look.attention("5,6")["layers"][0], first)[-1]
    assert maps[4:8, 4:8].any()
    maps[4:8, 4:8] = 0
    assert not maps.any()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_answer_forms_and_ends_as_the_model_answers(name):
    asked, stored = predictor(name), picture()
    look = look_at(asked, stored)
    if not asked.labels:
        assert look.answer["top"] == []
        assert "no labels" in look.lens["why"]
        return
    truth = asked.predict(stored.data, 4)
    assert [(c["label"], pytest.approx(c["p"], abs=1e-5)) for c in look.answer["top"]] == truth.top
    assert all(asked.labels[c["index"]] == c["label"] for c in look.answer["top"])
    last = look.lens["layers"][-1]
    assert last["answer"] == pytest.approx(truth.probability, abs=1e-5)
    assert last["top"][0]["label"] == truth.label
    if look.layers:
        assert last["after"] == len(look.layers) - 1
    assert (look.lens["note"] is not None) == (name in ("swin", "swinv2", "pvt", "pvt_v2", "resnet", "cait"))


def test_tokens_before_the_patches_are_named():
    def named(name):
        return [(t["key"], t["name"]) for t in look_at(predictor(name), picture()).describe()["prefix"]]

    assert named("registers") == [("cls", "class token"), ("t1", "register 1"), ("t2", "register 2")]
    assert named("deit") == [("cls", "class token"), ("t1", "distillation token")]
    assert named("bare") == [("t0", "register 1")]
    assert named("swin") == []


def test_a_view_that_is_cropped_has_its_box_in_the_picture():
    look = look_at(predictor("vit"), picture(80, 200))
    assert look.box == predictor("vit").card.preprocess.box(80, 200)
    assert look.describe()["extent"] == [1, 1]


def test_what_is_no_query_is_refused():
    look = look_at(predictor("vit"), picture())
    for query, says in (
        ("5,0", "rows"),
        ("0,7", "columns"),
        ("x", "choose own"),
        ("1,", "choose own"),
        ("-1,0", "own"),
    ):
        with pytest.raises(VitralError, match=says):
            look.attention(query)
    assert "numbered 0 to 0" in look.attention("t3")["layers"][0]["why"]


def test_only_one_layer_is_held_in_float32(monkeypatch):
    """What a layer's attention takes is gone when the next one is computed."""
    import weakref

    alive = []
    original = attention.KeptLayer.of.__func__

    def of(cls, layer, name, stage):
        assert not any(reference() is not None for reference in alive)
        alive.append(weakref.ref(layer.attention))
        return original(cls, layer, name, stage)

    monkeypatch.setattr(attention, "LARGE", 0)
    monkeypatch.setattr(attention.KeptLayer, "of", classmethod(of))
    look_at(predictor("vit", depth=4), picture())
    assert len(alive) == 4


def test_a_look_leaves_the_model_as_it_was():
    asked = predictor("vit")
    asked.model.train()
    before = [p.requires_grad for p in asked.model.parameters()]
    look_at(asked, picture())
    assert asked.model.training
    assert [p.requires_grad for p in asked.model.parameters()] == before
    assert torch.is_grad_enabled()


def test_a_map_is_that_of_the_explanation():
    asked, stored = predictor("vit"), picture()
    look = look_at(asked, stored)
    mine = maps_of(look.attention("own")["layers"][-1], look.describe()["layers"][-1])[-1]
    theirs = asked.explain(stored.data, "attention").grid
    np.testing.assert_allclose(normalise(mine), normalise(theirs), atol=0.02)
