"""From a resolved recipe to what the loop needs: the module that is trained, the objective, and the batches. The one place that knows them all."""

import numpy as np
import torch
from torch import nn

from vitral.data.augment import Augmentation
from vitral.data.loader import TrainingBatches
from vitral.data.mix import Mix
from vitral.data.preprocess import Preprocess
from vitral.data.sources import DataSet
from vitral.layers.block import Block
from vitral.models.common import ModelConfig
from vitral.models.zoo import build
from vitral.objectives.classify import Classify, balanced_weights
from vitral.objectives.objective import Objective
from vitral.training.config import Recipe


def assemble(recipe: Recipe, data: DataSet, config: ModelConfig, preprocess: Preprocess) -> tuple[nn.Module, Objective]:
    """What is trained, and towards what."""
    model = build(config)
    for module in model.modules():
        if isinstance(module, Block):
            module.recompute = recipe.train.gradient_checkpointing
    return model, _classify(recipe, data)


def _classify(recipe: Recipe, data: DataSet) -> Classify:
    options = recipe.objective
    weights = None
    if options.class_weights == "balanced":
        counts = np.bincount(data.splits["train"].targets, minlength=len(data.labels))
        weights = balanced_weights(torch.from_numpy(counts).float())
    return Classify(options.smoothing, options.loss or "ce", weights)


def training_batches(recipe: Recipe, data: DataSet, preprocess: Preprocess) -> TrainingBatches:
    """The training split as augmented batches of the effective size."""
    train, augment = recipe.train, recipe.augment
    assert train.batch_size is not None
    mix = Mix(augment, len(data.labels)) if augment.mixup or augment.cutmix else None
    return TrainingBatches(
        data.splits["train"],
        preprocess,
        [Augmentation(augment, preprocess)],
        train.batch_size * train.accumulation,
        train.seed,
        mix=mix,
        repeats=augment.repeats,
        balanced=recipe.objective.sampling == "balanced",
    )
