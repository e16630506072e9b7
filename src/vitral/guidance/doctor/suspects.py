"""Images whose label looks wrong, by a judge that has not seen them; and how far that judge can be trusted.

As in confident learning (https://arxiv.org/abs/1911.00068) each image is judged by a classifier fitted to the other folds: ridge regression on random
Fourier features (Rahimi and Recht, "Random Features for Large-Scale Kernel Machines", NeurIPS 2007) of descriptors of the pixels, or of a model's
features. A label's suspicion is how much more likely another class looks than its own.

The threshold is measured: some labels are exchanged on purpose and all are judged again. If a share q of the exchanged labels, and a share s of the
others, exceed a threshold, then at most s / q of all labels are wrong. The minimum over all q estimates how many are (mixture proportion estimation:
Blanchard, Lee and Scott, JMLR 11, 2010), and q times it, over s, is the share of wrong labels among those that would be shown. If right labels look
as suspicious as wrong ones, the bound is loose, and nothing is shown.

Axes: n images, D features, K classes.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vitral.evaluation.words import against, beside_commonest
from vitral.guidance.doctor.reading import COLOUR_SIDE, Looks
from vitral.randomness import derive

FOLDS = 5
COMPONENTS = 128  # principal components
LEAST_WAVES, MOST_WAVES = 512, 2048  # random Fourier features: as many as images, within these limits
WIDTH = 2.0  # of the kernel, in median distances between images
PENALTY = 1e-2  # of the ridge, times the mean of the eigenvalues
CELLS, DIRECTIONS = 8, 8  # of the histograms of gradients
_BLOCK = 256  # images at once, so that they stay in the cache
PLANTED = 0.05  # share of the labels that are exchanged in a round; about what is wrong in real data sets (https://arxiv.org/abs/2103.14749: 3.3 %)
PLANTED_OF_CLASS = 0.1  # of a class at most, so that rare classes can still be learned
ENOUGH, ROUNDS = 800, 20  # exchanged labels over all rounds, and rounds at most
LEVELS = np.arange(0.3, 0.951, 0.05)  # shares q of the exchanged labels that a threshold finds
FOUND = 0.8  # share of the exchanged labels at which the judge's strength is measured
HALF = 0.5  # share of the labels shown that must be wrong
STRONG = 0.6  # of those that it doubts to find FOUND of PLANTED, with which a judge may accuse: at a half, sets of 500 images were accused unjustly
HALF_OF_FOLDS = (FOLDS - 1) // 2
MOST = 10.0  # times as many images, up to which it is predicted how many would help


@dataclass(frozen=True)
class Strength:
    """How well the judge finds labels that were exchanged on purpose."""

    wrong: float
    """Estimated share of wrong labels: an upper bound, and a good estimate if the judge is strong."""
    mistaken: float
    """Share of right labels above the threshold that finds FOUND of the wrong ones."""
    shown: float
    """Share of the labels to show, so that at least half of them are wrong."""
    precision: float
    """Estimated share of these that are wrong; 0 if none is shown."""

    @property
    def right_of_ten(self) -> int:
        """How many of ten doubted labels would be right, if PLANTED of all were wrong and the judge had to find most of these."""
        found = PLANTED * FOUND
        return round(10 * self.mistaken / (self.mistaken + found))

    bearable: ClassVar[float] = PLANTED * FOUND * (1 - STRONG) / STRONG
    """`mistaken` with which four of those ten would be right."""

    @property
    def enough(self) -> bool:
        return self.mistaken <= self.bearable


@dataclass
class Judgement:
    """The judgement of each image's label by a classifier that has not seen the image."""

    scores: NDArray[np.float32]
    """[n, K]: roughly the probability of each class or label."""
    suspicion: NDArray[np.float32]
    """[n]: how much more likely another answer is than the label, from -1 to 1; the higher, the more likely the label is wrong."""
    likely: NDArray[np.int64]
    """[n]: the class that looks more likely than the label; with several labels an image, the one that looks wrong (present or missing)."""
    doubted: NDArray[np.bool_]
    """[n]: whether the label counts as wrong; all False if the judge is too weak."""
    agreement: float
    """Share of the labels that the classifier agrees with."""
    commonest: float
    """Share of the labels that the commonest class (with several labels an image: the commonest answer) would agree with."""
    images: int
    """The number of images, copies counted once."""
    strength: "Strength"
    times: float | None
    """How many times as many images would make the judge strong enough; None if it is, or if more would hardly help."""

    @property
    def tells(self) -> bool:
        """Whether the classifier is clearly better than always saying the commonest, by Wilson's 95 % interval; else it cannot judge."""
        return against(self.agreement, self.commonest, self.images) == "better"

    def in_words(self) -> str:
        """How the classifier stands to always saying the commonest."""
        return beside_commonest(self.agreement, self.commonest, self.images, "image", score="")


def described(looks: Looks) -> NDArray[np.float32]:
    """[n, D]: descriptors without a model: histograms of gradients over 8 x 8 cells, colours at 8 x 8 places, and a histogram of colours."""
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
    several = targets.ndim == 2
    classes = targets.shape[1] if several else int(targets.max()) + 1
    yes = targets > 0.5 if several else np.eye(classes, dtype=np.bool_)[targets]  # [n, K]
    ridge = Folds(_waves(_whitened(torch.from_numpy(features))), torch.from_numpy(folds))
    scores = ridge.scores(yes)
    suspicion, likely, right = _suspicion(scores, yes, several=several)
    shares = yes.mean(0)
    commonest = float(np.maximum(shares, 1 - shares).mean() if several else shares.max())
    strength = _strength(ridge, yes, several=several)
    doubted = np.zeros(len(yes), np.bool_)
    if strength.enough:
        order = np.argsort(-suspicion, kind="stable")[: round(strength.shown * len(yes))]
        doubted[order] = suspicion[order] > 0
    images = len(np.unique(family))
    times = None if strength.enough else _times(ridge, yes, float(right.mean()), strength, several=several)
    return Judgement(scores, suspicion, likely, doubted, float(right.mean()), commonest, images, strength, times)


def _whitened(x: Tensor) -> Tensor:
    """[n, D] to [n, at most 128] principal components, each divided by the root of its deviation: half whitened."""
    x = x - x.mean(0)
    x = x / (x.std(0) + 1e-3)
    values, vectors = torch.linalg.eigh((x.T @ x / len(x)).double())
    kept = values.flip(0)[:COMPONENTS] > 1e-6 * values[-1]
    directions = vectors.flip(1)[:, :COMPONENTS][:, kept]
    return (x @ (directions / values.flip(0)[:COMPONENTS][kept] ** 0.25).float()).contiguous()


def _waves(x: Tensor) -> Tensor:
    """[n, D] to [n, up to 2048 + 1] whose products approximate a Gaussian kernel of the distances, and a constant."""
    generator = torch.Generator().manual_seed(derive(0, "waves"))
    some = x[torch.randperm(len(x), generator=generator)[:1000]]
    width = WIDTH * float(torch.pdist(some).median()) if len(some) > 1 else 1.0
    waves = min(max(len(x), LEAST_WAVES), MOST_WAVES)
    directions = torch.randn(x.shape[1], waves // 2, generator=generator) / max(width, 1e-6)
    angle = x @ directions
    return torch.cat([angle.cos(), angle.sin(), torch.ones(len(x), 1)], 1)


class Folds:
    """Ridge regression from x [n, D] on the other folds; the parts that do not depend on the labels are solved once."""

    def __init__(self, x: Tensor, folds: Tensor) -> None:
        self.rows = [torch.nonzero(folds == fold)[:, 0] for fold in range(FOLDS)]
        self.parts = [x[rows] for rows in self.rows]
        self.squares = [part.T @ part for part in self.parts]
        self.factors: dict[int, list[Tensor]] = {}

    def scores(self, yes: NDArray[np.bool_], learned: int = FOLDS - 1) -> NDArray[np.float32]:
        """[n, K]: roughly the probability of each class for each image, from the labels of so many other folds."""
        wanted = torch.from_numpy(yes).float()
        products = [part.T @ wanted[rows] for part, rows in zip(self.parts, self.rows, strict=True)]
        scores = torch.zeros_like(wanted)
        for fold, factor in enumerate(self._factors(learned)):
            weights = torch.cholesky_solve(_next(products, fold, learned).double(), factor).float()
            scores[self.rows[fold]] = self.parts[fold] @ weights
        return scores.clamp(0, 1).numpy()

    def _factors(self, learned: int) -> list[Tensor]:
        if learned not in self.factors:
            size = sum(float(square.diagonal().mean()) for square in self.squares) * learned / (FOLDS - 1)
            penalty = PENALTY * size * torch.eye(len(self.squares[0]), dtype=torch.float64)
            sums = (_next(self.squares, fold, learned).double() for fold in range(FOLDS))
            self.factors[learned] = [torch.linalg.cholesky(each + penalty) for each in sums]
        return self.factors[learned]


def _next(parts: list[Tensor], fold: int, count: int) -> Tensor:
    """The sum of the parts of so many folds after this one."""
    return torch.stack([parts[(fold + 1 + i) % FOLDS] for i in range(count)]).sum(0)


def _suspicion(
    scores: NDArray[np.float32], yes: NDArray[np.bool_], *, several: bool
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
    """[n]: how much more likely another answer is than the label; [n]: which; [n] or (several labels) [n, K]: whether the judge agrees."""
    if several:  # each label is its own question with two answers
        wrong = np.where(yes, 1 - 2 * scores, 2 * scores - 1)  # [n, K]: the other answer's score less this one's
        return wrong.max(1), wrong.argmax(1), wrong < 0
    others = np.where(yes, -1, scores)
    suspicion = others.max(1) - scores[yes]
    return suspicion, others.argmax(1), suspicion <= 0


def _strength(ridge: Folds, yes: NDArray[np.bool_], *, several: bool) -> Strength:
    """Exchange labels on purpose, round after round, and compare their suspicion with the others'."""
    rng = np.random.default_rng(derive(0, "planted"))
    planted, others, count = [], [], 0
    for _ in range(ROUNDS):
        exchanged, touched = exchange(yes, rng, several=several)
        suspicion = _suspicion(ridge.scores(exchanged), exchanged, several=several)[0]
        planted.append(suspicion[touched])
        others.append(suspicion[~touched])
        count += int(touched.sum())
        if count >= ENOUGH:
            break
    return weigh(np.concatenate(planted), np.concatenate(others), len(yes))


def _times(
    ridge: Folds, yes: NDArray[np.bool_], agreement: float, strength: Strength, *, several: bool
) -> float | None:
    """How many times as many images would be enough, from how much the errors fall from half the images to all; None if MOST or more."""
    with_half = float(_suspicion(ridge.scores(yes, HALF_OF_FOLDS), yes, several=several)[2].mean())
    if not with_half < agreement < 1:
        return None
    steepness = np.log2((1 - with_half) / (1 - agreement))  # errors fall as n^-steepness
    # The share of right labels that look wrong falls about twice as fast: on digits, Fashion-MNIST and elpv of 100 to 1,500 images.
    times = (strength.mistaken / strength.bearable) ** (1 / (2 * steepness))
    return float(times) if times < MOST else None


def exchange(
    yes: NDArray[np.bool_], rng: np.random.Generator, *, several: bool
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Labels of which pairs of images have exchanged theirs (of several, one each), so that every class stays as common as it was; and [n] which."""
    exchanged, touched = yes.copy(), np.zeros(len(yes), np.bool_)
    left = np.maximum(1, PLANTED_OF_CLASS * yes.sum(0)).astype(np.int64)  # [K]
    wanted = max(2, round(PLANTED * len(yes)))
    order = rng.permutation(len(yes))
    which = rng.integers(0, yes.shape[1], len(yes))
    for i, j, k in zip(order[::2].tolist(), order[1::2].tolist(), which.tolist(), strict=False):
        if several:
            if yes[i, k] == yes[j, k] or not left[k]:
                continue
            changed = [k]
            exchanged[[i, j], k] = yes[[j, i], k]
        else:
            changed = np.flatnonzero(yes[i] != yes[j]).tolist()
            if not changed or not left[changed].all():
                continue
            exchanged[[i, j]] = yes[[j, i]]
        left[changed] -= 1
        touched[[i, j]] = True
        if touched.sum() >= wanted:
            break
    return exchanged, touched


def weigh(planted: NDArray[np.floating], others: NDArray[np.floating], images: int) -> Strength:
    """The strength of a judge of so many images, from the suspicions of exchanged labels [p] and of the labels as given [m]."""
    if not len(planted) or not len(others):
        return Strength(1.0, 1.0, 0.0, 0.0)
    falling = np.sort(planted)[::-1]
    levels = falling[np.ceil(LEVELS * len(falling)).astype(np.int64) - 1]
    found = np.array([(planted >= level).mean() for level in levels])  # of equal suspicions all or none
    there = np.array([(others >= level).mean() for level in levels])
    wrong = float((there / found).min())
    mistaken = max(0.0, float((there - wrong * found)[np.searchsorted(LEVELS, FOUND - 1e-6)]))
    sure = max(0.0, wrong - mistaken / 2)  # `wrong` includes the most suspicious right labels
    precise = sure * found / np.maximum(there, 1e-12)
    fit = np.flatnonzero((precise >= HALF) & (sure * found * images >= 1))
    if not len(fit):
        return Strength(wrong, mistaken, 0.0, 0.0)
    return Strength(wrong, mistaken, float(there[fit[-1]]), float(precise[fit[-1]]))
