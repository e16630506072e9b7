"""Captured attention to maps. Axes: N tokens (prefix tokens such as class and registers, then h*w patches row by row), H heads."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Query = Literal["cls", "mean"] | int | tuple[int, int]  # an int is the number of a prefix token


def stays(attentions: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    """[N]: the part of `rollout`'s diagonal that no attention brought: what of a token stayed in its place from layer to layer."""
    sums = [attention.astype(np.float64).mean(axis=0).sum(-1) for attention in attentions]  # [N] each
    return np.prod([1 / (1 + each) for each in sums], axis=0)


def rollout(attentions: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    """Attention rollout, Abnar & Zuidema 2020, https://arxiv.org/abs/2005.00928.

    The heads are averaged, the residual path is added as the identity, rows are made to sum to one again, and
    the layers are multiplied, the first applied first: row i says from which input tokens the last layer's
    token i came.

    Args:
        attentions: one [H, N, N] a layer, first layer first.

    Returns:
        [N, N], rows sum to one.
    """
    assert len(attentions) > 0, "rollout needs a layer"
    tokens = attentions[0].shape[-1]
    total: NDArray[np.float64] = np.eye(tokens)
    for attention in attentions:
        mixed = attention.astype(np.float64).mean(axis=0) + np.eye(tokens)  # [H, N, N] -> [N, N]
        total = mixed / mixed.sum(axis=-1, keepdims=True) @ total
    return total
