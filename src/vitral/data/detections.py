"""What was found in one image, in its own pixels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitral.data.annotated import Annotated, Runs


@dataclass(frozen=True, eq=False)
class Detections:
    """n objects that were found in an image, best first."""

    classes: NDArray[np.int64]
    """[n]: index of the class."""
    scores: NDArray[np.float64]
    """[n]: 0 to 1."""
    boxes: NDArray[np.float64]
    """[n, 4]: x0, y0, x1, y1 in pixels of the upright original."""
    masks: tuple[Runs, ...] | None = None
    """Of each, on the original's grid."""

    def __len__(self) -> int:
        return len(self.classes)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "Detections":
        """Those by number, or where a mask is true."""
        numbers = np.arange(len(self))[rows]
        masks = None if self.masks is None else tuple(self.masks[i] for i in numbers.tolist())
        return Detections(self.classes[numbers], self.scores[numbers], self.boxes[numbers], masks)


def as_found(truth: Annotated, *, masks: bool) -> Detections:
    """The annotation as if it had been found, every score 1: what scores 1.000 where nothing is wrong. Crowds cannot be found.

    masks: take the shapes too, which all objects must then have.
    """
    from vitral.data.shapes import as_runs

    objects = [each for each in truth.objects if not (each.crowd or each.hard)]
    runs = None
    if masks:
        runs = tuple(as_runs(each.shape, truth.height, truth.width) for each in objects if each.shape is not None)
        assert len(runs) == len(objects)
    return Detections(
        np.array([each.index for each in objects], np.int64),
        np.ones(len(objects)),
        np.array([each.box for each in objects], np.float64).reshape(-1, 4),
        runs,
    )
