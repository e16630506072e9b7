"""Losses of classification against their definitions, on hard, mixed and weighted targets."""

import pytest
import torch
from torch.nn import functional as F

from vitral.objectives.classify import Classify, balanced_weights, hits

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, -2.0]])
MIXED = torch.tensor([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0]])


def test_softmax_loss_of_mixed_targets_is_the_mixture_of_losses():
    single = F.cross_entropy(LOGITS, torch.tensor([0, 1]), reduction="none")
    other = F.cross_entropy(LOGITS, torch.tensor([1, 1]), reduction="none")
    wanted = torch.stack([0.7 * single[0] + 0.3 * other[0], single[1]]).mean()
    assert Classify().of(LOGITS, MIXED).item() == pytest.approx(wanted.item(), rel=1e-6)


def test_binary_loss_sums_over_the_classes():
    p = LOGITS.double().sigmoid()
    wanted = -(MIXED * p.log() + (1 - MIXED) * (1 - p).log()).sum(1).mean()
    assert Classify(loss="bce").of(LOGITS, MIXED).item() == pytest.approx(wanted.item(), rel=1e-6)
    hard = torch.tensor([0, 1])
    assert Classify(loss="bce").of(LOGITS, hard) == Classify(loss="bce").of(LOGITS, F.one_hot(hard, 3).float())


def test_binarised_targets_ask_for_both_classes_of_a_mixed_image():
    both = (MIXED > 0).double()
    p = LOGITS.double().sigmoid()
    wanted = -(both * p.log() + (1 - both) * (1 - p).log()).sum(1).mean()
    assert Classify(loss="bce", binarise=True).of(LOGITS, MIXED).item() == pytest.approx(wanted.item(), rel=1e-6)


@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_weights_count_each_sample_by_its_classes(loss):
    weights = torch.tensor([2.0, 0.5, 1.0])
    alone = [Classify(loss=loss).of(LOGITS[i : i + 1], MIXED[i : i + 1]) for i in range(2)]
    wanted = (alone[0] * (0.7 * 2.0 + 0.3 * 0.5) + alone[1] * 0.5) / 2
    assert Classify(loss=loss, weights=weights).of(LOGITS, MIXED).item() == pytest.approx(wanted.item(), rel=1e-6)


def test_balanced_weights_give_every_class_the_same_sum():
    counts = torch.tensor([90.0, 9.0, 1.0])
    weights = balanced_weights(counts)
    assert torch.allclose(weights * counts, torch.full((3,), 100 / 3))


def test_hits_follow_the_larger_share():
    assert hits(LOGITS, torch.tensor([0, 1])) == 2
    assert hits(LOGITS, MIXED.flip(1)) == 1
