"""Copies among images: exact ones by their content, near ones (resized, encoded again, mirrored, cropped) by what they show.

Near copies are sought in two steps, as perceptual hashing does, but with matrix products in the place of hash tables: each image's few nearest
images by the correlation of pictures of 8 x 8 pixels, mirrored too; then each pair is laid over one another (Lucas and Kanade's registration,
https://www.ri.cmu.edu/pub_files/pub3/baker_simon_2004_1/baker_simon_2004_1.pdf, for scale and shift of both axes) and must agree in its fine detail,
which lookalikes do not share. How much lookalikes agree is measured on the data themselves, on neighbours too distant to be copies: articles of
clothing at 28 x 28 pixels agree more than photographs do. The first step takes n^2 * 64 multiplications each for the images and their mirror images.

Splits depend on this, so all machines must agree: small pictures and the search are exact in integers, whatever the order of their sums. Only
registration is not: it is computed in float64, where processors differ by some 1e-10, so that of a thousand million pairs about one lies so
close to a threshold that it is a copy on one machine and none on another. A run therefore keeps the splits that it was begun with.

Axes: n images, m pairs, s pixels of a side, h w of an image, C channels.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

OnProgress = Callable[[int, int], None]
SIDE = 32  # pixels of the small pictures that are compared
COARSE = 8  # pixels of a side of what the search compares
NEIGHBOURS = 3  # sought of each image, and as many of its mirror image
LOOKALIKE = 30  # rank of the neighbour that is taken for a lookalike; a copy only where an image has thirty
SAMPLE, LEAST_SAMPLE = 2000, 20  # lookalikes that are measured, and without which their agreement is not known
DEVIATIONS = 6.0  # of the lookalikes' agreement (Fisher's z) that a copy must stand out by
ALIKE = 0.6  # correlation from which a pair is looked at closely: a 90 % crop keeps more
REGISTERED = 0.85  # correlation of 16 x 16 pixels after registration, from which it is worth looking closer
HALFWAY = 0.65  # correlation of fine detail that the last registration may still add
SAME_DETAIL = 0.8  # correlation of fine detail from which two images are copies
LEAST_SIDE = 24  # pixels; smaller images hold too little to tell a copy from a lookalike
FLAT = 4.0  # deviation of grey values below which there is nothing to compare
MOVED = 0.02  # shift or change of scale from which a copy counts as cropped
STILL = (1.0, 0.0, 1.0, 0.0)  # the warp that changes nothing, see `register`
LEAST_SHARE = 0.5  # of each image that the other must show
_BLOCK, _PAIRS = 1024, 256  # images and pairs at once; so few pairs stay in the cache


@dataclass(frozen=True)
class Copies:
    """Two images that show the same; positions among the images that were read, first < second."""

    first: int
    second: int
    how: str
    """exact (the same bytes), near (resized, encoded again, ...), cropped, or mirrored (perhaps cropped too)."""
    agreement: float
    """Correlation of fine detail; 1 for exact copies."""


def exact_copies(digests: Sequence[bytes]) -> list[Copies]:
    """Each image whose content an earlier one has, with the first of these."""
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
    """Pairs of images, of different content, that show the same. Of exact copies the first alone takes part.

    Args:
        small: [n, 32, 32], as `small_picture` makes them. digests: content hashes. sides: [n], the lesser side of each image in pixels.
        progress: called with (done, in all) now and then. cropped: whether crops are sought too, for which pairs must be registered: that takes
            nearly all of the time.
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


def small_picture(pixels: Tensor, end: float) -> NDArray[np.uint8]:
    """[C,h,w], 0..end, to [32, 32] in grey (of bands their mean): the mean over what each pixel covers, exact in integers.

    Without matrix products, whose threads would contend with those that read the images.
    """
    whole = pixels if pixels.dtype == torch.uint8 else (pixels * (255 / end)).round().clamp(0, 255).to(torch.uint8)
    weights = (299, 587, 114) if len(whole) == 3 else (1,) * len(whole)
    total = sum(weights)
    grey = np.full(whole.shape[1:], total // 2, np.int32)  # so that the division rounds
    for band, weight in zip(whole.numpy(), weights, strict=True):
        grey += band * np.int32(weight)
    area = grey.shape[0] * grey.shape[1]
    covered = _covered(_covered(grey // total).T.astype(np.int64)).T
    return ((2 * covered + area) // (2 * area)).astype(np.uint8)


def _covered(a: NDArray[np.integer]) -> NDArray[np.integer]:
    """[n, m] to [32, m]: the sum of the rows that each of 32 covers, a row that it covers in part by its share; in 32nds."""
    n = len(a)
    if n < SIDE:  # each row as so many
        return _covered(a.repeat(SIDE, 0)) // SIDE
    whole, part = np.divmod(np.arange(SIDE + 1) * n, SIDE)
    edges = part[:, None].astype(a.dtype) * a[np.minimum(whole, n - 1)]  # none at the end, where part is 0
    return SIDE * np.add.reduceat(a, whole[:-1], axis=0) + np.diff(edges, axis=0)


def families(n: int, copies: Iterable[Copies]) -> NDArray[np.int64]:
    """[n]: the first image that each image is a copy of, through any number of others; its own place for one without."""
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
    """The families of two or more."""
    inside: dict[int, list[int]] = defaultdict(list)
    for i, first in enumerate(family.tolist()):
        inside[first].append(i)
    return [each for each in inside.values() if len(each) > 1]


Pairs = tuple[Tensor, Tensor, Tensor]
"""Places of the first and the second of m pairs, and whether the first is to be mirrored, each [m]."""


def _candidates(grey: Tensor, places: NDArray[np.int64], progress: OnProgress | None) -> tuple[Pairs, Pairs]:
    """Pairs that look most alike from afar; and a sample of pairs that look alike, but are hardly copies."""
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
    """The agreement of detail from which a pair stands out from lookalikes."""
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
    """The pairs whose fine detail agrees to `least`, once they are registered if crops are sought."""
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
    """The two of each pair, [m, side, side], the first mirrored where it is to be."""
    a, b = _shrunk(grey[first], side), _shrunk(grey[second], side)
    return torch.where(flipped[:, None, None], a.flip(-1), a), b


def _still(m: int) -> Tensor:
    return torch.tensor(STILL, dtype=torch.float64).repeat(m, 1)


def _begun(grey: Tensor, first: Tensor, second: Tensor, flipped: Tensor) -> Tensor:
    """First warps, [m, 4], from 16 x 16 pixels: the better of two registrations, begun there and on 8 x 8, as either may end in a local minimum."""
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
    m, s = a.shape[0], a.shape[1]
    along_y, along_x = torch.gradient(a, spacing=2.0 / s, dim=(1, 2))
    stacked = torch.stack([a, along_x, along_y], 1)  # [m, 3, s, s]
    for _ in range(steps):
        (seen, by_x, by_y), inside, x, y = _warped(stacked, warp)
        columns = [by_x * x, by_x, by_y * y, by_y, -b, -torch.ones_like(b)]
        design = torch.stack(columns, -1).reshape(m, s * s, 6) * inside.reshape(m, s * s, 1)
        scale = design.square().sum(1).sqrt().clamp(min=1e-6)  # [m, 6]: gradients and grey values differ in size
        design = design / scale[:, None]
        normal = design.mT @ design + 1e-4 * torch.eye(6, dtype=a.dtype)
        right = design.mT @ (-seen * inside).reshape(m, s * s, 1)
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
    """Correlation, [m], of b with a through the warps where they overlap, and the lesser share of the two that does.

    detail: compare what differs from the mean of so many pixels around, along each axis; 0 for the pictures as they are.
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
