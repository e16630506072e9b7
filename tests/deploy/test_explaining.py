"""What the explanation, mask and compare modes are told is what `vitral.explain` says, and is computed once."""

import asyncio
import base64
import json
import threading

import numpy as np
import pytest
from viewing import png, session_of

from asking import reads_evenly
from families import small
from processes import PATIENCE
from squares import GRID, LABELS, learned, picture
from vitral.deploy.viewer import explaining
from vitral.deploy.viewer.explaining import Asked, compare, counterfactual, explanation, mask, score
from vitral.deploy.viewer.images import Images
from vitral.deploy.viewer.session import Session
from vitral.errors import VitralError
from vitral.explain.counterfactual import counterfactual as fewest
from vitral.explain.explain import explain
from vitral.explain.faithfulness import scored
from vitral.explain.methods import METHODS, undefined
from vitral.explain.removal import Removable
from vitral.explain.versus import agreement, gain, truer

PLACE = (1, 2)


def values_of(packed):
    """A packed map as the page unpacks it."""
    flat = np.frombuffer(base64.b64decode(packed["data"]), np.uint8) / 255
    return (packed["low"] + flat * (packed["high"] - packed["low"])).reshape(packed["grid"])


@pytest.fixture(scope="module")
def squares():
    """(a session around the model that finds squares, the id of a picture with a green one at PLACE, the picture's pixels)."""
    pixels = picture(1, PLACE, 5)
    images = Images()
    stored = images.add(png(pixels.permute(1, 2, 0).numpy()), "green.png")
    return Session([learned()], ["squares"], images), stored.id, pixels


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_packed_as_it_is_found(squares, method):
    session, image, pixels = squares
    target = 2 if "target" in METHODS[method].takes else None
    told = json.loads(json.dumps(explanation(session, Asked(0, image, method, target))))
    found = explain(learned(), pixels, method, target=target)
    assert (told["words"], told["map"]["even"]) == (found.method, "")
    assert told["floor"] == found.floor
    assert told["target"] == (None if target is None else {"index": 2, "label": "blue"})
    assert told["map"]["grid"] == list(GRID)
    assert told["map"]["extent"] == list(found.extent)
    span = told["map"]["high"] - told["map"]["low"]
    np.testing.assert_allclose(values_of(told["map"]), found.grid, atol=span / 500 + 1e-6)
    assert told["layers"] == (["block 0", "block 1"] if "layer" in METHODS[method].takes else None)
    if method == "pca":
        colours = np.frombuffer(base64.b64decode(told["colours"]), np.uint8).reshape(*GRID, 3)
        np.testing.assert_allclose(colours / 255, found.colours, atol=1 / 400)
    else:
        assert told["colours"] is None


def test_a_map_without_contrast_is_told():
    session = session_of(reads_evenly(small("vit", image_size=(40, 56))))
    told = explanation(session, Asked(0, session.given[0], "attention"))
    assert told["map"]["even"].startswith("equal everywhere: 0.0")
    assert told["words"].endswith(f"; {told['map']['even']}")
    sides = [Asked.side(session.given[0], f"0:{method}", None) for method in ("attention", "occlusion")]
    assert compare(session, *sides)["agreement"] is None


def test_a_layer_and_a_query_are_passed_on(squares):
    session, image, pixels = squares
    told = explanation(session, Asked(0, image, "attention", layer=0, query="2,3"))
    found = explain(learned(), pixels, "attention", layer=0, query=(2, 3))
    np.testing.assert_allclose(values_of(told["map"]), found.grid, atol=1e-3)
    assert "row 2 and column 3" in told["words"]
    with pytest.raises(VitralError, match="layer 7"):
        explanation(session, Asked(0, image, "attention", layer=7, query="2,3"))
    with pytest.raises(VitralError, match="choose own, cls"):
        explanation(session, Asked(0, image, "attention", query="everybody"))


def test_a_patch_of_the_finest_grid_is_found_in_a_pyramids_last_layer():
    session = session_of(small("swin", image_size=32))
    image = session.given[0]
    finest = session.look(0, image).grid
    told = explanation(session, Asked(0, image, "attention", query=f"{finest[0] - 1},0"))
    last = told["map"]["grid"]
    assert last[0] < finest[0], "the pyramid merges patches"
    assert f"row {last[0] - 1} and column 0" in told["words"]
    assert told["layers"] == [layer.name for layer in session.look(0, image).layers]
    assert explanation(session, Asked(0, image, "pca"))["layers"] == told["layers"], "a block has one attention layer"


def test_a_score_is_that_of_the_library(squares):
    session, image, pixels = squares
    for removal in ("mean", "blur"):
        told = json.loads(json.dumps(score(session, Asked(0, image, "occlusion", 1), removal)))
        found = scored(learned(), pixels, explain(learned(), pixels, "occlusion", target=1), removal=removal)
        assert (told["target"], told["removal"], told["verdict"]) == ("green", removal, found.verdict())
        assert told["gain"] == pytest.approx(gain(found))
        np.testing.assert_allclose(told["shares"], found.map.shares)
        for name, curves in (("map", found.map), ("centre", found.centre)):
            assert told[name]["deletion"] == pytest.approx(curves.deletion)
            np.testing.assert_allclose(told[name]["inserted"], curves.inserted, atol=1e-6)
        assert told["random"]["insertion"] == pytest.approx([found.random_insertion, found.spread[1]], abs=1e-6)
        mean, low, high = np.array(told["random"]["deleted"])
        every = np.stack([curves.deleted for curves in found.random])
        np.testing.assert_allclose(mean, every.mean(0), atol=1e-6)
        np.testing.assert_allclose([low, high], [every.min(0), every.max(0)], atol=1e-6)
    with pytest.raises(VitralError, match="no order"):
        score(session, Asked(0, image, "pca"))


def test_what_knows_nothing_is_measured_once_for_all_methods(squares, monkeypatch):
    _, _, pixels = squares
    session = Session([learned()], ["squares"], Images())
    image = session.images.add(png(pixels.permute(1, 2, 0).numpy()), "green.png").id
    asked = []
    whole = Removable.probabilities
    monkeypatch.setattr(Removable, "probabilities", lambda self, kept: asked.append(len(kept)) or whole(self, kept))
    score(session, Asked(0, image, "occlusion"))
    first, asked[:] = sum(asked), []
    score(session, Asked(0, image, "relevance"))
    assert 0 < 7 * sum(asked) == first, "one map of seven"
    asked.clear()
    score(session, Asked(0, image, "relevance"))
    assert not asked


def test_a_masked_answer_is_that_of_the_masked_picture(squares):
    session, image, pixels = squares
    gone = PLACE[0] * GRID[1] + PLACE[1]
    told = json.loads(json.dumps(mask(session, 0, image, [gone])))
    subject = Removable(learned(), pixels)
    kept = np.ones((2, subject.count), bool)
    kept[1, gone] = False
    before, after = subject.probabilities(kept)
    order = np.argsort(-before).tolist()
    assert [one["index"] for one in told["before"]] == [one["index"] for one in told["after"]] == order
    assert [one["label"] for one in told["before"]] == [LABELS[k] for k in order]
    np.testing.assert_allclose([one["p"] for one in told["before"]], before[order], atol=1e-6)
    np.testing.assert_allclose([one["p"] for one in told["after"]], after[order], atol=1e-6)
    assert told["before"][0]["label"] == "green"
    assert told["answer"]["label"] == "nothing"
    assert mask(session, 0, image, [])["after"] == told["before"]


def test_a_mask_after_the_first_is_one_pass(squares, monkeypatch):
    session, image, _ = squares
    mask(session, 0, image, [0])
    passes = []
    whole = Removable.probabilities
    monkeypatch.setattr(Removable, "probabilities", lambda self, kept: passes.append(len(kept)) or whole(self, kept))
    monkeypatch.setattr(explaining, "_pixels", lambda *_: pytest.fail("the picture is not decoded again"))
    mask(session, 0, image, [0, 1])
    assert passes == [1]


def test_who_leaves_a_score_is_computed_for_no_further_and_finds_what_was_done(squares):
    _, _, pixels = squares
    passes, left = [], threading.Event()

    def watched(*_):
        passes.append(1)
        if len(passes) == 5:
            left.wait(PATIENCE)

    async def until_five():
        while len(passes) < 5:
            await asyncio.sleep(0.002)

    async def asks(session, asked):
        with pytest.raises(ConnectionAbortedError):
            await session.worker.answer(lambda: score(session, asked), until_five())
        left.set()
        return session.worker.run(lambda: len(passes))

    sessions = [Session([learned()], ["squares"], Images()) for _ in range(2)]
    images = [each.images.add(png(pixels.permute(1, 2, 0).numpy()), "green.png").id for each in sessions]
    hook = learned().model.register_forward_pre_hook(watched)
    try:
        assert asyncio.run(asks(sessions[0], Asked(0, images[0], "occlusion"))) == 5
        again = score(sessions[0], Asked(0, images[0], "occlusion"))
        spent = len(passes)
        assert score(sessions[1], Asked(0, images[1], "occlusion"))["verdict"] == again["verdict"]
        assert len(passes) == 2 * spent, "nothing was computed twice"
    finally:
        hook.remove()
        for each in sessions:
            each.close()


@pytest.mark.parametrize(
    ("removed", "removal", "says"),
    [
        ([24], "mean", "removed 24: the picture has 4 x 6 patches"),
        ([-1], "mean", "removed -1"),
        ([0], "paint", "removal 'paint'"),
    ],
)
def test_a_mask_that_is_none_is_refused(squares, removed, removal, says):
    session, image, _ = squares
    with pytest.raises(VitralError, match=says):
        mask(session, 0, image, removed, removal)


def test_classes_that_rise_are_shown_too():
    session = session_of(small("vit", image_size=(40, 56), num_classes=12))
    told = mask(session, 0, session.given[0], list(range(20)))
    p = {one["index"]: one["p"] for one in told["after"]}
    predictor = session.models[0]
    subject = Removable(predictor, predictor.decode(session.images.get(session.given[0]).data))
    before, after = subject.probabilities(np.stack([np.ones(35, bool), np.arange(35) >= 20]))
    assert set(p) == {*np.argsort(-before)[:5].tolist(), *np.argsort(-after)[:5].tolist()}
    assert len(p) > 5
    assert told["answer"]["index"] == int(after.argmax())


@pytest.mark.parametrize("method", [None, "occlusion"])
def test_a_counterfactual_is_numbered_as_masks_are(squares, method):
    session, image, pixels = squares
    told = json.loads(json.dumps(counterfactual(session, 0, image, method)))
    found = fewest(learned(), pixels, None if method is None else explain(learned(), pixels, method))
    assert told["patches"] == [row * GRID[1] + column for row, column in found.patches] == [8]
    assert told["steps"] == [row * GRID[1] + column for row, column in found.steps]
    assert (told["label"], told["instead"], told["proven"]) == ("green", "nothing", True)
    assert told["words"] == str(found).splitlines()[0]
    assert mask(session, 0, image, told["patches"])["answer"]["p"] > 0.5


def test_two_methods_are_compared(squares):
    session, image, pixels = squares
    left, right = Asked.side(image, "0:occlusion", None), Asked.side(image, "0:logit_lens", None)
    told = compare(session, left, right)
    maps = [explain(learned(), pixels, method) for method in ("occlusion", "logit_lens")]
    assert told["agreement"] == pytest.approx(agreement(*maps))
    tests = [scored(learned(), pixels, found) for found in maps]
    assert told["verdict"] == truer(*tests, ("occlusion", "logit lens"))
    turned = compare(session, right, left)
    assert (turned["agreement"], turned["verdict"]) == (pytest.approx(told["agreement"]), told["verdict"])


def test_two_models_are_compared_by_their_names():
    session = session_of(small("vit", image_size=(40, 56)), small("resnet", image_size=64))
    image = session.given[0]
    told = compare(
        session, Asked.side(image, "0:integrated_gradients", 1), Asked.side(image, "1:integrated_gradients", 1)
    )
    assert "integrated gradients of model 0" in told["verdict"]
    assert "integrated gradients of model 1" in told["verdict"]
    assert -1 <= told["agreement"] <= 1


@pytest.mark.parametrize("text", ["relevance", "x:relevance", "-1:relevance", ":relevance"])
def test_a_side_that_names_no_model_is_refused(text):
    with pytest.raises(VitralError, match="as in 0:relevance"):
        Asked.side("a", text, None)


def test_models_and_pictures_that_are_not_there_are_refused(squares):
    session, image, _ = squares
    with pytest.raises(VitralError, match="model 3"):
        explanation(session, Asked(3, image, "occlusion"))
    with pytest.raises(VitralError, match="drop it again"):
        explanation(session, Asked(0, "0" * 16, "occlusion"))


def test_what_a_model_has_no_map_of_is_said_in_its_words():
    model = small("resnet", image_size=64)
    session = session_of(model)
    with pytest.raises(VitralError) as refused:
        explanation(session, Asked(0, session.given[0], "rollout"))
    assert str(refused.value) == undefined(model, "rollout")


def test_a_model_without_labels_has_maps_but_no_answer_to_test():
    session = session_of(small("vit", image_size=(40, 56), num_classes=0))
    image = session.given[0]
    assert explanation(session, Asked(0, image, "similarity"))["target"] is None
    for ask in (lambda: score(session, Asked(0, image, "similarity")), lambda: mask(session, 0, image, [0])):
        with pytest.raises(VitralError, match="trained without labels"):
            ask()


def test_large_pictures_are_not_kept_again():
    session = session_of()
    stored = session.images.add(png(np.full((1500, 2100, 3), 90, np.uint8)), "large.png")
    explanation(session, Asked(0, stored.id, "occlusion"))
    kept = session.results.get(("explanation", Asked(0, stored.id, "occlusion")))
    assert kept.image.shape == (1500, 2100, 3)
    assert kept.image.base is not None
    assert kept.image.strides == (0, 0, 0), "the size, without the memory"
