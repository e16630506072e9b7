"""What the runs of a sweep will cost, found before any of them starts; every recipe is checked on the way."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vitral.data.options import DataOptions
from vitral.data.sources import DataSet, open_data
from vitral.errors import VitralError, all_of, some
from vitral.guidance.sweep.sweep import Point
from vitral.models.common import ModelConfig
from vitral.models.measure import Cost, measure
from vitral.training.config import Recipe
from vitral.training.defaults import check, resolve
from vitral.training.loop import Budget
from vitral.training.machine import choose_device
from vitral.training.shape import patch_for, shape
from vitral.training.transfer import open_initial


@functools.cache
def cost_of(config: ModelConfig) -> Cost:
    """`measure`, once for each shape."""
    return measure(config)


@dataclass(frozen=True)
class Expected:
    """What a run will take."""

    images: int
    """Training images."""
    multiply_adds: int
    """Of one image, forward."""
    images_seen: int | None
    """None for a budget by the clock."""
    seconds: float | None
    """Of a budget by the clock."""

    @property
    def compute(self) -> int | None:
        return None if self.images_seen is None else self.multiply_adds * self.images_seen


def seen(steps: int, images: int, batch: int) -> int:
    """Images in the first `steps` batches, as the last batch of an epoch can be short."""
    epochs, rest = divmod(steps, -(-images // batch))
    return epochs * images + rest * batch


def check_points(points: Sequence[Point]) -> None:
    """Refuse, all at once, the runs that cannot be meant so, as far as that is known without the data."""
    problems: dict[str, list[str]] = {}
    for point in points:
        if point.recipe.objective.name != "classify":
            raise VitralError(
                f"{point.name}: objective {point.recipe.objective.name} has no scores to compare; sweep over classify"
            )
        try:
            recipe = point.recipe
            check(recipe if recipe.transfer.init is None else open_initial(recipe)[0])
        except VitralError as error:
            problems.setdefault(str(error), []).append(point.name)
    if problems:
        raise VitralError(all_of("sweep", [f"{message} ({some(names, 2)})" for message, names in problems.items()]))


def expect(data: str, points: Sequence[Point], progress: Callable[[int, int], None]) -> dict[str, Expected]:
    """What each run will take, by its name. Opens the data once for each share of it."""
    opened: dict[DataOptions, DataSet] = {}
    known: dict[Recipe, Expected] = {}
    found = {}
    for point in points:
        recipe = point.recipe
        unseeded = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, seed=0))
        if unseeded not in known:
            if recipe.data not in opened:
                least = lambda height, width, model=recipe.model: patch_for(model, height, width)  # noqa: E731
                opened[recipe.data] = open_data(data, recipe.data, least_side=least, progress=progress)
            known[unseeded] = _expect(recipe, opened[recipe.data])
        found[point.name] = known[unseeded]
    return found


def _expect(recipe: Recipe, data: DataSet) -> Expected:
    if data.multi_label:
        raise VitralError(
            f"{data.name}: an image can have several labels; a sweep compares top-1 on data of one class an image"
        )
    recipe, _ = open_initial(recipe)
    grey = (
        0.5,
    ) * data.channels  # stands for the images' own statistics, which cost nothing to the run and much to find
    recipe = dataclasses.replace(recipe, view=dataclasses.replace(recipe.view, mean=grey, std=grey))
    recipe, _ = resolve(recipe, data, choose_device(recipe.train.device).type)
    assert recipe.train.batch_size is not None
    images, batch = len(data.splits["train"]), recipe.train.batch_size * recipe.train.accumulation
    budget = Budget.of(recipe, -(-images // batch))
    taken = None if budget.steps is None else seen(budget.steps, images, batch)
    return Expected(images, cost_of(shape(recipe, data)).multiply_adds, taken, budget.seconds)
