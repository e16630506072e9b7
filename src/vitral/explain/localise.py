"""Does a map lie on the object? For pictures with a mask of the object.

This is no test of faithfulness: where a model uses the background, a faithful map lies off the object.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitral.evaluation.multilabel import average_precision
from vitral.explain.removal import over_view


@dataclass(frozen=True)
class Localisation:
    """Agreement of a map with a mask, each in [0, 1]."""

    pointing: float
    """Whether the largest value lies on the object (the pointing game, https://arxiv.org/abs/1608.00507, without its tolerance);
    where several places are the largest, the share of them that do."""
    pixel_accuracy: float
    """Of the map cut at its mean, as in https://arxiv.org/abs/2012.09838 (section 4)."""
    miou: float
    """Of the same: the mean over object and background of intersection / union."""
    average_precision: float
    """Over all thresholds; the mean over pictures is mAP."""


def localised(
    values: NDArray[np.floating], mask: NDArray[np.bool_], extent: tuple[float, float] = (1.0, 1.0)
) -> Localisation:
    """A map [h, w] of any resolution against the object's mask [H, W] in the same view, which has both object and background.

    extent: the map's height and width over the view's, as of an `Explanation`.
    """
    assert mask.any(), "the mask is empty"
    assert not mask.all(), "the mask covers the whole picture"
    fine = over_view(values, (mask.shape[0], mask.shape[1]), extent)
    marked = fine > fine.mean()
    precision = average_precision(fine.ravel(), mask.ravel())
    assert precision is not None
    return Localisation(
        pointing=float(mask[fine == fine.max()].mean()),
        pixel_accuracy=float((marked == mask).mean()),
        miou=float(np.mean([(a & b).sum() / (a | b).sum() for a, b in ((marked, mask), (~marked, ~mask))])),
        average_precision=precision,
    )
