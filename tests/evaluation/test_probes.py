"""Probes against direct solutions and counts by hand, and that they see learning."""

import numpy as np
import pytest
import torch
from PIL import Image

from vitral.checkpoints.card import ModelCard
from vitral.data.options import DataOptions
from vitral.data.preprocess import Preprocess
from vitral.data.sources import open_data
from vitral.errors import VitralError
from vitral.evaluation.probes import (
    FEW_SHOT_L2,
    Ridge,
    edges_and_colours,
    features,
    few_shot,
    k_nn,
    linear,
    pixels,
    untrained,
)
from vitral.predict import Predictor


def clouds(n, D, K, seed=0):
    """Features around a centre for each class."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(K, D))
    targets = rng.permutation(np.arange(n) % K)
    return (centres[targets] + rng.normal(size=(n, D))).astype(np.float32), targets


@pytest.mark.parametrize(("n", "D"), [(60, 7), (12, 30)])
@pytest.mark.parametrize("l2", [0.5, FEW_SHOT_L2])
def test_ridge_is_the_direct_solution(n, D, l2):
    x, y = clouds(n, D, 3)
    x = x.astype(np.float64) * 3 + 1
    X = np.hstack([(x - x.mean(0)) / (x.std(0) + 1e-5), np.full((n, 1), 100.0)])
    Y = 2.0 * (y[:, None] == np.arange(3)) - 1
    wanted = np.linalg.solve(X.T @ X + l2 * np.eye(D + 1), X.T @ Y)
    ridge = Ridge(x, y)
    assert ridge.left.shape == (D + 1, min(n, D + 1))  # by X'X where there are more images than features, else by XX'
    np.testing.assert_allclose(ridge.weights(l2), wanted, atol=1e-8)
    assert np.array_equal(ridge.predict(x, l2), (X @ wanted).argmax(1))


def test_both_decompositions_agree_where_they_meet():
    x, y = clouds(20, 19, 3)  # 20 features with the constant
    by_features, by_images = Ridge(x, y), Ridge(x[:19], y[:19])
    assert by_features.eigenvalues.shape == (20,)
    assert by_images.eigenvalues.shape == (19,)
    doubled = Ridge(np.vstack([x[:19]] * 2), np.concatenate([y[:19]] * 2))  # the same solution at twice the penalty
    assert doubled.eigenvalues.shape == (20,)
    np.testing.assert_allclose(by_images.weights(8.0), doubled.weights(16.0), atol=1e-9)


def test_few_shot_chooses_by_seed_and_class():
    train, test = clouds(200, 12, 4), clouds(100, 12, 4, seed=1)
    results = few_shot(*train, *test, shots=(1, 5, 25), seeds=3)
    assert {n: len(top1) for n, top1 in results.items()} == {1: 3, 5: 3, 25: 3}
    assert results[1].mean() < results[25].mean()
    assert len(set(results[1])) > 1
    again = few_shot(*train, *test, shots=(5,), seeds=2)
    assert np.array_equal(again[5], results[5][:2])
    more = np.concatenate([train[0], clouds(50, 12, 1)[0]]), np.concatenate([train[1], np.full(50, 4)])
    only = np.isin(more[1], range(4))  # another class in the data leaves the others' images as they are
    assert np.array_equal(few_shot(more[0][only], more[1][only], *test, shots=(5,), seeds=2)[5], again[5])
    with pytest.raises(VitralError, match="51 shots: a class has only 50"):
        few_shot(*train, *test, shots=(5, 51), seeds=1)


def test_linear_chooses_its_penalty_on_validation():
    train, val, test = (clouds(n, 30, 3, seed) for seed, n in enumerate((40, 60, 200)))
    answers, l2 = linear(*train, test[0], val)
    scores = {each: (Ridge(*train).predict(val[0], each) == val[1]).mean() for each in (2.0**-10, l2, 2.0**20)}
    assert scores[l2] == max(scores.values())
    assert np.array_equal(answers, Ridge(*train).predict(test[0], l2))
    assert linear(*train, test[0], None)[1] == FEW_SHOT_L2


def test_nearest_neighbours_by_hand():
    known = np.array([[1, 0], [2, 0.02], [0, 1], [0, 3], [0.1, 1]], np.float32)
    targets = np.array([7, 7, 3, 3, 3])
    asked = np.array([[5, 0.1], [0.1, 2], [1, 1]], np.float32)
    assert k_nn(known, targets, asked, k=1).tolist() == [7, 3, 3]
    # All vote: three for 3 and two for 7, but at a low temperature only the near ones count.
    assert k_nn(known, targets, asked, k=50, temperature=100.0).tolist() == [3, 3, 3]
    assert k_nn(known, targets, asked, k=50, temperature=0.07).tolist() == [7, 3, 3]
    unit = known / np.linalg.norm(known, axis=1, keepdims=True)
    cosines = unit @ (asked[2] / np.linalg.norm(asked[2]))
    votes = {k: np.exp(cosines[targets == k] / 0.07).sum() for k in (3, 7)}
    assert votes[3] > votes[7]


@pytest.fixture(scope="module")
def digits():
    return open_data("digits", DataOptions())


@pytest.fixture
def predictor(tiny_vit):
    model = tiny_vit(image_size=8, patch_size=4, num_classes=10, pooling="mean")
    card = ModelCard("vit", model.config.arguments(), [str(k) for k in range(10)], Preprocess(8, 8, 1, (0.3,), (0.4,)))
    return Predictor(model, card)


def test_features_are_what_the_head_reads(predictor, digits):
    split = digits.splits["val"]
    read = features(predictor, split, batch_size=50)
    assert read.dtype == np.float32
    assert read.shape == (len(split), 32)
    image = predictor.card.preprocess(split.read(7, 1))[None]
    with torch.inference_mode():
        wanted = predictor.model(image)
        assert torch.allclose(predictor.model.head(torch.from_numpy(read[7:8])), wanted, atol=1e-5)
    assert pixels(split, predictor.card.preprocess).shape == (len(split), 64)


def test_training_makes_features_that_a_few_images_suffice_for(predictor, digits):
    """A short supervised training: above random weights, in the few-shot probe and among neighbours."""
    train, test = digits.splits["train"], digits.splits["test"]
    x = torch.stack([predictor.card.preprocess(train.read(i, 1)) for i in range(len(train))])
    y = torch.from_numpy(train.targets.values)
    random = Predictor(untrained(predictor.model), predictor.card)
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(predictor.model.parameters(), 2e-3)
    for _ in range(100):
        rows = torch.randint(len(x), (64,))
        torch.nn.functional.cross_entropy(predictor.model(x[rows]), y[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()
    few, near = [], []
    for each in (predictor, random):
        known, asked = (features(each, split) for split in (train, test))
        few.append(few_shot(known, train.targets.values, asked, test.targets.values, (5,), 3)[5].mean())
        near.append((k_nn(known, train.targets.values, asked) == test.targets.values).mean())
    assert few[0] > few[1] + 0.1
    assert near[0] > near[1]


def test_errors_of_images_left_out_are_those_of_fits_without_them():
    rng = np.random.default_rng(0)
    for n, d in ((12, 30), (40, 7)):
        x = rng.normal(size=(n, d)).astype(np.float32)
        y = rng.integers(0, 3, n)
        ridge = Ridge(x, y)
        X, Y = ridge._whitened(x), 2.0 * np.eye(3)[y] - 1
        for l2 in (0.5, 50.0):
            errors = []
            for i in range(n):
                kept = np.arange(n) != i
                W = np.linalg.solve(X[kept].T @ X[kept] + l2 * np.eye(d + 1), X[kept].T @ Y[kept])
                errors.append(np.square(X[i] @ W - Y[i]).mean())
            assert ridge.left_out(l2) == pytest.approx(np.mean(errors), rel=1e-5)


def test_edges_and_colours_tell_stripes_from_stripes_and_red_from_blue(tmp_path):
    """Directions and colours that no average of pixels shows: stripes of any phase."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :40]
    for label, way in (("across", y), ("along", x)):
        for i in range(12):
            grey = 127 + 100 * np.sin(way * 0.9 + rng.uniform(0, 6))
            (tmp_path / label).mkdir(exist_ok=True)
            Image.fromarray(np.stack([grey] * 3, -1).astype(np.uint8)).save(tmp_path / label / f"{i}.png")
    for label, colour in (("red", (200, 20, 20)), ("blue", (20, 20, 200))):
        for i in range(12):
            picture = np.full((40, 40, 3), 128) + np.array(colour) * (rng.random((40, 40, 1)) < 0.5) // 2
            (tmp_path / label).mkdir(exist_ok=True)
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(tmp_path / label / f"{i}.png")
    data = open_data(str(tmp_path), DataOptions(test_fraction=0.5, val_fraction=0.0))
    steps = Preprocess(32, 32, 3, (0.5,) * 3, (0.5,) * 3)
    train, test = data.splits["train"], data.splits["test"]
    described = [edges_and_colours(split, steps) for split in (train, test)]
    answers, _ = linear(described[0], train.targets.values, described[1], None)
    assert (answers == test.targets.values).all()
    grey = open_data(str(tmp_path), DataOptions(channels=1)).splits["train"]
    one = Preprocess(32, 32, 1, (0.5,), (0.5,))
    assert edges_and_colours(grey, one).shape == (len(grey), 4 * 9 * 49 + 4 * 8)
