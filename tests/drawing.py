"""Pictures with something on them that a model can learn in seconds."""

import numpy as np


def draw_shape(kind: int, seed: int, side: int = 20) -> np.ndarray:
    """A grey picture of a bright disc (0), square (1) or cross (2) somewhere on noise: uint8 [side, side]."""
    rng = np.random.default_rng([kind, seed])
    canvas = rng.integers(0, 60, (side, side))
    y, x = np.mgrid[:side, :side] - rng.integers(side // 3, side - side // 3, (2, 1, 1))
    shapes = (y**2 + x**2 < 25, np.maximum(abs(y), abs(x)) < 5, np.minimum(abs(y), abs(x)) < 2)
    canvas[shapes[kind]] += 180
    return canvas.astype(np.uint8)


def smooth(seed: int, side: int = 96) -> np.ndarray:
    """Noise with detail at many scales, 0..255, [side, side]."""
    rng = np.random.default_rng(seed)
    layers = [np.kron(rng.normal(size=(n, n)), np.ones((side // n, side // n))) for n in (3, 6, 12, 24, 48)]
    mixed = sum(layers)
    return np.clip(128 + 30 * mixed, 0, 255)
