"""How good a frozen representation is: few-shot and full linear regression in closed form, and nearest neighbours.

Few-shot as in big_vision's fewshot_lsr (https://github.com/google-research/big_vision), which An Image is Worth 16x16 Words
(https://arxiv.org/abs/2010.11929, section 4.1) introduced; nearest neighbours as in DINO (https://arxiv.org/abs/2104.14294, section 4.1).
Axes: n images, D features, K classes.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from vitral.data.dataset import Split
from vitral.data.preprocess import Preprocess
from vitral.errors import VitralError
from vitral.evaluation.outputs import outputs, over
from vitral.layers.described import SIDE, describe
from vitral.models.common import ImageModel
from vitral.models.zoo import build
from vitral.predict import Predictor
from vitral.randomness import Permutation, derive

BIAS = 100.0  # the constant feature: so large that its weight is hardly regularised
FEW_SHOT_L2 = 2.0**10
TINY = 1e-12  # of the largest eigenvalue: below it there is nothing but rounding
L2_GRID = tuple(2.0**power for power in range(-10, 21, 2))
PIXELS = 16  # side of the image that the pixel baseline reads
COMPARED = 1024  # images compared with the training images at once


def features(predictor: Predictor, split: Split, *, batch_size: int = 64, **options: Any) -> np.ndarray:
    """float32 [n, D] in the split's order: the input of the model's head, or of one that it could have. options: those of `outputs`."""
    return outputs(predictor, split, predictor.model.represent, batch_size=batch_size, **options)


def pixels(split: Split, preprocess: Preprocess, *, workers: int = 0) -> np.ndarray:
    """float32 [n, C * h * w]: the preprocessed images averaged down to sides of up to 16 pixels, as a baseline without a model."""
    size = (min(PIXELS, preprocess.height), min(PIXELS, preprocess.width))
    averaged = partial(F.interpolate, size=size, mode="area")
    return over(split, preprocess, lambda images: averaged(images).flatten(1), "cpu", batch_size=64, workers=workers)


def edges_and_colours(split: Split, preprocess: Preprocess, *, workers: int = 0) -> np.ndarray:
    """float32 [n, D]: of the images as a model sees them, at 64 x 64 pixels, their edges and colours (`layers/described.py`)."""
    C = preprocess.channels
    plain = replace(preprocess.sized(SIDE, SIDE), mean=(0.0,) * C, std=(1.0,) * C)
    return over(
        split, plain, lambda images: describe(images.mul(255).clamp(0, 255)), "cpu", batch_size=64, workers=workers
    )


def few_shot(
    train_features: np.ndarray,
    train_targets: np.ndarray,
    test_features: np.ndarray,
    test_targets: np.ndarray,
    shots: Sequence[int],
    seeds: int,
) -> dict[int, np.ndarray]:
    """Top-1, float64 [seeds], for each number of training images a class ("shots"). A seed's few shots are the first of its many.

    Raises VitralError where a class has fewer training images than shots.
    """
    classes, counts = np.unique(train_targets, return_counts=True)
    if counts.min() < max(shots):
        raise VitralError(f"{max(shots)} shots: a class has only {counts.min()} training images; choose fewer")
    results: dict[int, np.ndarray] = {}
    for count in shots:
        results[count] = np.empty(seeds)
        for seed in range(seeds):
            chosen = np.concatenate([_members(train_targets, k, seed)[:count] for k in classes.tolist()])
            ridge = Ridge(train_features[chosen], train_targets[chosen])
            results[count][seed] = (ridge.predict(test_features, FEW_SHOT_L2) == test_targets).mean()
    return results


def _members(targets: np.ndarray, k: int, seed: int) -> np.ndarray:
    """The images of class k in an order that seed and class decide."""
    members = np.flatnonzero(targets == k)
    return members[Permutation(len(members), derive(seed, "few-shot", k), 0)(np.arange(len(members)))]


class Ridge:
    """Least squares from whitened features [n, D] to {-1, 1}^K with a penalty, solved once for all penalties by an eigendecomposition.

    In float64. With X the features and a constant, and Y the targets: where n >= D, (X'X + l2)^-1 X'Y; elsewhere X' (XX' + l2)^-1 Y, the same.
    `basis` [n, r]: the left singular vectors of X.
    Targets are classes [n], or zeros and ones [n, K].
    """

    def __init__(self, train_features: np.ndarray, targets: np.ndarray) -> None:
        self.mean = train_features.mean(0, dtype=np.float64)
        self.deviation = train_features.std(0, dtype=np.float64) + 1e-5
        X = self._whitened(train_features)
        if targets.ndim == 1:
            self.classes, place = np.unique(targets, return_inverse=True)
            Y = 2.0 * np.eye(len(self.classes))[place] - 1.0  # [n, K]
        else:
            self.classes, Y = np.arange(targets.shape[1]), 2.0 * targets - 1.0
        self.Y = Y  # [n, K]
        if len(X) >= X.shape[1]:
            eigenvalues, Q = np.linalg.eigh(X.T @ X)
            self.left, self.right = Q, Q.T @ (X.T @ Y)
            self.basis = X @ Q / np.sqrt(np.maximum(eigenvalues, TINY * eigenvalues[-1]))
        else:
            eigenvalues, Q = np.linalg.eigh(X @ X.T)
            self.left, self.right, self.basis = X.T @ Q, Q.T @ Y, Q
        self.eigenvalues = np.maximum(eigenvalues, 0)

    def _whitened(self, x: np.ndarray) -> np.ndarray:
        """[n, D] to [n, D + 1], with the constant."""
        return np.pad((x - self.mean) / self.deviation, ((0, 0), (0, 1)), constant_values=BIAS)

    def weights(self, l2: float) -> np.ndarray:
        """[D + 1, K], the last row for the constant."""
        return (self.left / (self.eigenvalues + l2)) @ self.right

    def scores(self, x: np.ndarray, l2: float) -> np.ndarray:
        """Features [n, D] to [n, K], above 0 where yes is likelier than no; K are the classes that occur."""
        return self._whitened(x) @ self.weights(l2)

    def predict(self, x: np.ndarray, l2: float) -> np.ndarray:
        """Features [n, D] to classes, int64 [n]."""
        return self.classes[self.scores(x, l2).argmax(1)]

    def left_out(self, l2: float) -> float:
        """Mean squared error on each training image of a fit without it."""
        return float(np.square(self.left_out_scores(l2) - self.Y).mean())

    def left_out_scores(self, l2: float) -> np.ndarray:
        """[n, K]: of each training image by a fit without it, which needs no other fit: its error over 1 - its own leverage."""
        share = self.eigenvalues / (self.eigenvalues + l2)
        leverage = (self.basis**2 @ share)[:, None]
        error = (self.basis * share) @ (self.basis.T @ self.Y) - self.Y
        return self.Y + error / np.maximum(1 - leverage, 1e-9)


def linear(
    train_features: np.ndarray,
    train_targets: np.ndarray,
    test_features: np.ndarray,
    val: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[np.ndarray, float]:
    """Classes, int64 [n], of the test images by `Ridge` on all training images, and its penalty.

    val: features and targets that choose the penalty, the strongest of the best; None: the few-shot probe's penalty.
    """
    ridge = Ridge(train_features, train_targets)
    l2 = FEW_SHOT_L2
    if val is not None:
        l2 = max(L2_GRID, key=lambda each: (float((ridge.predict(val[0], each) == val[1]).mean()), each))
    return ridge.predict(test_features, l2), l2


def k_nn(
    train_features: np.ndarray,
    train_targets: np.ndarray,
    test_features: np.ndarray,
    k: int = 20,
    temperature: float = 0.07,
) -> np.ndarray:
    """Classes, int64 [n], of the test images by the votes of their k nearest training images, each weighing exp(cosine / temperature).

    Where there are fewer than k training images, all of them vote.
    """
    classes, place = np.unique(train_targets, return_inverse=True)
    known = F.normalize(torch.from_numpy(train_features).float(), dim=1)
    voters = torch.from_numpy(place)
    answers = []
    for asked in torch.from_numpy(test_features).float().split(COMPARED):
        cosines = F.normalize(asked, dim=1) @ known.T  # [n, train]
        nearest = cosines.topk(min(k, len(known)), dim=1)
        votes = torch.zeros(len(asked), len(classes))
        votes.scatter_add_(1, voters[nearest.indices], (nearest.values / temperature).exp())
        answers.append(votes.argmax(1))
    return classes[torch.cat(answers).numpy()]


def untrained(model: ImageModel) -> ImageModel:
    """A model of the same architecture with the random weights of seed 0, on the same device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(0, "initialise"))
        return build(model.config).to(next(model.parameters()).device)
