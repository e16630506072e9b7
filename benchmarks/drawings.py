"""Drawings in some forty classes, from Debian's `openclipart-png`: a set to pre-train on that is unlike photographs and unlike the cut-outs.

    python benchmarks/drawings.py OUT

Classes are the package's folders with 27 or more drawings of their own, at most 120 of each; copies,
drawings of fewer than 24 pixels and of more than 4,000 are left out. Each stands on a plain ground, at most 512 pixels large, as JPEG.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from cutouts import on_ground

PACKAGE = Path("/usr/share/openclipart/png")
FEWEST, MOST, SIDE = 27, 120, 512
Image.MAX_IMAGE_PIXELS = None  # some are of 200 megapixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder to make; it must not exist")
    out = parser.parse_args().out
    folders = sorted(path for path in PACKAGE.rglob("*") if path.is_dir())
    own = {str(folder.relative_to(PACKAGE)): sorted(folder.glob("*.png")) for folder in folders}
    write(out, {label: paths[:MOST] for label, paths in own.items() if len(paths) >= FEWEST})


def write(out: Path, drawings: dict[str, Iterable[Path]]) -> None:
    """A folder of class folders of these files of the package."""
    if not PACKAGE.is_dir():
        sys.exit(f"{PACKAGE}: there is no such folder; install Debian's openclipart-png")
    taken: set[str | bytes] = set()  # some lie in several folders
    for label, paths in drawings.items():
        folder = out / label.replace("/", "-")
        for path in paths:
            with Image.open(path) as picture:
                if not 24 <= min(picture.size) <= max(picture.size) <= 4000:
                    continue
                small = picture.convert("RGBA").resize((16, 16)).tobytes()
            if path.name in taken or small in taken:
                continue
            taken |= {path.name, small}
            drawing = on_ground(path)
            drawing.thumbnail((SIDE, SIDE))
            folder.mkdir(parents=True, exist_ok=True)
            drawing.save(folder / f"{'-'.join(path.relative_to(PACKAGE).with_suffix('').parts)}.jpg", quality=92)


if __name__ == "__main__":
    main()
