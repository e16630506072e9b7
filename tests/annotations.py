"""Small annotated data sets for tests: images in memory with objects of every kind."""

import io

import numpy as np
from PIL import Image

from vitral.data.annotated import Annotated, AnnotatedData, ClassTable, Object, Polygons
from vitral.data.images import PackedImages, content_hash
from vitral.data.shapes import area_and_box, bounds, runs_of

CLASSES = ClassTable((2, 3, 7), ("cat", "Hund ü", "it's 'so'"), groups=("animal", "animal", "other"))


def encoded(width, height, orientation=1, seed=0):
    """A JPEG or, upright, a PNG of noise, of this size as it is stored."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    image, buffer, exif = Image.fromarray(pixels), io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    image.save(buffer, "JPEG" if orientation != 1 else "PNG", **({"exif": exif} if orientation != 1 else {}))
    return buffer.getvalue()


def masked(index, mask, **more):
    """An object with run lengths."""
    runs = runs_of(mask)
    return Object(index, area_and_box(runs, *mask.shape)[1], runs, **more)


def outlined(index, *parts, **more):
    """An object with polygons."""
    shape = Polygons(tuple(np.array(part, np.float64) for part in parts))
    return Object(index, bounds(shape), shape, **more)


def data_of(rows, sizes=None, splits=None, classes=CLASSES, **more):
    """Images with these objects. sizes: (height, width) of each."""
    sizes = sizes or [(20, 30)] * len(rows)
    splits = splits or [None] * len(rows)
    blobs = [encoded(w, h, seed=k) for k, (h, w) in enumerate(sizes)]
    names = [f"{split or 'images'}/im {k}.png" for k, split in enumerate(splits)]
    images = PackedImages(np.frombuffer(b"".join(blobs), np.uint8), np.cumsum([0, *map(len, blobs)]), names)
    annotated = [
        Annotated(h, w, split, tuple(objects)) for (h, w), split, objects in zip(sizes, splits, rows, strict=True)
    ]
    digests = [content_hash(blob) for blob in blobs]
    from pathlib import Path

    return AnnotatedData(
        "made", Path("/nowhere"), "coco", "objects", classes, images, annotated, digests, [1] * len(rows), **more
    )
