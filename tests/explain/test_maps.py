"""From attention to maps to pictures."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vitral.drawing.colours import COLOURS, EVEN, colourise, evenness, is_even, normalise, overlay, place, upsample
from vitral.drawing.figure import colourless, grid_figure, save_picture
from vitral.errors import VitralError
from vitral.explain.figure import Explanation
from vitral.explain.maps import rollout
from vitral.explain.row import row_figure


def attention(*shape, seed=0):
    """Rows that sum to one."""
    raw = np.random.default_rng(seed).random(shape) + 1e-3
    return raw / raw.sum(axis=-1, keepdims=True)


def photo(height, width):
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_rollout_by_hand():
    first, second = attention(2, 3, 3, seed=1), attention(4, 3, 3, seed=2)
    half = [0.5 * a.mean(axis=0) + 0.5 * np.eye(3) for a in (first, second)]
    np.testing.assert_allclose(rollout([first, second]), half[1] @ half[0])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(2, 9), st.integers(0, 99))
def test_rollout_rows_sum_to_one(layers, heads, tokens, seed):
    rolled = rollout([attention(heads, tokens, tokens, seed=seed + i).astype(np.float32) for i in range(layers)])
    np.testing.assert_allclose(rolled.sum(axis=1), 1, rtol=1e-6)
    assert (rolled > 0).all()


def test_rollout_of_tokens_that_read_only_themselves_stays_put():
    np.testing.assert_array_equal(rollout([np.eye(4)[None]] * 6), np.eye(4))


def test_normalise_fills_the_range_and_leaves_a_flat_map_empty():
    np.testing.assert_array_equal(normalise(np.array([[2.0, 4.0], [3.0, 2.0]])), [[0, 1], [0.5, 0]])
    np.testing.assert_array_equal(normalise(np.full((2, 3), 7.0)), np.zeros((2, 3)))


@settings(deadline=None)
@given(
    st.floats(1e-6, 1e6),
    st.floats(0, 0.4).filter(lambda s: abs(s - EVEN) > 1e-3),
    st.sampled_from((None, 0.0)),
    st.integers(0, 99),
)
def test_a_map_without_contrast_is_drawn_without_and_said_so(size, span, floor, seed):
    """What spans less than a fiftieth of its own size is no pattern; more than that fills the range."""
    values = np.random.default_rng(seed).random((3, 4))
    values = size * (1 + span * (values - values.min()) / np.ptp(values))
    drawn = normalise(values, floor)
    flat = bool(np.ptp(values) < EVEN * values.max())
    assert is_even(values) is flat
    assert bool(evenness(values)) is flat
    assert not drawn.any() if flat else drawn.max() == 1
    assert drawn.min() >= 0


def test_a_map_without_contrast_has_its_values_in_words():
    even = np.array([[0.01564, 0.01566], [0.01565, 0.01568]])
    assert evenness(even) == "nearly equal everywhere: 0.01564 to 0.01568"
    assert evenness(np.full((2, 2), 0.25)) == "equal everywhere: 0.25"
    assert evenness(np.full((2, 2), 0.25), "{:.0%}".format) == "equal everywhere: 25%"
    assert evenness(np.zeros((2, 2))) == "equal everywhere: 0"
    assert evenness(np.full((1, 1), 0.5)) == "one patch alone: 0.5"
    assert evenness(np.array([[0.5, 0.6]])) == ""
    assert is_even(-even), "nor does its sign matter"


def same_colour(picture, box):
    """Whether all of a part (top, left, height, width) has one colour."""
    top, left, height, width = box
    part = np.asarray(picture)[top : top + height, left : left + width]
    return bool((part == part[0, 0]).all())


@pytest.mark.parametrize("floor", [None, 0.0])
def test_whatever_draws_a_map_without_contrast_draws_none_and_says_so(floor):
    grey = np.full((40, 60, 3), 90, np.uint8)
    even = np.linspace(0.01564, 0.01568, 6).reshape(2, 3)
    found = Explanation(grey, even, "relevance to cat", "cat", 0.9, target="cat", floor=floor)
    assert not found.map.any()
    assert same_colour(found.overlay(), (0, 0, 40, 60))
    assert found.words == "relevance to cat; nearly equal everywhere: 0.01564 to 0.01568"
    assert found.words in repr(found)
    assert found.words in found._repr_html_()
    told = dataclasses.replace(found, grid=np.arange(6.0).reshape(2, 3))
    assert (told.even, told.words) == ("", told.method)
    assert not same_colour(told.overlay(), (0, 0, 40, 60))
    row, other = (np.asarray(row_figure({"relevance": e}, "cat")) for e in (found, told))
    panel = (110, 24 + 240 + 12 + 10, 100, 200)
    assert same_colour(row, panel)
    assert not same_colour(other, panel)
    assert (row[30:90] != 255).sum() > (other[30:90] != 255).sum(), "and a line says so"
    assert colourless(np.stack([even, told.grid])[None]) == "without colour: 1 of 2, with uniform attention"
    drawn = [np.asarray(grid_figure(grey, np.stack([e, told.grid])[None], "cat")) for e in (even, 9 * even, told.grid)]
    assert (drawn[0] == drawn[1]).all()
    assert drawn[0].shape != drawn[2].shape or (drawn[0] != drawn[2]).any()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(6, 40), st.integers(6, 40), st.booleans())
def test_upsample_covers_the_image_and_stays_in_range(h, w, height, width, smooth):
    small = np.random.default_rng(0).random((h, w))
    large = upsample(small, (height, width), smooth)
    assert large.shape == (height, width)
    assert small.min() <= large.min() <= large.max() <= small.max()


def test_upsample_keeps_left_and_top_where_they_are():
    nearest = upsample(np.array([[1.0, 0, 0], [0, 0, 0.5]]), (4, 9), smooth=False)
    np.testing.assert_allclose(nearest[:2, :3], 1)
    np.testing.assert_allclose(nearest[2:, 6:], 0.5)
    assert nearest.sum() == pytest.approx(6 * 1.5)
    smooth = upsample(np.array([[0.0, 1.0]]), (2, 8))
    np.testing.assert_allclose(smooth[0], smooth[1])
    assert (np.diff(smooth[0]) >= 0).all()
    np.testing.assert_allclose(smooth[0], 1 - smooth[0, ::-1], atol=1e-6)


def test_place_puts_a_crop_back():
    whole = place(np.ones((2, 2)), (1, 3, 4, 2), (6, 8))
    assert whole.shape == (6, 8)
    assert whole.sum() == 8
    assert whole[1:5, 3:5].all()


@pytest.mark.parametrize("name", list(COLOURS))
def test_colours_rise_in_lightness(name):
    rgb = colourise(np.linspace(0, 1, 256), name).astype(float)
    lightness = rgb @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > -0.8).all(), "up to rounding"
    assert lightness[-1] - lightness[0] > 150
    np.testing.assert_array_equal(colourise(np.array([-1.0, 2.0]), name), rgb[[0, -1]])


@pytest.mark.parametrize(("height", "width"), [(40, 90), (33, 7), (8, 8)])
def test_overlay_has_the_shape_of_the_picture(height, width):
    image = photo(height, width)
    drawn = overlay(image, np.random.default_rng(0).random((2, 5)))
    assert drawn.size == (width, height)
    np.testing.assert_array_equal(np.asarray(overlay(image, np.ones((2, 5)), alpha=0)), image)


def test_overlay_colours_what_counts_and_fades_the_rest():
    image = np.full((20, 40, 3), (0, 200, 0), np.uint8)
    drawn = np.asarray(overlay(image, np.array([[0.0, 1.0]]), alpha=0.8)).astype(int)
    quiet, hot = drawn[10, 2], drawn[10, 37]
    assert hot[0] > 150, "the top of inferno is light yellow"
    assert quiet[1] < 200
    assert quiet[1] > quiet[0], "still green"


@pytest.mark.parametrize("alpha", [-0.1, 1.5])
def test_an_impossible_alpha_is_an_error(alpha):
    with pytest.raises(VitralError, match="between 0 and 1"):
        overlay(photo(4, 4), np.zeros((2, 2)), alpha)


def explained(height=24, width=48):
    grid = np.arange(8.0).reshape(2, 4)
    return Explanation(photo(height, width), grid, "rollout", "<b>cat</b>", 0.87)


def test_explanation_map_is_in_the_pictures_shape_and_fills_the_range():
    e = explained()
    assert e.map.shape == (24, 48)
    assert (e.map.min(), e.map.max()) == (0, 1)
    assert (e.map[0, 0], e.map[-1, -1]) == (0, 1)
    assert e.overlay().size == (48, 24)
    assert e.overlay(scale=3).size == (144, 72)


def test_an_explanation_of_a_crop_keeps_the_whole_picture():
    image = photo(20, 60)
    e = Explanation(image, np.array([[0.0, 1.0]]), "attention", "cat", 0.9, box=(0, 20, 20, 20))
    assert e.map.shape == (20, 60)
    assert not e.map[:, :20].any()
    assert not e.map[:, 40:].any()
    np.testing.assert_allclose(e.map[:, 20:40], upsample(e.grid, (20, 20)))
    assert e.overlay(scale=2).size == (120, 40)


def test_the_asking_patch_is_outlined_and_what_the_model_saw_is_framed():
    grid = np.zeros((2, 2))
    plain = Explanation(photo(20, 60), grid, "attention", "cat", 0.9)
    cropped = dataclasses.replace(plain, box=(0, 20, 20, 20))
    asking = dataclasses.replace(cropped, asking=(1, 0))
    assert (plain.framed, cropped.framed) == (False, True)
    drawn = [np.asarray(e.overlay(scale=4)) for e in (plain, cropped, asking)]
    framed = (drawn[0] != drawn[1]).any(axis=-1)
    assert framed[:, [80, 159]].mean() > 0.9
    assert not framed[1:-1, 81:159].any()
    outlined = (drawn[1] != drawn[2]).any(axis=-1)
    assert outlined[40, 80:120].all()
    assert outlined[40:79, 80].all()
    assert not outlined[42:78, 82:118].any()
    assert not outlined[:, 122:].any()
    maps = np.zeros((1, 2, 2, 2))
    changed = np.asarray(grid_figure(photo(32, 32), maps)) != np.asarray(
        grid_figure(photo(32, 32), maps, asking=(0, 1))
    )
    assert changed.any(axis=(0, 2)).sum() >= 2 * 50, "an outline in both panels"


def test_an_explanation_is_one_line_when_printed():
    assert repr(explained()) == "<Explanation of '<b>cat</b>' 87.0%: rollout; 2x4 values over 24x48 pixels>"


def test_explanation_save_enlarges_small_pictures_and_keeps_their_shape(tmp_path):
    path = explained().save(tmp_path / "out.png")
    with Image.open(path) as written:
        assert written.size == (288, 144)
    large = explained(300, 500).save(tmp_path / "large.jpg")
    with Image.open(large) as written:
        assert written.size == (500, 300)


def test_explanation_in_a_notebook():
    page = explained()._repr_html_()
    assert page.count("data:image/png;base64,") == 2
    assert "&lt;b&gt;cat&lt;/b&gt;" in page
    assert "87.0%" in page
    assert explained()._repr_png_().startswith(b"\x89PNG")


def test_saving_names_what_is_wrong(tmp_path):
    picture = Image.new("RGB", (2, 2))
    with pytest.raises(VitralError, match=r"a\.txt: pictures are written as \.png"):
        save_picture(picture, tmp_path / "a.txt")
    with pytest.raises(VitralError, match="No such file or directory"):
        save_picture(picture, tmp_path / "absent" / "a.png")


@pytest.mark.parametrize(("layers", "heads", "h", "w"), [(1, 1, 7, 7), (12, 3, 4, 9), (3, 20, 5, 2), (2, 2, 1, 40)])
def test_grid_figure_has_a_panel_for_each_layer_and_head(layers, heads, h, w):
    image = photo(16 * h, 16 * w)
    ramp = np.broadcast_to(np.linspace(0, 1, h * w).reshape(h, w), (layers, heads, h, w))
    back, one = ramp[..., ::-1, ::-1], ramp.copy()
    one[-1, -1] = back[-1, -1]
    plain, one_turned, all_turned = (np.asarray(grid_figure(image, maps)) for maps in (ramp, one, back))
    one_panel, panels = ((plain != other).any(axis=-1).sum() for other in (one_turned, all_turned))
    assert one_panel > 300
    assert panels == pytest.approx(one_panel * layers * heads, rel=0.01)


def test_grid_figure_scales_each_panel_by_its_own_largest_value_and_draws_labels():
    maps = np.zeros((1, 2, 2, 2))
    maps[0, 0, 0, 0], maps[0, 1, 0, 0] = 0.9, 0.001
    drawn = np.asarray(grid_figure(photo(32, 32), maps, title="cat\n93 %"))
    assert (drawn == np.asarray(grid_figure(photo(32, 32), (maps > 0) * 0.5, title="cat\n93 %"))).all()
    narrow = drawn[:, : 24 + 40]  # the margin and the labels of the rows
    assert (narrow[-80:] < 90).all(axis=-1).sum() > 50, "labels are ink on the page"
