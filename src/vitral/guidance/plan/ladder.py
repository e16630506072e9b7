"""How often a run should see its images, and the size of model that a time budget allows for that."""

import math
from collections.abc import Callable, Sequence

from vitral.training.config import Recipe
from vitral.training.sizes import Size

PASSES, AT = (
    10.0,
    57_000,
)  # Fashion-MNIST's images: so often a model of width 128 saw each in its best run of eight minutes
FEWEST, MOST = 8.0, 300.0  # passes


def passes_worth(images: int) -> float:
    """How often a run should see each of its training images at least: more often for fewer images, by the square root."""
    return min(MOST, max(FEWEST, PASSES * math.sqrt(AT / images)))


def open_size(recipe: Recipe) -> bool:
    """Whether the model's width is open, so that a plan may choose it; initial weights bring their own."""
    return recipe.transfer.init is None and recipe.model.name is None and recipe.model.get("dim") is None


def climb(sizes: Sequence[Size], passes: Callable[[Size], float], worth: float) -> Size:
    """The largest size that makes enough passes, found with few estimates; the smallest if none does."""
    low, high = 0, len(sizes) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if passes(sizes[middle]) >= worth else (low, middle - 1)
    return sizes[low]
