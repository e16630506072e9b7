"""The page of a model that gives several labels an image."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_page import EVIL, Page, report

from vitral.evaluation.multilabel import score_labels, sigmoid
from vitral.report.examples import Example
from vitral.report.labels import LabelSections
from vitral.report.sections import RIGHT, WRONG, Verdict

PIXELS = np.zeros((4, 4, 3), np.uint8)


def test_labels_are_ordered_from_the_weakest_and_escaped(tmp_path):
    labels = [EVIL, "easy", "never", "hard"]
    logits = np.array([[2.0, 3, -1, 1], [1, -3, -1, 2], [-1, 2, 1, 3], [-2, -1, -1, -3]])
    targets = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    examples = [Example("x.png", Verdict(f"{EVIL}, easy", "no label", 0.93, f"no {EVIL}"), PIXELS, PIXELS)]
    lines = [{"event": "val", "step": i, "epoch": i / 2, "map": i / 10, "loss": 1 / i} for i in (1, 2, 3)]
    evaluation = score_labels(logits, targets, labels)
    _, text = report(tmp_path, task="multilabel", evaluation=evaluation, examples=examples, curves=lines)
    page = Page(text)
    table = text[text.index("<h2>Labels") :]
    assert table.index("hard<") < table.index("easy<") < table.index("never<")
    assert "<script" not in text
    assert "75.0% mAP" in page.text
    assert "4 images of the test split, 4 labels" in page.text
    assert f"furthest from the truth: no {EVIL}, 93.0%" in page.text
    charts = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert [chart.split()[0] for chart in charts] == ["Loss", "mAP", "Reliability"]
    assert "nan" not in page.text.lower().split()
    assert "Averages are over the labels that occur." in page.text


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_chosen_examples_are_the_worst_mistakes_and_right_ones(images, labels, seed):
    rng = np.random.default_rng(seed)
    logits, targets = rng.normal(size=(images, labels)), (rng.random((images, labels)) < 0.5).astype(np.float32)
    chosen = LabelSections().choose(logits, targets)
    right = ((logits >= 0) == (targets > 0.5)).all(axis=1)
    error = np.abs(sigmoid(logits) - targets).max(axis=1)
    mistakes = [i for i in chosen if not right[i]]
    assert chosen == mistakes + [i for i in chosen if right[i]]
    assert len(mistakes) == min(WRONG, (~right).sum())
    assert len(chosen) - len(mistakes) == min(RIGHT, right.sum())
    assert [error[i] for i in mistakes] == sorted(error[~right], reverse=True)[: len(mistakes)]
    for i in chosen:
        verdict = LabelSections().verdict(logits[i], targets[i], [f"l{k}" for k in range(labels)])
        answer, probability = verdict.furthest, verdict.probability
        k = int(answer.removeprefix("no l").removeprefix("l"))
        assert np.abs(sigmoid(logits[i]) - targets[i]).argmax() == k
        assert (answer == f"l{k}") == (logits[i, k] >= 0)
        assert probability >= 0.5
        assert np.isclose(1 - probability if right[i] else probability, error[i])
