"""The power law finds what it was made from, says how well, and says so where there is nothing to find."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitral.guidance.sweep.scaling import PowerLaw, fit_power_law

SIZES = np.repeat([300, 600, 1000, 3000, 6000, 20000, 60000], 2).astype(float)
TRIALS = 40


@pytest.mark.parametrize("c", [0.0, 0.05])
def test_an_exact_law_is_found_again(c):
    law = fit_power_law(SIZES, 2 * SIZES**-0.4 + c)
    assert isinstance(law, PowerLaw)
    assert (law.a, law.b, law.c) == pytest.approx((2, 0.4, c), rel=1e-6)
    assert law.intervals is not None
    assert all(high - low < 1e-6 for low, high in law.intervals.values())
    assert law(1000.0) == pytest.approx(2 * 1000**-0.4 + c)


@settings(max_examples=8, deadline=None)
@given(st.floats(0.1, 1.5), st.floats(1e-6, 1e6), st.floats(1e3, 1e15))
def test_a_law_does_not_depend_on_the_unit_of_its_sizes(b, a, unit):
    at_one = fit_power_law(SIZES, a * SIZES**-b)
    scaled = fit_power_law(SIZES * unit, a * SIZES**-b)
    assert isinstance(at_one, PowerLaw)
    assert isinstance(scaled, PowerLaw)
    assert scaled.b == at_one.b == pytest.approx(b, abs=0.0041)  # the exponents that are tried are 0.004 apart
    assert scaled.a == pytest.approx(at_one.a * unit**at_one.b)


@pytest.mark.parametrize(("c", "number"), [(0.0, "b"), (0.05, "b"), (0.05, "c")])
def test_intervals_hold_the_truth_about_as_often_as_they_say(c, number):
    truth, held = {"b": 0.4, "c": c}[number], 0
    for trial in range(TRIALS):
        noise = 1 + 0.03 * np.random.default_rng(trial).standard_normal(len(SIZES))
        law = fit_power_law(SIZES, (2 * SIZES**-0.4 + c) * noise)
        assert isinstance(law, PowerLaw)
        assert law.intervals is not None
        low, high = law.intervals[number]
        held += low <= truth <= high
    assert held >= 0.85 * TRIALS  # of 95 %; fewer than 34 of 40 has a chance of 1 in 700


def test_more_noise_makes_wider_intervals():
    widths = []
    for noise in (0.01, 0.1):
        error = 2 * SIZES**-0.4 * (1 + noise * np.random.default_rng(0).standard_normal(len(SIZES)))
        law = fit_power_law(SIZES, error)
        assert isinstance(law, PowerLaw)
        assert law.intervals is not None
        widths.append(law.intervals["b"][1] - law.intervals["b"][0])
    assert widths[1] > 4 * widths[0] > 0


@pytest.mark.parametrize(
    ("sizes", "errors", "why"),
    [
        ([], [], "0 sizes"),
        ([100], [0.5], "1 size,"),
        ([100, 200], [0.5, 0.4], "2 sizes"),
        ([100, 100, 200, 200], [0.5, 0.6, 0.4, 0.3], "2 sizes"),
        ([100, 200, 400], [0.3, 0.3, 0.3], "does not fall"),
        ([100, 200, 400], [0.3, 0.4, 0.5], "does not fall"),
        ([100, 200, 400], [0.0, 0.0, 0.0], "no mistakes"),
        ([100, 200, 400], [0.3, 0.1, 0.0], "an error of 0"),
    ],
)
def test_where_there_is_no_law_the_reason_is_said(sizes, errors, why):
    told = fit_power_law(sizes, errors)
    assert isinstance(told, str)
    assert why in told


def test_few_points_give_a_law_without_interval_or_floor():
    law = fit_power_law([100, 200, 400], [0.4, 0.2, 0.1])
    assert isinstance(law, PowerLaw)
    assert law.b == pytest.approx(1)
    assert law.intervals is None
    assert "too few points for an interval" in law.note
    assert "without c: fewer than four sizes" in law.note


def test_no_mistakes_count_as_half_of_one():
    law = fit_power_law([100, 200, 400], [0.2, 0.1, 0.0], resolution=0.05)
    assert isinstance(law, PowerLaw)
    assert law.b == pytest.approx(1)
    assert "half a mistake" in law.note


def test_the_same_points_give_the_same_intervals():
    error = 2 * SIZES**-0.4 * (1 + 0.05 * np.random.default_rng(1).standard_normal(len(SIZES)))
    assert fit_power_law(SIZES, error) == fit_power_law(SIZES, error)
