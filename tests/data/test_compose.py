"""Mosaic and copy-paste: exact to the pixel, and a function of (seed, epoch, sample) alone."""

import numpy as np
import pytest
import torch

from vitral.data.compose import Compose, Sample, mosaic, pasted, together
from vitral.data.options import AugmentOptions, DataOptions
from vitral.data.scenes import SceneOptions, write_scenes
from vitral.data.sheet import contact_sheet
from vitral.data.sources import open_data
from vitral.data.things import Things, box_of
from vitral.errors import VitralError
from vitral.training.assemble import training_batches
from vitral.training.config import Recipe
from vitral.training.defaults import resolve
from vitral.training.options import ModelOptions, TrainOptions
from vitral.training.shape import preprocess, shape

SMALL = ModelOptions("vit_tiny_patch16_224", image_size=(40, 48), patch_size=8, dim=32, depth=2, num_heads=2)


def sample(level, *objects, height=8, width=12, boxes_only=False):
    """A grey image with objects (class, top, left, height, width), each as bright as its class and ten."""
    pixels, masks = torch.full((3, height, width), level, dtype=torch.uint8), []
    for index, top, left, h, w in objects:
        mask = np.zeros((height, width), np.uint8)
        mask[top : top + h, left : left + w] = 1
        pixels[:, torch.from_numpy(mask) > 0] = 10 + index
        masks.append(mask)
    boxes = [[left / width, top / height, (left + w) / width, (top + h) / height] for _, top, left, h, w in objects]
    things = Things(
        (torch.tensor([each[0] for each in objects], dtype=torch.int64),),
        (torch.tensor(boxes).reshape(-1, 4),),
        None
        if boxes_only
        else (torch.from_numpy(np.stack(masks) if masks else np.zeros((0, height, width), np.uint8)),),
        (torch.zeros(0, 4),),
    )
    return Sample(pixels, things)


@pytest.mark.parametrize("boxes_only", [False, True])
def test_a_mosaic_is_four_images_at_half_their_size(boxes_only):
    parts = [sample(50 * k, (k, 2, 4, 4, 6), boxes_only=boxes_only) for k in range(4)]
    found = mosaic(parts, "nearest")
    things = found.things
    assert things.classes[0].tolist() == [0, 1, 2, 3]
    for k in range(4):
        top, left = (k // 2) * 4, (k % 2) * 6
        assert found.pixels[0, top, left] == 50 * k
        box = torch.tensor([left + 2, top + 1, left + 5, top + 3]) / torch.tensor([12, 8, 12, 8])
        assert torch.allclose(things.boxes[0][k], box)
        inside = np.zeros((8, 12), bool)
        inside[top + 1 : top + 3, left + 2 : left + 5] = True
        assert (found.pixels[0].numpy()[inside] == 10 + k).all()
        if not boxes_only:
            assert np.array_equal(things.masks[0][k].numpy() > 0, inside)
    assert (things.masks is None) == boxes_only


def test_what_is_under_a_pixel_after_the_mosaic_is_no_target():
    parts = [sample(0, (1, 0, 0, 1, 1)), sample(0), sample(0), sample(0, (2, 0, 0, 8, 12))]
    for boxes_only in (False, True):
        every = parts if not boxes_only else [sample(0, (1, 0, 0, 1, 1), boxes_only=True), *[sample(0, boxes_only=True)] * 2,
                                              sample(0, (2, 0, 0, 8, 12), boxes_only=True)]  # fmt: skip
        assert mosaic(every, "nearest").things.classes[0].tolist() == [2]


def test_pasted_objects_cover_what_lies_under_them():
    own = sample(0, (1, 0, 0, 4, 4), (2, 6, 8, 2, 4))
    other = sample(99, (4, 0, 0, 4, 12), (3, 0, 2, 8, 2))
    found = pasted(own, other, np.array([0.9, 0.2]))  # the second alone
    assert found.things.classes[0].tolist() == [1, 2, 3]
    masks = found.things.masks[0].numpy() > 0
    assert masks.sum((1, 2)).tolist() == [8, 8, 16]  # the left half of the first is left
    assert not (masks[0] & masks[2]).any()
    assert (found.pixels[0].numpy()[masks[2]] == 13).all()
    assert (found.pixels[0].numpy()[masks[0]] == 11).all()
    for box, mask in zip(found.things.boxes[0], masks, strict=True):
        x0, y0, x1, y1 = box_of(mask)
        assert torch.allclose(box, torch.tensor([x0 / 12, y0 / 8, x1 / 12, y1 / 8]))
    both = pasted(own, other, np.array([0.2, 0.2]))
    assert both.things.classes[0].tolist() == [2, 4, 3]  # the first is wholly covered
    assert pasted(own, other, np.array([0.9, 0.9])) is own


def test_a_batch_of_single_images_is_theirs():
    parts = [sample(0, (1, 0, 0, 4, 4)), sample(0), sample(0, (2, 1, 1, 2, 2), (0, 3, 3, 2, 2))]
    whole = together([each.things for each in parts])
    assert [each.tolist() for each in whole.classes] == [[1], [], [2, 0]]
    assert len(whole) == 3
    assert whole[1:].masks[1].shape == (2, 8, 12)


def test_partners_are_a_function_of_seed_epoch_and_sample():
    compose = Compose(0.5, 3.0, 0.5, 100, "nearest")
    occasions = np.arange(200)
    first = compose.partners(0, 1, occasions)
    assert first[7:9] == compose.partners(0, 1, occasions[7:9])
    assert first != compose.partners(0, 2, occasions)
    assert first != compose.partners(1, 1, occasions)
    kinds = {len(each) for each in first}
    assert kinds == {0, 1, 3, 4}
    assert {len(each) for each in compose.partners(0, 3, occasions)} == {0, 1}  # mosaics have ended
    assert all(0 <= k < 100 for each in first for k in each)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes") / "s"
    write_scenes(root, SceneOptions(images=20, test=4, size=48, classes=3))
    return root


def batches_of(scenes, task="instance", **augment):
    data = open_data(scenes, DataOptions(near_copies="apart", task=task))
    augment = {"zoom": (0.8, 1.2), "hflip": 0.5} | augment
    recipe, _ = resolve(
        Recipe(SMALL, augment=AugmentOptions(**augment), train=TrainOptions(batch_size=4, epochs=10)), data, "cpu"
    )
    return training_batches(recipe, data, preprocess(recipe, data, shape(recipe, data))), data


@pytest.mark.parametrize(
    ("task", "augment"), [("detect", {"mosaic": 1.0}), ("instance", {"mosaic": 0.5, "paste": 0.7})]
)
def test_batches_are_the_same_in_any_order(scenes, task, augment):
    batches, _ = batches_of(scenes, task, **augment)
    for step in (3, 0):
        one, again = batches[step], batches[step]
        assert torch.equal(one.images, again.images)
        assert all(torch.equal(a, b) for a, b in zip(one.targets.boxes, again.targets.boxes, strict=True))
        assert one.images.shape == (4, 3, 40, 48)
    epoch, indices, _ = batches.indices(3)
    alone = batches.one(epoch, int(indices[2]))
    assert torch.equal(alone.images[0], batches[3].images[2])
    assert torch.equal(alone.targets.classes[0], batches[3].targets.classes[2])


def test_a_sheet_shows_them(scenes):
    batches, data = batches_of(scenes, mosaic=0.5, paste=0.5)
    plain, _ = batches_of(scenes)
    assert contact_sheet(batches, data.labels, 2, 2).height > contact_sheet(plain, data.labels, 2, 2).height


@pytest.mark.parametrize(
    ("task", "augment", "train", "said"),
    [
        ("semantic", {"mosaic": 0.5}, {"epochs": 5}, "joins images with objects"),
        ("detect", {"paste": 0.5}, {"epochs": 5}, "as task instance learns them"),
        ("detect", {"mosaic": 0.5}, {"time": "60s"}, "give --epochs or --steps"),
    ],
)
def test_what_cannot_be_joined_is_refused(scenes, task, augment, train, said):
    data = open_data(scenes, DataOptions(near_copies="apart", task=task))
    recipe, _ = resolve(
        Recipe(SMALL, augment=AugmentOptions(**augment), train=TrainOptions(batch_size=4, **train)), data, "cpu"
    )
    with pytest.raises(VitralError, match=said):
        training_batches(recipe, data, preprocess(recipe, data, shape(recipe, data)))
