"""From a resolved recipe to what the loop needs: the module that is trained, the objective and the batches."""

from torch import nn

from vitral.data.compose import Compose
from vitral.data.dataset import DataSet
from vitral.data.loader import TrainingBatches
from vitral.data.mix import Mix
from vitral.data.preprocess import Preprocess
from vitral.data.things import Boxes
from vitral.errors import VitralError
from vitral.evaluation.described import fit_described
from vitral.layers.block import Block
from vitral.models.common import ImageModel, ModelConfig
from vitral.models.heads.dense import build_model
from vitral.objectives.classify import Classify
from vitral.objectives.distill import Distill, Teacher
from vitral.objectives.objective import Objective
from vitral.objectives.options import ClassifyOptions, PretextOptions
from vitral.predict import load
from vitral.training.config import Recipe
from vitral.training.tasks import LEARNING
from vitral.training.transfer import Initial, restrict


def assemble(
    recipe: Recipe, data: DataSet, config: ModelConfig, preprocess: Preprocess, initial: Initial | None = None
) -> tuple[nn.Module, Objective]:
    """The module to train, with the `initial` weights or random ones, and its objective."""
    model = build_model(config, recipe.head if recipe.head.name else None)
    options = recipe.objective
    if isinstance(options, ClassifyOptions) and isinstance(model.head, nn.Linear):
        nn.init.constant_(model.head.bias, options.head_bias)
    if initial is not None:
        initial.fill(model, data.labels, recipe.transfer.zero_head)
    _fit_beside(model, recipe, data, preprocess)
    restrict(model, recipe.transfer)
    for module in model.modules():
        if isinstance(module, Block):
            module.recompute = recipe.train.gradient_checkpointing
    if isinstance(options, PretextOptions):
        return options.learner(model, preprocess)
    objective = LEARNING[data.task].objective(options, data)
    if not isinstance(options, ClassifyOptions) or options.teacher is None:
        return model, objective
    assert isinstance(objective, Classify), "LEARNING refuses a teacher for other tasks"
    teacher = Teacher(load(options.teacher), data.labels, preprocess)
    return model, Distill(objective, teacher, options.distillation, options.distillation_weight, options.temperature)


def _fit_beside(model: ImageModel, recipe: Recipe, data: DataSet, preprocess: Preprocess) -> None:
    """What answers beside the model is known before the first step."""
    if model.beside is None:
        return
    if not data.splits["train"].targets.one_class:
        raise VitralError(f"beside = edges: answers with one class, and the task is {data.task}; leave out --beside")
    fit_described(model.beside, data.splits["train"], preprocess, mirrored=bool(recipe.augment.hflip))


def composing(recipe: Recipe, data: DataSet, preprocess: Preprocess) -> Compose | None:
    """What joins several images into one, if the recipe asks for it. VitralError for data or a budget that do not suit it."""
    augment, train = recipe.augment, recipe.train
    if not augment.mosaic and not augment.paste:
        return None
    name, value = ("augment.mosaic", augment.mosaic) if augment.mosaic else ("augment.paste", augment.paste)
    split = data.splits["train"]
    if not isinstance(split.targets, Boxes):
        raise VitralError(f"{name} {value:g}: joins images with objects, and the task is {data.task}; leave it out")
    if augment.paste and data.task != "instance":
        raise VitralError(
            f"augment.paste {augment.paste:g}: lays objects over others by their masks, as task instance learns them; leave it out"
        )
    assert train.batch_size is not None
    steps_per_epoch = -(-len(split) // (train.batch_size * train.accumulation))
    epochs = train.epochs if train.steps is None else train.steps / steps_per_epoch
    if augment.mosaic and epochs is None:
        raise VitralError(
            f"augment.mosaic {augment.mosaic:g}: ends at a share of the budget, which by the clock has no number of passes; give --epochs or --steps"
        )
    until = augment.mosaic_until * (epochs or 0)
    return Compose(augment.mosaic, until, augment.paste, len(split), preprocess.interpolation)


def training_batches(
    recipe: Recipe, data: DataSet, preprocess: Preprocess, part: tuple[int, int] = (0, 1)
) -> TrainingBatches:
    """The training split as augmented batches of the effective size, in the objective's views. part: as in `TrainingBatches`."""
    train, augment, options = recipe.train, recipe.augment, recipe.objective
    assert train.batch_size is not None
    mix = Mix(augment, len(data.labels)) if augment.mixup or augment.cutmix else None
    return TrainingBatches(
        data.splits["train"],
        preprocess,
        options.views(augment, preprocess),
        train.batch_size * train.accumulation,
        train.seed,
        mix=mix,
        compose=composing(recipe, data, preprocess),
        repeats=augment.repeats,
        balanced=isinstance(options, ClassifyOptions) and options.sampling == "balanced",
        part=part,
    )
