"""Where a model's pixels lie in the original image: an affine map and a size.

Coordinates are (y, x) in pixels, counted from the upper left corner of the upper left pixel, so that an image of h x w reaches from
(0, 0) to (h, w) and a resize is a mere scaling. Every resize, crop, pad, flip and turn gives the next view of the same original.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Row = tuple[float, float, float]
Box = tuple[int, int, int, int]  # top, left, height, width
NUDGE = 1e-6
"""Pixels: a middle that falls between two pixels is in the latter, whatever its arithmetic rounded off."""


@dataclass(frozen=True)
class View:
    """`height` x `width` pixels; a place (y, x) of the original lies at (a y + b x + c, d y + e x + f) of them, `rows` being (a, b, c), (d, e, f)."""

    height: int
    width: int
    rows: tuple[Row, Row] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))

    def resized(self, height: int, width: int) -> "View":
        """The same stretched to another size."""
        return self._then(height, width, ((height / self.height, 0.0, 0.0), (0.0, width / self.width, 0.0)))

    def cropped(self, top: int, left: int, height: int, width: int) -> "View":
        """The box that starts at `top` and `left`; what lies outside is padding."""
        return self._then(height, width, ((1.0, 0.0, -float(top)), (0.0, 1.0, -float(left))))

    def flipped(self, axis: int) -> "View":
        """Mirrored along 0 (upside down) or 1 (left and right)."""
        upright: Row = (1.0, 0.0, 0.0)
        if axis == 0:
            return self._then(self.height, self.width, ((-1.0, 0.0, float(self.height)), (0.0, 1.0, 0.0)))
        return self._then(self.height, self.width, (upright, (0.0, -1.0, float(self.width))))

    def turned(self, quarters: int) -> "View":
        """Turned by quarters against the clock, as `torch.rot90` does."""
        view = self
        for _ in range(quarters % 4):
            view = view._then(view.width, view.height, ((0.0, -1.0, float(view.width)), (1.0, 0.0, 0.0)))
        return view

    def moved(self, rows: tuple[Row, Row]) -> "View":
        """Of the same size, where the place (y, x) shows what was at (a y + b x + c, d y + e x + f), as a warp asks for it."""
        (a, b, c), (d, e, f) = rows
        det = a * e - b * d
        back = ((e, -b, b * f - c * e), (-d, a, c * d - a * f))
        return self._then(self.height, self.width, tuple(tuple(v / det for v in row) for row in back))  # type: ignore[arg-type]

    def _then(self, height: int, width: int, rows: tuple[Row, Row]) -> "View":
        (a, b, c), (d, e, f) = self.rows
        joined = tuple((p * a + q * d, p * b + q * e, p * c + q * f + r) for p, q, r in rows)
        return View(height, width, (joined[0], joined[1]))

    def seen(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Places (y, x) of the original [..., 2] in the view."""
        rows = np.array(self.rows)
        return points @ rows[:, :2].T + rows[:, 2]

    def original(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Places (y, x) of the view [..., 2] in the original: the inverse of `seen`."""
        rows = np.array(self.rows)
        return (points - rows[:, 2]) @ np.linalg.inv(rows[:, :2]).T

    def box(self) -> Box:
        """What the view shows, in whole pixels of the original; where it is padded it reaches beyond the image."""
        corners = self.original(np.array([(0.0, 0.0), (self.height, self.width)]))
        (top, left), (bottom, right) = (
            [round(round(v, 6)) for v in edge] for edge in (corners.min(0).tolist(), corners.max(0).tolist())
        )
        return top, left, bottom - top, right - left

    def middles(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Where the middles of its rows lie in the original, and those of its columns; None where it is turned, so that both depend on both."""
        (a, b, c), (d, e, f) = self.rows
        if b or d:
            return None
        rows, columns = (np.arange(side, dtype=np.float64) + 0.5 for side in (self.height, self.width))
        return (rows - c) / a, (columns - f) / e

    def nearest(self, values: NDArray[np.generic], fill: int) -> NDArray[Any]:
        """What of the original's values [h, w] lies under the middle of each of its pixels: [height, width], `fill` beyond the original."""
        h, w = values.shape
        middles = self.middles()
        if middles is not None:
            (ys, y_inside), (xs, x_inside) = (_places(each, size) for each, size in zip(middles, (h, w), strict=True))
            found = values[ys[:, None], xs]
            found[~y_inside] = fill
            found[:, ~x_inside] = fill
            return found
        grid = np.stack(np.meshgrid(np.arange(self.height) + 0.5, np.arange(self.width) + 0.5, indexing="ij"), -1)
        places = self.original(grid)  # [height, width, 2]
        ys, y_inside = _places(places[..., 0], h)
        xs, x_inside = _places(places[..., 1], w)
        return np.where(y_inside & x_inside, values[ys, xs], values.dtype.type(fill))


def _places(middles: NDArray[np.float64], size: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The pixels of a line of `size` that these places lie in, and which of them do."""
    whole = np.floor(middles + NUDGE).astype(np.int64)
    return whole.clip(0, size - 1), (whole >= 0) & (whole < size)


class Placed(NamedTuple):
    """An image's own height and width, and where a model's pixels lie in it."""

    height: int
    width: int
    view: View
