"""The commands that say whether maps are true."""

import contextlib
import json

import pytest

from vitral.cli import main
from vitral.errors import VitralError
from vitral.explain.counterfactual import counterfactual
from vitral.predict import load


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
    code, _, err = run(capsys, "explain", shapes_run, picture, "--all", "--score", "-o", out)
    assert code == 2
    assert "leave out --score" in err


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


@pytest.mark.parametrize(("method", "says"), [("pca", "in no order"), ("magic", "magic")])
def test_a_method_without_a_map_is_refused(capsys, shapes_run, shapes_folder, method, says):
    code, out, err = run(capsys, "evaluate", shapes_run, shapes_folder, "--explanations", method)
    assert code == 2
    assert out == ""
    assert says in err
