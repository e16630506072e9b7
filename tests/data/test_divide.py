"""Splits that are made here part no near copies, are the same wherever they are made, and stay as a run has them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from drawing import smooth
from vitral.data import divide
from vitral.data.dataset import DataSet
from vitral.data.divide import Held, compares
from vitral.data.listers import list_data
from vitral.data.options import DataOptions
from vitral.data.sources import open_data

APART = DataOptions(near_copies="apart")
OF_EACH = 24  # originals a class, of every second of which there is a mirrored or darker copy


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of pictures and of changed copies."""
    return make(tmp_path_factory.mktemp("data") / "photos", lambda label, i, copy: f"{label}/{i:02d}{copy}.png")


def make(root: Path, name) -> Path:
    for k, label in enumerate(("cat", "dog")):
        for i in range(OF_EACH):
            picture = smooth(100 * k + i)
            changed = picture[:, ::-1] if i % 4 else picture * 0.7 + 20
            for copy, pixels in (("", picture), *([("copy", changed)] if i % 2 == 0 else [])):
                path = root / name(label, i, copy)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    return root


def parted(data: DataSet) -> list[str]:
    """The copies that are in another split than their original."""
    of = {name: split for split, images in data.splits.items() for name in images.names}
    return [name for name in of if "copy" in name and of[name] != of[name.replace("copy", "")]]


def test_near_copies_are_kept_together_and_it_is_said(photos: Path) -> None:
    apart, data = open_data(photos, APART), open_data(photos)
    assert parted(apart)
    assert not any("near copies" in note for note in apart.notes)
    assert parted(data) == []
    (note,) = [note for note in data.notes if note.startswith("near copies")]
    assert note.startswith("near copies kept in one split, 48 images in 24 groups: cat/00copy.png (near) of cat/00.png")
    assert {name: len(split) for name, split in data.splits.items()} == {
        name: len(split) for name, split in apart.splits.items()
    }


def test_the_splits_are_the_same_in_any_order_and_with_any_number_of_threads(photos: Path, tmp_path: Path) -> None:
    renamed = make(
        tmp_path / "elsewhere", lambda label, i, copy: f"{label}/{(7 * i + 5) % OF_EACH:02d}{copy or 'x'}.png"
    )
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert open_data(renamed).fingerprint == open_data(photos).fingerprint
    finally:
        torch.set_num_threads(threads)


def test_a_run_keeps_its_splits_until_the_data_change(photos: Path, tmp_path: Path) -> None:
    begun = open_data(photos, APART)
    held = Held(begun.fingerprint, {name: begun.splits[name].contents for name in ("val", "test")})
    kept = open_data(photos, held=held)
    assert kept.fingerprint == begun.fingerprint != open_data(photos).fingerprint
    fewer = make(tmp_path / "fewer", lambda label, i, copy: f"{label}/{i:02d}{copy}.png")
    (fewer / "cat" / "00.png").unlink()
    assert open_data(fewer, held=held).fingerprint == open_data(fewer).fingerprint != begun.fingerprint


def test_what_data_state_is_not_compared(photos: Path, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        (tmp_path / split).symlink_to(photos)
    options = DataOptions(val_fraction=0, test_fraction=0)
    assert compares(list_data(photos, DataOptions()), DataOptions())
    assert not compares(list_data(photos, options), options)
    assert not compares(list_data(photos, APART), APART)
    assert not compares(list_data(tmp_path, DataOptions()), DataOptions())


def test_among_very_many_images_copies_are_not_sought_and_it_is_said(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(divide, "MOST_COMPARED", 71)
    data = open_data(photos)
    assert data.fingerprint == open_data(photos, APART).fingerprint
    assert any(note.startswith("near copies were not sought among more than 71 images") for note in data.notes)
