"""vitral inspect from the outside."""

import json

import pytest

from test_cli import run


def test_inspect_writes_a_page_and_prints_the_numbers(capsys, shapes_run, shapes_folder, tmp_path):
    page = tmp_path / "inside.html"
    words = ("inspect", shapes_run, shapes_folder, "-o", page, "--json", "--images", "6", "--head-images", "4")
    code, out, err = run(capsys, *words)
    assert code == 0, err
    found = json.loads(out)
    assert (found["images"], found["heads"]["images"], found["split"]) == (6, 4, "test")
    assert len(found["attention"]) == 2
    assert found["page"] == str(page)
    text = page.read_text()
    assert "Inside shapes" in text
    assert f"vitral inspect {shapes_run}" in text
    assert "- no offset biases: VisionTransformer has no relative position bias" in err
    assert run(capsys, *words)[1] == out, "the same each time"
    assert page.read_text() == text


def test_inspect_without_data_shows_the_weights(capsys, shapes_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "inspect", shapes_run)
    assert code == 0, err
    assert not out
    assert "needs images: give DATA" in err
    assert "the page: shapes-inspection.html" in err
    assert (tmp_path / "shapes-inspection.html").stat().st_size > 1000


def test_images_without_labels_are_enough_but_for_the_heads(capsys, shapes_run, shapes_folder, tmp_path):
    code, out, err = run(capsys, "inspect", shapes_run, shapes_folder / "disc", "-o", tmp_path / "p.html", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["missing"]["heads"] == "the images have no labels, so there is no score that could change"
    assert found["images"] == 30
    assert found["attention"] is not None


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--images", "0"], "--images 0: give 1 or more"),
        (["--head-images", "-1"], "--head-images -1: give 0 or more"),
        (["--batch-size", "0"], "--batch-size 0: give 1 or more"),
        (["-o", "page.pdf"], "page.pdf: the page is written as .html"),
    ],
)
def test_what_cannot_be_is_refused(capsys, shapes_run, words, what):
    code, out, err = run(capsys, "inspect", shapes_run, *words)
    assert code == 2
    assert what in err
    assert not out


def test_files_that_are_not_there_are_named(capsys, shapes_run, tmp_path):
    for words in ((tmp_path / "absent",), (shapes_run, tmp_path / "absent")):
        code, _, err = run(capsys, "inspect", *words, "-o", tmp_path / "p.html")
        assert code == 2
        assert "absent" in err
    assert not (tmp_path / "p.html").exists()


def test_help_has_an_example(capsys):
    code, out, _ = run(capsys, "inspect", "--help")
    assert code == 0
    assert "Example: vitral inspect" in out
