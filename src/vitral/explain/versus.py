"""Two maps of one picture: how far they agree, and which is the more faithful.

Axes: h w grid of a map, H W picture.
"""

import numpy as np
from numpy.typing import NDArray

from vitral.explain.faithfulness import LEAST, UNMOVED, Faithfulness
from vitral.explain.figure import Explanation
from vitral.explain.removal import check_ordered
from vitral.explain.sanity import spearman


def agreement(left: Explanation, right: Explanation) -> float:
    """Spearman's rank correlation of two maps of one picture, in [-1, 1], over the part of it that both models see.

    Maps of one grid are compared value by value; else each value of the finer is paired with the value of the other over its middle.

    Raises:
        VitralError: one of them is a picture in colours, which has no ranks.
    """
    check_ordered(left)
    check_ordered(right)
    (rows, other_rows), (columns, other_columns) = (_paired(left, right, axis) for axis in (0, 1))
    assert len(rows), "two views of one picture share its middle"
    assert len(columns), "two views of one picture share its middle"
    return spearman(left.grid[np.ix_(rows, columns)], right.grid[np.ix_(other_rows, other_columns)])


def gain(faithfulness: Faithfulness) -> float:
    """A map's area above random orders in insertion plus that below them in deletion: 0 for a map that is no better than random.

    The symmetric relevance gain of https://arxiv.org/abs/2401.06654, relative to random orders on this picture.
    """
    above = faithfulness.insertion - faithfulness.random_insertion
    return float(above + faithfulness.random_deletion - faithfulness.deletion)


def scatter(faithfulness: Faithfulness) -> float:
    """The standard deviation of the random orders' own gains."""
    return float(np.std([curves.insertion - curves.deletion for curves in faithfulness.random]))


def truer(left: Faithfulness, right: Faithfulness, names: tuple[str, str]) -> str:
    """One sentence: which of two maps, called `names`, is the more faithful, and by which numbers.

    A difference counts if it is larger than the standard deviation of random orders' gains, and than `LEAST`.
    """
    if left.target != right.target:
        tested = f"{names[0]} was tested on {left.target!r}, {names[1]} on {right.target!r}"
        return f"not comparable: {tested}; choose one class for both"
    if still := [name for name, each in zip(names, (left, right), strict=True) if not each.tells]:
        return UNMOVED + (f" ({still[0]})" if len(still) == 1 else "")
    gains, chance = (gain(left), gain(right)), max(scatter(left), scatter(right))
    (better, higher), (worse, lower) = sorted(zip(names, gains, strict=True), key=lambda pair: -pair[1])
    shown = [f"{round(value, 2) + 0.0:.2f}" for value in (higher, lower, chance)]  # no -0.00
    numbers = f"{shown[0]} over random orders, {worse} {shown[1]}; random orders scatter by {shown[2]} themselves"
    if higher <= max(chance, LEAST):
        return f"neither says more about the answer than chance: {better} gains {numbers}"
    if higher - lower <= max(chance, LEAST):
        return f"no difference that can be told: {better} gains {numbers}"
    return f"{better} is the more faithful: it gains {numbers}"


def _paired(left: Explanation, right: Explanation, axis: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Along one axis of the picture: the indices of both grids that lie at the middles of the finer grid's cells."""
    (start, step, n, end), (other_start, other_step, other_n, other_end) = (_ruler(e, axis) for e in (left, right))
    if step <= other_step:
        middles = start + (np.arange(n) + 0.5) * step
    else:
        middles = other_start + (np.arange(other_n) + 0.5) * other_step
    middles = middles[(middles >= max(start, other_start)) & (middles < min(end, other_end))]
    one = ((middles - start) / step).astype(np.int64).clip(max=n - 1)
    other = ((middles - other_start) / other_step).astype(np.int64).clip(max=other_n - 1)
    return one, other


def _ruler(explanation: Explanation, axis: int) -> tuple[float, float, int, float]:
    """(start, cell, cells, end) of the map along an axis, as shares of the picture, which two models may read at two sizes."""
    size, n = explanation.image.shape[axis], explanation.grid.shape[axis]
    box = explanation.box or (0, 0, *explanation.image.shape[:2])
    start, length = box[axis] / size, box[axis + 2] / size
    return start, length * explanation.extent[axis] / n, n, start + length
