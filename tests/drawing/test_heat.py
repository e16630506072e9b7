"""Heat maps and mosaics hold each value at its place, in its colour."""

import base64
import io
import math
import re

import numpy as np
import pytest
from PIL import Image

from vitral.drawing.colours import colourise
from vitral.drawing.heat import exact_picture, heat_map, mosaic


def cells(svg):
    """(words, x, y, colour) of each cell."""
    found = re.findall(r'<rect x="([\d.]+)" y="([\d.]+)"[^>]*fill="(#\w+)"><title>([^<]*)</title>', svg)
    return {words: (float(x), float(y), colour) for x, y, colour, words in found}


def hexed(share):
    return "#" + bytes(colourise(np.array(share)).tolist()).hex()


def test_a_heat_map_has_a_cell_for_each_number():
    rows = [[0.0, 1.0, math.nan], [0.5]]
    found = cells(heat_map("a <title>", rows, "head", "layer", lambda v: f"{v:.1f}"))
    assert set(found) == {"layer 0, head 0: 0.0", "layer 0, head 1: 1.0", "layer 1, head 0: 0.5"}
    (x0, y0, dark), (x1, y1, light), (x2, y2, middle) = found.values()
    assert (dark, light, middle) == (hexed(0.0), hexed(1.0), hexed(0.5))
    assert x0 == x2 < x1
    assert y2 < y0 == y1, "row 0 is at the bottom"


def test_limits_of_its_own_and_maps_without_numbers():
    svg = heat_map("a <title>", [[0.5]], "x", "y", lambda v: f"{v:g}", (0.0, 1.0))
    assert cells(svg)["y 0, x 0: 0.5"][2] == hexed(0.5)
    assert "a &lt;title&gt;" in svg
    assert cells(heat_map("", [[3.0, 3.0]], "x", "y", str))["y 0, x 0: 3.0"][2] == hexed(0.5)
    assert heat_map("", [[math.nan], []], "x", "y", str) == ""


@pytest.mark.parametrize(("count", "columns", "size"), [(5, 3, (5, 11)), (1, 1, (2, 3)), (4, 2, (5, 7))])
def test_a_mosaic_has_gaps_that_are_clear(count, columns, size):
    tiles = [np.full((2, 3, 3), 10 * k, np.uint8) for k in range(count)]
    whole = mosaic(tiles, columns)
    assert whole.shape == (*size, 4)
    assert (whole[..., 3] == 255).sum() == 6 * count
    for k in range(count):
        y, x = 3 * (k // columns), 4 * (k % columns)
        assert (whole[y : y + 2, x : x + 3, :3] == 10 * k).all()


def test_an_exact_picture_loses_nothing():
    pixels = np.random.default_rng(0).integers(0, 256, (300, 200, 4), dtype=np.uint8)
    text = exact_picture(pixels, '"words"')
    assert 'alt="&quot;words&quot;"' in text
    with Image.open(io.BytesIO(base64.b64decode(text.split("base64,")[1].split('"')[0]))) as picture:
        np.testing.assert_array_equal(np.asarray(picture), pixels)
