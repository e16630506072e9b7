"""Where a model's pixels lie in the original image: an affine map and a size.

Coordinates are (y, x) in pixels, counted from the upper left corner of the upper left pixel, so that an image of h x w reaches from
(0, 0) to (h, w) and a resize is a mere scaling. Every resize, crop, pad, flip and turn gives the next view of the same original.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Row = tuple[float, float, float]
Box = tuple[int, int, int, int]  # top, left, height, width


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
