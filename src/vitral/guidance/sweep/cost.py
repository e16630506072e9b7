"""The cost of a sweep's runs, estimated before any of them starts; every recipe is checked on the way."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vitral.data.dataset import DataSet
from vitral.data.options import DataOptions
from vitral.data.sources import open_data, share_of
from vitral.errors import VitralError, all_of, some
from vitral.evaluation.evaluate import EVALUATORS
from vitral.evaluation.evaluator import Scores
from vitral.guidance.sweep.sweep import Point
from vitral.models.common import ModelConfig
from vitral.models.measure import Cost, measure
from vitral.training.config import Recipe
from vitral.training.defaults import check, resolve
from vitral.training.loop import Budget
from vitral.training.machine import choose_device
from vitral.training.shape import shape
from vitral.training.sizes import patch_for
from vitral.training.transfer import open_initial

PASSES = 3  # forward passes that a training image costs: the backward pass costs two


@functools.cache
def cost_of(config: ModelConfig) -> Cost:
    """`measure`, once for each shape."""
    return measure(config)


@dataclass(frozen=True)
class Expected:
    """The cost of a run."""

    images: int
    """Training images."""
    multiply_adds: int
    """Of one image, forward only."""
    images_seen: int | None
    """None for a time budget."""
    seconds: float | None
    """The time budget; None for one in steps or epochs."""

    @property
    def compute(self) -> int | None:
        """Multiply-adds of training."""
        return None if self.images_seen is None else compute(self.multiply_adds, self.images_seen)


def compute(multiply_adds: int, images_seen: int) -> int:
    """Multiply-adds of training on so many whole images: forward, and backward at twice that."""
    return PASSES * multiply_adds * images_seen


def seen(steps: int, images: int, batch: int) -> int:
    """Images in the first `steps` batches; the last batch of an epoch can be short."""
    epochs, rest = divmod(steps, -(-images // batch))
    return epochs * images + rest * batch


def check_points(points: Sequence[Point]) -> None:
    """Validate all runs before reading images; one error names everything that is wrong."""
    problems: dict[str, list[str]] = {}
    for point in points:
        if not point.recipe.objective.labelled:
            raise VitralError(
                f"{point.name}: objective {point.recipe.objective.name} learns without labels and has no scores to compare; leave it out"
            )
        try:
            recipe = point.recipe
            check(recipe if recipe.transfer.init is None else open_initial(recipe)[0])
        except VitralError as error:
            problems.setdefault(str(error), []).append(point.name)
    if problems:
        raise VitralError(all_of("sweep", [f"{message} ({some(names, 2)})" for message, names in problems.items()]))


class Ground:
    """The data of a sweep, opened once for each way of reading them, and the recipes resolved on all of their training images.

    progress: called with (images checked, images in all) now and then, the first time that the data are opened.
    """

    def __init__(self, data: str, progress: Callable[[int, int], None]) -> None:
        self.data, self.progress = data, progress
        self.opened: dict[DataOptions, DataSet] = {}
        self.resolved: dict[Recipe, Recipe] = {}

    @property
    def scores(self) -> type[Scores]:
        """What the runs are compared by, once the data are open."""
        return EVALUATORS[next(iter(self.opened.values())).task].scores

    def settle(self, point: Point) -> Point:
        """The point with the fields that its recipe leaves open resolved on all images, whatever its fraction of them.

        So runs at different fractions differ in nothing but their images. A run with fewer images than a batch takes all of them.
        """
        own, full = point.recipe, self._whole(point.recipe)
        optim = dataclasses.replace(own.optim, lr=full.optim.lr, lr_per=None)
        train = dataclasses.replace(own.train, batch_size=full.train.batch_size, epochs=full.train.epochs)
        augment = dataclasses.replace(own.augment, scale=full.augment.scale)
        model = full.model if own.transfer.init is None else own.model
        settled = dataclasses.replace(own, model=model, optim=optim, train=train, augment=augment)
        return dataclasses.replace(point, recipe=settled)

    def expect(self, point: Point) -> Expected:
        """The cost of a settled point's run."""
        recipe, data = self._whole(point.recipe), self._open(point.recipe)
        assert recipe.train.batch_size is not None
        targets = data.splits["train"].targets
        groups = Counter(targets.groups([targets.key(i, data.labels) for i in range(len(targets))]))
        images = sum(share_of(count, point.recipe.data.train_fraction) for count in groups.values())
        batch = recipe.train.batch_size * recipe.train.accumulation
        budget = Budget.of(recipe, -(-images // batch))
        taken = None if budget.steps is None else seen(budget.steps, images, batch)
        return Expected(images, cost_of(shape(recipe, data)).multiply_adds, taken, budget.seconds)

    def decided(self, points: Sequence[Point]) -> str:
        """What `settle` decides for these points, which are not settled yet, as a sentence; "" if nothing is open."""
        found: dict[str, list[str]] = {}
        for point in points:
            own, full = point.recipe, self._whole(point.recipe)
            crops = own.augment.scale is None and full.augment.crop in ("resized", "framed")
            for name, is_open, value in (
                ("batch of", own.train.batch_size is None, full.train.batch_size),
                ("epochs", full.train.epochs != own.train.epochs, full.train.epochs),
                ("learning rate", full.optim.lr != own.optim.lr, full.optim.lr),
                ("crops from", crops, full.augment.scale and full.augment.scale[0]),
            ):
                if is_open and f"{value:g}" not in found.setdefault(name, []):
                    found[name].append(f"{value:g}")
        if not found:
            return ""
        count = max(len(data.splits["train"]) for data in self.opened.values())
        told = ", ".join(f"{name} {' or '.join(values)}" for name, values in found.items())
        return f"decided once, on all {count:,} training images, for every run: {told}"

    def _whole(self, recipe: Recipe) -> Recipe:
        """The recipe resolved on all training images."""
        key = dataclasses.replace(recipe, data=_all(recipe.data), train=dataclasses.replace(recipe.train, seed=0))
        if key not in self.resolved:
            data = self._open(recipe)
            begun, _ = open_initial(key)
            grey = (
                0.5,
            ) * data.channels  # in place of the images' own mean, which takes long to find and changes nothing here
            begun = dataclasses.replace(begun, view=dataclasses.replace(begun.view, mean=grey, std=grey))
            self.resolved[key], _ = resolve(begun, data, choose_device(recipe.train.device).type)
        return self.resolved[key]

    def _open(self, recipe: Recipe) -> DataSet:
        """All the data, as this recipe reads them."""
        options = _all(recipe.data)
        if options not in self.opened:
            least = lambda height, width: patch_for(recipe.model, height, width)  # noqa: E731
            progress = None if self.opened else self.progress
            self.opened[options] = open_data(self.data, options, least_side=least, progress=progress)
            if len(tasks := {data.task for data in self.opened.values()}) > 1:
                raise VitralError(
                    f"{self.data}: the recipes' --task or --label-separator read it as {' and as '.join(tasks)}; choose one"
                )
        return self.opened[options]


def _all(options: DataOptions) -> DataOptions:
    return dataclasses.replace(options, train_fraction=1.0)
