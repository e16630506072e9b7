"""Copies: what counts as one, what does not, and how two pictures are laid over one another."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from drawing import smooth
from vitral.data.copies import Copies, exact_copies, families, members, near_copies, register
from vitral.data.images import content_hash
from vitral.data.small import small_picture


def copies_of(pictures: list[np.ndarray]) -> list[Copies]:
    whole = [picture.astype(np.uint8) for picture in pictures]
    small = [small_picture(torch.from_numpy(picture.copy())[None], 255) for picture in whole]
    digests = [content_hash(picture.tobytes()) for picture in whole]
    sides = np.array([min(picture.shape) for picture in whole], np.int64)
    return near_copies(np.array(small, np.uint8).reshape(-1, 32, 32), digests, sides)


def enlarged(picture: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
    crop = torch.from_numpy(picture[top : top + side, left : left + side].copy())[None, None]
    return F.interpolate(crop, picture.shape, mode="bilinear", antialias=True)[0, 0].numpy()


def test_changed_copies_are_found_and_nothing_else():
    originals = [smooth(i) for i in range(40)]
    changed = [
        originals[0] * 0.7 + 20,
        originals[1][:, ::-1],
        enlarged(originals[2], 6, 3, 86),
        enlarged(originals[3], 2, 9, 86)[:, ::-1],
    ]
    found = copies_of([*originals, *changed])
    assert [(pair.first, pair.second, pair.how) for pair in found] == [
        (0, 40, "near"), (1, 41, "mirrored"), (2, 42, "cropped"), (3, 43, "mirrored"),
    ]  # fmt: skip


def test_lookalikes_of_one_scene_are_no_copies():
    scene = smooth(0)
    pictures = [np.clip(scene + np.random.default_rng(i).normal(0, 25, scene.shape), 0, 255) for i in range(60)]
    everything_alike = copies_of(pictures)
    assert everything_alike == []


@pytest.mark.parametrize("pictures", [[], [smooth(0)], [np.full((96, 96), 7.0)] * 2])
def test_too_little_to_compare(pictures):
    assert copies_of(pictures) == []


def test_images_too_small_to_tell_apart_are_not_compared():
    assert copies_of([smooth(i % 2, 96)[::6, ::6] + i for i in range(4)]) == []


def test_register_recovers_a_crop():
    picture = torch.from_numpy(np.stack([smooth(i) for i in range(3)])).float()
    picture = F.avg_pool2d(picture[:, None], 3)[:, 0]  # [3, 32, 32]
    wanted = torch.tensor([0.9, 0.05, 0.88, -0.06])
    grid = F.affine_grid(
        torch.tensor([[[0.9, 0, 0.05], [0, 0.88, -0.06]]]).repeat(3, 1, 1), (3, 1, 32, 32), align_corners=False
    )
    crop = F.grid_sample(picture[:, None], grid, align_corners=False)[:, 0] * 0.8 + 10
    warp = register(picture, crop, torch.tensor([1.0, 0.0, 1.0, 0.0]).repeat(3, 1), 15)
    assert torch.allclose(warp, wanted.expand(3, 4), atol=0.01)


def test_exact_copies_name_the_first():
    assert exact_copies([b"a", b"b", b"a", b"a"]) == [Copies(0, 2, "exact", 1.0), Copies(0, 3, "exact", 1.0)]


def test_families_run_through_chains():
    pairs = [Copies(3, 4, "near", 1.0), Copies(1, 3, "near", 1.0), Copies(0, 5, "near", 1.0)]
    family = families(6, pairs)
    assert family.tolist() == [0, 1, 2, 1, 1, 0]
    assert members(family) == [[0, 5], [1, 3, 4]]
