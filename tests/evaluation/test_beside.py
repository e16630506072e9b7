"""A model's answers beside those that need no training."""

import numpy as np
import pytest

from vitral.data.preprocess import Preprocess
from vitral.data.sources import open_data
from vitral.evaluation.beside import beside, stands
from vitral.evaluation.metrics import ClassEvaluator
from vitral.evaluation.multilabel import LabelEvaluator


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        (30, 5, "better"),
        (5, 30, "worse"),
        (6, 3, "unclear"),
        (3, 6, "no better"),
        (4, 4, "no better"),
        (0, 0, "no better"),
    ],
)
def test_two_answers_are_compared_by_the_images_that_only_one_gets_right(ours, theirs, told):
    """100 images that both get right show nothing."""
    first = np.repeat([True, True, False], [100, ours, theirs])
    second = np.repeat([True, False, True], [100, ours, theirs])
    assert stands(first, second) == told


def test_digits_beside_the_commonest_answer_and_a_linear_one():
    data = open_data("digits")
    test = data.splits["test"]
    steps = Preprocess(8, 8, 1, (0.3,), (0.4,))

    def answering(outputs):
        found = ClassEvaluator(data.labels)
        found.add(outputs, test.targets.values)
        return beside(data, "test", steps, found)

    right = np.eye(10)[test.targets.values]
    commonest, linear, described = answering(right)
    majority = data.splits["train"].targets.counts(10).argmax()
    assert commonest.right == pytest.approx((test.targets.values == majority).mean())
    assert commonest.told == "better"
    assert 0.85 < linear.right < 0.99
    assert 0.9 < described.right <= 1
    assert [each.told for each in answering(np.roll(right, 1, 1))] == ["worse"] * 3


def test_right_is_a_whole_answer():
    outputs = np.array([[2.0, -1.0], [-1.0, -2.0]])
    assert ClassEvaluator.right(outputs, np.array([0, 1])).tolist() == [True, False]
    assert LabelEvaluator.right(outputs, np.array([[1, 0], [0, 1]])).tolist() == [True, False]
