"""Arrays as text for a page: bytes with their scale, in base 64, a quarter of what float32 takes.

Axes: h w grid. A value is low + byte / 255 * (high - low), and so true to half a 255th of the span.
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
    """Values in low..high, both broadcast to them, as 0..255; 0 where there is no span."""
    above = values - low
    span = np.broadcast_to(high - low, above.shape)
    scaled = 255 * np.divide(above, span, out=np.zeros_like(above), where=span > 0)  # in this order, for spans near 0
    return np.rint(scaled).clip(0, 255).astype(np.uint8)


def packed(
    values: Floats, extent: Sequence[float] = (1.0, 1.0), form: Callable[[float], str] = "{:.4g}".format
) -> dict[str, object]:
    """A map [h, w] for JSON. extent: its height and width over those of what the model sees.

    "even" is what `evenness` says of it, its values written by `form`: the page draws such a map without contrast, and says so.
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
