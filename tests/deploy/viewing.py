"""A viewer's session around small models, with a picture or two."""

import io

import numpy as np
from PIL import Image

from asking import predictor_of
from families import small
from vitral.deploy.viewer.images import Images
from vitral.deploy.viewer.session import Session


def encoded(height=40, width=56, seed=0, kind="PNG", **options):
    """A colour picture of soft noise as a file's bytes."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(buffer, kind, **options)
    return buffer.getvalue()


def png(pixels):
    """uint8 [H, W] or [H, W, 3] as a file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def session_of(*models, given=1):
    """A session of models, by default of one small ViT, and as many pictures."""
    images = Images()
    ids = [images.add(encoded(seed=seed), f"picture {seed}.png", stays=True).id for seed in range(given)]
    predictors = [predictor_of(model) for model in models or (small("vit", image_size=(40, 56)),)]
    return Session(predictors, [f"model {i}" for i in range(len(predictors))], images, given=ids)
