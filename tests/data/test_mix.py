"""Mixup and CutMix: weights from the right distribution, pixels and labels in the same shares."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitral.data.mix import MIX_DRAWS, Mix, beta, box
from vitral.data.options import AugmentOptions
from vitral.randomness import uniforms

numbers = st.floats(0, 1, exclude_max=True)
draws = st.lists(numbers, min_size=MIX_DRAWS, max_size=MIX_DRAWS).map(np.array)


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 0.8, 1.0, 4.0])
def test_weights_are_beta_distributed(alpha):
    """Its first moments, and the share below 0.1 by numerical integration of the density."""
    n = 100_000
    sample = np.array([beta(alpha, a, b) for a, b in uniforms(0, "beta", 0, np.arange(n), 2).tolist()])
    variance = 1 / (4 * (2 * alpha + 1))
    kurtosis = 3 * (2 * alpha + 1) / (2 * alpha + 3)
    assert sample.mean() == pytest.approx(0.5, abs=5 * math.sqrt(variance / n))
    assert sample.var() == pytest.approx(variance, abs=5 * variance * math.sqrt((kurtosis - 1) / n))
    assert np.mean((sample - 0.5) ** 4) == pytest.approx(kurtosis * variance**2, rel=0.02)
    assert np.mean((sample - 0.5) ** 3) == pytest.approx(0, abs=5 * math.sqrt(variance**3 / n))
    # x = t^(1 / alpha) takes the singularity of x^(alpha - 1) away
    t = (np.arange(100_000) + 0.5) / 100_000 * 0.1**alpha
    below = 0.1**alpha / alpha * np.mean((1 - t ** (1 / alpha)) ** (alpha - 1))
    below *= math.gamma(2 * alpha) / math.gamma(alpha) ** 2
    assert np.mean(sample < 0.1) == pytest.approx(below, abs=0.006)


@settings(deadline=None)
@given(st.floats(1e-3, 50), numbers, numbers)
def test_weights_are_shares(alpha, a, b):
    assert 0 <= beta(alpha, a, b) <= 1


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.floats(0, 1), numbers, numbers)
def test_boxes_lie_inside_and_have_their_area(height, width, own, y, x):
    top, left, h, w = box(height, width, own, y, x)
    assert 0 <= top <= top + h <= height
    assert 0 <= left <= left + w <= width
    side = math.sqrt(1 - own)
    assert h <= height * side
    assert w <= width * side
    uncut_h, uncut_w = top > 0 and top + h < height, left > 0 and left + w < width
    assert h >= height * side - 2 or not uncut_h  # an even number of pixels around the centre
    assert w >= width * side - 2 or not uncut_w


def batch(count, height=9, width=11, dtype=torch.uint8):
    """Images of one value each, so that what comes from where can be read off."""
    values = torch.arange(count).mul(20).to(dtype)
    return values[:, None, None, None].expand(count, 3, height, width).contiguous()


@settings(deadline=None)
@given(draws, st.integers(1, 12), st.sampled_from([torch.uint8, torch.float32]))
def test_cut_boxes_and_labels_have_equal_shares(u, count, dtype):
    pixels, targets = batch(count, dtype=dtype), torch.arange(count) % 5
    before = pixels.clone()
    mixed, shares = Mix(AugmentOptions(cutmix=1.0), 5)(pixels, targets, u)
    assert torch.equal(pixels, before)
    assert mixed.dtype == dtype
    onehot = torch.nn.functional.one_hot(targets, 5).float()
    for k in range(count):
        foreign = (mixed[k] == pixels[-1 - k]).float().mean() if k != count - 1 - k else torch.tensor(0.0)
        own = 1 - foreign
        assert ((mixed[k] == pixels[k]) | (mixed[k] == pixels[-1 - k])).all()
        assert torch.allclose(shares[k], own * onehot[k] + foreign * onehot[-1 - k], atol=1e-6)


@settings(deadline=None)
@given(draws, st.integers(1, 12), st.sampled_from([torch.uint8, torch.float32]))
def test_blended_images_and_labels_have_equal_shares(u, count, dtype):
    pixels, targets = batch(count, dtype=dtype), torch.arange(count) % 5
    before = pixels.clone()
    mixed, shares = Mix(AugmentOptions(mixup=0.8), 5)(pixels, targets, u)
    assert torch.equal(pixels, before)
    assert mixed.dtype == dtype
    own = beta(0.8, u[2], u[3])
    onehot = torch.nn.functional.one_hot(targets, 5).float()
    assert torch.allclose(shares, own * onehot + (1 - own) * onehot.flip(0), atol=1e-6)
    exact = own * pixels.float() + (1 - own) * pixels.flip(0).float()
    assert (mixed.float() - exact).abs().max() <= (0.5 if dtype == torch.uint8 else 0) + 1e-4
    assert torch.allclose(shares.sum(1), torch.ones(count), atol=1e-6)


def test_several_labels_an_image_are_mixed_as_they_are():
    labels = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    u = np.array([0.0, 0.0, 0.3, 0.1, 0.5, 0.5])
    own = beta(0.8, 0.3, 0.1)
    _, shares = Mix(AugmentOptions(mixup=0.8), 3)(batch(2), labels, u)
    assert torch.allclose(shares, torch.tensor([[own, own, 1 - own], [1 - own, 1 - own, own]]))


def kind(options, u):
    """What happened to a batch: nothing, a cut or a blend."""
    pixels = batch(2, 32, 32) * 12  # 0 and 240
    mixed, _ = Mix(options, 2)(pixels, torch.tensor([0, 1]), u)
    if torch.equal(mixed, pixels):
        return "nothing"
    return "cut" if set(mixed.unique().tolist()) == {0, 240} else "blend"


def test_batches_are_mixed_as_often_as_they_should_be():
    options = AugmentOptions(mixup=4.0, cutmix=4.0, mix_probability=0.8, switch=0.25)
    kinds = [kind(options, u) for u in uniforms(1, "mix", 0, np.arange(3000), MIX_DRAWS)]
    assert kinds.count("cut") / 3000 == pytest.approx(0.2, abs=0.03)
    assert kinds.count("blend") / 3000 == pytest.approx(0.6, abs=0.035)
    none = AugmentOptions(mixup=0.0, cutmix=0.0)
    assert {kind(none, u) for u in uniforms(1, "mix", 0, np.arange(50), MIX_DRAWS)} == {"nothing"}
    only_mixup = AugmentOptions(mixup=4.0, switch=1.0)
    assert "cut" not in {kind(only_mixup, u) for u in uniforms(1, "mix", 0, np.arange(50), MIX_DRAWS)}
    only_cutmix = AugmentOptions(cutmix=4.0, switch=0.0)
    assert "blend" not in {kind(only_cutmix, u) for u in uniforms(1, "mix", 0, np.arange(50), MIX_DRAWS)}
