"""Maps of an object, a segment or a class at a place, for every kind of head."""

import numpy as np
import pytest
import torch
from PIL import Image

from asking import predictor_of
from families import small
from vitral.api import Predictor
from vitral.checkpoints.card import ModelCard
from vitral.cli import main
from vitral.data.preprocess import Preprocess
from vitral.errors import VitralError
from vitral.explain.explain import explain
from vitral.explain.methods import METHODS
from vitral.models.heads.dense import Dense
from vitral.models.heads.options import LinearOptions, QueryOptions, SegformerOptions
from vitral.models.zoo import family_of

LABELS = ["sky", "grass", "cat", "dog"]
SIZE = (40, 56)  # not a multiple of a pyramid's coarsest cells
QUERY = {"query_dim": 24, "query_heads": 2, "queries": 12, "pixel_dim": 8}
FOLLOWED = {"rollout", "gradient_rollout", "relevance"}
NEVER = {"legrad", "logit_lens"}


def asked(family, head, task, **overrides):
    """A predictor of places around a small model, whose answers are all kept."""
    torch.manual_seed(0)
    model = Dense(small(family, **overrides).config, head)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    steps = Preprocess(*SIZE, 3, (0.5,) * 3, (0.5,) * 3, "pad")
    card = ModelCard(family_of(model.config), model.config.arguments(), LABELS, steps, task=task, head=head.to_json())
    vit = Predictor(model.eval(), card)
    if vit.answers.threshold is not None:
        vit.answers.threshold = 0.0
    return vit


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (60, 84, 3), np.uint8)


CASES = [
    ("vit", QueryOptions(decoder_layers=0, **QUERY), "detect", {"object": 3}, set()),
    ("vit", QueryOptions(decoder_layers=2, **QUERY), "instance", {"object": 3}, set()),
    ("vit", QueryOptions(decoder_layers=1, stuff=(0, 1), **QUERY), "panoptic", {}, set()),
    ("vit", LinearOptions(), "semantic", {"at": (30.5, 20.0)}, set()),
    ("dino", QueryOptions(decoder_layers=1, **QUERY), "detect", {}, set()),
    ("swin", QueryOptions(decoder_layers=1, **QUERY), "detect", {"object": 1}, FOLLOWED),
    ("pvt_v2", SegformerOptions(head_dim=16), "semantic", {"at": (3, 50)}, FOLLOWED),
    ("resnet", QueryOptions(decoder_layers=0, **QUERY), "detect", {}, FOLLOWED | {"attention"}),
]


@pytest.mark.parametrize(("family", "head", "task", "what", "none"), CASES)
def test_every_method_gives_a_map_or_says_why_not(picture, family, head, task, what, none):
    vit = asked(family, head, task)
    before = vit.predict(picture)
    for method in METHODS:
        if method in none | NEVER:
            with pytest.raises(VitralError, match="choose"):
                vit.explain(picture, method, **what)
            continue
        found = vit.explain(picture, method, **what)
        assert found.map.shape == (60, 84)
        assert np.isfinite(found.grid).all()
        assert found.grid.std() > 0, method
        assert found.label in LABELS
        assert 0 <= found.probability <= 1
        assert found.place is not None
        x0, y0, x1, y1 = found.place
        assert 0 <= x0 < x1 <= 84
        assert 0 <= y0 < y1 <= 60
    assert vit.predict(picture).to_json() == before.to_json()


def test_an_object_is_the_one_of_the_answer(picture):
    vit = asked("vit", QueryOptions(decoder_layers=1, **QUERY), "detect")
    objects = vit.predict(picture).objects
    for number in (0, 5):
        found = vit.explain(picture, "attention", object=number)
        assert (found.label, found.place) == (objects[number].label, pytest.approx(objects[number].box))
        assert found.probability == pytest.approx(objects[number].score, abs=1e-6)
    x0, y0, x1, y1 = objects[0].box
    assert vit.explain(picture, "pca", at=((x0 + x1) / 2, (y0 + y1) / 2)).place == pytest.approx(objects[0].box)


def test_a_querys_attention_is_what_it_read(picture):
    vit = asked("vit", QueryOptions(decoder_layers=2, **QUERY), "detect")
    model, batch = vit.model, vit.preprocess(picture)[None]
    read = []
    for layer in model.head.decoder.layers:
        layer.cross.recorder = read.append
    with torch.inference_mode():
        found = model(batch)
    for layer in model.head.decoder.layers:
        layer.cross.recorder = None
    row = int(found.logits[0].flatten().argmax()) // 4
    expected = [each[0, :, row].numpy().reshape(2, 5, 7) for each in read]  # [H, h, w]
    assert np.allclose(vit.explain(picture).grid, expected[1].mean(0), atol=1e-6)
    assert np.allclose(vit.explain(picture, layer=0, head=1).grid, expected[0][1], atol=1e-6)
    assert np.allclose(vit.explain(picture, layer="mean").grid, np.mean(expected, (0, 1)), atol=1e-6)
    assert "decoder layer 1" in vit.explain(picture).words
    for options, said in (({"layer": 2}, "2 decoder layers"), ({"head": 2}, "2 heads")):
        with pytest.raises(VitralError, match=said):
            vit.explain(picture, **options)


@pytest.mark.parametrize("layers", [0, 2])
def test_the_same_query_is_asked_in_a_changed_image(picture, layers):
    """So the pixels' parts add up to the rise of its logit from an image without any, where another query would be chosen."""
    vit = asked("vit", QueryOptions(decoder_layers=layers, **QUERY), "detect")
    found = vit.explain(picture, "integrated_gradients", object=2)
    assert "rough" not in found.words
    model, batch = vit.model, vit.preprocess(picture)[None]
    seen = []
    handle = model.head.dense.register_forward_hook(lambda *given: seen.append(model.head.best(given[2])))
    with torch.inference_mode():
        outputs = model(batch)
        row = vit.answers.rows(outputs, vit.placed(vit.read(picture)))[2]
        handle.remove()
        model.head.chosen = seen[0]
        empty = model(torch.zeros_like(batch))
        model.head.chosen = None
    rise = outputs.logits[0, row.row, row.index] - empty.logits[0, row.row, row.index]
    assert found.grid.sum() == pytest.approx(float(rise), rel=0.02, abs=1e-3)


def test_relevance_of_a_place_of_the_dense_stage_is_that_of_its_patch(picture):
    """Without what it kept of itself: that would outshine all else."""
    vit = asked("vit", QueryOptions(decoder_layers=0, **QUERY), "detect", depth=1)
    own = vit.explain(picture, "attention", object=0)
    rolled = vit.explain(picture, "rollout", object=0)
    assert np.corrcoef(own.grid.ravel(), rolled.grid.ravel())[0, 1] > 0.999  # one layer: rollout is its attention
    assert (vit.explain(picture, "relevance", object=0).grid >= 0).all()


def test_a_class_of_a_map_wherever_it_was_answered(picture):
    vit = asked("vit", LinearOptions(head_upscale=2), "semantic")
    answer = vit.predict(picture)
    commonest = answer.shares[0][0]
    assert vit.explain(picture, "relevance").label == commonest
    for label, _ in answer.shares:
        found = vit.explain(picture, "grad_cam", target=label)
        assert found.label == label
        assert found.place is None
    absent = next((label for label in LABELS if label not in dict(answer.shares)), None)
    if absent is not None:
        with pytest.raises(VitralError, match="nowhere in the answer"):
            vit.explain(picture, "grad_cam", target=absent)
    at = vit.explain(picture, "occlusion", at=(50, 30), target="cat")
    assert at.label == "cat"
    x0, y0, x1, y1 = at.place
    assert x0 <= 50 <= x1
    assert y0 <= 30 <= y1


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"object": 5000}, "numbered from 0"),
        ({"object": -1}, "numbered from 0"),
        ({"at": (84, 3)}, "84 pixels wide and 60 high"),
        ({"object": 0, "target": "bird"}, "no such class"),
        ({"object": 0, "layer": 1, "method": "occlusion"}, "takes no layer"),
    ],
)
def test_what_there_is_not_is_refused(picture, what, said):
    vit = asked("vit", QueryOptions(decoder_layers=1, **QUERY), "detect")
    with pytest.raises(VitralError, match=said):
        vit.explain(picture, **what)


def test_nothing_found_and_no_places_are_said(picture):
    vit = asked("vit", QueryOptions(decoder_layers=1, **QUERY), "detect")
    vit.answers.threshold = 1.0
    with pytest.raises(VitralError, match="nothing is found from a score of 100%"):
        vit.explain(picture)
    with pytest.raises(VitralError, match="says one thing of an image"):
        explain(predictor_of(small("vit")), picture, object=0)
    with pytest.raises(VitralError, match="answers a class for each pixel"):
        asked("vit", LinearOptions(), "semantic").explain(picture, object=0)


def own(family, labels):
    model = small(family, num_classes=3)
    vit = predictor_of(model, (32, 48), task="instance" if family == "eomt" else "detect", labels=labels)
    vit.answers.threshold = 0.0
    return vit


def test_a_detection_token_shows_what_it_read(picture):
    vit = own("yolos", "abc")
    with torch.inference_mode():
        _, attention = vit.model.forward_with_attention(vit.preprocess(picture)[None])
        row = vit.answers.rows(vit.outputs(vit.preprocess(picture)[None]), vit.placed(vit.read(picture)))[0].row
    expected = attention[-1][0, :, 1 + row, 4:].mean(0).numpy().reshape(4, 6)
    assert np.allclose(vit.explain(picture, object=0).grid, expected, atol=1e-6)
    for method in ("relevance", "grad_cam", "occlusion", "integrated_gradients", "similarity"):
        assert vit.explain(picture, method, object=0).grid.shape == (4, 6)


def test_queries_that_join_the_last_blocks_can_be_asked_by_their_pixels(picture):
    vit = own("eomt", "abc")
    listed = vit.answers.rows(vit.outputs(vit.preprocess(picture)[None]), vit.placed(vit.read(picture)))
    assert listed, "an object with a mask"
    for method in ("grad_cam", "occlusion", "integrated_gradients", "similarity", "pca"):
        assert vit.explain(picture, method, object=0).grid.shape == (4, 6)
    for method in ("attention", "relevance"):
        with pytest.raises(VitralError, match="join its last blocks"):
            vit.explain(picture, method, object=0)


def test_on_the_command_line(picture, tmp_path, capsys, monkeypatch):
    Image.fromarray(picture).save(tmp_path / "a.png")
    vit = asked("vit", QueryOptions(decoder_layers=1, **QUERY), "detect")
    vit.answers.threshold = 0.4
    monkeypatch.setattr("vitral.predict.load", lambda path: vit)

    def run(*words, status=0):
        with pytest.raises(SystemExit) as stop:
            main(["explain", "model", str(tmp_path / "a.png"), "-o", str(tmp_path / "out.png"), *words])
        assert stop.value.code == status
        return capsys.readouterr().err

    assert "relevance to" in run(
        "--threshold", "0", "--object", "2", "--method", "relevance", "--npz", str(tmp_path / "m.npz")
    )
    assert np.load(tmp_path / "m.npz")["relevance"].shape == (5, 7)
    assert "attention of object" in run("--threshold", "0", "--compare", "attention", "occlusion")
    assert "answers places" in run("--score", status=2)
    assert "a score lies in 0 to 1" in run("--threshold", "2", status=2)
    monkeypatch.setattr("vitral.predict.load", lambda path: predictor_of(small("vit")))
    assert "says one thing of an image" in run("--object", "2", status=2)
