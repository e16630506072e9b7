"""Images whose label looks wrong: those that a classifier which has not seen them disagrees about.

As in confident learning (https://arxiv.org/abs/1911.00068): each image is judged by a classifier fitted to the other folds, and counts as mislabelled
where another class is said more surely than that class is on average of its own images. The classifier is ridge regression from random Fourier
features (Rahimi and Recht, "Random Features for Large-Scale Kernel Machines", NeurIPS 2007) of what the pixels show, or of a model's features.

Axes: n images, D features, K classes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vitral.evaluation.words import against, beside_commonest
from vitral.guidance.doctor.reading import COLOUR_SIDE, Looks
from vitral.randomness import derive

FOLDS = 5
COMPONENTS = 128  # principal components that are kept
LEAST_WAVES, MOST_WAVES = 512, 2048  # random Fourier features; between the two as many as images
WIDTH = 2.0  # of the kernel, in median distances between images
PENALTY = 1e-2  # of the ridge, times the mean of the eigenvalues
CELLS, DIRECTIONS = 8, 8  # of the histograms of gradients
_BLOCK = 256  # images at once, so that they stay in the cache


@dataclass
class Judgement:
    """What a classifier that has not seen an image makes of its label."""

    scores: NDArray[np.float32]
    """[n, K]: about the probability of each class, or label."""
    suspicion: NDArray[np.float32]
    """[n]: how much more likely another answer is than the label, from -1 to 1; the higher the likelier it is wrong."""
    likely: NDArray[np.int64]
    """[n]: the class that looks likelier than the label; of several labels an image, the one that looks wrong (there or missing)."""
    doubted: NDArray[np.bool_]
    """[n]: whether the label counts as wrong."""
    agreement: float
    """Share of the labels that the classifier gives too."""
    commonest: float
    """Share of the labels that always saying the commonest class (of several labels an image: answer) gives."""
    images: int
    """Of which copies count once."""

    @property
    def tells(self) -> bool:
        """Whether the classifier is clearly better than always saying the commonest, by Wilson's 95 % interval; else it cannot judge."""
        return against(self.agreement, self.commonest, self.images) == "better"

    def in_words(self) -> str:
        """How the classifier stands to always saying the commonest."""
        return beside_commonest(self.agreement, self.commonest, self.images, "image", score="")


def described(looks: Looks) -> NDArray[np.float32]:
    """[n, D]: what an image shows, without a model: histograms of gradients over 8 x 8 cells, colours at 8 x 8 places, and a histogram of colours."""
    parts = []
    for at in range(0, len(looks), _BLOCK):
        grey = torch.from_numpy(looks.grey[at : at + _BLOCK]).float() / 255
        colour = torch.from_numpy(looks.colour[at : at + _BLOCK]).float() / 255
        places = F.avg_pool2d(colour, COLOUR_SIDE // 8).flatten(1)
        half = F.avg_pool2d(grey[:, None], 2)[:, 0]
        quarter = F.avg_pool2d(half[:, None], 2)[:, 0]
        somewhere = [gradients(grey, CELLS)]
        anywhere = [gradients(each, 1) for each in (grey, half, quarter)] + [textures(each) for each in (grey, half)]
        parts.append(torch.cat([*somewhere, *anywhere, places, colours(colour)], 1))
    return torch.cat(parts).numpy()


def textures(grey: Tensor) -> Tensor:
    """[n, s, s] to [n, 256], root of the share of each local binary pattern: which of a pixel's 8 neighbours are no darker than it is.

    Ojala, Pietikainen and Harwood, "A comparative study of texture measures", Pattern Recognition 29 (1996).
    """
    s = grey.shape[-1]
    middle = grey[:, 1:-1, 1:-1]
    code = torch.zeros_like(middle, dtype=torch.long)
    around = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))
    for bit, (y, x) in enumerate(around):
        code += (grey[:, y : y + s - 2, x : x + s - 2] >= middle).long() << bit
    return _shares(code.flatten(1), 256)


def _shares(codes: Tensor, kinds: int) -> Tensor:
    """[n, m] of codes to [n, kinds], root of the share of each."""
    return (_sums(codes, kinds) / codes.shape[1]).sqrt()


def _sums(codes: Tensor, kinds: int, weights: Tensor | None = None) -> Tensor:
    """[n, m] of codes, and perhaps of weights, to [n, kinds]: how often, or with what weight, there is each."""
    flat = (codes + kinds * torch.arange(len(codes))[:, None]).flatten()
    sums = torch.bincount(flat, None if weights is None else weights.flatten(), minlength=len(codes) * kinds)
    return sums.float().unflatten(0, (len(codes), kinds))


def gradients(grey: Tensor, cells: int) -> Tensor:
    """[n, s, s] to [n, 8 * cells * cells], root of the share of each direction in a cell's gradients, against the contrast nearby.

    Dalal and Triggs, "Histograms of oriented gradients for human detection" (https://hal.science/inria-00548512).
    """
    along_y, along_x = torch.gradient(grey, dim=(1, 2))
    size = torch.hypot(along_x, along_y).flatten(1)
    turn = (torch.atan2(along_y, along_x) * (DIRECTIONS / torch.pi)).flatten(1)  # a half turn is the same direction
    lower = turn.floor()
    upper_share = turn - lower
    place = torch.arange(grey.shape[1]) * cells // grey.shape[1]
    cell = (place[:, None] * cells + place).flatten()  # [s * s]
    code = lower.long().remainder(DIRECTIONS) * cells**2 + cell
    next_code = (lower.long() + 1).remainder(DIRECTIONS) * cells**2 + cell
    kinds = DIRECTIONS * cells**2
    sums = _sums(code, kinds, size * (1 - upper_share)) + _sums(next_code, kinds, size * upper_share)
    pooled = sums.unflatten(1, (DIRECTIONS, cells, cells)) * (cells**2 / size.shape[1])
    around = pooled.sum(1, keepdim=True)  # the contrast nearby, against which a cell is seen
    if cells > 1:
        around = F.avg_pool2d(around, 3, 1, 1)
    return (pooled / (around + 0.01)).sqrt().flatten(1)


def colours(colour: Tensor) -> Tensor:
    """[n, 3, s, s] of 0..1 to [n, 64], root of the share of each of 4 x 4 x 4 colours."""
    level = (colour * 4).long().clamp(max=3)
    bins = (level[:, 0] * 16 + level[:, 1] * 4 + level[:, 2]).flatten(1)
    return _shares(bins, 64)


def judge(features: NDArray[np.float32], targets: NDArray, family: NDArray[np.int64]) -> Judgement:
    """Judge every label by the other folds. targets: [n] classes, or [n, K] of zeros and ones. family: [n], copies of one image share a fold."""
    folds = np.array([derive(0, "fold", each) % FOLDS for each in family.tolist()])
    classes = int(targets.max()) + 1 if targets.ndim == 1 else targets.shape[1]
    wanted = torch.from_numpy(np.eye(classes, dtype=np.float32)[targets] if targets.ndim == 1 else targets)
    waves = _waves(_whitened(torch.from_numpy(features)))
    scores = _out_of_fold(waves, wanted, torch.from_numpy(folds)).clamp(0, 1).numpy()
    return _doubts(scores, wanted.numpy(), len(np.unique(family)), several=targets.ndim == 2)


def _whitened(x: Tensor) -> Tensor:
    """[n, D] to [n, at most 128] principal components, each divided by the root of its deviation: half whitened."""
    x = x - x.mean(0)
    x = x / (x.std(0) + 1e-3)
    values, vectors = torch.linalg.eigh((x.T @ x / len(x)).double())
    kept = values.flip(0)[:COMPONENTS] > 1e-6 * values[-1]
    directions = vectors.flip(1)[:, :COMPONENTS][:, kept]
    return (x @ (directions / values.flip(0)[:COMPONENTS][kept] ** 0.25).float()).contiguous()


def _waves(x: Tensor) -> Tensor:
    """[n, D] to [n, up to 2048 + 1] whose products are about a Gaussian kernel of the distances, and a constant."""
    generator = torch.Generator().manual_seed(derive(0, "waves"))
    some = x[torch.randperm(len(x), generator=generator)[:1000]]
    width = WIDTH * float(torch.pdist(some).median()) if len(some) > 1 else 1.0
    waves = min(max(len(x), LEAST_WAVES), MOST_WAVES)
    directions = torch.randn(x.shape[1], waves // 2, generator=generator) / max(width, 1e-6)
    angle = x @ directions
    return torch.cat([angle.cos(), angle.sin(), torch.ones(len(x), 1)], 1)


def _out_of_fold(x: Tensor, wanted: Tensor, folds: Tensor) -> Tensor:
    """[n, K]: what ridge regression on the other folds says of each image."""
    parts = [(x[folds == fold], wanted[folds == fold]) for fold in range(FOLDS)]
    squares = [part.T @ part for part, _ in parts]
    products = [part.T @ answers for part, answers in parts]
    square, product = torch.stack(squares).sum(0), torch.stack(products).sum(0)
    scores = torch.zeros_like(wanted)
    penalty = PENALTY * torch.eye(x.shape[1], dtype=torch.float64) * square.diagonal().mean()
    for fold, (part, _) in enumerate(parts):
        system = (square - squares[fold]).double() + penalty
        weights = torch.cholesky_solve((product - products[fold]).double(), torch.linalg.cholesky(system))
        scores[folds == fold] = part @ weights.float()
    return scores


def _doubts(scores: NDArray[np.float32], wanted: NDArray[np.float32], images: int, *, several: bool) -> Judgement:
    yes = wanted > 0.5
    shares = yes.mean(0)
    commonest = float(np.maximum(shares, 1 - shares).mean() if several else shares.max())
    if several:  # each label is a question of its own, with two answers
        wrong = np.where(yes, 1 - 2 * scores, 2 * scores - 1)  # [n, K]: the other answer's score less this one's
        sure_no = np.array(
            [(1 - scores[~yes[:, k], k]).mean() if (~yes[:, k]).any() else 2 for k in range(yes.shape[1])]
        )
        sure_yes = np.array([scores[yes[:, k], k].mean() if yes[:, k].any() else 2 for k in range(yes.shape[1])])
        sure = np.where(yes, 1 - scores >= sure_no, scores >= sure_yes)
        likely = wrong.argmax(1)
        suspicion = wrong.max(1)
        doubted: NDArray[np.bool_] = np.logical_or.reduce(sure & (wrong > 0), axis=1)
        return Judgement(scores, suspicion, likely, doubted, float((wrong < 0).mean()), commonest, images)
    own = scores[yes]  # [n]
    average = np.array([scores[yes[:, k], k].mean() if yes[:, k].any() else 2 for k in range(yes.shape[1])])
    others = np.where(yes, -1, scores)
    likely = others.argmax(1)
    suspicion = others.max(1) - own
    doubted = np.logical_and(suspicion > 0, others.max(1) >= average[likely])
    return Judgement(scores, suspicion, likely, doubted, float((suspicion <= 0).mean()), commonest, images)
