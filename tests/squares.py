"""Pictures in which one patch decides the class, and a small model that learned it: what a true map of them is, is known."""

import functools

import numpy as np
import torch
from torch.nn import functional as F

from asking import predictor_of
from families import small

LABELS = ["red", "green", "blue", "nothing"]
PATCH, GRID = 8, (4, 6)


def picture(label, place, seed, flat=0.0, tint=0):
    """uint8 [3, 32, 48]: grey noise and, in the patch at (row, column), a square of the label's colour; none for the last label.

    flat: the share of the other patches that are plain grey. tint: the most by which the whole picture is coloured.
    """
    rng = np.random.default_rng(seed)
    pixels = rng.integers(90, 166, (1, PATCH * GRID[0], PATCH * GRID[1])).repeat(3, axis=0)
    plain = (rng.random(GRID) < flat).repeat(PATCH, 0).repeat(PATCH, 1)
    pixels[:, plain] = 128
    pixels += rng.integers(-tint, tint + 1, (3, 1, 1))
    if label < 3:
        row, column = (PATCH * n for n in place)
        pixels[:, row : row + PATCH, column : column + PATCH] = 20
        pixels[label, row : row + PATCH, column : column + PATCH] = 240
    return torch.from_numpy(pixels.astype(np.uint8))


def mask_of(place):
    """[h, w]: 1 where the square is."""
    mask = np.zeros(GRID)
    mask[place] = 1
    return mask


@functools.cache
def learned():
    """A predictor that finds squares and their colours wherever they are; trained for a few seconds."""
    model = small("vit", image_size=(PATCH * GRID[0], PATCH * GRID[1]), dim=32)
    predictor = predictor_of(model, labels=LABELS)
    rng, model = np.random.default_rng(0), model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(120):
        targets = rng.integers(0, 4, 32)
        places = zip(rng.integers(0, GRID[0], 32), rng.integers(0, GRID[1], 32), strict=True)
        drawn = [
            picture(k, place, 1000 * step + i, flat=rng.random(), tint=20)
            for i, (k, place) in enumerate(zip(targets, places, strict=True))
        ]
        logits = model(predictor.card.preprocess.normalise(torch.stack(drawn)))
        F.cross_entropy(logits, torch.from_numpy(targets)).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    return predictor
