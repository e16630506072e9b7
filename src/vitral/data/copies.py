"""Copies among images: exact ones by their content, near ones (resized, encoded again, mirrored, cropped) by what they show.

Near copies are found in two steps, as in perceptual hashing, but with matrix products instead of hash tables. First, each image's few nearest images
by the correlation of pictures of 8 x 8 pixels, mirrored ones included. Then each pair is registered (Lucas and Kanade,
https://www.ri.cmu.edu/pub_files/pub3/baker_simon_2004_1/baker_simon_2004_1.pdf, for scale and shift of both axes) and must agree in fine detail,
which lookalikes do not share. How much lookalikes agree is measured on the data themselves, on neighbours too distant to be copies: clothing at
28 x 28 pixels agrees more than photographs do. The first step takes n^2 * 64 multiplications for the images and as many for their mirror images.

Splits depend on this, so all machines must agree: small pictures and the search are exact in integers, in any order of summation. Only registration
is computed in float64, where processors differ by some 1e-10, so that about one pair in 10^9 is a copy on one machine and not on another. A run
therefore keeps the splits that it began with.

Axes: n images, m pairs, s pixels of a side, h w of an image, C channels.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vitral.data.progress import OnProgress
from vitral.data.small import SIDE

COARSE = 8  # pixels of a side of what the search compares
NEIGHBOURS = 3  # candidates for each image, and as many for its mirror image
LOOKALIKE = 30  # rank of the neighbour taken for a lookalike; it is a copy only if an image has thirty copies
SAMPLE, LEAST_SAMPLE = 2000, 20  # lookalikes that are measured, and the least that are needed
DEVIATIONS = 6.0  # standard deviations (Fisher's z) by which a copy must agree more than lookalikes do
ALIKE = 0.6  # correlation from which a pair is compared closely: a 90 % crop keeps more
REGISTERED = 0.85  # correlation at 16 x 16 pixels after registration, from which fine detail is compared
HALFWAY = 0.65  # correlation of fine detail from which the last registration may still reach SAME_DETAIL
SAME_DETAIL = 0.8  # correlation of fine detail from which two images are copies
LEAST_SIDE = 24  # pixels; smaller images hold too little to tell a copy from a lookalike
FLAT = 4.0  # deviation of grey values below which there is nothing to compare
MOVED = 0.02  # shift or change of scale from which a copy counts as cropped
STILL = (1.0, 0.0, 1.0, 0.0)  # the warp that changes nothing, see `register`
LEAST_SHARE = 0.5  # of each image that the other must show
_BLOCK, _PAIRS = 1024, 256  # images and pairs at once; so few pairs stay in the cache


@dataclass(frozen=True)
class Copies:
    """Two copies; positions among the images that were read, first < second."""

    first: int
    second: int
    how: str
    """exact (the same bytes), near (resized, encoded again, ...), cropped, or mirrored (perhaps cropped too)."""
    agreement: float
    """Correlation of fine detail; 1 for exact copies."""


def exact_copies(digests: Sequence[bytes]) -> list[Copies]:
    """Each image that repeats an earlier one's content, paired with the first that has it."""
    first: dict[bytes, int] = {}
    found = []
    for i, digest in enumerate(digests):
        j = first.setdefault(digest, i)
        if j != i:
            found.append(Copies(j, i, "exact", 1.0))
    return found


def near_copies(
    small: NDArray[np.uint8],
    digests: Sequence[bytes],
    sides: NDArray[np.int64],
    progress: OnProgress | None = None,
    *,
    cropped: bool = True,
) -> list[Copies]:
    """Pairs of near copies: different content that shows the same. Of exact copies only the first is compared.

    Args:
        small: [n, 32, 32], as `small_picture` makes them. digests: content hashes. sides: [n], the lesser side of each image in pixels.
        progress: called with (done, in all) now and then. cropped: whether to find crops too, which needs registration and takes nearly all of
            the time.
    """
    taking = sides >= LEAST_SIDE
    taking[[pair.second for pair in exact_copies(digests)]] = False
    taking[taking] = small[taking].std((1, 2)) >= FLAT
    places = np.flatnonzero(taking)
    if len(places) < 2:
        return []
    grey = torch.from_numpy(small)
    (first, second, flipped), lookalikes = _candidates(grey, places, progress)
    least = _stand_out(_verified(grey, *lookalikes, -1.0, cropped))
    best: dict[tuple[int, int], Copies] = {}
    for at in range(0, len(first), _PAIRS):
        part = slice(at, at + _PAIRS)
        for copies in _verified(grey, first[part], second[part], flipped[part], least, cropped):
            pair = copies.first, copies.second
            if pair not in best or best[pair].agreement < copies.agreement:
                best[pair] = copies
        if progress is not None:
            progress(min(at + _PAIRS, len(first)), len(first))
    return [best[pair] for pair in sorted(best)]


def families(n: int, copies: Iterable[Copies]) -> NDArray[np.int64]:
    """[n]: the first image of each image's chain of copies; an image without copies has its own position."""
    root = list(range(n))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for each in copies:
        a, b = sorted((find(each.first), find(each.second)))
        root[b] = a
    return np.array([find(i) for i in range(n)], np.int64)


def members(family: NDArray[np.int64]) -> list[list[int]]:
    """The members of each family of two or more."""
    inside: dict[int, list[int]] = defaultdict(list)
    for i, first in enumerate(family.tolist()):
        inside[first].append(i)
    return [each for each in inside.values() if len(each) > 1]


Pairs = tuple[Tensor, Tensor, Tensor]
"""Places of the first and the second of m pairs, and whether the first is to be mirrored, each [m]."""


def _candidates(grey: Tensor, places: NDArray[np.int64], progress: OnProgress | None) -> tuple[Pairs, Pairs]:
    """The pairs most alike at low resolution, and a sample of lookalikes that are hardly copies."""
    where = torch.from_numpy(places)
    coarse = torch.cat([_shrunk(part, COARSE).float().round() for part in grey[where].split(_BLOCK)])
    coarse = coarse - coarse.mean((1, 2), keepdim=True).round()  # whole numbers, whose products float32 sums exactly
    seen, mirrored = coarse.flatten(1), coarse.flip(-1).flatten(1)  # [n, 64]
    total = seen.sum(1)
    length = (seen.square().sum(1) - total.square() / seen.shape[1]).clamp(min=1e-6).sqrt()
    k = min(NEIGHBOURS, len(where) - 1)
    far, every = min(LOOKALIKE, len(where) - 1), -(-len(where) // SAMPLE)
    pairs, lookalikes = [], []
    for at in range(0, len(where), _BLOCK):
        rows = torch.arange(at, min(at + _BLOCK, len(where)))
        for flip, sought in ((0, seen), (1, mirrored)):
            alike = sought[rows] @ seen.T - total[rows, None] * (total / seen.shape[1])
            alike = alike / length[rows, None] / length
            alike[torch.arange(len(rows)), rows] = -1
            value, column = alike.topk(k, dim=1)
            row = rows[:, None].expand_as(column)
            close = value > ALIKE
            a, b = torch.minimum(row, column)[close], torch.maximum(row, column)[close]
            pairs.append(torch.stack([where[a], where[b], torch.full_like(a, flip)], 1))
            if not flip:
                sampled = rows % every == 0
                distant = alike[sampled].topk(far, dim=1).indices[:, -1]
                lookalikes.append(torch.stack([where[rows[sampled]], where[distant]], 1))
        if progress is not None:
            progress(int(rows[-1]) + 1, len(where))
    first, second, flip = torch.cat(pairs).unique(dim=0).unbind(1)
    one, other = torch.cat(lookalikes).unbind(1)
    return (first, second, flip.bool()), (one, other, torch.zeros(len(one), dtype=torch.bool))


def _stand_out(lookalikes: Sequence[Copies]) -> float:
    """The agreement in detail from which a pair is no mere lookalike."""
    if len(lookalikes) < LEAST_SAMPLE:
        return SAME_DETAIL
    z = np.arctanh(np.clip([pair.agreement for pair in lookalikes], -0.9999, 0.9999))
    return max(SAME_DETAIL, float(np.tanh(z.mean() + DEVIATIONS * z.std())))


def _shrunk(grey: Tensor, side: int) -> Tensor:
    """[m, 32, 32] to float64 [m, side, side]."""
    return F.avg_pool2d(grey.double()[:, None], SIDE // side)[:, 0]


def _verified(
    grey: Tensor, first: Tensor, second: Tensor, flipped: Tensor, least: float, cropped: bool
) -> list[Copies]:
    """The pairs whose fine detail agrees to `least`, after registration if crops are to be found."""
    # (side, steps of registration, size of the detail that is compared, agreement it takes to go on)
    stages = (
        [(16, 0, 0, REGISTERED), (32, 0, 3, least - HALFWAY), (32, 4, 3, least)] if cropped else [(32, 0, 3, least)]
    )
    warp = _begun(grey, first, second, flipped) if cropped else _still(len(first))
    for side, steps, detail, enough in stages:
        a, b = _pictures(grey, first, second, flipped, side)
        warp = register(a, b, warp, steps) if steps else warp
        agreement, share = _agreement(a, b, warp, detail)
        kept = (agreement >= enough) & (share >= LEAST_SHARE)
        first, second, flipped, warp, agreement = (x[kept] for x in (first, second, flipped, warp, agreement))
        if not len(first):
            return []
    moved = ((warp - _still(1)).abs() > MOVED).any(1)
    return [
        Copies(i, j, "mirrored" if flip else "cropped" if crop else "near", score)
        for i, j, flip, crop, score in zip(
            first.tolist(), second.tolist(), flipped.tolist(), moved.tolist(), agreement.tolist(), strict=True
        )
    ]


def _pictures(grey: Tensor, first: Tensor, second: Tensor, flipped: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The two pictures of each pair, [m, side, side], the first mirrored if `flipped`."""
    a, b = _shrunk(grey[first], side), _shrunk(grey[second], side)
    return torch.where(flipped[:, None, None], a.flip(-1), a), b


def _still(m: int) -> Tensor:
    return torch.tensor(STILL, dtype=torch.float64).repeat(m, 1)


def _begun(grey: Tensor, first: Tensor, second: Tensor, flipped: Tensor) -> Tensor:
    """Initial warps, [m, 4], at 16 x 16 pixels: the better of two registrations, started there and at 8 x 8, as either can end in a local minimum."""
    still = _still(len(first))
    small = register(*_pictures(grey, first, second, flipped, 8), still, 6)
    a, b = _pictures(grey, first, second, flipped, 16)
    one, other = register(a, b, still, 5), register(a, b, small, 5)
    better = _agreement(a, b, one, 0)[0] >= _agreement(a, b, other, 0)[0]
    return torch.where(better[:, None], one, other)


def register(a: Tensor, b: Tensor, warp: Tensor, steps: int) -> Tensor:
    """Warps, [m, 4], so that a at (w0 x + w1, w2 y + w3) shows b at (x, y), each axis from -1 to 1, up to contrast and brightness.

    a, b: [m, s, s]. warp: where to begin. Gauss-Newton steps on the squared difference where the two overlap.
    """
    s = a.shape[1]
    along_y, along_x = torch.gradient(a, spacing=2.0 / s, dim=(1, 2))
    stacked = torch.stack([a, along_x, along_y], 1)  # [m, 3, s, s]
    for _ in range(steps):
        (seen, by_x, by_y), inside, x, y = _warped(stacked, warp)
        rows = torch.stack([by_x * x, by_x, by_y * y, by_y, -b, -torch.ones_like(b), seen], 1)  # [m, 7, s, s]
        rows = rows.mul_(inside[:, None]).flatten(2)
        products = rows @ rows.mT  # [m, 7, 7]: the normal equations, and their right side
        # Gradients and grey values differ in size.
        scale = products.diagonal(dim1=1, dim2=2)[:, :6].sqrt().clamp(min=1e-6)
        normal = products[:, :6, :6] / (scale[:, :, None] * scale[:, None]) + 1e-4 * torch.eye(6, dtype=a.dtype)
        right = -products[:, :6, 6:] / scale[:, :, None]
        change = torch.linalg.solve(normal, right)[:, :4, 0] / scale[:, :4]
        warp = warp + change.clamp(-0.2, 0.2)
        warp = torch.stack([warp[:, 0].clamp(0.6, 1.6), warp[:, 1].clamp(-0.5, 0.5), warp[:, 2].clamp(0.6, 1.6),
                            warp[:, 3].clamp(-0.5, 0.5)], 1)  # fmt: skip
    return warp


def _warped(stacked: Tensor, warp: Tensor) -> tuple[Sequence[Tensor], Tensor, Tensor, Tensor]:
    """Each of [m, C, s, s] seen through the warps, where that lies inside (1 or 0), and x and y, all [m, s, s] or [s, s]."""
    s = stacked.shape[-1]
    line = (torch.arange(s, dtype=stacked.dtype) + 0.5) * (2 / s) - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    u = warp[:, 0, None, None] * x + warp[:, 1, None, None]
    v = warp[:, 2, None, None] * y + warp[:, 3, None, None]
    seen = F.grid_sample(stacked, torch.stack([u, v], -1), padding_mode="border", align_corners=False)
    inside = ((u.abs() <= 1) & (v.abs() <= 1)).to(stacked.dtype)
    return seen.unbind(1), inside, x, y


def _agreement(a: Tensor, b: Tensor, warp: Tensor, detail: int) -> tuple[Tensor, Tensor]:
    """Correlation, [m], of b with the warped a where they overlap, and the smaller of the two overlapping shares.

    detail: compare the differences from the mean of `detail` pixels around along each axis; 0: compare the pictures themselves.
    """
    (seen,), inside, _, _ = _warped(a[:, None], warp)
    if detail:
        a, b = (x - F.avg_pool2d(x[:, None], detail, 1, detail // 2, count_include_pad=False)[:, 0] for x in (seen, b))
    else:
        a = seen
    count = inside.sum((1, 2)).clamp(min=1)
    a, b = (inside * (x - ((x * inside).sum((1, 2)) / count)[:, None, None]) for x in (a, b))
    correlation = (a * b).sum((1, 2)) / (a.square().sum((1, 2)) * b.square().sum((1, 2))).sqrt().clamp(min=1e-6)
    share_b = inside.mean((1, 2))
    share_a = share_b * warp[:, 0] * warp[:, 2]
    return correlation, torch.minimum(share_a, share_b)
