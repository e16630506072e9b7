"""Arrays as text for a page: bytes with their scale, in base 64, a quarter of the size of float32.

Axes: h w grid. A value is low + byte / 255 * (high - low), exact to half a 255th of the span.
"""

import base64
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vitral.drawing.colours import evenness

Floats = NDArray[np.floating]


def text(data: bytes | NDArray[np.uint8]) -> str:
    """Bytes in base 64."""
    return base64.b64encode(data if isinstance(data, bytes) else data.tobytes()).decode("ascii")


def to_bytes(values: Floats, low: Floats | float, high: Floats | float) -> NDArray[np.uint8]:
    """Values from low to high (both broadcast) as 0..255; 0 where these are equal."""
    above = values - low
    span = np.broadcast_to(high - low, above.shape)
    scaled = 255 * np.divide(above, span, out=np.zeros_like(above), where=span > 0)  # in this order, for spans near 0
    return np.rint(scaled).clip(0, 255).astype(np.uint8)


def packed(
    values: Floats, extent: Sequence[float] = (1.0, 1.0), form: Callable[[float], str] = "{:.4g}".format
) -> dict[str, object]:
    """A map [h, w] for JSON. extent: its height and width as shares of the view's.

    "even" is the sentence of `evenness`, its values written by `form`; the page draws a map that has one without contrast.
    """
    low, high = float(values.min()), float(values.max())
    return {
        "grid": list(values.shape),
        "extent": list(extent),
        "low": low,
        "high": high,
        "even": evenness(values, form),
        "data": text(to_bytes(values, low, high)),
    }
