"""Fits a model's classifier on edges and colours to training images, in closed form."""

import numpy as np
import torch
from torch import Tensor

from vitral.data.dataset import Split
from vitral.data.preprocess import Preprocess
from vitral.evaluation.outputs import over
from vitral.evaluation.probes import BIAS, L2_GRID, Ridge
from vitral.layers.described import EdgesAndColours

LEARNED_FROM = 2000  # images at most: with more a network learns better features
SHARPNESS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)  # of its logits, of scores that are -1 for no and 1 for yes


def fit_described(layer: EdgesAndColours, split: Split, steps: Preprocess, *, mirrored: bool) -> None:
    """Fit the layer, in place, to the images of a split as the model sees them, each with its class; mirrored: and to their mirror images.

    The penalty is that of the least error on images that are left out one by one, and its scores are made logits by what is likeliest on these.
    """
    split = split.thinned(LEARNED_FROM)
    layer.mean.copy_(torch.tensor(steps.mean)[:, None, None])
    layer.std.copy_(torch.tensor(steps.std)[:, None, None])

    def both(images: Tensor) -> Tensor:
        return torch.stack([layer.features(images), layer.features(images.flip(-1))], 1)  # [B, 2, F]

    seen, targets = over(split, steps, both, "cpu", batch_size=64), split.targets.values
    ridge = Ridge(seen[:, 0], targets)
    l2 = min(L2_GRID, key=ridge.left_out)
    sharpness = sharpness_of(ridge.left_out_scores(l2), ridge.Y)
    if mirrored:
        ridge, l2 = Ridge(seen.reshape(-1, seen.shape[2]), targets.repeat(2)), 2 * l2
    weights = ridge.weights(l2)  # [F + 1, classes that occur]
    weight, bias = np.zeros((len(layer.bias), weights.shape[0] - 1)), np.full(len(layer.bias), -1.0)
    weight[ridge.classes] = (weights[:-1] / ridge.deviation[:, None]).T
    bias[ridge.classes] = BIAS * weights[-1] - weight[ridge.classes] @ ridge.mean
    layer.weight.copy_(torch.from_numpy(sharpness * weight))
    layer.bias.copy_(torch.from_numpy(sharpness * bias))


def left_out_top1(features: np.ndarray, targets: np.ndarray) -> float:
    """Share of images, features [n, F] and classes [n], that a ridge fitted without them tells, by the penalty of the least error on them."""
    ridge = Ridge(features, targets)
    scores = ridge.left_out_scores(min(L2_GRID, key=ridge.left_out))
    return float((ridge.classes[scores.argmax(1)] == targets).mean())


def sharpness_of(scores: np.ndarray, Y: np.ndarray) -> float:
    """The factor that makes scores [n, K] the likeliest logits of the classes that Y [n, K] marks by 1."""

    def surprise(factor: float) -> float:
        log_probs = torch.from_numpy(factor * scores).log_softmax(1)
        return -float(log_probs[torch.from_numpy(Y > 0)].mean())

    return min(SHARPNESS, key=surprise)
