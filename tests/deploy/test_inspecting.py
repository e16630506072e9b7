"""What the inspect mode is told: each family's own, and the numbers against a direct computation."""

import base64
import json

import numpy as np
import pytest
import torch
from viewing import session_of

from families import small
from vitral.deploy.viewer.inspecting import SHOWN, inspection
from vitral.explain.capture import capture
from vitral.explain.inspection.inspect import ALL_POSITIONS
from vitral.explain.inspection.measures import CUT_LEAST
from vitral.explain.inspection.weights import positions

FAMILIES = ["vit", "deit", "hybrid", "cait", "beit", "mae", "dino", "swin", "swinv2", "pvt", "pvt_v2", "resnet"]
PARTS = {"positions": "positions", "offset_biases": "biases", "attention": "attention", "layers": "norms"}


def found_of(model):
    session = session_of(model)
    return inspection(session, 0, session.given[0])


def unpacked(data, low, high):
    return low + np.frombuffer(base64.b64decode(data), np.uint8) / 255 * (high - low)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_shows_what_it_has_and_says_why_it_has_no_more(family):
    found = found_of(small(family))
    assert json.loads(json.dumps(found, allow_nan=False)) == json.loads(json.dumps(found))
    for name in SHOWN:
        assert (found[PARTS[name]] is None) == (name in found["missing"])
    assert all(len(why) > 10 for why in found["missing"].values())
    for one in found["norms"]:
        h, w = one["map"]["grid"]
        assert len(base64.b64decode(one["map"]["data"])) == h * w
        assert all(side >= 1 for side in one["map"]["extent"])
    for one in found["positions"] or []:
        h, w = one["grid"]
        assert len(base64.b64decode(one["data"])) == len(one["rows"]) * len(one["columns"]) * h * w
    for picture in (found["filters"], *(found["biases"] or [])):
        assert picture["picture"].startswith("data:image/png;base64,")


def test_positions_are_the_cosines_of_every_place_with_every_other():
    model = small("vit", image_size=(32, 24), patch_size=4)
    one = found_of(model)["positions"][0]
    h, w = one["grid"]
    assert (h, w) == (8, 6)
    assert one["rows"] == list(range(8))
    assert one["columns"] == list(range(6))
    direct = torch.nn.functional.normalize(model.pos_embed[0, 1:].double(), dim=-1)
    cosines = (direct @ direct.T).detach().numpy()
    shown = unpacked(one["data"], one["low"], one["high"]).reshape(h * w, h * w)
    assert np.abs(shown - cosines).max() <= (one["high"] - one["low"]) / 255 / 2 + 1e-12


def test_of_a_large_grid_some_places_are_asked_about():
    side = ALL_POSITIONS + 8
    model = small("vit", image_size=side * 2, patch_size=2, dim=8)
    found = positions(model, ALL_POSITIONS)[0]
    assert len(found.rows) == len(found.columns) == 8
    assert found.similarity.shape == (8, 8, side, side)


@pytest.mark.parametrize("family", ["vit", "swin", "pvt", "resnet"])
def test_norms_are_those_of_what_the_blocks_give(family):
    model = small(family, image_size=(36, 44))  # the last patches reach over the edge
    session = session_of(model)
    predictor = session.models[0]
    image = session.images.get(session.given[0]).data
    found = inspection(session, 0, session.given[0])
    seen = capture(model, predictor.preprocess(image)[None]).features
    assert len(found["norms"]) == len(seen)
    for one, features in zip(found["norms"], seen, strict=True):
        direct = features.patches().norm(dim=-1).numpy()
        span = one["map"]["high"] - one["map"]["low"]
        assert one["map"]["grid"] == list(features.grid)
        assert one["map"]["extent"] == [
            side * features.stride / whole for side, whole in zip(features.grid, (36, 44), strict=True)
        ]
        assert (
            np.abs(
                unpacked(one["map"]["data"], one["map"]["low"], one["map"]["high"]).reshape(features.grid) - direct
            ).max()
            <= span / 254 + 1e-5
        )


def test_outlying_patches_are_named_and_few_patches_are_not_judged():
    def with_artefact(side):
        model = small("vit", image_size=side, patch_size=4, dim=8)
        with torch.no_grad():
            for block in model.blocks:
                for last in (block.attn.proj, block.mlp.fc2):
                    last.weight.zero_(), last.bias.zero_()
            model.pos_embed.normal_(0, 0.01)
            model.pos_embed[0, 1 + 6] = model.pos_embed[0, 1 + 9] = model.pos_embed[0, 1 + 17] = 100.0
            model.patch_embed.proj.weight.mul_(0.01)
            model.patch_embed.proj.bias.fill_(1.0)
        return found_of(model)

    many = with_artefact(48)  # 144 patches
    assert [one["outlying"] for one in many["norms"]] == [[6, 9, 17]] * 3
    assert "outlying norm in 3 layers, first in layer 0" in many["words"]["norms"]
    few = with_artefact(32)
    assert [one["outlying"] for one in few["norms"]] == [[]] * 3
    assert f"fewer than {CUT_LEAST} patches" in few["words"]["norms"]


def test_the_model_is_left_as_it_was():
    model = small("swin").train()
    session = session_of(model)
    session.models[0].model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = [(list(module._forward_hooks), list(module._forward_pre_hooks)) for module in model.modules()]
    inspection(session, 0, session.given[0])
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert hooks == [(list(module._forward_hooks), list(module._forward_pre_hooks)) for module in model.modules()]
