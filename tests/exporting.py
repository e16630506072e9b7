"""Small predictors of every family, head and task, and their exported files, each written once as that takes seconds."""

import functools
import tempfile
from pathlib import Path

import torch

from families import CLASSIFIERS, small
from vitral.checkpoints.card import ModelCard
from vitral.data.preprocess import Preprocess
from vitral.deploy.export.file import place
from vitral.deploy.export.formats import FORMATS
from vitral.deploy.export.graph import Traced
from vitral.models.heads.dense import build_model
from vitral.models.heads.options import LinearOptions, QueryOptions, SegformerOptions
from vitral.predict import Predictor

NAMES = ["cross", "disc", "ring", "bar"]
QUERIES = {"queries": 5, "query_dim": 16, "query_heads": 2, "pixel_dim": 8}
HEADS = {
    "linear": ("semantic", LinearOptions()),
    "segformer": ("semantic", SegformerOptions(head_dim=16)),
    "query": ("instance", QueryOptions(**QUERIES)),
    "dense query": ("detect", QueryOptions(**QUERIES, decoder_layers=0)),
    "panoptic": ("panoptic", QueryOptions(**QUERIES, stuff=(1,))),
}
OWN = {"yolos": "detect", "eomt": "panoptic"}
"""Families whose own head answers places."""


def predictor(family="vit", task="classify", head=None, **options):
    """For images of 32 x 48 pixels; head: a key of `HEADS`, which says the task."""
    model = small(family, **({"image_size": (32, 48)} | options))
    task, made = HEADS[head] if head else (OWN.get(family, task), None)
    if made is not None:
        model = build_model(model.config, made)
        torch.manual_seed(1)  # with which every family finds something
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p) * 0.1)
    channels = model.config.in_channels
    steps = Preprocess(32, 48, channels, (0.4,) * channels, (0.25,) * channels, crop_fraction=0.9)
    described = None if made is None else made.to_json()
    return Predictor(model.eval(), ModelCard(family, model.config.arguments(), NAMES, steps, task=task, head=described))


MATRIX = [
    *((family, None) for family in [*CLASSIFIERS, *OWN] if family != "mae"),  # which has no head
    *((family, head) for family in CLASSIFIERS if family != "mae" for head in HEADS),
]
"""(family, head) of all that predicts."""

FOLDER = tempfile.TemporaryDirectory(prefix="exported-")


@functools.lru_cache(maxsize=2)
def traced(family, head):
    return Traced(predictor(family, head=head))


@functools.cache
def exported(to, family="vit", head=None):
    """A predictor and its file, which is not to be written to."""
    made = traced(family, head)
    path = Path(FOLDER.name, f"{family}-{head}{FORMATS[to].suffix}")
    FORMATS[to].write(made, path)
    return made.predictor, path


def copied(made, out, to=None):
    """`export` of a `predictor()`, from the file that is there already."""
    to = to or next(name for name, each in FORMATS.items() if each.suffix == out.suffix)
    place(exported(to)[1], out)
