"""Sentences from scores, over the whole range of the scores: none claims what its own figures do not show."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from vitral.errors import FEW, portion, ratio
from vitral.evaluation.calibration import error_by_chance, expected_calibration_error, reliability
from vitral.evaluation.metrics import wilson
from vitral.evaluation.words import OF_YES, against, beside_commonest, calibration_words

COUNTS = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.integers(0, n), st.just(n)))


@settings(deadline=None)
@given(COUNTS)
def test_a_share_of_few_is_a_count(counts):
    part, _, whole = counts
    assert ratio(part / whole, whole) == (f"{part} of {whole:,}" if part < FEW else f"{part / whole:.0%}")
    said = portion(part / whole, whole, "image")
    assert ("%" in said) == (part >= FEW)
    assert said.endswith("1 image" if whole == 1 else f"{whole:,} images")


def test_a_share_of_nothing_is_none():
    assert ratio(float("nan"), 0) == ratio(0.0, 0) == "none"
    assert portion(1 / 16, 16, "validation image") == "1 of 16 validation images"


@settings(deadline=None)
@given(COUNTS)
def test_a_score_is_held_against_the_commonest_class_without_false_arithmetic(counts):
    right, commonest, images = counts
    share, chance = right / images, commonest / images
    told, said = against(share, chance, images), beside_commonest(share, chance, images, "test image")
    figures = [float(each.replace(",", "")) for each in re.findall(r"[\d.,]*\d", said.replace("top-1", ""))]
    own = figures[0] if "right of" in said else figures[0] / 100 * images
    assert own == pytest.approx(right, abs=0.0005 * images + 1e-9)
    if told == "better":
        assert wilson(right, images)[0] > chance
    elif told == "worse":
        assert right < commonest
    elif told == "no better":
        assert right <= commonest, "54.8 % is no better than 38.7 % is false"
        assert "no better" in said
    else:
        assert right > commonest
        assert "is more than" in said
        assert said.endswith("so few images cannot show that it is better")
    if min(right, commonest) < FEW:
        assert "%" not in said


@settings(deadline=None)
@given(st.integers(1, 60), st.floats(0, 1, allow_subnormal=False).map(lambda p: round(p, 6)))
def test_the_error_by_chance_is_the_mean_deviation_of_a_binomial(n, p):
    bins = reliability(np.full(n, p), np.zeros(n, bool))
    k = np.arange(n + 1)
    expected = (binom.pmf(k, n, p) * abs(k / n - p)).sum()
    assert error_by_chance(bins) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(st.integers(1, 400), st.floats(0, 1), st.floats(-0.6, 0.6), st.integers(0, 10**6), st.booleans())
def test_what_is_said_of_calibration_is_what_the_bins_show(images, share, off, seed, of_yes):
    """Too sure or not sure enough only outside of the interval of what is right; of both sides only where there are both."""
    rng = np.random.default_rng(seed)
    correct = rng.random(images) < share
    confidence = np.clip(rng.beta(4, 2, images) * 0.5 + share / 2 + off, 1e-3, 1)
    bins = reliability(confidence, correct)
    said = calibration_words(bins, *([OF_YES] if of_yes else []))
    low, high = wilson(int(correct.sum()), images)
    over, under = ("too high", "too low") if of_yes else ("more sure", "less sure")
    assert (over in said) == (confidence.mean() > high)
    assert (under in said) == (confidence.mean() < low)
    error, chance = expected_calibration_error(bins), error_by_chance(bins)
    assert f"{error:.1%}" in said
    assert f"{chance:.1%}" in said
    if "too sure of some" in said:
        gaps = [b.confidence - b.accuracy for b in bins if b.images]
        assert min(gaps) < 0 < max(gaps)
        assert error > 2 * chance
    assert ("chance alone" in said) == (error <= 2 * chance)


def test_thirty_one_images_do_not_show_a_lean_of_half_a_point():
    confidence = np.concatenate([np.full(16, 0.74), np.full(15, 0.331)])
    correct = np.arange(31) % 16 < np.where(np.arange(31) < 16, 9, 8)
    assert confidence.mean() == pytest.approx(0.542, abs=1e-3)
    assert correct.mean() == pytest.approx(0.548, abs=1e-3)
    said = calibration_words(reliability(confidence, correct))
    assert said.startswith("no difference that 31 images can show; over 15 groups the expected calibration error is 1")
    assert "too sure of some answers, and not sure enough of others" in said
    assert "than it" not in said
