"""From a resolved recipe to what the loop needs: the module that is trained, the objective, and the batches. The one place that knows them all."""

from dataclasses import replace

from torch import nn

from vitral.data.augment import Augmentation
from vitral.data.loader import TrainingBatches
from vitral.data.mix import Mix
from vitral.data.preprocess import Preprocess
from vitral.data.sources import DataSet
from vitral.layers.block import Block
from vitral.models.common import ImageModel, ModelConfig
from vitral.models.zoo import build
from vitral.objectives.beit import PredictTokens, VisualTokens
from vitral.objectives.classify import Classify
from vitral.objectives.dino import SelfDistil, SelfDistillation
from vitral.objectives.distill import Distill, Teacher
from vitral.objectives.mae import PaintPatches
from vitral.objectives.masking import MaskedPrediction
from vitral.objectives.objective import Objective
from vitral.objectives.patch import MeanColours, colour_classes
from vitral.objectives.tokenizer import Tokenise
from vitral.predict import load
from vitral.training.config import Recipe
from vitral.training.tasks import LEARNING
from vitral.training.transfer import Initial, restrict

MASK_RATIOS = {"patch": 0.5, "beit": 0.4, "dino": 0.3}  # where the recipe says nothing; MAE's is in its model's shape


def assemble(
    recipe: Recipe, data: DataSet, config: ModelConfig, preprocess: Preprocess, initial: Initial | None = None
) -> tuple[nn.Module, Objective]:
    """What is trained, from the `initial` weights or from random ones, and towards what."""
    model = build(config)
    if isinstance(model.head, nn.Linear):
        nn.init.constant_(model.head.bias, recipe.objective.head_bias)
    if initial is not None:
        initial.fill(model, data.labels, recipe.transfer.zero_head)
    restrict(model, recipe.transfer)
    for module in model.modules():
        if isinstance(module, Block):
            module.recompute = recipe.train.gradient_checkpointing
    if not recipe.objective.labelled:
        return _pretext(recipe, model, preprocess)
    objective = LEARNING[data.task].objective(recipe.objective, data)
    if recipe.objective.teacher is None:
        return model, objective
    assert isinstance(objective, Classify), "its task refuses a teacher"
    return model, _distill(recipe, objective, Teacher(load(recipe.objective.teacher), data.labels, preprocess))


def _pretext(recipe: Recipe, model: ImageModel, preprocess: Preprocess) -> tuple[nn.Module, Objective]:
    """The model inside of what its task without labels needs."""
    options = recipe.objective
    ratio = options.mask_ratio if options.mask_ratio is not None else MASK_RATIOS.get(options.name or "", 0.0)
    match options.name:
        case "mae":
            return model, PaintPatches()
        case "tokenizer":
            return model, Tokenise()
        case "patch":
            colours = MeanColours(preprocess.mean, preprocess.std, ratio)
            return MaskedPrediction(model, colour_classes(preprocess.channels)), colours
        case "beit":
            assert options.tokenizer is not None  # the command line trains one first
            tokens = VisualTokens(load(options.tokenizer), preprocess, model.patch_size)
            return MaskedPrediction(model, tokens.codes), PredictTokens(tokens, ratio)
        case _:
            assert options.name == "dino"
            learner = SelfDistillation(model, options.prototypes, patches=options.patch_loss > 0)
            momentum, temperature = options.teacher_momentum, options.teacher_temperature
            return learner, SelfDistil(momentum, temperature, options.patch_loss, ratio)


def _distill(recipe: Recipe, classify: Classify, teacher: Teacher) -> Distill:
    options = recipe.objective
    return Distill(classify, teacher, options.distillation, options.distillation_weight, options.temperature)


def training_batches(recipe: Recipe, data: DataSet, preprocess: Preprocess) -> TrainingBatches:
    """The training split as augmented batches of the effective size, for DINO in several views."""
    train, augment = recipe.train, recipe.augment
    assert train.batch_size is not None
    mix = Mix(augment, len(data.labels)) if augment.mixup or augment.cutmix else None
    return TrainingBatches(
        data.splits["train"],
        preprocess,
        _views(recipe, preprocess) if recipe.objective.name == "dino" else [Augmentation(augment, preprocess)],
        train.batch_size * train.accumulation,
        train.seed,
        mix=mix,
        repeats=augment.repeats,
        balanced=recipe.objective.sampling == "balanced",
    )


def _views(recipe: Recipe, preprocess: Preprocess) -> list[Augmentation]:
    """DINO's two large views and its small ones (https://arxiv.org/abs/2104.14294, section 3.1)."""
    options, patch = recipe.objective, preprocess.min_size
    sides = [
        max(1, round(side * options.local_share / patch)) * patch for side in (preprocess.height, preprocess.width)
    ]
    small = preprocess.sized(sides[0], sides[1])
    local = replace(recipe.augment, crop="resized", scale=options.local_scale)
    return [
        *(Augmentation(recipe.augment, preprocess, f"view{i}") for i in range(2)),
        *(Augmentation(local, small, f"local{i}") for i in range(options.local_crops)),
    ]
