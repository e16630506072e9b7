"""How far a probability can be trusted: reliability bins and the expected calibration error.

Guo et al. 2017, "On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599: images are put
into equal-width bins by the probability of their predicted class, and in each its mean is compared with the accuracy. Where an image can have
several labels, each label is a yes or no, and the probability of yes is compared with the share of yes.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ReliabilityBin:
    """The images whose confidence lies in (low, high]; the means are None when there are none."""

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


def reliability(confidence: NDArray[np.floating], correct: NDArray[np.bool_], bins: int = 15) -> list[ReliabilityBin]:
    """Equal-width bins over the confidence of the predicted class.

    Args:
        confidence: [n] probability of the predicted class (or of yes), in [0, 1].
        correct: [n] whether the prediction was right (or the answer is yes).
        bins: how many; 15 in Guo et al. 2017.

    Returns:
        `bins` bins, lowest first. Bin m holds ((m-1)/bins, m/bins]; the first also holds 0.
    """
    assert confidence.shape == correct.shape, "one confidence and one answer an image"
    edges = np.arange(bins + 1) / bins
    which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)  # [n]
    rows = []
    for m in range(bins):
        inside = which == m
        count = int(inside.sum())
        means = [float(values[inside].mean()) if count else None for values in (confidence, correct)]
        rows.append(ReliabilityBin(float(edges[m]), float(edges[m + 1]), count, *means))
    return rows


def expected_calibration_error(bins: list[ReliabilityBin]) -> float:
    """Mean |accuracy - confidence| over the bins, weighted by images (Guo et al. 2017, eq. 3), in 0..1."""
    images = sum(b.images for b in bins)
    assert images > 0, "no images in the bins"
    filled = [(b, b.accuracy, b.confidence) for b in bins if b.accuracy is not None and b.confidence is not None]
    return sum(b.images * abs(accuracy - confidence) for b, accuracy, confidence in filled) / images


def error_by_chance(bins: list[ReliabilityBin]) -> float:
    """The calibration error to expect of perfectly calibrated probabilities, in 0..1: with few images in many bins it is large.

    The mean absolute deviation of a binomial share from its probability, bin by bin (De Moivre's closed form, Diaconis and Zabell 1991,
    https://doi.org/10.1214/ss/1177011699), weighted by images.
    """
    images = sum(b.images for b in bins)
    assert images > 0, "no images in the bins"
    return sum(_deviation(b.images, min(1.0, b.confidence)) for b in bins if b.confidence is not None) / images


def _deviation(n: int, p: float) -> float:
    """The mean of |X - n p| over binomial X."""
    if not 0 < p < 1:
        return 0.0
    m = min(n, math.floor(n * p) + 1)
    ways = math.lgamma(n + 1) - math.lgamma(m + 1) - math.lgamma(n - m + 1)
    return 2 * m * math.exp(ways + m * math.log(p) + (n - m + 1) * math.log1p(-p))
