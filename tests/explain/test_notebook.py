"""What results look like as the last line of a notebook's cell."""

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image

from asking import predictor_of
from families import small
from vitral.answers import Prediction
from vitral.drawing.charts import BOTTOM, HEIGHT, TOP
from vitral.explain.counterfactual import Counterfactual, counterfactual
from vitral.explain.explain import explain
from vitral.explain.faithfulness import scored
from vitral.explain.notebook import CELL, CHANGED

PICTURE = torch.randint(0, 256, (3, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def test_curves_are_drawn_where_they_are():
    predictor = predictor_of(small("vit"))
    found = scored(predictor, PICTURE, explain(predictor, PICTURE, "occlusion"))
    page = found._repr_html_()
    charts = [ElementTree.fromstring(svg) for svg in re.findall("<svg.*?</svg>", page)]
    assert len(charts) == 2
    for chart, values in zip(charts, (found.map.deleted, found.map.inserted), strict=True):
        lines = [line.attrib for line in chart.iter("polyline")]
        assert len(lines) == len(found.random) + 2
        drawn = np.array([point.split(",") for point in lines[-1]["points"].split()], float)
        height = HEIGHT - BOTTOM - TOP
        assert np.allclose(1 - (drawn[:, 1] - TOP) / height, values, atol=0.051 / height)
    assert found.verdict() in page.replace("&#x27;", "'")


def test_the_patches_of_a_counterfactual_are_filled():
    found = Counterfactual("<cat>", "dog", [(0, 1), (2, 3)], [(0, 1), (2, 3)], [0.9, 0.4], (3, 4), False, "mean")
    data = re.search('base64,(.*?)"', found._repr_html_())[1]
    grid = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    centres = grid[CELL // 2 :: CELL, CELL // 2 :: CELL, :3]  # [3, 4, 3]
    assert np.array_equal((centres == CHANGED).all(-1), found.mask)
    assert "<cat>" not in found._repr_html_()


def test_a_search_shows_itself():
    predictor = predictor_of(small("vit"))
    assert str(len(counterfactual(predictor, PICTURE).patches)) in counterfactual(predictor, PICTURE)._repr_html_()


def test_a_prediction_names_its_classes():
    page = Prediction("a<b>.png", "x & y", 0.75, [("x & y", 0.75), ("z", 0.25)])._repr_html_()
    rows = ElementTree.fromstring(page)
    assert [cell.text for cell in rows.iter("td")][:2] == ["x & y", "75.0%"]
    assert rows.find("caption").text == "a<b>.png"
