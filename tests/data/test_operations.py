"""Each pixel operation gives Pillow's picture, on 16-bit images the same without its rounding, and never changes its input."""

import math

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from vitral.data import operations as op

SIDES = (37, 52)


def pictures():
    """uint8 [C, h, w] of every kind: noise, smooth, dark and of few values, RGB and grey."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[: SIDES[0], : SIDES[1]]
    for channels in (3, 1):
        yield rng.integers(0, 256, (channels, *SIDES)).astype(np.uint8)
        waves = rng.uniform(0.05, 0.2, (channels, 2))
        yield np.stack([127 + 120 * np.sin(a * y + b * x) for a, b in waves]).astype(np.uint8)
        yield rng.integers(10, 60, (channels, *SIDES)).astype(np.uint8)
        yield (rng.integers(0, 3, (channels, *SIDES)) * 90).astype(np.uint8)
        yield np.full((channels, *SIDES), 77, np.uint8)


PICTURES = list(pictures())
FILL = {1: np.float32([[[90]]]), 3: np.float32([[[124]], [[116]], [[104]]])}


def pillow(image):
    return Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))


def array(image):
    values = np.asarray(image)
    return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)


def colour(image):
    values = tuple(int(v) for v in FILL[len(image)].ravel())
    return values[0] if len(values) == 1 else values


def difference(ours, theirs):
    assert ours.dtype == np.uint8
    return np.abs(ours.astype(int) - array(theirs).astype(int))


EXACT = {
    "autocontrast": (op.autocontrast, ImageOps.autocontrast),
    "equalize": (op.equalize, ImageOps.equalize),
    "invert": (op.invert, ImageOps.invert),
    "grey": (op.grey, lambda image: image.convert("L").convert(image.mode)),
    **{f"solarize {t}": (lambda a, t=t: op.solarize(a, t), lambda i, t=t: ImageOps.solarize(i, t)) for t in (0, 1, 128, 255, 256, 400)},
    **{f"posterize {b}": (lambda a, b=b: op.posterize(a, b), lambda i, b=b: ImageOps.posterize(i, b)) for b in (1, 2, 4, 7, 8)},
    **{
        f"solarize_add {n}": (
            lambda a, n=n: op.solarize_add(a, n),
            lambda i, n=n: i.point([min(255, v + n) if v < 128 else v for v in range(256)] * len(i.getbands())),
        )
        for n in (0, 5, 110, 165, 300)
    },
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_pixelwise_operations_are_pillows(name):
    ours, theirs = EXACT[name]
    for image in PICTURES:
        before = image.copy()
        assert difference(ours(image), theirs(pillow(image))).max() <= (1 if name in ("autocontrast", "grey") else 0)
        assert (image == before).all()


def test_posterize_to_nothing_is_black():
    for image in PICTURES:
        assert not op.posterize(image, 0).any()
        assert not op.posterize(image, -4).any()


@pytest.mark.parametrize("factor", [0.0, 0.1, 0.6, 1.0, 1.4, 1.9, 3.7])
@pytest.mark.parametrize("name", ["brighten", "contrast", "saturate", "sharpen"])
def test_enhancing_is_pillows(name, factor):
    theirs = {"brighten": "Brightness", "contrast": "Contrast", "saturate": "Color", "sharpen": "Sharpness"}[name]
    for image in PICTURES:
        values = op.floats(image)
        getattr(op, name)(values, factor)
        wanted = getattr(ImageEnhance, theirs)(pillow(image)).enhance(factor)
        # Pillow cuts its results' fractions off, and rounds the plainer image before: both times up to one, and times the factor
        assert difference(op.restore(values, image.dtype), wanted).max() <= 1 + abs(1 - factor)
        if factor == 1:
            assert (op.restore(values, image.dtype) == image).all()


def test_sharpen_leaves_images_without_an_inside():
    image = np.random.default_rng(0).random((3, 2, 9), np.float32)
    values = image.copy()
    op.sharpen(values, 1.9)
    assert (values == image).all()


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 1.7, 2.0])
def test_blur_is_gaussian(sigma):
    point = np.zeros((1, 41, 41), np.float32)
    point[0, 20, 20] = 255
    spread = op.blur(point, sigma)[0]
    y, x = np.mgrid[-20:21, -20:21]
    wanted = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    wanted *= 255 / wanted.sum()
    assert np.abs(spread - wanted).max() < 0.01 * wanted.max() + 1e-4
    for image in PICTURES:  # Pillow approximates it by boxes
        assert difference(op.blur(image, sigma), pillow(image).filter(ImageFilter.GaussianBlur(sigma))).mean() < 1.6


MOVES = {
    "rotation": (op.rotation, (-90.0, -27.0, 3.0, 30.0), lambda i, v, f: i.rotate(v, Image.Resampling.BILINEAR, fillcolor=f)),
    "shear_x": (lambda h, w, v: (1, v, 0, 0, 1, 0), (-0.6, -0.3, 0.05, 0.27), lambda i, v, f: affine(i, (1, v, 0, 0, 1, 0), f)),
    "shear_y": (lambda h, w, v: (1, 0, 0, v, 1, 0), (-0.3, 0.1, 0.3), lambda i, v, f: affine(i, (1, 0, 0, v, 1, 0), f)),
    "translation x": (lambda h, w, v: op.translation(v, 0), (-70.0, -12.0, 0.4, 23.4), lambda i, v, f: affine(i, (1, 0, v, 0, 1, 0), f)),
    "translation y": (lambda h, w, v: op.translation(0, v), (-16.6, 0.0, 8.25, 80.0), lambda i, v, f: affine(i, (1, 0, 0, 0, 1, v), f)),
}  # fmt: skip


def affine(image, matrix, fill):
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR, fillcolor=fill
    )


@pytest.mark.parametrize(("name", "amount"), [(name, v) for name, (_, amounts, _) in MOVES.items() for v in amounts])
def test_warping_is_pillows(name, amount):
    """Where the map leads well inside or outside; on the rim itself Pillow has a hard edge, and ours fades over one pixel."""
    matrix_of, _, theirs = MOVES[name]
    h, w = SIDES
    a, b, c, d, e, f = matrix = matrix_of(h, w, amount)
    y, x = np.mgrid[:h, :w] + 0.5
    from_x, from_y = a * x + b * y + c, d * x + e * y + f
    inner = np.minimum(np.minimum(from_x, w - from_x), np.minimum(from_y, h - from_y))
    clear = np.abs(inner) > 0.51
    assert clear.mean() > 0.75
    for image in PICTURES:
        off = difference(op.warp(image, matrix, FILL[len(image)]), theirs(pillow(image), amount, colour(image)))
        assert off[:, clear].max() <= 2  # Pillow steps through a row by sums in fixed point
        assert off[:, clear].mean() < 0.8


def test_shifting_equals_resampling():
    """Translations take a faster way than other maps, to the same end."""
    image = PICTURES[0]
    for x, y in ((3.3, 0.0), (-7.0, 2.5), (0.0, -0.75), (0.2, 60.0)):
        nearly = (1, 1e-7, x, 0, 1, y)
        apart = op.warp(image, op.translation(x, y), FILL[3]).astype(int) - op.warp(image, nearly, FILL[3])
        assert np.abs(apart).max() <= 1


def test_a_turn_goes_round_the_centre():
    image = np.zeros((1, 21, 21), np.uint8)
    image[0, 10, 16] = 255  # right of the centre
    up = op.warp(image, op.rotation(21, 21, 90), np.float32([[[0]]]))
    assert np.unravel_index(up.argmax(), up.shape) == (0, 4, 10)


DEEP = {
    "autocontrast": op.autocontrast,
    "equalize": op.equalize,
    "invert": op.invert,
    "grey": op.grey,
    "solarize": lambda a: op.solarize(a, 100),
    "solarize_add": lambda a: op.solarize_add(a, 60),
    "posterize": lambda a: op.posterize(a, 3),
    "blur": lambda a: op.blur(a, 1.0),
    "rotation": lambda a: op.warp(a, op.rotation(*SIDES, 20), FILL[len(a)]),
    "translation": lambda a: op.warp(a, op.translation(3.5, 1.0), FILL[len(a)]),
}


@pytest.mark.parametrize("name", DEEP)
def test_sixteen_bit_images_are_changed_alike_without_rounding(name):
    for image in PICTURES:
        deep = image.astype(np.float32)
        before = deep.copy()
        changed = DEEP[name](deep)
        assert changed.dtype == np.float32
        assert changed.min() >= 0
        assert changed.max() <= 255
        assert (deep == before).all()
        assert np.abs(changed - DEEP[name](image)).max() <= 1
    fine = np.linspace(40, 41, math.prod(SIDES), dtype=np.float32).reshape(1, *SIDES)  # within one of 256 steps
    if name not in ("posterize", "grey"):
        assert len(np.unique(DEEP[name](fine))) > 500
