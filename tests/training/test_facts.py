"""What a run notes about its data."""

from pathlib import Path

import numpy as np
from PIL import Image

from vitral.data.preprocess import Preprocess
from vitral.data.sources import open_data
from vitral.training.facts import data_facts


def photo(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    fine = np.random.default_rng(seed).integers(0, 60, (48, 48, 3), dtype=np.uint8)
    return Image.fromarray(np.asarray(Image.fromarray(coarse).resize((48, 48))) // 2 + fine)


def test_exact_and_near_copies_across_given_splits_are_counted(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("val", 100), ("test", 200)):
        for i in range(20):
            path = tmp_path / split / "ab"[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = photo(first + i)
            if split == "val" and i < 5:
                image = photo(i).resize((40, 40))  # of a training image
            if split == "train" and i == 19:
                image = photo(18).resize((50, 50))  # of another training image: lookalikes are usual here
            if split == "test" and i < 2:
                image = photo(i)
            image.save(path)
    data = open_data(tmp_path)
    preprocess = Preprocess(32, 32, 3, (0.5,) * 3, (0.5,) * 3)
    splits = data_facts(data, preprocess, labelled=True)["splits"]
    assert splits["val"] == {
        "images": 20,
        "majority": 0.5,
        "shares": [0.5, 0.5],
        "shared": 0,
        "near": 0.25,
        "near_inside": 0.1,
    }
    assert {key: splits["test"][key] for key in ("shared", "near")} == {"shared": 2, "near": 0.0}
    assert "near" not in splits["train"]
