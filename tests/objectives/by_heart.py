"""For tests of objectives: a loop around one, a batch to learn by heart, and its gradients."""

import functools
from types import SimpleNamespace

import numpy as np
import torch

from drawing import draw_shape
from vitral.data.augment import Augmentation
from vitral.data.loader import Batch, TrainingBatches
from vitral.data.options import AugmentOptions, DataOptions
from vitral.data.preprocess import Preprocess
from vitral.data.sources import open_data
from vitral.models.beit import Beit, BeitConfig
from vitral.objectives.masking import MaskedPrediction
from vitral.randomness import keys
from vitral.training.config import Recipe
from vitral.training.loop import Loop
from vitral.training.optim import build_optimizers
from vitral.training.options import OptimOptions, TrainOptions
from vitral.training.state import Progress

QUIET = SimpleNamespace(trained=lambda record: None, message=lambda text: None, checkpoint=lambda progress, **_: None)


@functools.cache
def digits():
    return open_data("digits", DataOptions()).splits["train"]


def make_loop(model, objective, batch_size=32, accumulation=1, lr=3e-3):
    """A loop whose own data are not used: batches are given to it."""
    recipe = Recipe(
        optim=OptimOptions("adamw", lr=lr, weight_decay=0.0),
        train=TrainOptions(batch_size=batch_size, accumulation=accumulation, workers=0, steps=100),
    )
    steps = Preprocess(20, 20, 1, (0.5,), (0.5,))
    batches = TrainingBatches(digits(), steps, [Augmentation(AugmentOptions(crop="none"), steps)], 32, 0)
    progress = Progress(batch_size=batch_size, accumulation=accumulation)
    return Loop(
        model.train(), objective, batches, build_optimizers(model, recipe.optim), None, progress, recipe,
        torch.device("cpu"), "fp32",
    )  # fmt: skip


def masked_prediction(tiny_vit, classes, family="vit", **overrides):
    """A MaskedPrediction around a small ViT, or a BEiT with shared relative positions. tiny_vit: the fixture."""
    if family == "vit":
        backbone = tiny_vit(num_classes=0, **overrides)
    else:
        torch.manual_seed(0)
        shape = {"image_size": 16, "patch_size": 4, "in_channels": 1, "dim": 32, "depth": 2, "num_heads": 4,
                 "relative": "shared", "layer_scale": None}  # fmt: skip
        backbone = Beit(BeitConfig(num_classes=0, **(shape | overrides)))
    torch.manual_seed(1)
    return MaskedPrediction(backbone, classes)


def shapes(count=8, side=16, channels=1, normalised=False, step=0):
    """Bright discs, squares and crosses on noise as the loader gives them, uint8 [B, C, side, side], or as objectives see them."""
    drawn = np.stack([draw_shape(i % 3, i, side) for i in range(count * channels)])
    images = torch.from_numpy(drawn).unflatten(0, (count, channels))
    if normalised:
        images = (images.float() / 255 - 0.5) / 0.5
    own = torch.from_numpy(keys(0, "sample", step, np.arange(count)))
    return Batch((images,), torch.zeros(count, dtype=torch.long), own)


def cut(batch, height, width):
    """The upper left of its images."""
    return Batch((batch.images[..., :height, :width],), batch.targets, batch.keys)


def gradient(loop, batch):
    """The gradients as one vector, and what the loop tells of the batch."""
    loop.model.zero_grad()
    told = loop.gradients(batch, QUIET)
    return torch.cat([p.grad.flatten() for p in loop.model.parameters() if p.grad is not None]), told


def learn(loop, batch, steps):
    """Steps on one batch; the loss of each."""
    losses = []
    for _ in range(steps):
        losses.append(loop.gradients(batch, QUIET)["loss"])
        loop.update()
    return losses
