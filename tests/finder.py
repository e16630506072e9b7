"""An engine that finds bright squares exactly, to test what becomes of its answers: a grey level is a class."""

import numpy as np
import torch
from scipy import ndimage

from vitral.api import Predictor
from vitral.checkpoints.card import ModelCard
from vitral.data.preprocess import Preprocess
from vitral.engines.engine import Engine
from vitral.models.heads.outputs import Found, Maps

LEVELS = {100: 0, 200: 1}
SURE = 6.0


class Finder(Engine):
    """Objects: every connected patch of a level. The score of one grows with its pixels, from 0.5."""

    def __call__(self, pixels):
        every = [self._one(image[0]) for image in pixels]
        most = max(1, *(len(each) for each in every))
        b, (h, w) = len(pixels), pixels.shape[2:]
        logits, boxes, masks = (
            torch.full((b, most, 2), -SURE),
            torch.zeros(b, most, 4),
            torch.full((b, most, h, w), -SURE),
        )
        for i, found in enumerate(every):
            for j, (index, mask) in enumerate(found):
                ys, xs = np.nonzero(mask)
                logits[i, j, index] = len(ys) / 1000
                boxes[i, j] = torch.tensor([xs.min() / w, ys.min() / h, (xs.max() + 1) / w, (ys.max() + 1) / h])
                masks[i, j][torch.from_numpy(mask)] = SURE
        return Found(logits, boxes, masks, 1.0)

    def _one(self, image):
        found = []
        for level, index in LEVELS.items():
            numbers, count = ndimage.label(image == level)
            found += [(index, numbers == k) for k in range(1, count + 1)]
        return found


class Segmenter(Engine):
    """The class of each pixel: 0 where it is dark, 1 where it is bright; wrong, but unsure, in two pixels at each side."""

    def __call__(self, pixels):
        bright = torch.from_numpy(pixels[:, 0]) > 50
        logits = torch.stack([~bright, bright], 1).float() * SURE
        edge = torch.ones_like(bright)
        edge[:, 2:-2, 2:-2] = False
        return Maps(torch.where(edge[:, None], SURE / 2 * torch.stack([bright, ~bright], 1), logits), 1)


def finder(task, side=32, engine=None, labels=("box", "disc"), ids=(), **data):
    """A predictor around such an engine that was trained on pictures of `side` pixels."""
    steps = Preprocess(side, side, 3, (0.5,) * 3, (0.5,) * 3, "pad")
    card = ModelCard("vit", {}, list(labels), steps, task=task, data={"size": [side, side], **data}, ids=list(ids))
    return Predictor(engine or Finder(), card)


def picture(height, width, *squares):
    """uint8 [h, w, 3]: dark, with squares (top, left, height, width, level)."""
    image = np.zeros((height, width, 3), np.uint8)
    for top, left, tall, wide, level in squares:
        image[top : top + tall, left : left + wide] = level
    return image
