"""Generated scenes with exact masks: drawn shapes, or cut-outs from files, over photographs. A pure function of (seed, split, scene number).

Objects overlap, and a mask is the visible part of its object. A cut-out or photograph is used in one split alone: files are divided by their names,
and each of scikit-learn's two photographs is cut into parts.

Axes: h height, w width of the scene, and s the side of an object.
"""

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitral.data.annotated import Annotated, AnnotatedData, ClassTable, Object
from vitral.data.formats import coco
from vitral.data.formats.convert import fresh_folder
from vitral.data.formats.maps import painted
from vitral.data.formats.write import Writing, dump_json, save_map
from vitral.data.images import PackedImages, content_hash
from vitral.data.options import SceneOptions
from vitral.data.progress import OnProgress
from vitral.data.raster import named, quiet
from vitral.data.scan import in_threads
from vitral.data.shapes import area_and_box, outlines, runs_of
from vitral.errors import VitralError
from vitral.randomness import derive

SHAPES = ("disc", "square", "triangle", "cross", "ring", "star", "crescent", "bar", "heart", "arrow")
HELD_OUT = 0.2  # share of the cut-outs and photographs that are for test scenes only, and of those for validation
MOST = 6  # objects in a scene
SMALLEST, LARGEST = 0.14, 0.5  # side of an object, as a share of the scene's
LEAST_SEEN = 0.3  # share of an object that must stay visible,
LEAST_PIXELS = 16  # and the visible pixels
FINE = 4  # sample points for each pixel and direction at which edges are drawn


class Scenes:
    """Makes scenes one by one, in any order."""

    def __init__(self, options: SceneOptions) -> None:
        self.options = options
        self.splits = {"train": options.images, "val": options.val, "test": options.test}
        if not options.val:
            del self.splits["val"]
        self.cutouts: list[tuple[str, list[Path]]] = []
        if options.cutouts is None:
            if options.classes > len(SHAPES):
                raise VitralError(
                    f"--classes {options.classes}: there are {len(SHAPES)} drawn shapes; give fewer, or --cutouts FOLDER"
                )
            self.names: Sequence[str] = SHAPES[: options.classes]
        else:
            self.cutouts = _cutouts(options.cutouts, len(self.splits))[: options.classes]
            self.names = [name for name, _ in self.cutouts]
        self.grounds = {split: _grounds(options, split) for split in self.splits}

    def __call__(self, split: str, number: int) -> tuple[NDArray[np.uint8], list[tuple[int, NDArray[np.bool_]]]]:
        """The picture [h, w, 3] of scene `number`, and for each object, from back to front, its class and visible mask [h, w]."""
        rng = np.random.default_rng(derive(self.options.seed, f"scene {split}", number))
        size = self.options.size
        picture = self._ground(rng, split).astype(np.float32)
        owner = np.zeros((size, size), np.int32)  # the visible object, from 1
        whole: list[tuple[int, int]] = []
        for _ in range(int(rng.integers(1, MOST + 1))):
            index = int(rng.integers(len(self.names)))
            side = round(size * SMALLEST * (LARGEST / SMALLEST) ** rng.random())
            colour, alpha = self._cutout(rng, split, index, side) if self.cutouts else drawn(rng, SHAPES[index], side)
            top, left = (int(rng.integers(-(length // 5), max(1, size - length * 4 // 5))) for length in alpha.shape)
            rows, columns = (
                slice(max(top, 0), min(top + alpha.shape[0], size)),
                slice(max(left, 0), min(left + alpha.shape[1], size)),
            )
            within = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
            seen = alpha[within] >= 0.5
            before = np.bincount(owner[rows, columns][seen], minlength=len(whole) + 1)[1:]
            there = np.bincount(owner.ravel(), minlength=len(whole) + 1)[1:] - before
            least = [max(LEAST_PIXELS, LEAST_SEEN * pixels) for _, pixels in whole]
            if seen.sum() < max(LEAST_PIXELS, LEAST_SEEN * (alpha >= 0.5).sum()) or any(
                n < m for n, m in zip(there.tolist(), least, strict=True)
            ):
                continue  # it would hide another, or lie outside
            share = alpha[within][..., None]
            picture[rows, columns] = picture[rows, columns] * (1 - share) + colour[within] * share
            whole.append((index, int((alpha >= 0.5).sum())))
            owner[rows, columns][seen] = len(whole)
        noise = rng.normal(0, 2, picture.shape)
        pixels = np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)
        return pixels, [(index, owner == k) for k, (index, _) in enumerate(whole, 1)]

    def _ground(self, rng: np.random.Generator, split: str) -> NDArray[np.uint8]:
        photographs = self.grounds[split]
        photograph = photographs[int(rng.integers(len(photographs)))]
        side = int(min(photograph.size) * rng.uniform(0.5, 1))
        x, y = int(rng.integers(photograph.width - side + 1)), int(rng.integers(photograph.height - side + 1))
        size = (self.options.size, self.options.size)
        cut = photograph.resize(size, Image.Resampling.BICUBIC, (x, y, x + side, y + side))
        found = np.asarray(cut if rng.random() < 0.5 else cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT), np.float32)
        return np.clip(found * rng.uniform(0.7, 1.2), 0, 255).astype(np.uint8)

    def _cutout(
        self, rng: np.random.Generator, split: str, index: int, side: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Colours [s, s, 3] and opacity [s, s]."""
        paths = of_split(self.cutouts[index][1], split, self.options.seed, self.options.val > 0)
        path = paths[int(rng.integers(len(paths)))]
        with named(str(path)), quiet():
            image = Image.open(path).convert("RGBA")
        box = image.getchannel("A").getbbox()
        image = image.crop(box) if box else image
        scale = side / max(image.size)
        image = image.resize(
            (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS
        )
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image = image.rotate(float(rng.uniform(-20, 20)), Image.Resampling.BICUBIC, expand=True)
        pixels = np.asarray(image, np.float32)
        return pixels[..., :3], pixels[..., 3] / np.float32(255)


def _cutouts(folder: Path, least: int) -> list[tuple[str, list[Path]]]:
    """The class folders of a folder with so many pictures or more, and the pictures, to any depth, without files that are mirror images."""
    if not folder.is_dir():
        raise VitralError(
            f"{folder}: there is no such folder; give a folder of class folders with cut-outs (PNG with transparency)"
        )
    found = []
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        paths = [
            path
            for path in sorted(inner.rglob("*.png"))
            if not path.stem.endswith(("_mirror", "_flip")) and _transparent(path)
        ]
        if len(paths) >= least:
            found.append((inner.name, paths))
    if not found:
        raise VitralError(
            f"{folder}: has no folder with {least} PNGs or more that have transparency; give a folder of class folders with cut-outs"
        )
    return found


def _transparent(path: Path) -> bool:
    try:
        with quiet(), Image.open(path) as image:
            return image.mode in ("RGBA", "LA") or "transparency" in image.info
    except OSError:
        return False


def of_split(paths: list[Path], split: str, seed: int, validated: bool) -> list[Path]:
    """The files for scenes of this split, one or more; none of them is used for another."""
    order = sorted(paths, key=lambda path: derive(seed, "split", *path.name.encode()))
    held = max(1, round(HELD_OUT * len(paths)))
    parts = {"test": order[:held], "val": order[held : 2 * held], "train": order[held * (1 + validated) :]}
    return parts[split]


def _grounds(options: SceneOptions, split: str) -> list[Image.Image]:
    """The photographs behind the objects."""
    folder, validated = options.backgrounds, options.val > 0
    if folder is None:
        from sklearn.datasets import load_sample_images

        held = 1.5 * HELD_OUT
        sides = {"test": (1 - held, 1.0), "val": (1 - 2 * held, 1 - held), "train": (0.0, 1 - held * (1 + validated))}
        photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
        edges = [[round(side * photograph.width) for side in sides[split]] for photograph in photographs]
        return [
            photograph.crop((a, 0, b, photograph.height)) for photograph, (a, b) in zip(photographs, edges, strict=True)
        ]
    paths = (
        [path for ending in ("*.jpg", "*.jpeg", "*.png") for path in sorted(folder.rglob(ending))]
        if folder.is_dir()
        else []
    )
    least = 2 + validated
    if len(paths) < least:
        raise VitralError(
            f"{folder}: holds no {least} photographs (JPEG or PNG); give a folder with some for each split of the scenes"
        )
    found = []
    for path in of_split(paths, split, 0, validated):
        with named(str(path)), quiet():
            photograph = Image.open(path).convert("RGB")
        scale = 4 * options.size / min(photograph.size)
        small = (round(photograph.width * scale), round(photograph.height * scale))
        found.append(photograph.resize(small, Image.Resampling.LANCZOS) if scale < 1 else photograph)
    return found


def drawn(rng: np.random.Generator, shape: str, side: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A shape in random colours at a random angle: colours [s, s, 3] and opacity [s, s]. Colours tell nothing about the class."""
    fine = (np.arange(side * FINE) + 0.5) / (side * FINE) * 2 - 1
    x, y = np.meshgrid(fine, fine)
    turn = rng.uniform(0, 2 * math.pi)
    u, v = math.cos(turn) * x + math.sin(turn) * y, -math.sin(turn) * x + math.cos(turn) * y
    inside = _INSIDE[shape](u, v)
    alpha = inside.reshape(side, FINE, side, FINE).mean((1, 3), dtype=np.float32)
    light, dark = rng.uniform(60, 255, 3), rng.uniform(0, 200, 3)
    waves = 0.5 + 0.5 * np.sin(rng.uniform(2, 12) * (u if rng.random() < 0.5 else v) + rng.uniform(0, 6))
    fill = waves[FINE // 2 :: FINE, FINE // 2 :: FINE, None]
    return (fill * light + (1 - fill) * dark).astype(np.float32), alpha


def _star(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    tip, dent, sector = 0.95, 0.4, math.pi / 5
    angle = np.abs(np.mod(np.arctan2(v, u), 2 * sector) - sector)  # from a dent, 0, to a tip
    along, across = np.hypot(u, v) * np.cos(angle), np.hypot(u, v) * np.sin(angle)
    x, y = tip * math.cos(sector), tip * math.sin(sector)
    inside: NDArray[np.bool_] = (x - dent) * across >= y * (along - dent)
    return inside


def _triangle(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    angles = (math.pi / 2 + k * 2 * math.pi / 3 for k in range(3))
    return np.logical_and.reduce([u * math.cos(angle) + v * math.sin(angle) < 0.47 for angle in angles])


def _arrow(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    shaft = (np.abs(v) < 0.2) & (u > -0.9) & (u < 0.2)
    head = (u > 0.1) & (np.abs(v) < 0.75 * (0.92 - u))
    return shaft | head


_INSIDE: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]]] = {
    "disc": lambda u, v: np.hypot(u, v) < 0.9,
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) < 0.66,
    "triangle": _triangle,
    "cross": lambda u, v: (np.minimum(np.abs(u), np.abs(v)) < 0.26) & (np.maximum(np.abs(u), np.abs(v)) < 0.88),
    "ring": lambda u, v: (np.hypot(u, v) < 0.9) & (np.hypot(u, v) > 0.5),
    "star": _star,
    "crescent": lambda u, v: (np.hypot(u, v) < 0.9) & (np.hypot(u - 0.42, v) > 0.66),
    "bar": lambda u, v: (np.abs(u) < 0.92) & (np.abs(v) < 0.2),
    "heart": lambda u, v: (1.69 * (u * u + v * v) - 1) ** 3 < -3.7 * u * u * v**3,
    "arrow": _arrow,
}


def write_scenes(out: Path, options: SceneOptions, progress: OnProgress | None = None) -> AnnotatedData:
    """Write all scenes as COCO JSON with exact outlines, and as maps: annotations/instances_train.json, train/, masks/train/, classes.json.

    Returns them. Raises VitralError if the folder is not empty.
    """
    make = Scenes(options)
    with fresh_folder(out) as part:
        data = made(make, progress)
        coco.write(data, part)
        writing = Writing(data, part)
        for i, one in enumerate(data.annotated):
            save_map(
                part / "masks" / str(one.split) / f"{writing.stem(i)}.png", painted(one, lambda each: each.index + 1)
            )
        classes = {"0": "background"} | {str(k): name for k, name in enumerate(make.names, 1)}
        dump_json(part / "classes.json", {"classes": classes, "void": [255]})
    return data


def made(make: Scenes, progress: OnProgress | None = None) -> AnnotatedData:
    """All scenes, in memory."""
    places = [(split, k) for split, count in make.splits.items() for k in range(count)]

    def each(i: int) -> tuple[bytes, Annotated]:
        pixels, marks = make(*places[i])
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0)
        height, width = pixels.shape[:2]
        objects = []
        for index, mask in marks:
            runs = runs_of(mask)
            area, box = area_and_box(runs, height, width)
            objects.append(Object(index, box, outlines(mask) or runs, area=area))
        return buffer.getvalue(), Annotated(height, width, places[i][0], tuple(objects))

    found = in_threads(each, len(places), progress)
    blobs = [blob for blob, _ in found]
    names = [f"{split}/{split}-{k:05d}.jpg" for split, k in places]
    images = PackedImages(np.frombuffer(b"".join(blobs), np.uint8), np.cumsum([0, *map(len, blobs)]), names)
    classes = ClassTable(tuple(range(1, len(make.names) + 1)), tuple(make.names))
    rows = [one for _, one in found]
    return AnnotatedData(
        "scenes",
        Path("/"),
        "coco",
        "objects",
        classes,
        images,
        rows,
        [content_hash(blob) for blob in blobs],
        [1] * len(rows),
    )
