"""The loss of semantic maps: that of every pixel under its cell's logits, weighted by classes, the same however a batch is cut."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from vitral.data.loader import Batch
from vitral.data.maps import VOID
from vitral.models.heads.outputs import Maps
from vitral.objectives.segment import Segment, cells, rarity_weights

WEIGHTS = (0.5, 2.0, 3.0)


def case(height, width, stride, beyond=0):
    """A model that answers with fixed logits, in cells that cover the image and so many more, and a batch."""
    torch.manual_seed(0)
    h, w = -(-height // stride) + beyond, -(-width // stride) + beyond
    logits = torch.randn(3, 3, h, w)
    targets = torch.randint(-1, 3, (3, height, width))
    assert (targets == VOID).any()
    batch = Batch((torch.zeros(3, 1, height, width),), targets, torch.arange(3))
    return logits, batch


def loss(logits, stride, batch, whole):
    answer = SimpleNamespace(float=lambda: Maps(logits, stride))
    return Segment(WEIGHTS)(lambda images: answer, Batch(batch.views, batch.targets, batch.keys, whole))


@pytest.mark.parametrize(
    ("size", "stride", "beyond"), [((12, 8), 4, 0), ((13, 9), 4, 0), ((10, 7), 2, 2), ((5, 5), 1, 0)]
)
def test_every_pixel_is_answered_by_its_cell(size, stride, beyond):
    logits, batch = case(*size, stride, beyond)
    count = Segment(WEIGHTS).count(batch)
    found = loss(logits, stride, batch, count)
    near = logits.repeat_interleave(stride, 2).repeat_interleave(stride, 3)[:, :, : size[0], : size[1]]
    raised = near + torch.tensor(WEIGHTS).log()[:, None, None]
    expected = F.cross_entropy(raised, batch.targets, torch.tensor(WEIGHTS), ignore_index=VOID)
    assert found["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    weight = torch.tensor([*WEIGHTS, 0.0])[batch.targets]
    right = (near.argmax(1) == batch.targets) * weight
    assert found["accuracy"].item() == pytest.approx((right.sum() / weight.sum()).item(), rel=1e-5)
    parts = [loss(logits[k : k + 1], stride, batch_part, count) for k, batch_part in enumerate(batch.split(1))]
    assert sum(part["loss"].item() for part in parts) == pytest.approx(found["loss"].item(), rel=1e-5)


def test_cells_hold_each_pixel_once_and_void_outside():
    targets = torch.arange(6 * 5).view(1, 6, 5)
    found = cells(targets, 2, (3, 4))
    assert found.shape == (1, 4, 3, 4)
    assert found[0, :, 1, 1].tolist() == [12, 13, 17, 18]
    assert sorted(found[found != VOID].tolist()) == list(range(30))


def test_a_batch_of_void_has_no_loss():
    logits, batch = case(4, 4, 2)
    empty = Batch(batch.views, torch.full_like(batch.targets, VOID), batch.keys)
    assert loss(logits, 2, empty, Segment(WEIGHTS).count(empty))["loss"] == 0


def test_rare_classes_weigh_more_and_a_pixel_weighs_one_in_the_mean():
    shares = (0.9, 0.1, 0.0)
    assert rarity_weights(shares, 0.0) == (1.0, 1.0, 1.0)
    weights = rarity_weights(shares, 0.5)
    assert weights[1] / weights[0] == pytest.approx(3.0)
    assert weights[0] * 0.9 + weights[1] * 0.1 == pytest.approx(1.0)
    assert weights[2] == 1.0
    assert rarity_weights(shares, 1.0)[1] == pytest.approx(5.0)


def test_logits_are_those_of_the_true_shares():
    """Of pixels that all look the same, weighted as they may be, the best logits are the logarithms of their classes' shares."""
    targets = torch.tensor([0] * 12 + [1] * 3 + [2]).view(1, 4, 4)
    batch = Batch((torch.zeros(1, 1, 4, 4),), targets, torch.arange(1))
    logits = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=100)

    def again():
        optimizer.zero_grad()
        found = loss(logits.view(1, 3, 1, 1).expand(1, 3, 4, 4), 1, batch, Segment(WEIGHTS).count(batch))["loss"]
        found.backward()
        return found

    optimizer.step(again)
    assert torch.allclose(logits.softmax(0), torch.tensor([12, 3, 1]) / 16, atol=1e-4)
