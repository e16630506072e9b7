"""The loss of several labels an image: a cross-entropy of yes and no for each, and no top-1."""

import pytest
import torch
from torch import nn

from vitral.data.loader import Batch
from vitral.objectives.classify import Classify


class Answers(nn.Module):
    """A model that answers its input."""

    def forward(self, images):
        return images.flatten(1)


def batch(logits, targets):
    return Batch((logits[:, :, None, None],), targets, torch.arange(len(targets)))


@pytest.mark.parametrize("labels", [1, 5])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_by_hand(labels, smoothing):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, labels, generator=generator)
    targets = (torch.rand(6, labels, generator=generator) < 0.5).float()
    losses = Classify(smoothing, "bce", independent=True)(Answers(), batch(logits, targets))
    wanted = targets * (1 - smoothing) + smoothing / 2  # towards as much yes as no
    p = logits.sigmoid()
    by_hand = -(wanted * p.log() + (1 - wanted) * (1 - p).log()).sum(1).mean()
    assert set(losses) == {"loss"}
    torch.testing.assert_close(losses["loss"], by_hand)


def test_one_class_an_image_is_told_its_hits_and_smoothed_over_the_classes():
    logits, targets = torch.tensor([[2.0, 1, 0], [0, 1, 2]]), torch.tensor([0, 0])
    losses = Classify(0.3, "bce")(Answers(), batch(logits, targets))
    assert int(losses["correct"]) == 1
    wanted = torch.tensor([[0.8, 0.1, 0.1]] * 2)
    p = logits.sigmoid()
    torch.testing.assert_close(losses["loss"], -(wanted * p.log() + (1 - wanted) * (1 - p).log()).sum(1).mean())
