"""Pictures whose object is known to the pixel: an emoji-like object, pasted onto a background that is like a photograph's in its statistics.

The class is the object's shape alone. Its colour, texture, size, place and turn are drawn apart from it, and so is the background, so that a
model can only tell the class from the object, and a true map of a right answer must lie on it.
"""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

LABELS = ("face", "heart", "star", "house", "fish", "key")
SIDE = 64
FINE = 4  # shapes are drawn so much larger, and shrunk: soft edges
Point = tuple[float, float]


def ring(count: int, radius: float, turn: float = 0.0) -> list[Point]:
    """Points on a circle around the middle of the unit square."""
    angles = [turn + 2 * math.pi * i / count for i in range(count)]
    return [(0.5 + radius * math.sin(a), 0.5 - radius * math.cos(a)) for a in angles]


def shape(label: str, side: int) -> tuple[Image.Image, Image.Image]:
    """The object upright on a square of `side` pixels: (its outline, its dark inner parts), each white on black."""
    outline, inner = Image.new("L", (side, side)), Image.new("L", (side, side))
    body, dark = ImageDraw.Draw(outline), ImageDraw.Draw(inner)

    def pixels(*points: Point) -> list[Point]:
        return [(x * side, y * side) for x, y in points]

    def disc(draw: ImageDraw.ImageDraw, x: float, y: float, r: float, fill: int = 255) -> None:
        draw.ellipse(pixels((x - r, y - r), (x + r, y + r)), fill=fill)

    if label == "face":
        disc(body, 0.5, 0.5, 0.46)
        disc(dark, 0.34, 0.4, 0.07)
        disc(dark, 0.66, 0.4, 0.07)
        dark.arc(pixels((0.27, 0.35), (0.73, 0.78)), 20, 160, fill=255, width=side // 14)
    elif label == "heart":
        disc(body, 0.28, 0.32, 0.24)
        disc(body, 0.72, 0.32, 0.24)
        body.polygon(pixels((0.07, 0.42), (0.93, 0.42), (0.5, 0.95)), fill=255)
    elif label == "star":
        far, near = ring(5, 0.48), ring(5, 0.2, math.pi / 5)
        body.polygon(pixels(*(p for pair in zip(far, near, strict=True) for p in pair)), fill=255)
    elif label == "house":
        body.polygon(pixels((0.5, 0.04), (0.98, 0.48), (0.02, 0.48)), fill=255)
        body.rectangle(pixels((0.16, 0.46), (0.84, 0.95)), fill=255)
        dark.rectangle(pixels((0.42, 0.64), (0.6, 0.95)), fill=255)
    elif label == "fish":
        body.ellipse(pixels((0.02, 0.26), (0.76, 0.74)), fill=255)
        body.polygon(pixels((0.66, 0.5), (0.98, 0.24), (0.98, 0.76)), fill=255)
        disc(dark, 0.2, 0.44, 0.05)
    else:
        assert label == "key", label
        disc(body, 0.25, 0.5, 0.23)
        disc(body, 0.22, 0.5, 0.1, fill=0)
        body.rectangle(pixels((0.44, 0.43), (0.97, 0.57)), fill=255)
        for x in (0.7, 0.86):
            body.rectangle(pixels((x, 0.5), (x + 0.08, 0.76)), fill=255)
    return outline, inner


def clouds(rng: np.random.Generator, roughness: float) -> NDArray[np.float64]:
    """[SIDE, SIDE] with the amplitudes 1 / f^roughness of natural images (about 1), deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE)[None, :])
    frequency[0, 0] = np.inf  # no mean
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((SIDE, SIDE))) / frequency**roughness).real
    return field / field.std()


def background(rng: np.random.Generator) -> NDArray[np.float64]:
    """[SIDE, SIDE, 3] on the 0..255 scale: clouds in two colours, on two sides of a horizon or more, and blobs with edges of their own."""
    picture = np.zeros((SIDE, SIDE, 3))
    regions = np.zeros((SIDE, SIDE), int)
    regions[clouds(rng, 2.0) > rng.uniform(-0.8, 0.8)] = 1  # with a winding border
    for i in range(rng.integers(0, 3)):
        y, x = np.mgrid[:SIDE, :SIDE] - rng.uniform(0, SIDE, (2, 1, 1))
        turn, a, b = rng.uniform(0, math.pi), *rng.uniform(3, 14, 2)
        along, across = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
        inside = (
            (along / a) ** 2 + (across / b) ** 2 < 1 if rng.random() < 0.5 else (abs(along) < a) & (abs(across) < b)
        )
        regions[inside] = 2 + i
    for region in np.unique(regions):
        field = clouds(rng, rng.uniform(0.8, 1.4))[..., None] * rng.uniform(8, 20, 3) + rng.uniform(80, 176, 3)
        picture = np.where((regions == region)[..., None], field, picture)
    return picture


def texture(rng: np.random.Generator) -> NDArray[np.float64]:
    """[SIDE, SIDE, 3]: plain, striped or dotted in two colours, with light from one side."""
    first, second = rng.uniform(0, 255, (2, 3))
    y, x = np.mgrid[:SIDE, :SIDE]
    turn, step = rng.uniform(0, math.pi), rng.uniform(3, 7)
    u, v = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    kind = rng.integers(3)
    pattern = np.zeros((SIDE, SIDE), bool)
    if kind == 1:
        pattern = np.sin(2 * math.pi * u / step) > 0
    elif kind == 2:
        pattern = np.sin(2 * math.pi * u / step) * np.sin(2 * math.pi * v / step) > 0.3
    light = 30 * (u - u.mean()) / SIDE
    return np.where(pattern[..., None], second, first) + light[..., None]


def draw(label: str, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(picture uint8 [SIDE, SIDE, 3], mask [SIDE, SIDE]: where the object covers more than half a pixel)."""
    rng = np.random.default_rng([LABELS.index(label), seed])
    size = int(rng.integers(22, 40))
    turn, flipped = rng.uniform(-20, 20), rng.random() < 0.5
    layers = []
    for layer in shape(label, FINE * size):
        layer = layer.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else layer
        layers.append(
            layer.rotate(turn, Image.Resampling.BICUBIC, expand=True).resize((size, size), Image.Resampling.BOX)
        )
    top, left = rng.integers(0, SIDE - size + 1, 2)
    alpha, dark = np.zeros((2, SIDE, SIDE, 1))
    for canvas, layer in zip((alpha, dark), layers, strict=True):
        canvas[top : top + size, left : left + size, 0] = np.asarray(layer) / 255
    paint = texture(rng) * (1 - 0.8 * dark)
    picture = background(rng) * (1 - alpha) + paint * alpha + rng.normal(0, 4, (SIDE, SIDE, 3))
    drawn = Image.fromarray(np.clip(np.rint(picture), 0, 255).astype(np.uint8))
    return np.asarray(drawn.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.6)))), alpha[..., 0] > 0.5


def write(folder: Path, count: int, first: int) -> None:
    """`count` pictures of each class as PNG files in class folders, of the seeds from `first` on."""
    for label in LABELS:
        (folder / label).mkdir(parents=True)
        for seed in range(first, first + count):
            Image.fromarray(draw(label, seed)[0]).save(folder / label / f"{seed:06d}.png")
