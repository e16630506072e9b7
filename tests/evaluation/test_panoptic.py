"""Panoptic quality by hand: matches above a half, void and crowds, things and stuff."""

import numpy as np
import pytest

from vitral.data.annotated import Segment
from vitral.evaluation.panoptic import Counts, mean_quality


def halves(left, right, width=20):
    """A map [10, width] of two segments."""
    ids = np.full((10, width), left, np.int32)
    ids[:, width // 2 :] = right
    return ids


def test_the_truth_scores_one():
    counts = Counts(3)
    segments = [Segment(5, 0), Segment(9, 2)]
    counts.add(halves(5, 9), segments, halves(5, 9), segments)
    assert counts.quality()[[0, 2]].tolist() == [1, 1]
    assert np.isnan(counts.quality()[1])
    assert mean_quality(counts.quality(), range(3)) == 1
    assert mean_quality(counts.quality(), [1]) is None


def test_the_sum_of_overlaps_over_all_segments():
    found = halves(1, 2)
    found[:2, :10] = 2  # segment 1 keeps 80 of 100 pixels, segment 2 has 120
    counts = Counts(2)
    counts.add(found, [Segment(1, 0), Segment(2, 1)], halves(3, 4), [Segment(3, 0), Segment(4, 1)])
    assert counts.quality() == pytest.approx([80 / 100, 100 / 120])
    counts.add(halves(0, 0), [], halves(0, 1), [Segment(1, 1)])  # a missed one
    assert counts.quality()[1] == pytest.approx(100 / 120 / 1.5)


def test_another_class_is_both_missed_and_false():
    counts = Counts(2)
    counts.add(halves(1, 1), [Segment(1, 0)], halves(1, 1), [Segment(1, 1)])
    assert counts.false.tolist() == [1, 0]
    assert counts.missed.tolist() == [0, 1]
    assert counts.quality().tolist() == [0, 0]


def test_void_and_crowds_excuse_what_is_found_in_them():
    counts = Counts(1)
    counts.add(halves(1, 0), [Segment(1, 0)], halves(0, 0), [])
    counts.add(halves(1, 0), [Segment(1, 0)], halves(2, 0), [Segment(2, 0, crowd=True)])
    assert counts.false.tolist() == counts.missed.tolist() == [0]
    assert np.isnan(counts.quality()[0])


def test_void_pixels_of_what_was_found_are_in_no_union():
    counts = Counts(1)
    counts.add(halves(1, 1), [Segment(1, 0)], halves(7, 0), [Segment(7, 0)])
    assert counts.quality().tolist() == [1]
