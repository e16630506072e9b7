"""The commands that say whether maps are true."""

import contextlib
import json

import pytest
from PIL import Image

from vitral.api import load
from vitral.checkpoints.bundle import save_model
from vitral.checkpoints.card import ModelCard
from vitral.cli import main
from vitral.data.preprocess import Preprocess
from vitral.errors import VitralError
from vitral.explain.counterfactual import counterfactual
from vitral.explain.figure import Explanation


def run(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def test_a_map_is_scored_beside_what_knows_nothing(capsys, shapes_run, shapes_folder, tmp_path):
    picture, out = shapes_folder / "disc" / "00.png", tmp_path / "map.png"
    words = ("explain", shapes_run, picture, "--compare", "rollout", "occlusion", "-o", out)
    code, said, _ = run(capsys, *words, "--score")
    assert code == 0
    assert out.is_file()
    for word in ("rollout: mean probability of", "occlusion: mean probability of", "random (5 orders)", "centre first"):
        assert word in said
    assert run(capsys, *words)[1] == "", "nothing without --score"
    heights = []
    for flags in ((), ("--score",)):
        assert run(capsys, "explain", shapes_run, picture, "--method", "occlusion", *flags, "-o", out)[0] == 0
        with Image.open(out) as drawn:
            heights.append(drawn.height)
    assert heights[1] > heights[0], "what came of the test stands below the picture"
    code, _, err = run(capsys, "explain", shapes_run, picture, "--all", "--score", "-o", out)
    assert code == 2
    assert "leave out --score" in err


def test_the_picture_of_a_scored_map_ends_with_the_verdict(capsys, monkeypatch, shapes_run, shapes_folder, tmp_path):
    captions = []
    monkeypatch.setattr(Explanation, "save", lambda self, path, caption: captions.append(caption))
    words = ("--method", "occlusion", "--score", "-o", tmp_path / "map.png")
    code, said, _ = run(capsys, "explain", shapes_run, shapes_folder / "disc" / "00.png", *words)
    assert code == 0
    (caption,) = captions
    assert caption.endswith(said.splitlines()[-1])
    assert "deletion" not in caption  # which is a column of the table


@pytest.mark.parametrize(
    "flags", [("--method", "rollout"), ("--method", "similarity"), ("--compare", "attention", "rollout")]
)
def test_a_model_without_labels_has_no_answer_to_score(capsys, tmp_path, tiny_vit, shapes_folder, flags):
    model, steps = tiny_vit(image_size=20, num_classes=0), Preprocess(20, 20, 1, (0.3,), (0.3,), min_size=4)
    save_model(tmp_path / "m.safetensors", model, ModelCard("vit", model.config.arguments(), [], steps))
    words = (
        "explain",
        tmp_path / "m.safetensors",
        shapes_folder / "disc" / "00.png",
        *flags,
        "-o",
        tmp_path / "map.png",
    )
    assert run(capsys, *words)[0] == 0
    for test in ("--score", "--counterfactual"):
        code, said, err = run(capsys, *words, test)
        assert (code, said) == (2, "")
        assert "was trained without labels and has no head, so it predicts nothing; fine-tune it" in err


def test_patches_that_change_the_answer_are_named(capsys, shapes_run, shapes_folder, tmp_path):
    predictor, wanted = load(shapes_run), {}
    for picture in sorted(shapes_folder.rglob("0?.png")):
        with contextlib.suppress(VitralError):  # a model so little trained may answer the same without any patch
            wanted[picture] = str(counterfactual(predictor, picture, predictor.explain(picture, "rollout")))
    picture, words = next(iter(wanted.items()))
    options = ("--method", "rollout", "-o", tmp_path / "map.png", "--counterfactual")
    code, said, _ = run(capsys, "explain", shapes_run, picture, *options)
    assert code == 0
    assert said == f"rollout: {words}\n"


def test_the_maps_of_a_data_set_are_scored(capsys, shapes_run, shapes_folder):
    words = ("evaluate", shapes_run, shapes_folder, "--explanations", "rollout", "occlusion", "--images", "3")
    code, said, _ = run(capsys, *words)
    assert code == 0
    assert "maps of 3 images" in said
    table = [line.split("|")[1].strip() for line in said.splitlines() if line.startswith("|")]
    assert table[0] == "method"
    assert table[2:] == ["rollout", "occlusion", "random", "centre"]
    scores = json.loads(run(capsys, *words, "--json")[1])["explanations"]
    assert set(scores) == {"rollout", "occlusion", "random", "centre"}
    assert 0 < scores["rollout"]["deletion"]["mean"] < 1
    assert "explanations" not in json.loads(run(capsys, *words[:3], "--json")[1])


@pytest.mark.parametrize(("method", "says"), [("pca", "no order"), ("magic", "magic")])
def test_a_method_without_a_map_is_refused(capsys, shapes_run, shapes_folder, method, says):
    code, out, err = run(capsys, "evaluate", shapes_run, shapes_folder, "--explanations", method)
    assert code == 2
    assert out == ""
    assert says in err
