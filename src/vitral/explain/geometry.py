"""Where the queries and keys of one attention layer lie in the image: from probabilities [..., H, Q, K] to attention to each place.

Four kinds: all tokens to all (ViT, https://arxiv.org/abs/2010.11929), the class token alone (CaiT, https://arxiv.org/abs/2103.17239), inside
windows (Swin, https://arxiv.org/abs/2103.14030) and to a reduced map (PVT, https://arxiv.org/abs/2102.12122).

Axes: H heads, Q queries, K keys, h w grid of the layer, n windows, P prefix tokens, T = P + h*w tokens of a whole sequence.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vitral.errors import VitralError
from vitral.explain.maps import Query
from vitral.models.common import CLASS_TOKEN, DISTILLATION_TOKEN
from vitral.models.common import Reader as Pooled

Reader = Query | Pooled  # whose attention: a query that a person can name, or all tokens that a head reads
Floats = NDArray[np.floating]
READERS = {
    "cls": "the class token",
    "mean": "the average patch",
    "cls_dist": "the mean of class and distillation token",
    "cls_mean": "the mean of class token and average patch",
}


def in_words(reader: Reader, prefix: Sequence[str] = ()) -> str:
    """The reader, for people. prefix: the names of the prefix tokens."""
    if isinstance(reader, tuple):
        return f"the patch in row {reader[0]} and column {reader[1]}"
    if isinstance(reader, int):
        return f"the {prefix[reader]}" if prefix[reader] in (CLASS_TOKEN, DISTILLATION_TOKEN) else prefix[reader]
    return READERS[reader]


def check_token(number: int, num_prefix: int) -> None:
    """A VitralError unless there is a token of this number before the patches."""
    if not 0 <= number < num_prefix:
        known = (
            f"those before the patches are numbered 0 to {num_prefix - 1}" if num_prefix else "there are only patches"
        )
        raise VitralError(f"query {number}: no such token, {known}; or choose mean, or a patch by its row and column")


def weights(reader: Reader, num_prefix: int, grid: tuple[int, int]) -> NDArray[np.float64]:
    """[P + h*w], summing to one: the weight of each token as a query in the attention of `reader`.

    Raises:
        VitralError: the patch is outside the grid, or there is no such prefix token.
    """
    h, w = grid
    chosen = np.zeros(num_prefix + h * w)
    if isinstance(reader, tuple):
        row, column = reader
        if not (0 <= row < h and 0 <= column < w):
            raise VitralError(
                f"query {row},{column}: the image has {h} rows and {w} columns of patches; "
                f"choose a row in 0..{h - 1} and a column in 0..{w - 1}"
            )
        chosen[num_prefix + row * w + column] = 1
    elif isinstance(reader, int):
        check_token(reader, num_prefix)
        chosen[reader] = 1
    elif reader == "cls":
        chosen[0] = 1
    elif reader == "cls_dist":
        chosen[:2] = 0.5
    else:
        assert reader in ("mean", "cls_mean"), reader
        chosen[num_prefix:] = 1 / (h * w)
        if reader == "cls_mean":
            chosen /= 2
            chosen[0] = 0.5
    return chosen


class Rows(Protocol):
    """Attention of one layer, as an array or anything that can be indexed like one."""

    def __getitem__(self, index: Any, /) -> Any: ...


@dataclass(frozen=True)
class Geometry(ABC):
    """Of one attention layer in one pass."""

    grid: tuple[int, int]
    stride: int
    """Pixels from one place of the grid to the next."""
    prefix: tuple[str, ...]
    """Names of the tokens before the patches, among the layer's queries or keys: class token, distillation token, register 1, ..."""
    own: Reader
    """The default reader: the tokens that the model's head reads, as far as the layer has them as queries."""

    @property
    def num_prefix(self) -> int:
        """P, the number of prefix tokens."""
        return len(self.prefix)

    def reader(self, query: Query | None) -> Reader:
        """The reader for a query, by default `own`; a VitralError where the layer has no such query."""
        if query == "cls" and CLASS_TOKEN not in self.prefix:
            raise VitralError("query cls: this layer has no class token; choose mean, or a patch by its row and column")
        if isinstance(query, int):
            check_token(query, self.num_prefix)
        return self.own if query is None else query

    def words(self, query: Query | None) -> str:
        """The reader for a query, for people."""
        return in_words(self.reader(query), self.prefix)

    def read(self, attention: Floats, query: Query | None) -> Floats:
        """The layer's probabilities to [H, h, w], the query's attention to each place, without prefix tokens and padding."""
        asking = weights(self.reader(query), self.num_prefix, self.grid)
        return self.places(self.keys(attention, asking))

    def places(self, keys: Floats) -> Floats:
        """Attention to the layer's keys, as `keys` gives it, to [H, h, w], attention to each place."""
        return self._places(keys).reshape(len(keys), *self.grid)

    def prefixes(self, keys: Floats) -> Floats:
        """Attention to the prefix tokens, [H, P], of that to the layer's keys."""
        return keys[:, : self.num_prefix]

    def keys(self, attention: Rows, asking: NDArray[np.float64]) -> Floats:
        """Attention to each key, summed over the queries with the weights `asking` [P + h*w]: [H, K], or [H, n, N] inside windows.

        Of a single query only its row is taken out of `attention`.
        """
        lone = np.flatnonzero(asking)
        return self._row(attention, int(lone[0])) if len(lone) == 1 else self._mixed(attention, asking)

    def _row(self, attention: Rows, token: int) -> Floats:
        """`keys` of one query, a token of [P + h*w]."""
        return attention[:, token]

    def _mixed(self, attention: Any, asking: NDArray[np.float64]) -> Floats:
        """`keys` of several queries, from the whole attention."""
        assert attention.shape[-2] == len(asking), f"attention {attention.shape} for {len(asking)} queries"
        return np.stack([asking @ head for head in attention])  # head by head: each becomes float64 on the way

    @abstractmethod
    def _places(self, keys: Floats) -> Floats:
        """`keys` to [H, h*w]."""


@dataclass(frozen=True)
class Tokens(Geometry):
    """[H, Q, K] between tokens of a sequence [T]: in CaiT's trunk between patches only; see also `ClassOnly`."""

    def _places(self, keys: Floats) -> Floats:
        return keys[:, self.num_prefix :]

    def square(self, values: Floats, tokens: int) -> Floats:
        """[H, Q, K] in its place among all `tokens` of the model, [H, T, T]; 0 for pairs that the layer does not have."""
        missing = tokens - values.shape[-1]  # at the front: the class token, where a layer has none
        return np.pad(values, ((0, 0), (missing, 0), (missing, 0)))


@dataclass(frozen=True)
class ClassOnly(Tokens):
    """[H, 1, 1 + h*w]: the class token is the only query."""

    def reader(self, query: Query | None) -> Reader:
        if query not in (None, "cls", 0):
            raise VitralError(f"query {query}: this layer has cls only; choose it, or an earlier layer")
        return "cls"

    def square(self, values: Floats, tokens: int) -> Floats:
        return np.pad(values, ((0, 0), (0, tokens - 1), (0, 0)))  # the patches attend to nothing here


@dataclass(frozen=True)
class Windowed(Geometry):
    """[n, H, N, N] inside windows; `slots` [n, N] is the place, row by row, of each window's tokens, -1 for padding."""

    slots: NDArray[np.int64]

    def _row(self, attention: Rows, token: int) -> Floats:
        ((window, slot),) = np.argwhere(self.slots == token)  # a place is in one window
        row = attention[window, :, slot]  # [H, N]
        read = np.zeros((len(row), *self.slots.shape), row.dtype)
        read[:, window] = row
        return read

    def _mixed(self, attention: Any, asking: NDArray[np.float64]) -> Floats:
        asks = np.where(self.slots >= 0, asking[self.slots], 0)  # [n, N]
        return np.einsum("nhqk,nq->hnk", attention, asks)

    def _places(self, keys: Floats) -> Floats:
        inside = self.slots >= 0
        flat = np.zeros((len(keys), self.grid[0] * self.grid[1]))
        flat[:, self.slots[inside]] = keys[:, inside]
        return flat

    def prefixes(self, keys: Floats) -> Floats:
        return np.zeros((len(keys), 0))


@dataclass(frozen=True)
class Reduced(Geometry):
    """[H, h*w, M] to a map of M = m_h * m_w keys; `rows` [m_h, h] and `columns` [m_w, w] hold each place's share of a key."""

    rows: NDArray[np.float64]
    columns: NDArray[np.float64]

    def _places(self, keys: Floats) -> Floats:
        read = keys.reshape(-1, len(self.rows), len(self.columns))  # [H, m_h, m_w]
        return np.einsum("hmn,mr,nc->hrc", read, self.rows, self.columns).reshape(len(read), -1)


def shares(spans: list[tuple[int, int]], side: int) -> NDArray[np.float64]:
    """[m, side]: each place's share of m keys, which are each reduced from a range [from, to) of a line of places."""
    found = np.zeros((len(spans), side))
    for share, (start, end) in zip(found, spans, strict=True):
        share[start:end] = 1 / (end - start)
    return found
