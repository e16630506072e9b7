"""Two maps agree as their ranks do, and the truer one is the one whose curves are."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squares import GRID, learned, mask_of, picture
from vitral.errors import VitralError
from vitral.explain.explain import explain
from vitral.explain.faithfulness import Curves, Faithfulness, measure
from vitral.explain.figure import Explanation
from vitral.explain.sanity import spearman
from vitral.explain.versus import agreement, gain, scatter, truer


def of(values, *, box=None, extent=(1.0, 1.0), size=(24, 32)):
    return Explanation(np.zeros((*size, 3), np.uint8), np.asarray(values, float), "", "", 0.0, box, extent=extent)


def test_maps_of_one_grid_agree_as_their_values_do():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 4, 6))
    assert agreement(of(a), of(b)) == spearman(a, b)
    assert agreement(of(a), of(np.exp(a))) == pytest.approx(1)
    assert agreement(of(a), of(-a)) == pytest.approx(-1)
    assert agreement(of(a, size=(24, 32)), of(a, size=(48, 64))) == pytest.approx(1), "read at half the size"


@pytest.mark.parametrize("finer_first", [True, False])
def test_a_finer_map_is_paired_with_what_lies_over_it(finer_first):
    coarse = np.random.default_rng(1).random((3, 4))
    fine = coarse.repeat(2, 0).repeat(2, 1)
    pair = (of(fine), of(coarse)) if finer_first else (of(coarse), of(fine))
    assert agreement(*pair) == pytest.approx(1)


def test_a_crop_is_paired_with_its_place_in_the_picture():
    whole = np.random.default_rng(2).random((6, 8))  # cells of 4 pixels
    part = of(whole[1:5, 2:6], box=(4, 8, 16, 16))
    assert agreement(of(whole), part) == pytest.approx(1)
    assert agreement(part, of(whole)) == pytest.approx(1)
    moved = of(whole[2:6, 2:6], box=(4, 8, 16, 16))
    assert agreement(of(whole), moved) < 0.9


def test_patches_that_reach_over_the_edge_keep_their_place():
    whole = np.random.default_rng(3).random((6, 8))
    over = np.pad(whole, ((0, 2), (0, 0)), constant_values=9.0)  # two rows of cells below the picture
    assert agreement(of(whole), of(over, extent=(8 / 6, 1.0))) == pytest.approx(1)


def test_colours_rank_nothing():
    coloured = dataclasses.replace(of(np.zeros((2, 2))), method="pca", colours=np.zeros((2, 2, 3)))
    with pytest.raises(VitralError, match="no order"):
        agreement(of(np.zeros((2, 2))), coloured)


def test_the_map_that_knows_gains_over_the_one_upside_down():
    predictor, place = learned(), (1, 2)
    image = picture(1, place, 3)
    true, false = (measure(predictor, image, m, 1) for m in (mask_of(place), -mask_of(place)))
    assert gain(true) > scatter(true) > gain(false)
    assert gain(true) == pytest.approx(
        true.insertion - true.deletion - np.mean([c.insertion - c.deletion for c in true.random])
    )
    for pair, names in (((true, false), ("knows", "not")), ((false, true), ("not", "knows"))):
        told = truer(*pair, names)
        assert told.startswith("knows is the more faithful: ")
        assert f"gains {gain(true):.2f} over random orders, not {gain(false):.2f}; random orders scatter" in told
    assert truer(false, false, ("one", "other")).startswith("neither says more about the answer than chance: ")
    assert truer(true, true, ("one", "other")).startswith("no difference that can be told: ")


def flat(deletion, insertion):
    return Curves(np.array([0.0, 1.0]), np.full(2, deletion), np.full(2, insertion))


def judged(deletion, insertion, *, deviation=0.0, target="x"):
    """The areas of a map, beside random orders whose gains scatter by so much."""
    others = (flat(0.5, 0.5 - deviation), flat(0.5, 0.5 + deviation))
    return Faithfulness(target, "mean", flat(deletion, insertion), others, flat(0.5, 0.5), 0.0)


def test_a_difference_counts_beyond_the_scatter_and_a_hundredth():
    names = ("one", "other")
    assert "one is the more faithful" in truer(judged(0.2, 0.8), judged(0.2, 0.78), names)
    assert "no difference that can be told" in truer(judged(0.2, 0.8), judged(0.2, 0.795), names)
    assert "no difference that can be told" in truer(judged(0.2, 0.8), judged(0.2, 0.7, deviation=0.11), names)
    assert "one is the more faithful" in truer(judged(0.2, 0.8), judged(0.2, 0.7, deviation=0.09), names)


AREA = st.floats(0, 1)


@settings(deadline=None)
@given(AREA, AREA, AREA, AREA, st.floats(0, 0.4))
def test_a_comparison_claims_what_its_own_figures_show(a, b, c, d, deviation):
    left, right = judged(a, b, deviation=deviation), judged(c, d, deviation=deviation)
    said, gains = truer(left, right, ("one", "other")), {"one": gain(left), "other": gain(right)}
    assert "-0.00" not in said
    if "more faithful" in said:
        winner = said.partition(" is")[0]
        loser = ({"one", "other"} - {winner}).pop()
        assert gains[winner] - gains[loser] > max(deviation, 0.01) - 1e-9
        assert gains[winner] > max(deviation, 0.01) - 1e-9
    elif "neither says more" in said:
        assert max(gains.values()) <= max(deviation, 0.01) + 1e-9
    else:
        assert said.startswith(("no difference that can be told", "the answer hardly changes"))


def test_what_cannot_be_compared_has_no_winner():
    cat, dog = judged(0.2, 0.9, target="cat"), judged(0.3, 0.6, target="dog")
    said = truer(cat, dog, ("rollout of a", "rollout of b"))
    assert said.startswith("not comparable: rollout of a was tested on 'cat', rollout of b on 'dog'")
    still = Faithfulness("x", "mean", flat(0.9, 0.9), (flat(0.9, 0.9),) * 2, flat(0.9, 0.9), 0.0)
    assert truer(judged(0.2, 0.9), still, ("a", "b")).endswith("says nothing here (b)")
    assert truer(still, still, ("a", "b")).endswith("says nothing here")


def test_gain_and_scatter_by_hand():
    found = Faithfulness("x", "mean", flat(0.2, 0.9), (flat(0.5, 0.5), flat(0.5, 0.7)), flat(0.5, 0.5), 0.0)
    assert gain(found) == pytest.approx(0.6)  # 0.9 - 0.6 + 0.5 - 0.2
    assert scatter(found) == pytest.approx(0.1)


def test_two_methods_of_a_trained_model():
    predictor, image = learned(), picture(2, (3, 1), 8)
    lost, read = (explain(predictor, image, method) for method in ("occlusion", "rollout"))
    assert lost.grid.shape == read.grid.shape == GRID
    assert agreement(lost, read) == spearman(lost.grid, read.grid)
