"""Pictures whose object is known to the pixel: an emoji-like object, pasted onto a part of a photograph.

The class is the object's shape alone. Its colour, texture, size, place and turn are drawn apart from it, and so is the background, so that a
model can only tell the class from the object, and a true map of a right answer must lie on it.
"""

import functools
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from sklearn.datasets import load_sample_images

LABELS = ("face", "heart", "star", "house", "fish", "key")
SIDE = 96
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


@functools.cache
def photographs() -> list[Image.Image]:
    """The two that come with scikit-learn, a temple and a flower."""
    return [Image.fromarray(picture) for picture in load_sample_images().images]


def background(rng: np.random.Generator, side: int) -> NDArray[np.float64]:
    """[side, side, 3] on the 0..255 scale: a square of a photograph, perhaps mirrored, in another light."""
    photograph = photographs()[rng.integers(2)]
    cut = int(rng.integers(SIDE, min(photograph.size) + 1))
    left, top = (int(rng.integers(0, n - cut + 1)) for n in photograph.size)
    square = photograph.resize((side, side), Image.Resampling.LANCZOS, (left, top, left + cut, top + cut))
    picture = np.asarray(square, np.float64)[:, :: rng.choice([-1, 1])]
    return picture * rng.uniform(0.5, 1.2, 3) + rng.uniform(-20, 40)


def texture(rng: np.random.Generator, side: int) -> NDArray[np.float64]:
    """[side, side, 3]: plain, striped or dotted in two colours, with light from one side."""
    first, second = rng.uniform(0, 255, (2, 3))
    y, x = np.mgrid[:side, :side] / side
    turn, step = rng.uniform(0, math.pi), rng.uniform(0.04, 0.1)
    u, v = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    kind = rng.integers(3)
    pattern = np.zeros((side, side), bool)
    if kind == 1:
        pattern = np.sin(2 * math.pi * u / step) > 0
    elif kind == 2:
        pattern = np.sin(2 * math.pi * u / step) * np.sin(2 * math.pi * v / step) > 0.3
    light = 30 * (u - u.mean())
    return np.where(pattern[..., None], second, first) + light[..., None]


def draw(label: str, seed: int, side: int = SIDE) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(picture uint8 [side, side, 3], mask [side, side]: where the object covers more than half a pixel).

    A larger side is the same picture in finer detail.
    """
    rng = np.random.default_rng([LABELS.index(label), seed])
    size = round(side * rng.uniform(0.34, 0.62))
    turn, flipped = rng.uniform(-20, 20), rng.random() < 0.5
    layers = []
    for layer in shape(label, FINE * size):
        layer = layer.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else layer
        layers.append(
            layer.rotate(turn, Image.Resampling.BICUBIC, expand=True).resize((size, size), Image.Resampling.BOX)
        )
    top, left = (int(place * (side - size)) for place in rng.uniform(0, 1, 2))
    alpha, dark = np.zeros((2, side, side, 1))
    for canvas, layer in zip((alpha, dark), layers, strict=True):
        canvas[top : top + size, left : left + size, 0] = np.asarray(layer) / 255
    paint = texture(rng, side) * (1 - 0.8 * dark)
    picture = background(rng, side) * (1 - alpha) + paint * alpha
    softness = rng.uniform(0, 0.6) * side / SIDE
    noisy = Image.fromarray(np.clip(np.rint(picture + rng.normal(0, 4, picture.shape)), 0, 255).astype(np.uint8))
    return np.asarray(noisy.filter(ImageFilter.GaussianBlur(softness))), alpha[..., 0] > 0.5


def write(folder: Path, count: int, first: int) -> None:
    """`count` pictures of each class as PNG files in class folders, of the seeds from `first` on."""
    for label in LABELS:
        (folder / label).mkdir(parents=True)
        for seed in range(first, first + count):
            Image.fromarray(draw(label, seed)[0]).save(folder / label / f"{seed:06d}.png")
