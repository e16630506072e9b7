"""The report shows what the model's view leaves out of an image, and what it gets."""

import numpy as np
import pytest
from PIL import Image

from vitral.data.options import DataOptions
from vitral.data.preprocess import Preprocess
from vitral.data.sources import open_data
from vitral.report.seen import seen_images, seen_section


@pytest.fixture
def split(tmp_path):
    """Eight black images of 20 x 60 pixels."""
    for first, label in enumerate(("<a>", "b")):
        (tmp_path / label).mkdir()
        for i in range(4):
            Image.fromarray(np.full((20, 60, 3), [0, 0, 4 * first + i], np.uint8)).save(tmp_path / label / f"{i}.png")
    return open_data(str(tmp_path), DataOptions(val_fraction=0, test_fraction=0)).splits["train"]


@pytest.mark.parametrize(("how", "share"), [("crop", 1 / 3), ("squash", 1), ("pad", 1)])
def test_what_is_cut_is_faded(split, how, share):
    found = seen_images(split, Preprocess(16, 16, 3, (0.5,) * 3, (0.5,) * 3, how), 3)
    assert len(found) == 3
    assert len({each.name for each in found}) == 3
    for each in found:
        assert each.share == pytest.approx(share)
        assert each.view.shape == (16, 16, 3)
        assert (each.image[:, 20:40] < 10).all()
        assert (each.image[:, :20] > 150).all() == (how == "crop")
    page = seen_section(found)
    assert page.count("<figure>") == 3
    assert "&lt;a&gt;" in page
    assert ("33% of the image" in page) == (how == "crop")
