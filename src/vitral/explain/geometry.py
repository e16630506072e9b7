"""Where the numbers of one attention layer lie in the image: from probabilities [..., H, Q, K] to what is read of each place.

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

Reader = Query | Pooled  # who asks: beyond whom a person may name, two tokens at once
Floats = NDArray[np.floating]
READERS = {
    "cls": "the class token",
    "mean": "the average patch",
    "cls_dist": "the mean of class and distillation token",
    "cls_mean": "the mean of class token and average patch",
}


def in_words(reader: Reader, prefix: Sequence[str] = ()) -> str:
    """Who reads, for people. prefix: the names of the prefix tokens."""
    if isinstance(reader, tuple):
        return f"the patch in row {reader[0]} and column {reader[1]}"
    if isinstance(reader, int):
        return f"the {prefix[reader]}" if prefix[reader] in (CLASS_TOKEN, DISTILLATION_TOKEN) else prefix[reader]
    return READERS[reader]


def check_token(number: int, num_prefix: int) -> None:
    """A VitralError where there is no token of this number before the patches."""
    if not 0 <= number < num_prefix:
        known = (
            f"those before the patches are numbered 0 to {num_prefix - 1}" if num_prefix else "there are only patches"
        )
        raise VitralError(f"query {number}: no such token, {known}; or ask for mean, or a patch by its row and column")


def weights(reader: Reader, num_prefix: int, grid: tuple[int, int]) -> NDArray[np.float64]:
    """[P + h*w], summing to one: how much each token counts in what `reader` reads.

    Raises:
        VitralError: a patch outside the grid, or a prefix token that there is not.
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
    """Attention of one layer, all of it or so kept that it gives parts when it is indexed as an array is."""

    def __getitem__(self, index: Any, /) -> Any: ...


@dataclass(frozen=True)
class Geometry(ABC):
    """Of one attention layer in one pass."""

    grid: tuple[int, int]
    stride: int
    """Pixels from one place of the grid to the next."""
    prefix: tuple[str, ...]
    """Names of the tokens before those of the places, among the layer's queries or keys: class token, distillation token, register 1, ..."""
    own: Reader
    """Who reads if nobody in particular is asked for: what the model's answer is read from, as far as the layer has it."""

    @property
    def num_prefix(self) -> int:
        """P, the number of prefix tokens."""
        return len(self.prefix)

    def reader(self, query: Query | None) -> Reader:
        """Who reads, given whom a person asked for.

        Raises:
            VitralError: the layer has no such query.
        """
        if query == "cls" and CLASS_TOKEN not in self.prefix:
            raise VitralError(
                "query cls: this layer has no class token; ask for mean, or for a patch by its row and column"
            )
        if isinstance(query, int):
            check_token(query, self.num_prefix)
        return self.own if query is None else query

    def words(self, query: Query | None) -> str:
        """Who reads, for people, given whom a person asked for."""
        return in_words(self.reader(query), self.prefix)

    def read(self, attention: Floats, query: Query | None) -> Floats:
        """The layer's probabilities to [H, h, w], what the query reads of each place; prefix tokens and padding are left out."""
        asking = weights(self.reader(query), self.num_prefix, self.grid)
        return self.places(self.keys(attention, asking))

    def places(self, keys: Floats) -> Floats:
        """What is read of the layer's keys, as `keys` gives it, to [H, h, w], what is read of each place."""
        return self._places(keys).reshape(len(keys), *self.grid)

    def prefixes(self, keys: Floats) -> Floats:
        """Of what is read of the layer's keys the prefix tokens' part, [H, P]."""
        return keys[:, : self.num_prefix]

    def keys(self, attention: Rows, asking: NDArray[np.float64]) -> Floats:
        """What the queries together, weighted by `asking` [P + h*w], read of each key: [H, K], or [H, n, N] inside windows.

        Where one query asks, its row alone is taken out of `attention`.
        """
        lone = np.flatnonzero(asking)
        return self._row(attention, int(lone[0])) if len(lone) == 1 else self._mixed(attention, asking)

    @abstractmethod
    def _row(self, attention: Rows, token: int) -> Floats:
        """`keys` where one token of [P + h*w] asks."""

    @abstractmethod
    def _mixed(self, attention: Any, asking: NDArray[np.float64]) -> Floats:
        """`keys` where several tokens ask, of the whole attention."""

    @abstractmethod
    def _places(self, keys: Floats) -> Floats:
        """`keys` to [H, h*w]."""


@dataclass(frozen=True)
class Tokens(Geometry):
    """[H, Q, K] between tokens of a sequence [T]. In CaiT's first layers patches alone ask and answer; see also `ClassOnly`."""

    def _row(self, attention: Rows, token: int) -> Floats:
        return attention[:, token]

    def _mixed(self, attention: Any, asking: NDArray[np.float64]) -> Floats:
        assert attention.shape[-2:] == (len(asking),) * 2, f"attention {attention.shape} for {len(asking)} tokens"
        return np.stack([asking @ head for head in attention])  # head by head: each becomes float64 on the way

    def _places(self, keys: Floats) -> Floats:
        return keys[:, self.num_prefix :]

    def square(self, values: Floats, tokens: int) -> Floats:
        """[H, Q, K] in its place among all `tokens` of the model, [H, T, T]; 0 for pairs that the layer does not have."""
        missing = tokens - values.shape[-1]  # at the front: the class token, where a layer is without it
        return np.pad(values, ((0, 0), (missing, 0), (missing, 0)))


@dataclass(frozen=True)
class ClassOnly(Tokens):
    """[H, 1, 1 + h*w]: the class token alone asks."""

    def reader(self, query: Query | None) -> Reader:
        if query not in (None, "cls", 0):
            raise VitralError(
                f"query {query}: in this layer only the class token reads; ask for cls, or choose an earlier layer"
            )
        return "cls"

    def square(self, values: Floats, tokens: int) -> Floats:
        return np.pad(values, ((0, 0), (0, tokens - 1), (0, 0)))  # the patches read nothing here


@dataclass(frozen=True)
class Windowed(Geometry):
    """[n, H, N, N] inside windows; `slots` [n, N] is the place, row by row, that each window's token comes from, -1 for padding."""

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
    """[H, h*w, M] to a map of M = m_h * m_w keys; `rows` [m_h, h] and `columns` [m_w, w] say which share of a key each place is."""

    rows: NDArray[np.float64]
    columns: NDArray[np.float64]

    def _row(self, attention: Rows, token: int) -> Floats:
        return attention[:, token]

    def _mixed(self, attention: Any, asking: NDArray[np.float64]) -> Floats:
        return np.stack([asking @ head for head in attention])

    def _places(self, keys: Floats) -> Floats:
        read = keys.reshape(-1, len(self.rows), len(self.columns))  # [H, m_h, m_w]
        return np.einsum("hmn,mr,nc->hrc", read, self.rows, self.columns).reshape(len(read), -1)


def shares(spans: list[tuple[int, int]], side: int) -> NDArray[np.float64]:
    """[m, side]: keys that each come from the places (from, to) of a line, and which share of a key each place is."""
    found = np.zeros((len(spans), side))
    for share, (start, end) in zip(found, spans, strict=True):
        share[start:end] = 1 / (end - start)
    return found
