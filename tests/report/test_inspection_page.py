"""The page of an inspection: what it shows, what it says is missing, and that it is one file."""

import dataclasses

import numpy as np
import pytest
from test_page import EVIL, Page

from families import small
from vitral.checkpoints.card import ModelCard
from vitral.data.options import DataOptions
from vitral.data.preprocess import Preprocess
from vitral.data.sources import open_data
from vitral.explain.inspection.inspect import inspect
from vitral.predict import Predictor
from vitral.report.inspection import write_inspection_page

LABELS = ["cross", "disc", "square"]


def found_of(family, folder=None, **options):
    model = small(family, in_channels=1, num_classes=3, **options)
    steps = Preprocess(*model.image_size, 1, (0.3,), (0.3,), min_size=4)
    card = ModelCard(family, model.config.arguments(), LABELS, steps)
    data = None if folder is None else open_data(folder, DataOptions(), training=False, labelled=False)
    return inspect(Predictor(model, card), data, images=6, head_images=6)


def written(tmp_path, found, name="a model"):
    text = write_inspection_page(tmp_path / "page.html", found, name, f"vitral inspect {name}").read_text()
    assert "http" not in text.replace("http-equiv", "")
    assert "<script" not in text
    page = Page(text)
    assert "nan" not in page.text.lower().split()
    return page, [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]


CHARTS = [
    "Mean attention distance of each head by layer",
    "Entropy of each head by layer",
    "Rise of the loss without each head",
    "Attention to other tokens by layer",
    "Norms of tokens by layer",
    "Cosine similarity of tokens by layer",
    "CKA between layers",
]


def test_a_vit_has_every_chart_and_no_markup_of_others(tmp_path, shapes_folder):
    page, charts = written(tmp_path, found_of("vit", shapes_folder), EVIL)
    assert charts == CHARTS
    pictures = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
    assert pictures == ["the first layer's filters", "similarity of positions"]
    assert "VisionTransformer has no relative position bias" in page.text
    assert "6 images of the test split" in page.text


def test_without_images_there_are_the_weights_and_the_reasons(tmp_path):
    page, charts = written(tmp_path, found_of("vit"))
    assert charts == []
    assert page.text.count("needs images: give DATA") == 4


@pytest.mark.parametrize(
    ("family", "fewer", "pictures", "said"),
    [
        ("beit", 0, 2, "positions are a bias on the attention"),
        ("swin", 1, 2, "positions are a bias on the attention"),
        ("pvt", 0, 4, "has no relative position bias"),
        ("resnet", 4, 1, "ResNet has no attention"),
        ("cait", 1, 2, "only the class token attends there"),
    ],
)
def test_other_families_show_what_they_have(tmp_path, shapes_folder, family, fewer, pictures, said):
    page, charts = written(tmp_path, found_of(family, shapes_folder))
    assert len(charts) == len(CHARTS) - fewer
    assert len([1 for tag, name, _ in page.attributes if (tag, name) == ("img", "alt")]) == pictures
    assert said in page.text


def test_artefacts_are_shown_where_they_are(tmp_path, shapes_folder):
    found = found_of("vit", shapes_folder)
    where = np.zeros((4, 4))
    where[1, 2] = 0.5
    last = dataclasses.replace(found.layers[-1], cut=50.0, share=1 / 32, where=where)
    page, _ = written(tmp_path, dataclasses.replace(found, layers=[*found.layers[:-1], last]))
    assert "Layer 2: 3.1% of the patches lie above 50; at the lightest place in 50.0% of the images." in page.text
    assert "where norms are outlying" in [value for _, name, value in page.attributes if name == "alt"]
