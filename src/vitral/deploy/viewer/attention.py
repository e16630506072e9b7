"""The attention of one layer, stored so that the map of any query is read from it within a millisecond.

Up to `LARGE` numbers are stored as floats, more as bytes, in a quarter of the memory. Every row has its own scale, prefix tokens are stored
separately, and the mean of the heads is stored as one more head: so each map is exact to half a 255th of its own largest value, however much
attention a class token or another head gets. Maps of many queries together would add up the rounding of many rows, so they are computed exactly
before the layer is rounded.

Axes: H heads, M = H + 1 heads and their mean, Q queries, K keys, P prefix tokens, n windows of N tokens, h w grid.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitral.deploy.viewer.pack import to_bytes
from vitral.explain.attention import extent
from vitral.explain.capture import RecordedLayer
from vitral.explain.geometry import ClassOnly, Floats, Geometry, Reader, Reduced, Windowed, weights
from vitral.explain.maps import Query

LARGE = 2**20
"""Numbers in a layer's attention, above which it is stored as bytes."""


@dataclass(frozen=True)
class RowBytes:
    """Attention [..., Q, K] as bytes; indexing it by rows gives float32."""

    prefix: NDArray[np.float32]
    """[..., Q, P]: the weights of the prefix tokens, exact."""
    data: NDArray[np.uint8]
    """[..., Q, K - P]: a value is byte / 255 * top."""
    tops: NDArray[np.float32]
    """[..., Q, 1]"""

    @classmethod
    def of(cls, attention: Floats, num_prefix: int) -> "RowBytes":
        rest = attention[..., num_prefix:]
        tops = rest.max(axis=-1, keepdims=True)
        parts = zip(rest, tops, strict=True)  # one by one, for they are float64 in between
        data = np.stack([to_bytes(part, 0.0, top) for part, top in parts])
        return cls(attention[..., :num_prefix].copy(), data, tops)

    def __getitem__(self, index: Any) -> Floats:
        rest = self.data[index] * (self.tops[index] / np.float32(255))
        return np.concatenate([self.prefix[index], rest], axis=-1)

    @property
    def nbytes(self) -> int:
        return self.prefix.nbytes + self.data.nbytes + self.tops.nbytes


@dataclass(frozen=True)
class KeptLayer:
    """One attention layer of a forward pass."""

    name: str
    stage: int
    geometry: Geometry
    heads: int
    rows: Floats | RowBytes
    """[M, Q, K], or [n, M, N, N] of n windows."""
    mixed: dict[Reader, Floats]
    """The exact weights of the keys for readers of several tokens, as `Geometry.keys` gives them."""

    @classmethod
    def of(cls, layer: RecordedLayer, name: str, stage: int) -> "KeptLayer":
        array, geometry = layer.array(), layer.geometry
        heads = array.shape[-3]
        array = np.concatenate([array, array.mean(axis=-3, keepdims=True)], axis=-3)
        if isinstance(geometry, Windowed):  # without padding, which may get more attention than all patches
            array = array * (geometry.slots >= 0)[:, None, None]
        readers: set[Reader] = {geometry.own} if isinstance(geometry, ClassOnly) else {geometry.own, "mean"}
        asking = {reader: weights(reader, geometry.num_prefix, geometry.grid) for reader in readers}
        mixed = {r: geometry.keys(array, a).astype(np.float32) for r, a in asking.items() if np.count_nonzero(a) > 1}
        # a reduced layer is small, and its pooled keys overlap, which would add up rounding
        packs = array.size > LARGE and not isinstance(geometry, Reduced)
        return cls(name, stage, geometry, heads, RowBytes.of(array, geometry.num_prefix) if packs else array, mixed)

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes + sum(keys.nbytes for keys in self.mixed.values())

    def read(self, query: Query | None) -> tuple[Floats, Floats]:
        """([M, h, w], [M, P]): a query's attention to each place and to each prefix token; VitralError where the layer has no such query."""
        reader = self.geometry.reader(query)
        keys = self.mixed.get(reader)
        if keys is None:
            keys = self.geometry.keys(self.rows, weights(reader, self.geometry.num_prefix, self.geometry.grid))
        return self.geometry.places(keys), self.geometry.prefixes(keys)

    def describe(self, size: tuple[int, int]) -> dict[str, object]:
        g = self.geometry
        kind = {ClassOnly: "class", Windowed: "windows", Reduced: "reduced"}.get(type(g), "tokens")
        return {
            "name": self.name,
            "stage": self.stage,
            "kind": kind,
            "grid": list(g.grid),
            "extent": list(extent(g.grid, g.stride, size)),
            "heads": self.heads,
            "borders": borders(g) if isinstance(g, Windowed) else None,
        }


def borders(windows: Windowed) -> dict[str, list[int]]:
    """Rows and columns of the grid at which a window begins."""
    n, inside = len(windows.slots), windows.slots >= 0
    of = np.zeros(windows.grid[0] * windows.grid[1], np.int64)
    of[windows.slots[inside]] = np.broadcast_to(np.arange(n)[:, None], windows.slots.shape)[inside]
    of = of.reshape(windows.grid)
    return {
        "rows": (1 + np.flatnonzero((np.diff(of, axis=0) != 0).any(axis=1))).tolist(),
        "columns": (1 + np.flatnonzero((np.diff(of, axis=1) != 0).any(axis=0))).tolist(),
    }
