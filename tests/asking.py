"""A predictor around a small model, to ask for maps."""

import torch

from vitral.api import Predictor
from vitral.checkpoints.card import ModelCard
from vitral.data.preprocess import Preprocess
from vitral.models.zoo import family_of

SIZE = (24, 40)  # height, width


def reads_evenly(model):
    """The model with attention that is the same for all tokens: its queries are 0."""
    for block in model.blocks:
        with torch.no_grad():
            for parameter in block.attn.qkv.parameters():
                parameter[: len(parameter) // 3] = 0
    return model


def predictor_of(model, size=None, task="classify", labels=None):
    """A predictor that sees images in -1..1. size: height and width of its view, by default the model's own; labels: by default numbered."""
    config = model.config
    half = (0.5,) * config.in_channels
    labels = [f"kind {k}" for k in range(config.num_classes)] if labels is None else list(labels)
    steps = Preprocess(*(size or config.image_size), config.in_channels, half, half)
    return Predictor(model, ModelCard(family_of(config), config.arguments(), labels, steps, task=task))
