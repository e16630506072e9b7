"""`--merge`: a run answers with tokens merged, says what that loses and wins, and refuses where it cannot be."""

import json

import pytest

from exporting import exported
from vitral.cli import main
from vitral.deploy.fastest.contest import lost_or_won
from vitral.predict import load


def run(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def test_evaluate_says_what_merging_loses_and_wins(capsys, shapes_run, shapes_folder):
    words = "evaluate", shapes_run, shapes_folder, "--split", "all", "--json"
    plain = json.loads(run(capsys, *words)[1])
    code, out, err = run(capsys, *words, "--merge", "8")
    assert code == 0
    merged = json.loads(out)
    cost = merged.pop("merging")
    assert cost["scores"] == [plain["top1"], merged["top1"]]
    assert cost["lost_points"] == pytest.approx(100 * (plain["top1"] - merged["top1"]))
    only_plain, only_merged = cost["only_right"]
    assert (only_plain - only_merged) / cost["images"] == pytest.approx(plain["top1"] - merged["top1"])
    assert cost["images"] == 90
    assert min(*cost["rates"], cost["faster"]) > 0
    assert merged["loss"] != plain["loss"]
    assert f"{merged['top1']:.2%} merging 8: {lost_or_won(cost['lost_points'])};" in err
    assert "images a second in batches of 8" in err
    assert "merging" not in plain


def test_predict_answers_as_the_merged_model_does(capsys, shapes_run, shapes_folder):
    path = shapes_folder / "disc" / "00.png"
    answer = json.loads(run(capsys, "predict", shapes_run, path, "--merge", "6", "--format", "jsonl")[1])
    wanted, plain = (each.predict(path) for each in (load(shapes_run).merging(6), load(shapes_run)))
    assert answer["probability"] == pytest.approx(wanted.probability, abs=1e-6)
    assert abs(wanted.probability - plain.probability) > 1e-5


def test_where_tokens_cannot_be_merged_it_says_why(capsys, shapes_run, shapes_folder):
    image = shapes_folder / "disc" / "00.png"
    file = exported("onnx")[1]
    for words, says in (
        (["predict", file, image, "--merge", "2"], "gives answers and merges no tokens; use the run"),
        (["predict", shapes_run, image, "--merge", "-2"], "--merge -2: give 0 or more"),
        (["evaluate", shapes_run, shapes_folder, "--merge", "-2"], "--merge -2: give 0 or more"),
        (["evaluate", shapes_run, shapes_folder, "--merge", "2", "--explanations", "rollout"], "without merging"),
    ):
        code, _, err = run(capsys, *words)
        assert code == 2
        assert says in err
