"""The picture of docs/dense.md: images above what `vitral predict` drew on them, a column for each.

vitral predict runs/objects scenes/test --out found/
vitral predict runs/maps scenes/test --out maps/
python benchmarks/found.py dense-found.webp scenes/test found maps --names test-00000 test-00003 test-00012 test-00021 test-00034 test-00050
"""

import argparse
from pathlib import Path

from PIL import Image

SIDE, GAP = 226, 2


def picture(folder: Path, name: str, size: tuple[int, int]) -> Image.Image:
    """NAME.jpg or .png, or a map's overlay without the legend that widens it. size: the photograph's."""
    overlay = folder / f"{name}-overlay.jpg"
    if overlay.exists():
        return Image.open(overlay).crop((0, 0, *size))
    return Image.open(next(folder.glob(f"{name}.[jp][pn]g"))).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", type=Path, nargs="+", help="a row each")
    parser.add_argument("--names", nargs="+", required=True, help="a column each, of square images")
    given = parser.parse_args()
    pitch = SIDE + GAP
    sheet = Image.new("RGB", (pitch * len(given.names), pitch * len(given.folders)), "white")
    for x, name in enumerate(given.names):
        size = picture(given.folders[0], name, (0, 0)).size
        for y, folder in enumerate(given.folders):
            drawn = picture(folder, name, size).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            sheet.paste(drawn, (x * pitch + GAP // 2, y * pitch + GAP // 2))
    sheet.save(given.out, quality=82)


if __name__ == "__main__":
    main()
