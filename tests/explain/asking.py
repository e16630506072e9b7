"""A predictor around a small model, to ask for maps."""

from vitral.checkpoints.bundle import ModelCard
from vitral.data.preprocess import Preprocess
from vitral.models.zoo import family_of
from vitral.predict import Predictor

SIZE = (24, 40)  # height, width


def predictor_of(model, size=SIZE, multi_label=False):
    half = (0.5,) * model.config.in_channels
    labels = [f"kind {k}" for k in range(model.num_classes)]
    card = ModelCard(
        family_of(model.config),
        model.config.arguments(),
        labels,
        Preprocess(*size, model.config.in_channels, half, half),
        multi_label=multi_label,
    )
    return Predictor(model, card)
