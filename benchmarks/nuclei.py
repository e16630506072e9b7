"""Tiles of a real fluorescence picture with a mask for each nucleus, split left and right: COCO JSON that `vitral train --task instance` learns.

    pip download --no-deps stardist==0.9.2 && unzip stardist-*.whl 'stardist/data/images/*2d.tif'
    python benchmarks/nuclei.py stardist/data/images OUT

The picture (512 pixels, 125 nuclei, BSD-3) is the example of https://github.com/stardist/stardist. Its right half is for testing, the lowest
quarter of its left half for validation, the rest for training. Tiles for training overlap by three quarters, the others do not. A nucleus at an
edge is cut, and left out where fewer than LEAST pixels of it are in the tile.
"""

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

from vitral.data.annotated import Annotated, AnnotatedData, ClassTable, Object
from vitral.data.formats import coco
from vitral.data.formats.convert import fresh_folder
from vitral.data.images import PackedImages, content_hash
from vitral.data.shapes import area_and_box, outlines, runs_of

SIDE, STEP = 128, 32
LEAST = 40  # pixels; whole nuclei have 25 to 750, half of them more than 440
PLACES = {  # (rows, columns) of the tiles' upper left corners
    "train": (range(0, 257, STEP), range(0, 129, STEP)),
    "val": (range(384, 385), range(0, 129, SIDE)),
    "test": (range(0, 385, SIDE), range(256, 385, SIDE)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="the folder with img2d.tif and mask2d.tif")
    parser.add_argument("out", type=Path, help="the folder to make")
    args = parser.parse_args()
    picture, labels = (np.asarray(Image.open(args.images / name)) for name in ("img2d.tif", "mask2d.tif"))
    blobs, names, rows = [], [], []
    for split, (tops, lefts) in PLACES.items():
        for top in tops:
            for left in lefts:
                tile = slice(top, top + SIDE), slice(left, left + SIDE)
                objects = []
                for nucleus in np.unique(labels[tile])[1:]:
                    mask = labels[tile] == nucleus
                    runs = runs_of(mask)
                    area, box = area_and_box(runs, SIDE, SIDE)
                    if area >= LEAST:
                        objects.append(Object(0, box, outlines(mask) or runs, area=area))
                blobs.append(png(picture[tile]))
                names.append(f"{split}/{top:03d}-{left:03d}.png")
                rows.append(Annotated(SIDE, SIDE, split, tuple(objects)))
    images = PackedImages(np.frombuffer(b"".join(blobs), np.uint8), np.cumsum([0, *map(len, blobs)]), names)
    data = AnnotatedData(
        "nuclei", Path("/"), "coco", "objects", ClassTable((1,), ("nucleus",)), images, rows,
        [content_hash(blob) for blob in blobs], [1] * len(rows),
    )  # fmt: skip
    with fresh_folder(args.out) as part:
        coco.write(data, part)
    for split in PLACES:
        taken = [one for one in rows if one.split == split]
        print(f"{split}: {len(taken)} tiles, {sum(len(one.objects) for one in taken)} nuclei")


def png(tile: np.ndarray) -> bytes:
    """The file's 16-bit values are all below 256."""
    buffer = io.BytesIO()
    Image.fromarray(tile.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    main()
