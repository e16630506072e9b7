"""Outputs of dense heads are moved, cast and sliced with everything that they hold."""

import torch

from vitral.models.heads.outputs import Found, Maps


def found(batch, **more):
    return Found(torch.zeros(batch, 5, 3, dtype=torch.float64), torch.ones(batch, 5, 4, dtype=torch.float64), **more)


def test_a_slice_takes_the_same_images_of_everything():
    whole = found(4, masks=torch.arange(4.0).view(4, 1, 1, 1).expand(4, 5, 2, 3), earlier=(found(4), found(4)))
    part = whole[1:3]
    assert len(whole) == 4
    assert len(part) == 2
    assert part.masks[:, 0, 0, 0].tolist() == [1, 2]
    assert [len(each) for each in part.earlier] == [2, 2]
    assert part.kernels is None


def test_casting_and_moving_reach_the_earlier_stages():
    changed = found(2, earlier=(found(2),)).float().to("cpu")
    assert {changed.boxes.dtype, changed.earlier[0].logits.dtype} == {torch.float32}


def test_maps_are_sliced_too():
    assert Maps(torch.arange(6.0).view(3, 2, 1, 1), 4)[2:].logits.flatten().tolist() == [4, 5]
