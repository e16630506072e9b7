"""Masks and outlines: filled as COCO fills them, turned as pictures are, and traced so that they fill to the same mask."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

pytest.importorskip("faster_coco_eval")

from vitral.data.annotated import Polygons, Runs
from vitral.data.raster import turn
from vitral.data.shapes import (
    area_and_box,
    as_runs,
    bounds,
    mask_of,
    outlines,
    runs_of,
    turned_box,
    turned_points,
    turned_shape,
    unpacked,
)

MASKS = arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def square(x0, y0, x1, y1):
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64)


def test_a_square_of_ten_pixels_covers_a_hundred():
    """Pillow, which draws the edge too, makes 121 of it."""
    mask = mask_of(Polygons((square(10, 10, 20, 20),)), 30, 30)
    assert mask.sum() == 100
    assert mask[10:20, 10:20].all()


def test_parts_are_joined_and_boxes_are_theirs():
    both = Polygons((square(1, 2, 4, 5), square(3, 4, 9, 6)))
    assert bounds(both) == (1, 2, 9, 6)
    assert area_and_box(both, 10, 12) == (9 + 12 - 1, (1, 2, 9, 6))


@given(MASKS)
def test_run_lengths_there_and_back(mask):
    runs = runs_of(mask)
    assert (mask_of(runs, *mask.shape) == mask).all()
    flat = mask.T.ravel().astype(int)  # column by column
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    assert unpacked(*mask.shape, [0, *counts] if flat[0] else counts) == runs


@given(MASKS)
def test_a_traced_mask_fills_to_itself(mask):
    traced = outlines(mask)
    if traced is not None:
        assert (mask_of(traced, *mask.shape) == mask).all()
        assert all(len(part) >= 4 for part in traced.parts)
    else:
        from scipy.ndimage import label

        outside = label(np.pad(~mask, 1, constant_values=True), np.ones((3, 3)))[1]
        assert outside > 1 or not mask.any()  # a hole, or nothing there


@given(MASKS, st.integers(1, 8))
def test_masks_and_points_turn_as_pictures_do(mask, orientation):
    h, w = mask.shape
    upright = turn(mask[..., None], orientation)[..., 0]
    turned = turned_shape(runs_of(mask), h, w, orientation)
    assert (mask_of(turned, *upright.shape) == upright).all()
    for y, x in np.argwhere(mask)[:3].tolist():
        x0, y0, x1, y1 = turned_box((x, y, x + 1, y + 1), h, w, orientation)
        assert (x1 - x0, y1 - y0) == (1, 1)
        assert upright[int(y0), int(x0)]
        middle = turned_points(np.array([(x + 0.5, y + 0.5)]), h, w, orientation)
        assert middle.tolist() == [[x0 + 0.5, y0 + 0.5]]


@pytest.mark.parametrize("counts", [[5], [3, -1, 10], [10**30], [], [7, 10**18]])
def test_listed_run_lengths_that_do_not_fill_the_mask(counts):
    with pytest.raises(ValueError, match="run lengths make"):
        unpacked(3, 4, counts)


@pytest.mark.parametrize("counts", [b"", b"\x00\xff", b"zzzzzzzz", b"0" * 1000, b"9" * 40])
def test_packed_run_lengths_of_a_foe(counts):
    with pytest.raises(ValueError, match="run lengths cannot be read"):
        mask_of(Runs(3, 4, counts), 3, 4)
    with pytest.raises(ValueError, match="is of 4 x 3 pixels"):
        as_runs(Runs(3, 4, counts), 5, 5)
