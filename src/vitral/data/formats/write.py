"""What all formats share in writing: images copied under names that cannot clash, by split, and texts that end up whole."""

import json
import posixpath
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitral.data.annotated import AnnotatedData
from vitral.data.filetypes import EXTENSIONS, recognise
from vitral.drawing.objects import class_colours

SPLITS = ("train", "val", "test")


class Writing:
    """A data set on its way into a folder."""

    def __init__(self, data: AnnotatedData, out: Path) -> None:
        self.data, self.out = data, out
        self.names = _names(data)

    def splits(self, default: str | None = None) -> list[tuple[str | None, list[int]]]:
        """(split, its images) of those that there are; `default` for the images of which the data do not say it."""
        given = [one.split or default for one in self.data.annotated]
        there = [split for split in (*SPLITS, None) if split in given]
        return [(split, [i for i, each in enumerate(given) if each == split]) for split in there]

    def copy(self, i: int, folder: str) -> str:
        """Write image i as it stands into a folder; returns its name there."""
        write_bytes(self.out / folder / self.names[i], self.data.images.encoded(i))
        return self.names[i]

    def stem(self, i: int) -> str:
        """The name of image i without its ending; no two are alike."""
        return posixpath.splitext(self.names[i])[0]


def _names(data: AnnotatedData) -> list[str]:
    """A file name for each image, its own where no other has it: endings and capitals tell none apart."""
    names: list[str] = []
    taken: set[str] = set()
    for i, name in enumerate(data.images.names):
        stem, ending = posixpath.splitext(posixpath.basename(name.replace("\\", "/")))
        if ending.lower() not in EXTENSIONS:
            known = recognise(data.images.encoded(i))
            stem, ending = stem + ending, known.extensions[0] if known and known.extensions else ".png"
        stem = re.sub(r"[^\w .()+-]", "_", stem).strip(". ") or f"image-{i}"
        plain, n = stem, 1
        while stem.casefold() in taken:
            n += 1
            stem = f"{plain}-{n}"
        taken.add(stem.casefold())
        names.append(stem + ending)
    return names


def write_bytes(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def dump_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, allow_nan=False, ensure_ascii=False))


def save_map(path: Path, values: NDArray[np.int32]) -> None:
    """Write `map_picture`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    map_picture(values).save(path)


def map_picture(values: NDArray[np.integer]) -> Image.Image:
    """A map [h, w] of values 0 to 65,535 for a PNG: with a palette, so that a person sees it, or of 16 bits where 8 are too few."""
    if values.max(initial=0) > 255:
        return Image.fromarray(values.astype(np.uint16))
    picture = Image.fromarray(values.astype(np.uint8))
    picture.putpalette(class_colours(256).ravel().tolist())
    return picture
