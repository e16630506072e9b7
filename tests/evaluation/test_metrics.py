"""Every figure against scikit-learn, and the cases that scikit-learn warns about."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from vitral.errors import VitralError
from vitral.evaluation import metrics
from vitral.evaluation.calibration import expected_calibration_error, reliability
from vitral.evaluation.metrics import score, wilson


@st.composite
def answers(draw):
    """Logits without ties and targets; classes may be absent from either side."""
    classes = draw(st.integers(2, 9))
    images = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = rng.normal(size=(images, classes)) * draw(st.sampled_from([0.1, 1.0, 30.0]))
    targets = rng.integers(0, draw(st.integers(1, classes)), size=images)
    return logits.astype(np.float32), targets


def names(classes):
    return [f"class {k}" for k in range(classes)]


@settings(max_examples=60, deadline=None)
@given(answers())
def test_agrees_with_scikit_learn(case):
    logits, targets = case
    classes = logits.shape[1]
    everyone = list(range(classes))
    got = score(logits, targets, names(classes))
    predicted = logits.argmax(axis=1)
    probabilities = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)

    assert got.images == len(targets)
    assert got.top1 == pytest.approx(oracle.accuracy_score(targets, predicted))
    np.testing.assert_array_equal(got.confusion, oracle.confusion_matrix(targets, predicted, labels=everyone))
    if probabilities.min() > 1e-12:  # scikit-learn clips smaller ones
        assert got.loss == pytest.approx(oracle.log_loss(targets, probabilities, labels=everyone), rel=1e-5)
    precision, recall, f1, support = oracle.precision_recall_fscore_support(
        targets, predicted, labels=everyone, zero_division=np.nan
    )
    for row, p, r, f, s in zip(got.classes, precision, recall, f1, support, strict=True):
        assert row.support == s
        for ours, theirs in [(row.precision, p), (row.recall, r), (row.f1, f)]:
            assert (ours is None) == math.isnan(theirs)
            assert ours is None or ours == pytest.approx(theirs)
    seen = sorted(set(targets))
    assert got.macro_f1 == pytest.approx(oracle.f1_score(targets, predicted, labels=seen, average="macro"))
    assert got.macro_recall == got.balanced_accuracy
    assert got.balanced_accuracy == pytest.approx(oracle.recall_score(targets, predicted, labels=seen, average="macro"))
    assert got.macro_precision == pytest.approx(
        oracle.precision_score(targets, predicted, labels=seen, average="macro", zero_division=0)
    )
    if classes > 5:
        expected = oracle.top_k_accuracy_score(targets, logits, k=5, labels=everyone)
        assert got.top5 == pytest.approx(expected)
    else:
        assert got.top5 is None


@settings(max_examples=40, deadline=None)
@given(answers())
def test_json_is_plain_and_finite(case):
    logits, targets = case
    got = score(logits, targets, names(logits.shape[1]))
    again = json.loads(json.dumps(got.to_json(), allow_nan=False))
    assert again["top1"] == got.top1
    assert again["confusion"] == got.confusion.tolist()
    promised = "top1 top5 top1_interval loss ece macro_f1 balanced_accuracy images classes confusion"
    assert set(promised.split()) <= set(again)
    assert sum(b["images"] for b in again["reliability"]) == again["images"]
    assert [row["label"] for row in again["classes"]] == got.labels


def test_rows_in_chunks_give_the_same_answer(monkeypatch):
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(103, 7)), rng.integers(0, 7, 103)
    whole = score(logits, targets, names(7))
    monkeypatch.setattr(metrics, "ROWS_AT_ONCE", 10)
    assert score(logits, targets, names(7)).to_json() == whole.to_json()


def test_undefined_ratios_are_none_and_take_no_part_in_the_averages():
    logits = np.array([[5.0, 0, 0, 0], [5, 0, 0, 0], [0, 5, 0, 0]])
    got = score(logits, [0, 1, 1], ["a", "b", "never seen", "either"])
    a, b, unseen, _ = got.classes
    assert (a.precision, a.recall, b.precision, b.recall) == (0.5, 1.0, 1.0, 0.5)
    assert (unseen.precision, unseen.recall, unseen.recall_interval, unseen.f1) == (None, None, None, None)
    assert got.balanced_accuracy == 0.75
    assert got.macro_f1 == pytest.approx(2 / 3)


def test_a_class_without_images_takes_no_part_in_any_average():
    """A wrong answer lowers the classes that have images; the class that was named for it is not scored."""
    got = score(np.array([[5.0, 0, 0], [0, 5, 0], [0, 0, 5]]), [0, 1, 1], ["a", "b", "c"])
    assert got.classes[2].f1 == 0.0
    assert got.macro_f1 == pytest.approx((1 + 2 / 3) / 2)
    assert got.macro_precision == 1.0
    assert "averages are over 2 of 3 classes: no images of c" in got.summary()


def test_a_class_with_images_that_is_never_predicted_counts_with_zero():
    got = score(np.array([[1.0, 0], [1, 0]]), [0, 1], ["a", "b"])
    assert got.classes[1].precision is None
    assert got.classes[1].f1 == 0.0
    assert got.macro_precision == 0.25
    assert "undefined" not in got.summary()
    assert "never predicted, so with precision and F1 of 0 in the averages: b" in got.summary()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_logits_are_an_error_that_names_the_image(bad):
    logits = np.zeros((4, 3), np.float32)
    logits[2, 1] = bad
    with pytest.raises(VitralError, match=r"image 2 .*learning rate"):
        score(logits, [0, 1, 2, 0], names(3))


def test_no_images_is_an_error():
    with pytest.raises(VitralError, match="no images"):
        score(np.zeros((0, 3)), np.zeros(0, int), names(3))


def test_huge_logits_do_not_overflow():
    limit = float(np.finfo(np.float32).max)
    got = score(np.array([[limit, -limit]], np.float32), [0], names(2))
    assert (got.loss, got.top1) == (0.0, 1.0)


def test_ties_count_for_the_lower_index_in_top1_and_top5():
    got = score(np.zeros((7, 7)), np.arange(7), names(7))
    assert got.top1 == pytest.approx(1 / 7)
    assert got.top5 == pytest.approx(5 / 7)


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (15, 148, 0.0624, 0.1605)],
)
def test_wilson_against_published_values(hits, trials, low, high):
    """81/263 and 15/148: Newcombe 1998, table I, method 3."""
    assert wilson(hits, trials) == pytest.approx((low, high), abs=6e-5)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share(pair):
    hits, trials = pair
    low, high = wilson(hits, trials)
    assert 0 <= low <= hits / trials <= high <= 1
    assert low < high


def test_calibration_by_hand():
    confidence = np.array([0.61, 0.65, 0.95, 0.99, 1.0])
    correct = np.array([True, False, True, True, False])
    bins = reliability(confidence, correct, bins=10)
    assert [b.images for b in bins] == [0] * 6 + [2, 0, 0, 3]
    assert bins[0].accuracy is None
    assert bins[6].confidence == pytest.approx(0.63)
    assert expected_calibration_error(bins) == pytest.approx(2 / 5 * 0.13 + 3 / 5 * abs(2 / 3 - 0.98))


def test_a_bin_holds_its_upper_edge_and_not_its_lower():
    bins = reliability(np.array([0.2, 0.4, 1.0]), np.array([True, True, True]), bins=5)
    assert [b.images for b in bins] == [1, 1, 0, 0, 1]


def test_perfectly_calibrated_has_no_error():
    logits = np.log(np.array([[0.75, 0.25]] * 4))
    assert score(logits, [0, 0, 0, 1], names(2)).ece == pytest.approx(0, abs=1e-12)


def test_summary_names_the_weakest_classes():
    confused = np.eye(5)[[0, 1, 2, 3, 0]] * 9
    text = score(confused, [0, 1, 2, 3, 4], list("abcde")).summary()
    assert text.startswith("top-1 80.00% (95 % interval ")
    assert "weakest classes by F1: e 0.00%, a 66.67%" in text
