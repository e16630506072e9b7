"""What a finished run is worth, in two sentences: for the terminal, the report and the coach."""

import json
import shutil

import pytest

from test_cli import run
from vitral.evaluation.metrics import wilson
from vitral.guidance.coach.worth import weakest, what_is_right, worth


def scored(right=25, images=44, split="test", **beside):
    names = {"commonest": "the commonest answer to all", "linear": "a linear classifier on pixels"}
    told = [{"name": names[name], "right": share, "told": how} for name, (share, how) in beside.items()]
    return {"images": images, "split": split, "top1": right / images, "beside": told}


def found(**hits):
    return [
        {"label": label, "support": n, "recall": k / n if n else None, "recall_interval": wilson(k, n) if n else None}
        for label, (k, n) in hits.items()
    ]


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (
            scored(commonest=(0.3, "better"), linear=(0.45, "unclear")),
            "It is right for 57% of 44 test images (95 % interval 42% to 70%): better than the commonest answer to all (13 of 44); more than a "
            "linear classifier on pixels (45%), but so few images cannot show that it is better.",
        ),
        (
            scored(9, 10, "val", commonest=(0.3, "better"), linear=(0.4, "better")),
            "It is right for 9 of 10 validation images (95 % interval 60% to 98%): better than the commonest answer to all (3 of 10) and a linear "
            "classifier on pixels (4 of 10).",
        ),
        (
            scored(2, 44, linear=(0.5, "worse")),
            "It is right for 2 of 44 test images (95 % interval 1% to 15%): worse than a linear classifier on pixels (50%).",
        ),
        (
            {"images": 200, "split": "test", "exact_match": 0.5,
             "beside": [{"name": "the commonest answer to all", "right": 0.5, "told": "no better"}]},
            "It gets all labels right for 50% of 200 test images (95 % interval 43% to 57%): no better than the commonest answer to all (50%).",
        ),
    ],
)  # fmt: skip
def test_the_first_sentence_claims_what_so_many_images_show(scores, said):
    assert what_is_right(scores) == said


@pytest.mark.parametrize(
    ("hits", "said"),
    [
        ({"cat": (90, 100), "dog": (10, 100)}, "It cannot do dog (10 of 100 found)."),
        ({"cat": (95, 100), "dog": (70, 100)}, "Its weakest class is dog (70 of 100 found)."),
        (
            {"cat": (7, 8), "dog": (3, 4), "cow": (0, 0)},
            "Its lowest class is dog (3 of 4 found), on too few images to be sure.",
        ),
    ],
)
def test_a_class_is_called_weak_where_its_images_show_it(hits, said):
    assert weakest(found(**hits)) == said


def test_terminal_report_and_coach_say_the_same(capsys, shapes_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(shapes_run, folder)
    (folder / "report.html").unlink()
    known = worth(folder)
    assert known is not None
    assert run(capsys, "report", folder)[0] == 0
    page = (folder / "report.html").read_text()
    assert "Can I use it?" in page
    assert known.right in page
    said = json.loads(run(capsys, "coach", folder, "--json")[1])["worth"]
    assert said == {"right": known.right, "helps": known.helps, "command": known.command}
    assert known.right in run(capsys, "coach", folder)[2]


def test_of_a_run_that_was_scored_before_there_was_anything_beside_it_nothing_is_said(shapes_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(shapes_run, folder)
    scores = json.loads((folder / "scores.json").read_text())
    del scores["beside"]
    (folder / "scores.json").write_text(json.dumps(scores))
    assert worth(folder) is None
    (folder / "scores.json").unlink()
    assert worth(folder) is None
