"""219 cut-out pictures in six classes, from Debian's `tuxpaint-stamps-default`: a real data set as small and as uneven as most people's.

    python benchmarks/cutouts.py OUT [--stamps /usr/share/tuxpaint/stamps]

Classes are folders of the package: birds, mammals, insects, vehicles, fruit, flowers, with all that lies below them. Every PNG with an alpha band
is taken; the SVG files and ten palette PNGs are left out. In the order of their names each third keeps its transparency, the others are set on a
plain ground and written as JPEG of quality 92. The ground is one of five and follows from the name, so it says nothing of the class. A second call
writes the same bytes.
"""

import argparse
import hashlib
import shutil
from pathlib import Path

from PIL import Image

CLASSES = ("animals/birds", "animals/mammals", "animals/insects", "vehicles", "food/fruit", "plants/flowers")
GROUNDS = ((255, 255, 255), (236, 236, 236), (222, 232, 240), (240, 232, 214), (214, 226, 208))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder to make; it must not exist")
    parser.add_argument("--stamps", type=Path, default=Path("/usr/share/tuxpaint/stamps"))
    args = parser.parse_args()
    if not args.stamps.is_dir():
        raise SystemExit(
            f"{args.stamps}: there is no such folder; install Debian's tuxpaint-stamps-default, or name its place with --stamps"
        )
    for name in CLASSES:
        paths = [
            path for path in sorted((args.stamps / name).rglob("*.png")) if Image.open(path).mode in ("RGBA", "LA")
        ]
        folder = args.out / Path(name).name
        folder.mkdir(parents=True)
        for i, path in enumerate(paths):
            stem = "-".join(path.relative_to(args.stamps / name).with_suffix("").parts)
            if i % 3 == 0:
                shutil.copy(path, folder / f"{stem}.png")
            else:
                on_ground(path).save(folder / f"{stem}.jpg", quality=92)
        print(f"{folder}: {len(paths)} images")


def on_ground(path: Path) -> Image.Image:
    """The picture on a plain ground that follows from its name."""
    picture = Image.open(path).convert("RGBA")
    ground = GROUNDS[hashlib.sha256(path.name.encode()).digest()[0] % len(GROUNDS)]
    return Image.alpha_composite(Image.new("RGBA", picture.size, (*ground, 255)), picture).convert("RGB")


if __name__ == "__main__":
    main()
