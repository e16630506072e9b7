"""Maps from changing the image and running the model again. Axes: C channels, H W pixels, h w grid, K classes."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vitral.explain.geometry import Floats
from vitral.models.common import ImageModel, evaluating

BATCH = 32


def log_odds(logits: Tensor, target: int, independent: bool) -> Tensor:
    """Logits [..., K] to log p / (1 - p) of the target [...]; independent: each label is a yes or no, and this is the logit itself."""
    if independent or logits.shape[-1] == 1:
        return logits[..., target]
    others = torch.cat([logits[..., :target], logits[..., target + 1 :]], dim=-1)
    return logits[..., target] - others.logsumexp(-1)


def occlusion(model: ImageModel, image: Tensor, target: int, independent: bool, stride: int) -> Floats:
    """[h, w]: the fall of the target's log-odds when a square of `stride` pixels is set to the mean colour; negative where they rise.

    Visualizing and Understanding Convolutional Networks, https://arxiv.org/abs/1311.2901, section 4.2, square by square. image: [C, H, W],
    whose mean colour the preprocessing makes zero.
    """
    grid = tuple(-(-side // stride) for side in image.shape[1:])
    answers = []
    with evaluating(model), torch.inference_mode():
        whole = log_odds(model(image[None]), target, independent)  # [1]
        for first in range(0, grid[0] * grid[1], BATCH):
            cells = range(first, min(first + BATCH, grid[0] * grid[1]))
            batch = image.repeat(len(cells), 1, 1, 1)
            for covered, cell in zip(batch, cells, strict=True):
                row, column = (stride * i for i in divmod(cell, grid[1]))
                covered[:, row : row + stride, column : column + stride] = 0
            answers.append(log_odds(model(batch), target, independent))
    return (whole - torch.cat(answers)).reshape(grid).float().cpu().numpy()


def cell_sums(attributions: Tensor, stride: int) -> Floats:
    """[C, H, W] of pixels to their sums over squares of `stride` pixels, [h, w]; the last ones may be smaller."""
    _, height, width = attributions.shape
    padded = F.pad(attributions.sum(0), (0, -width % stride, 0, -height % stride))  # [h*stride, w*stride]
    return padded.unflatten(1, (-1, stride)).unflatten(0, (-1, stride)).sum((1, 3)).cpu().numpy()


def cell_side(strides: list[int], size: tuple[int, int], most: int = 256) -> int:
    """The finest of a model's strides that cuts an image of this size into at most `most` squares, else its coarsest."""
    few = [s for s in strides if np.prod([-(-side // s) for side in size]) <= most]
    return few[0] if few else strides[-1]
