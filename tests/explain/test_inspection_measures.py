"""The measures of an inspection against sums written out, and against what must hold of them."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitral.explain.inspection.measures import (
    attention_distance,
    attention_elsewhere,
    attention_entropy,
    cka,
    cosine_grid,
    gram,
    high_norm_cut,
    hsic,
    principal_filters,
    step_similarity,
    token_similarity,
)

SEEDS = st.integers(0, 2**16)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def grid(h, w, stride=1.0):
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return ((torch.stack([rows, columns], -1).flatten(0, 1).double() + 0.5) * stride)[None]  # [1, h*w, 2]


def test_a_head_that_reads_only_its_own_patch_has_distance_and_entropy_0():
    places, identity = grid(3, 5, 16.0), torch.eye(15, dtype=torch.float64).expand(2, 4, 15, 15)
    np.testing.assert_array_equal(attention_distance(identity, places, places), np.zeros(4))
    np.testing.assert_array_equal(attention_entropy(identity, places), np.zeros(4))


@pytest.mark.parametrize(("h", "w", "stride"), [(1, 1, 16), (3, 4, 16), (7, 2, 4)])
def test_a_head_that_reads_all_alike_has_the_mean_distance_of_all_pairs(h, w, stride):
    cells = [((r + 0.5) * stride, (c + 0.5) * stride) for r in range(h) for c in range(w)]
    mean = sum(math.dist(a, b) for a in cells for b in cells) / len(cells) ** 2
    even = torch.full((1, 1, h * w, h * w), 1 / (h * w), dtype=torch.float64)
    assert attention_distance(even, grid(h, w, stride), grid(h, w, stride)).item() == pytest.approx(mean)
    assert attention_entropy(even, grid(h, w, stride)).item() == pytest.approx(math.log(h * w))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(1, 2), st.integers(1, 3), st.integers(0, 2))
def test_distance_and_what_goes_elsewhere_as_sums_written_out(seed, B, n, prefix):
    """Windows of a 2 x 3 grid, whose first tokens have no place, one of the last window's patches neither."""
    N = prefix + 6
    attention = numbers(B * n, 2, N, N, seed=seed).softmax(-1)
    places = torch.cat([torch.full((n, prefix, 2), torch.nan, dtype=torch.float64), grid(2, 3).expand(n, 6, 2)], 1)
    places = places + 10 * torch.arange(n)[:, None, None]
    places[-1, -1] = torch.nan
    far, elsewhere = [[], []], [[], []]
    for b in range(B):
        for window in range(n):
            here = [i for i in range(N) if not places[window, i].isnan().any()]
            for head in range(2):
                for q in here:
                    row = attention[b * n + window, head, q]
                    total = sum(row[k].item() for k in here)
                    reach = sum(row[k].item() * math.dist(places[window, q], places[window, k]) for k in here)
                    far[head].append(reach / total)
                    elsewhere[head].append(1 - total)
    np.testing.assert_allclose(attention_distance(attention, places, places), np.mean(far, 1))
    np.testing.assert_allclose(attention_elsewhere(attention, places, places), np.mean(elsewhere, 1), atol=1e-12)


def test_entropy_is_that_of_the_patches_or_where_none_asks_of_all():
    sharp, even = torch.tensor([1.0, 0, 0]), torch.tensor([1.0, 1, 1]) / 3
    attention = torch.stack([even, sharp, sharp])[None, None]  # the class token's row first
    nowhere = torch.full((1, 1, 2), torch.nan)
    places = torch.cat([nowhere, grid(1, 2)], 1)
    assert attention_entropy(attention, places).item() == 0
    assert attention_entropy(attention[:, :, :1], nowhere).item() == pytest.approx(math.log(3))
    assert attention_distance(attention[:, :, :1].double(), nowhere.double(), places).isnan().all()


def test_principal_filters_find_what_the_embedding_is_made_of():
    made_of = torch.linalg.qr(numbers(4 * 4 * 3, 2)).Q.T.reshape(2, 4, 4, 3)
    amounts = numbers(50, 2, seed=1) * torch.tensor([5.0, 1.0])
    amounts = torch.linalg.qr(amounts - amounts.mean(0)).Q * torch.tensor([5.0, 1.0])
    components, shares = principal_filters(torch.einsum("dn,npqc->dpqc", amounts, made_of) + 7.0)
    for found, made in zip(components, made_of, strict=False):
        assert abs((found * made).sum().item()) == pytest.approx(1, abs=1e-6)
        assert found.flatten()[found.abs().argmax()] > 0
    np.testing.assert_allclose(shares[:2], [25 / 26, 1 / 26], rtol=1e-6)
    assert shares[2:].max() < 1e-12
    assert components.shape == (28, 4, 4, 3)
    assert len(principal_filters(made_of)[0]) == 1, "two filters differ in one direction"


def test_a_position_is_like_itself_and_scale_counts_for_nothing():
    vectors = numbers(6, 8)
    cosines = cosine_grid(vectors)
    np.testing.assert_allclose(cosines.diagonal(), 1)
    np.testing.assert_allclose(cosines, cosine_grid(vectors * torch.arange(1, 7)[:, None]))
    np.testing.assert_allclose(cosines[0, 1], vectors[0] @ vectors[1] / vectors[0].norm() / vectors[1].norm())


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 30), st.floats(4, 20), st.floats(0.05, 0.25))
def test_two_modes_are_cut_between_them(seed, high, factor, spread):
    rng = np.random.default_rng(seed)
    low_mode = rng.lognormal(0, spread, 2000).clip(math.exp(-3 * spread), math.exp(3 * spread))
    high_mode = factor * rng.lognormal(0, 0.1, high).clip(0.8, 1.25)
    cut = high_norm_cut(np.concatenate([low_mode, high_mode]).reshape(-1, 1))
    assert cut is not None
    assert cut >= 2 * np.median(low_mode)
    assert low_mode.max() <= cut <= high_mode.min() * 1.0001


@pytest.mark.parametrize("spread", [0.0, 0.02, 0.1, 0.3])
def test_one_mode_is_not_cut(spread):
    assert high_norm_cut(30 * np.random.default_rng(0).lognormal(0, spread, 5000)) is None


def test_half_of_the_tokens_are_no_outliers():
    assert high_norm_cut(np.array([1.0] * 100 + [50.0] * 110)) is None
    assert high_norm_cut(np.zeros(1000)) is None
    assert high_norm_cut(np.array([1.0] * 98 + [50.0])) is None, "too few to tell"
    assert high_norm_cut(np.array([1.0] * 99 + [50.0])) is not None


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(2, 6))
def test_similarities_as_sums_written_out(seed, N):
    before, after = numbers(3, N, 4, seed=seed), numbers(3, N, 4, seed=seed + 1)

    def cosine(a, b):
        return (a @ b / a.norm() / b.norm()).item()

    for b in range(3):
        pairs = [cosine(before[b, i], before[b, j]) for i, j in permutations(range(N), 2)]
        assert token_similarity(before)[b].item() == pytest.approx(np.mean(pairs), abs=1e-9)
        steps = [cosine(x, y) for x, y in zip(before[b], after[b], strict=True)]
        assert step_similarity(before, after)[b].item() == pytest.approx(np.mean(steps), abs=1e-9)


def test_collapsed_tokens_have_similarity_1_and_a_lone_one_none():
    assert token_similarity(torch.ones(2, 5, 3)).tolist() == pytest.approx([1, 1])
    assert token_similarity(torch.ones(2, 1, 3)).isnan().all()


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.integers(4, 6))
def test_hsic_is_the_u_statistic_over_all_quadruples(seed, B):
    """Gretton et al. 2005, lemma 1, in the unbiased form of Song et al. 2012, equation 4: every four different images."""
    X, Y = numbers(B, 3, seed=seed), numbers(B, 5, seed=seed + 1)
    K, L = (X @ X.T).numpy(), (Y @ Y.T).numpy()  # not centred: it must not matter
    quadruples = list(permutations(range(B), 4))
    direct = np.mean([K[i, j] * (L[i, j] + L[q, r] - 2 * L[i, q]) for i, j, q, r in quadruples])
    assert hsic(torch.stack([gram(X), gram(Y)]))[0, 1].item() == pytest.approx(direct, abs=1e-9)


def aligned(*features):
    return cka(hsic(torch.stack([gram(each) for each in features])))


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(4, 12), st.floats(0.01, 100), st.floats(-5, 5))
def test_cka_is_1_for_itself_and_does_not_see_turns_scale_or_shift(seed, B, scale, shift):
    X, Y = numbers(B, 3, 4, seed=seed), numbers(B, 7, seed=seed + 1)
    turn = torch.linalg.qr(numbers(12, 12, seed=seed + 2)).Q
    turned = scale * X.flatten(1) @ turn + shift
    values = aligned(X, turned, Y)
    np.testing.assert_allclose(values.diagonal(), 1)
    assert values[0, 1].item() == pytest.approx(1, abs=1e-6)
    assert values[0, 2].item() == pytest.approx(values[1, 2].item(), abs=1e-6)
    np.testing.assert_allclose(values, values.T)


def test_cka_tells_kin_from_strangers():
    X = numbers(200, 10)
    values = aligned(X, X + 0.1 * numbers(200, 10, seed=1), numbers(200, 10, seed=2))
    assert values[0, 1] > 0.98
    assert abs(values[0, 2]) < 0.1
    assert aligned(X, torch.ones(200, 2))[0, 1].isnan()


def test_the_mean_over_minibatches_is_that_of_one_large_batch():
    X, Y = numbers(2000, 4), numbers(2000, 4)
    Y[:, :2] = numbers(2000, 2, seed=3)
    whole = aligned(X, Y)[0, 1]
    parts = torch.stack([hsic(torch.stack([gram(x), gram(y)])) for x, y in zip(X.split(8), Y.split(8), strict=True)])
    assert cka(parts.mean(0))[0, 1].item() == pytest.approx(whole.item(), abs=0.05)
