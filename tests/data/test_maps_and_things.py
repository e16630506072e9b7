"""Maps and objects as targets: found in annotated data, following every view of their image to the pixel."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from annotations import CLASSES, data_of, masked
from vitral.data.augment import Augmentation
from vitral.data.maps import VOID, SemanticMaps
from vitral.data.options import AugmentOptions, DataOptions
from vitral.data.preprocess import Preprocess
from vitral.data.sources import open_data
from vitral.data.things import Boxes, Masks
from vitral.data.view import Placed, View
from vitral.errors import VitralError


def placed_at(views, h, w):
    return lambda k: Placed(h, w, views[k])


def halves(h, w, value=1):
    """Left half 0, right half `value`."""
    found = np.zeros((h, w), np.uint8)
    found[:, w // 2 :] = value
    return found


@pytest.fixture
def folder(tmp_path):
    """Twelve photographs of 20 x 30 with maps of sky (0), road (3) and void (255)."""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    rng = np.random.default_rng(0)
    for k in range(12):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(tmp_path / f"images/{k:02}.png")
        map_ = halves(20, 30, 3)
        map_[0, :5] = 255
        map_[:, 0] = 0 if k else 3
        Image.fromarray(map_).save(tmp_path / f"masks/{k:02}.png")
    (tmp_path / "classes.json").write_text('{"classes": {"0": "sky", "3": "road", "9": "sea"}, "void": [255]}')
    return tmp_path


def test_a_folder_of_maps_is_a_data_set(folder):
    data = open_data(folder)
    assert (data.task, data.labels) == ("semantic", ["sky", "road", "sea"])
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 9, "val": 1, "test": 2}
    assert any("sea" in note for note in data.notes)  # a class that no map has is said, not refused
    split = pickle.loads(pickle.dumps(data.splits["test"]))
    map_ = split.targets.map(0)
    assert map_.shape == (20, 30)
    assert (map_[0, 1:5] == VOID).all()
    assert set(np.unique(map_).tolist()) == {VOID, 0, 1}
    again = split.targets.reordered(np.array([2, 0, 1]), 3)
    assert set(np.unique(again.map(0)).tolist()) == {VOID, 2, 0}


def test_a_changed_map_is_another_data_set(folder):
    before = open_data(folder).fingerprint
    assert open_data(folder).fingerprint == before
    Image.fromarray(halves(20, 30, 0)).save(folder / "masks/04.png")
    assert open_data(folder).fingerprint != before


def test_faults_that_would_be_learned_are_refused_with_the_remedy(folder):
    Image.fromarray(halves(20, 30, 7)).save(folder / "masks/04.png")
    with pytest.raises(VitralError, match=r"(?s)value 7 at x 15, y 0.*vitral doctor .* --fix OUT"):
        open_data(folder)


def test_labels_for_a_task_of_maps_are_refused(tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        Image.new("RGB", (8, 8), (label == "cat" and "red") or "blue").save(tmp_path / label / "1.png")
    with pytest.raises(VitralError, match="holds no annotations"):
        open_data(tmp_path, DataOptions(task="semantic"))


@st.composite
def options(draw):
    share = st.sampled_from([0.0, 0.5, 1.0])
    low = draw(st.floats(0.2, 1.5))
    return AugmentOptions(
        crop=draw(st.sampled_from(["jittered", "resized", "framed", "padded", "none"])), zoom=(low, low + draw(st.floats(0, 2))),
        scale=(0.2, 1.0), hflip=draw(share), vflip=draw(share), quarter_turns=draw(st.booleans()),
    )  # fmt: skip


@settings(max_examples=150)
@given(
    options(),
    st.tuples(st.integers(8, 40), st.integers(8, 40)),
    st.tuples(st.integers(8, 40), st.integers(8, 40)),
    st.integers(0, 99),
)
def test_maps_follow_the_image_to_the_pixel(chosen, size, shown, seed):
    """The image shows each pixel's own number; nearest pixels alone are taken, so that what is seen can be looked up."""
    h, w = size
    side = min(shown) if chosen.quarter_turns else None
    steps = Preprocess(side or shown[0], side or shown[1], 3, (0.0,) * 3, (1.0,) * 3, "pad", interpolation="nearest")
    numbers = np.arange(1, h * w + 1)
    image = torch.from_numpy(
        np.stack([numbers % 256, numbers // 256, np.full(h * w, 9)]).astype(np.uint8).reshape(3, h, w)
    )
    augmentation = Augmentation(chosen, steps)
    draws = [d[0] for d in augmentation.draw(seed, 0, np.array([seed]))]
    seen = augmentation(image, draws).long()
    map_ = augmentation.where(h, w, draws).nearest(numbers.reshape(h, w), 0)
    assert map_.shape == tuple(seen.shape[1:])
    drawn = (seen[0] + 256 * seen[1]).numpy()
    grid = np.stack(np.meshgrid(*(np.arange(side) + 0.5 for side in map_.shape), indexing="ij"), -1)
    places = augmentation.where(h, w, draws).original(grid)
    clear = (np.abs(places - places.round()) > 1e-3).all(-1)  # a middle between two pixels may be in either
    inside = ((places > 0) & (places < (h, w))).all(-1)
    assert (map_ == drawn)[clear & inside].all()
    assert (map_[clear & ~inside] == 0).all()
    assert (seen[2].numpy()[clear & ~inside] == 0).all()


@given(st.integers(2, 30), st.integers(2, 30), st.booleans(), st.integers(0, 3), st.integers(-5, 5), st.integers(-5, 5))
def test_flips_turns_and_whole_shifts_are_exact(h, w, flip, quarters, top, left):
    values = np.arange(1, h * w + 1).reshape(h, w)
    view = View(h, w).flipped(1) if flip else View(h, w)
    view = view.turned(quarters).cropped(top, left, 8, 9)
    expected = np.rot90(values[:, ::-1] if flip else values, quarters)
    padded = np.pad(expected, 60)[60 + top : 68 + top, 60 + left : 69 + left]
    assert (view.nearest(values, 0) == padded).all()


@given(st.integers(0, 999), st.floats(0.3, 3.0))
def test_objects_follow_views_as_their_masks_do(seed, zoom):
    rng = np.random.default_rng(seed)
    h, w = (int(side) for side in rng.integers(12, 40, 2))
    mask = np.zeros((h, w), bool)
    y, x = int(rng.integers(0, h - 4)), int(rng.integers(0, w - 4))
    mask[y : y + int(rng.integers(3, h)), x : x + int(rng.integers(3, w))] = True
    data = data_of([[masked(1, mask), masked(2, ~mask, crowd=True)]], [(h, w)])
    augmentation = Augmentation(
        AugmentOptions(crop="jittered", zoom=(zoom, zoom), hflip=0.5),
        Preprocess(24, 32, 3, (0.5,) * 3, (1.0,) * 3, "pad"),
    )
    draws = [d[0] for d in augmentation.draw(seed, 0, np.array([0]))]
    view = augmentation.where(h, w, draws)
    things = Masks.of(data).batch(np.array([0]), placed_at([view], h, w))
    seen = view.nearest(mask, 0)
    grown = abs(view.rows[0][0] * view.rows[1][1]) * mask.sum()
    if seen.any() and seen.sum() >= 0.1 * grown:
        assert things.classes[0].tolist() == [1]
        assert (things.masks[0][0].numpy() == seen).all()
        x0, y0, x1, y1 = (things.boxes[0][0] * torch.tensor([32, 24, 32, 24])).tolist()
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        assert (x0, y0, x1, y1) == pytest.approx((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1), abs=1e-4)
        assert (
            Boxes.of(data).batch(np.array([0]), placed_at([view], h, w)).boxes[0].tolist() == things.boxes[0].tolist()
        )
    else:
        assert things.classes[0].tolist() == []
        assert things.masks[0].shape == (0, 24, 32)
    assert len(things.crowds[0]) <= 1


def test_ragged_targets_are_cut_and_moved_as_one():
    mask = np.zeros((20, 30), bool)
    mask[2:9, 3:20] = True
    data = data_of([[masked(0, mask)], [], [masked(1, mask), masked(2, ~mask)]])
    things = Masks.of(data).batch(np.arange(3), placed_at([View(20, 30)] * 3, 20, 30))
    assert [len(each) for each in things.classes] == [1, 0, 2]
    assert len(things[1:3]) == 2
    assert things[1:3].to(torch.device("cpu")).classes[1].tolist() == [1, 2]
    assert things[:1].boxes[0].tolist() == [pytest.approx([3 / 30, 2 / 20, 20 / 30, 9 / 20])]


def test_which_task_annotations_are_for(tmp_path):
    from vitral.data.formats.coco import write

    mask = np.zeros((20, 30), bool)
    mask[2:9, 3:20] = True
    write(data_of([[masked(k % 3, mask)] for k in range(9)], splits=["train"] * 6 + ["val"] * 2 + ["test"]), tmp_path)
    assert open_data(tmp_path).task == "instance"
    assert open_data(tmp_path, DataOptions(task="detect")).task == "detect"
    found = open_data(tmp_path, DataOptions(task="semantic"))
    assert found.labels == ["background", *CLASSES.names]
    assert isinstance(found.splits["test"].targets, SemanticMaps)
    assert (found.splits["test"].targets.map(0) > 0).sum() == mask.sum()
    pickle.loads(pickle.dumps(found))
    assert open_data(tmp_path, labelled=False).labels == ["unlabelled"]
