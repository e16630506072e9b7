"""Every figure of several labels an image against scikit-learn, and the cases that scikit-learn warns about."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from vitral.errors import VitralError
from vitral.evaluation.multilabel import average_precision, score_labels, sigmoid


@st.composite
def answers(draw):
    """Logits, with ties or without, and targets; labels may occur in no image or in all."""
    images, labels = draw(st.integers(1, 40)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = rng.normal(size=(images, labels)) * draw(st.sampled_from([0.1, 1.0, 30.0]))
    if draw(st.booleans()):
        logits = logits.round()
    return logits.astype(np.float32), (rng.random((images, labels)) < rng.random(labels)).astype(np.float32)


def names(labels):
    return [str(k) for k in range(labels)]


@settings(max_examples=60, deadline=None)
@given(answers())
def test_scikit_learn_agrees(case):
    logits, targets = case
    got = score_labels(logits, targets, names(targets.shape[1]))
    said, there = logits >= 0, targets.any(axis=0)
    for k, row in enumerate(got.classes):
        assert (row.support, row.predicted) == (targets[:, k].sum(), said[:, k].sum())
        assert (row.average_precision is None) == (not there[k])
        if there[k]:
            assert row.average_precision == pytest.approx(oracle.average_precision_score(targets[:, k], logits[:, k]))
            assert row.recall == pytest.approx(oracle.recall_score(targets[:, k], said[:, k]))
        if said[:, k].any():
            assert row.precision == pytest.approx(oracle.precision_score(targets[:, k], said[:, k]))
    assert got.exact_match == pytest.approx(oracle.accuracy_score(targets, said))
    if there.any():
        seen = np.flatnonzero(there)
        assert got.map == pytest.approx(
            oracle.average_precision_score(targets[:, seen], logits[:, seen], average="macro")
        )
        # One label alone is to scikit-learn a question of two classes, so F1 is asked for label by label.
        f1 = [oracle.f1_score(targets[:, k], said[:, k], zero_division=0) for k in seen]
        assert got.macro_f1 == pytest.approx(np.mean(f1))
        assert got.micro_f1 == pytest.approx(oracle.f1_score(targets.ravel(), said.ravel(), zero_division=0))
    else:
        assert (got.map, got.macro_f1) == (None, None)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    np.testing.assert_allclose(sigmoid(logits), p, rtol=1e-12)
    if np.abs(logits).max() < 20:
        losses = -(targets * np.log(p) + (1 - targets) * np.log1p(-p)).sum(axis=1)
        assert got.loss == pytest.approx(losses.mean())


@settings(max_examples=30, deadline=None)
@given(answers())
def test_json_is_plain_and_finite(case):
    logits, targets = case
    got = score_labels(logits, targets, names(targets.shape[1]))
    again = json.loads(json.dumps(got.to_json(), allow_nan=False))
    promised = "map micro_f1 macro_f1 exact_match exact_match_interval loss ece images classes"
    assert set(promised.split()) <= set(again)
    assert again["map"] == got.map == got.headline
    assert sum(b["images"] for b in again["reliability"]) == targets.size
    assert [row["label"] for row in again["classes"]] == got.labels
    assert got.exact_match_interval[0] <= got.exact_match <= got.exact_match_interval[1]


@given(answers())
def test_average_precision_depends_on_the_order_alone(case):
    logits, targets = case
    truth, scores = targets[:, 0] > 0.5, logits[:, 0].astype(np.float64)
    value = average_precision(scores, truth)
    assert value == average_precision(scores * 8 - 3, truth)
    shuffled = np.random.default_rng(0).permutation(len(scores))
    assert value == average_precision(scores[shuffled], truth[shuffled])
    if truth.any():
        assert average_precision(truth.astype(float), truth) == 1
        assert average_precision(np.zeros(len(truth)), truth) == pytest.approx(truth.mean())  # one threshold


def test_by_hand():
    logits = np.array([[3.0, -1], [2, 1], [1, -2], [-1, -3]])
    targets = np.array([[1, 0], [0, 1], [1, 0], [0, 0]])
    got = score_labels(logits, targets, ["a", "b"])
    a, b = got.classes
    assert a.average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert b.average_precision == 1
    assert (a.precision, a.recall, a.f1) == (2 / 3, 1.0, 0.8)
    assert got.exact_match == 0.75
    assert got.micro_f1 == pytest.approx(6 / 7)


def test_extreme_logits_have_a_finite_loss():
    got = score_labels(np.array([[3e38, -3e38]]), [[0, 1]], ["a", "b"])
    assert math.isfinite(got.loss)
    assert got.exact_match == 0
    with pytest.raises(VitralError, match="NaN or infinity"):
        score_labels(np.array([[math.nan]]), [[1]], ["a"])
    with pytest.raises(VitralError, match="no images"):
        score_labels(np.zeros((0, 2)), np.zeros((0, 2)), ["a", "b"])


def test_calibration_is_of_the_probability_of_yes():
    logits = np.log(np.array([[3.0, 1 / 3]] * 4))  # 75 % and 25 %
    targets = np.array([[1, 0], [1, 0], [1, 0], [0, 1]])
    assert score_labels(logits, targets, ["a", "b"]).ece == pytest.approx(0, abs=1e-12)
    assert score_labels(logits, 1 - targets, ["a", "b"]).ece == pytest.approx(0.5)


def test_words_for_people():
    rng = np.random.default_rng(0)
    targets = (rng.random((30, 5)) < 0.4).astype(float)
    targets[:, 4] = 0
    got = score_labels(np.where(targets > 0, 1.0, -1.0), targets, ["a", "b", "c", "d", "never"])
    text = got.summary()
    assert text.startswith("mAP 100.00% on 30 images\nF1 micro 100.00%, macro 100.00%; all labels right on 100.00%")
    assert "averages are over 4 of 5 labels: no image has never" in text
    assert "weakest labels by average precision: a 100.00%" in text
    lines = got.table().splitlines()
    assert lines[0].split() == ["label", "images", "AP", "precision", "recall", "F1"]
    assert lines[5].split() == ["never", "0", "undefined", "undefined", "undefined", "undefined"]
    assert got.line().startswith("mAP 100.00%")
    assert "undefined" in score_labels([[1.0]], [[0]], ["a"]).line()
