"""The measures of an inspection, as functions of tensors.

Axes: B images, n windows in an image (1 where attention is global), H heads, Q queries, K keys, N tokens, D width, L layers.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

COMPONENTS = 28  # as many as figure 7 of the ViT paper shows
CUT_FROM = 2.0  # times the median norm: no lower norm is high
CUT_BAND = 1.25  # the band around the cut, a factor down and up
CUT_PLACES = 200
CUT_LEAST = 100  # norms: among fewer, gaps are chance


def principal_filters(filters: Tensor, most: int = COMPONENTS) -> tuple[Tensor, Tensor]:
    """The principal components of filters, figure 7 (left) of https://arxiv.org/abs/2010.11929.

    Args:
        filters: [D, ...], one a channel.

    Returns:
        Components [n, ...] of unit length, the strongest first, with their largest number positive; n is at most `most` and no more than
        D - 1 filters span. And the share of the filters' variance that each explains, [n].
    """
    rows = filters.detach().double().flatten(1).cpu()  # [D, P]
    _, strengths, components = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    n = min(most, len(rows) - 1, rows.shape[1])
    variance = strengths.square()
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))
    signed = components * largest.sign()  # an SVD leaves the sign open
    shares = variance / variance.sum().clamp_min(torch.finfo(variance.dtype).tiny)
    return signed[:n].unflatten(1, filters.shape[1:]), shares[:n]


def cosine_grid(vectors: Tensor) -> Tensor:
    """Vectors [N, D] to the cosines between all pairs, float64 [N, N]; 1 of each with itself."""
    unit = F.normalize(vectors.detach().double().cpu(), dim=-1)
    return unit @ unit.T


def attention_distance(attention: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    """The mean distance between query and key, weighted by attention, over the queries with a place in the image.

    Figure 7 (right) and appendix D.7 of https://arxiv.org/abs/2010.11929. Tokens without a place (class, registers, padding) are left out, and
    the rest of a query's attention is rescaled to sum to one.

    Args:
        attention: [B*n, H, Q, K], rows sum to one.
        queries, keys: [n, Q, 2] and [n, K, 2], the places in pixels; NaN for what has none.

    Returns:
        float64 [H] in pixels; NaN where no query has a place.
    """
    distances = torch.cdist(queries, keys, compute_mode="donot_use_mm_for_euclid_dist").nan_to_num(0.0)  # [n, Q, K]
    by_window = attention.unflatten(0, (-1, len(queries)))  # [B, n, H, Q, K]
    far = torch.einsum("bnhqk,nqk->bnhq", by_window, distances.to(attention.dtype))
    near = torch.einsum("bnhqk,nk->bnhq", by_window, _placed(keys).to(attention.dtype))
    return _over_queries(far / near.clamp_min(1e-12), _placed(queries))


def attention_elsewhere(attention: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    """float64 [H]: the share of the patches' attention to tokens without a place. Arguments as in `attention_distance`."""
    by_window = attention.unflatten(0, (-1, len(queries)))  # [B, n, H, Q, K]
    share = torch.einsum("bnhqk,nk->bnhq", by_window, (~_placed(keys)).to(attention.dtype))
    return _over_queries(share, _placed(queries))


def attention_entropy(attention: Tensor, queries: Tensor) -> Tensor:
    """float64 [H], in nats: -sum a log a of a query's attention, the mean over the queries that have a place, or over all where none has.

    0 where a head attends to one token, log K where its attention is uniform.
    """
    entropy = torch.special.entr(attention).sum(-1).unflatten(0, (-1, len(queries)))  # [B, n, H, Q]
    placed = _placed(queries)
    return _over_queries(entropy, placed if placed.any() else torch.ones_like(placed))


def _placed(places: Tensor) -> Tensor:
    """[n, N, 2] to bool [n, N]."""
    return ~places.isnan().any(-1)


def _over_queries(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of [B, n, H, Q] over images and the chosen queries, bool [n, Q]: float64 [H]."""
    total = torch.einsum("bnhq,nq->h", values, chosen.to(values.dtype)).cpu().double()
    return total / (len(values) * int(chosen.sum()))


def high_norm_cut(norms: NDArray[np.floating]) -> float | None:
    """The norm above which tokens are the artefacts of https://arxiv.org/abs/2309.16588, or None where there are none.

    The paper chooses the cut by eye between the two modes of the distribution. Here it is where, from twice the median on, the fewest norms
    are within a factor of 1.25. It counts only if more than twice as many norms lie above that band as in it: else the distribution has one
    mode and a tail. Fewer than 100 norms have no cut.

    Args:
        norms: [n], above 0 or equal.
    """
    logs = np.sort(np.log(np.maximum(norms.astype(np.float64).ravel(), 1e-30)))
    low, high = float(np.median(logs)) + np.log(CUT_FROM), float(logs[-1])
    if high <= low or len(logs) < CUT_LEAST:
        return None
    places = np.linspace(low, high, CUT_PLACES)
    band = np.log(CUT_BAND)
    above = len(logs) - np.searchsorted(logs, places + band, side="right")
    around = len(logs) - np.searchsorted(logs, places - band, side="left") - above
    real = 2 * around < above
    if not real.any():
        return None
    emptiest = np.flatnonzero(real & (around == around[real].min()))
    run = emptiest[: 1 + int(np.argmax(np.diff(emptiest, append=emptiest[-1] + 2) > 1))]  # the first gap
    return float(np.exp(places[run].mean()))


def token_similarity(tokens: Tensor) -> Tensor:
    """[B, N, D] to the mean cosine between two different tokens of an image, [B]: 1 where they have collapsed, NaN for one token."""
    N = tokens.shape[1]
    total = F.normalize(tokens, dim=-1).sum(1).square().sum(-1)  # the sum of all N * N cosines
    return (total - N) / (N * (N - 1)) if N > 1 else torch.full_like(total, torch.nan)


def step_similarity(before: Tensor, after: Tensor) -> Tensor:
    """Tokens [B, N, D] of two layers to the mean cosine between a token before and after, [B]."""
    return F.cosine_similarity(before, after, dim=-1).mean(1)


def gram(features: Tensor) -> Tensor:
    """Features of images [B, ...] to the dot products of all pairs, float64 [B, B], after subtracting the mean over the images."""
    rows = features.flatten(1)
    rows = rows - rows.mean(0)  # changes nothing in `hsic` but its rounding
    return (rows @ rows.T).cpu().double()


def hsic(grams: Tensor) -> Tensor:
    """The unbiased Hilbert-Schmidt independence criterion between all pairs of L Gram matrices [L, B, B] of the same B >= 4 images: [L, L].

    HSIC_1 of Song et al. 2012, as in equation 3 of https://arxiv.org/abs/2010.15327: its mean over minibatches needs no large batch.
    """
    B = grams.shape[-1]
    assert B >= 4, f"{B} images: the unbiased estimate needs 4"
    off = grams * (1 - torch.eye(B, dtype=grams.dtype, device=grams.device))
    rows = off.sum(-1)  # [L, B]
    total = rows.sum(-1)  # [L]
    flat = off.flatten(1)
    between = flat @ flat.T + total[:, None] * total / ((B - 1) * (B - 2)) - 2 / (B - 2) * rows @ rows.T
    return between / (B * (B - 3))


def cka(independence: Tensor) -> Tensor:
    """Linear centred kernel alignment, https://arxiv.org/abs/1905.00414, equation 2: HSIC [L, L], perhaps a mean over minibatches, to [L, L].

    1 for a layer and itself, about 0 for unrelated layers; NaN where a layer is the same for every image.
    """
    own = independence.diagonal()
    own = torch.where(own > 0, own, torch.nan)
    return independence / (own[:, None] * own).sqrt()
