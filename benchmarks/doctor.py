"""What vitral doctor finds of the faults planted in a folder of pictures, and what it says of the same folder without them.

    OMP_NUM_THREADS=1 python benchmarks/doctor.py [--images 2000] [--each 20]

The pictures are made: textures of five kinds in any colours, sizes and light, with things lying about, as JPEG and PNG. The messy folder is the
clean one with 5 % of the labels changed and every fault planted several times. Prints found and planted for each fault, the share of the changed
labels that are among the tenth of the images that look the most mislabelled, the false alarms on the clean folder, and images a second of
processor time.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASSES = ("brick", "cloud", "grass", "pebble", "water")
FLIPPED = 0.05
KINDS = {  # what the doctor calls the copies that are planted
    "exact": "exact_copies",
    "encoded_again": "near_copies",
    "cropped": "near_copies",
    "mirrored": "near_copies",
    "across_splits": "copies_across_splits",
    "two_labels": "copies_two_labels",
}
QUIET = {"labels", "unjudged_labels"}  # questions, no alarms
FILE_FAULTS = ("damaged", "empty", "not_an_image", "animated", "sixteen_bit", "cmyk", "turned", "tiny")


def noise(rng: np.random.Generator, h: int, w: int, steepness: float, angle: float, stretch: float) -> NDArray:
    """Noise [h, w] of deviation 1 whose spectrum falls with frequency, drawn out along one direction."""
    fy, fx = np.meshgrid(np.fft.fftfreq(h), np.fft.rfftfreq(w), indexing="ij")
    along = np.cos(angle) * fx + np.sin(angle) * fy
    across = -np.sin(angle) * fx + np.cos(angle) * fy
    size = np.sqrt((along * stretch) ** 2 + across**2) + 1 / max(h, w)
    spectrum = (rng.standard_normal(fx.shape) + 1j * rng.standard_normal(fx.shape)) * size**-steepness
    spectrum[0, 0] = 0
    made = np.fft.irfft2(spectrum, (h, w))
    return made / made.std()


def texture(rng: np.random.Generator, kind: str, h: int, w: int) -> NDArray:
    """What tells the classes apart: [h, w]."""
    if kind == "cloud":
        return noise(rng, h, w, rng.uniform(1.7, 2.2), 0, 1)
    if kind == "grass":  # strokes that stand up
        return noise(rng, h, w, rng.uniform(0.9, 1.3), np.pi / 2 + rng.normal(0, 0.25), rng.uniform(4, 8))
    if kind == "water":  # ripples that lie down
        return noise(rng, h, w, rng.uniform(1.2, 1.6), rng.normal(0, 0.15), rng.uniform(4, 8))
    if kind == "pebble":
        blobs = noise(rng, h, w, 1.9, 0, 1) - noise(rng, h, w, 2.6, 0, 1)
        return np.tanh(3 * np.abs(blobs)) * 2 + 0.4 * noise(rng, h, w, 1.0, 0, 1)
    tilt, size = rng.normal(0, 0.08), rng.uniform(18, 34)
    y, x = np.mgrid[:h, :w]
    y, x = y + tilt * x, x - tilt * y
    row = np.floor(y / size)
    joint = (y % size < 3) | ((x + (row % 2) * size) % (2 * size) < 3)
    return joint * rng.choice([-2.5, 2.5]) + 0.8 * noise(rng, h, w, 1.2, 0, 1)


def picture(seed: int, kind: str) -> Image.Image:
    """One picture of a class: its texture in two colours, light from one side, and things lying about."""
    rng = np.random.default_rng([seed, CLASSES.index(kind)])
    h, w = rng.integers(150, 320, 2)
    shade = texture(rng, kind, h, w) * rng.uniform(0.12, 0.25) + 0.5
    ends = rng.uniform(0, 1, (2, 3))
    ends[1] = ends[0] + (rng.uniform(0.5, 0.8, 3)) * np.where(ends[0] > 0.5, -1, 1)
    y, x = np.mgrid[:h, :w] / max(h, w)
    light = 1 + rng.uniform(-0.5, 0.5) * (x - 0.5) + rng.uniform(-0.5, 0.5) * (y - 0.5)
    colours = (ends[0] + (ends[1] - ends[0]) * shade[..., None]) * light[..., None]
    surface = 0.1 * noise(rng, h, w, 1.0, 0, 1)
    for _ in range(rng.integers(0, 5)):
        cy, cx, radius = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.03, 0.15)
        squash = rng.uniform(0.5, 2)
        inside = (y - cy) ** 2 * squash + (x - cx) ** 2 / squash < radius**2
        colours[inside] = rng.uniform(0, 1, 3) + surface[inside][:, None]
    grain = rng.normal(0, 0.02, (h, w, 1))
    return Image.fromarray((255 * np.clip(colours + grain, 0, 1)).astype(np.uint8))


def save(image: Image.Image, path: Path, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **({"quality": 88} if path.suffix == ".jpg" else {}) | options)


def make_clean(root: Path, images: int) -> list[Path]:
    """`images` pictures in train and test folders of the classes, one in five to test on; their paths."""
    made = []
    for i in range(images):
        kind, split = CLASSES[i % len(CLASSES)], "test" if i // len(CLASSES) % 5 == 4 else "train"
        path = root / split / kind / f"{i:05d}.{'png' if i % 3 == 0 else 'jpg'}"
        save(picture(i, kind), path)
        made.append(path)
    return made


def make_messy(clean: Path, root: Path, each: int) -> dict[str, list[tuple[str, ...]]]:
    """A copy of the clean folder with faults: for each kind the names (pairs of names) of what was planted, relative to the folder."""
    shutil.copytree(clean, root)
    rng = np.random.default_rng(0)
    paths = sorted(p.relative_to(root) for p in root.rglob("*.*"))
    planted: dict[str, list[tuple[str, ...]]] = {"flipped": []}
    order = [paths[i] for i in rng.permutation(len(paths))]
    flipped, sources = order[: round(FLIPPED * len(order))], order[round(FLIPPED * len(order)) :]
    for path in flipped:
        other = CLASSES[(CLASSES.index(path.parts[1]) + int(rng.integers(1, len(CLASSES)))) % len(CLASSES)]
        target = Path(path.parts[0], other, path.name)
        (root / path).rename(root / target)
        planted["flipped"].append((target.as_posix(),))
    train = iter([path for path in sources if path.parts[0] == "train"])
    for fault in FILE_FAULTS:
        planted[fault] = [(_spoil(root, next(train), fault),) for _ in range(each)]
    for fault in KINDS:
        planted[fault] = [_copy(root, next(train), fault) for _ in range(each)]
    return planted


def _spoil(root: Path, path: Path, fault: str) -> str:
    """Put one faulty file in the place of a picture."""
    source = root / path
    image = Image.open(source).convert("RGB")
    encoded = source.read_bytes()
    source.unlink()
    endings = {"animated": ".gif", "sixteen_bit": ".png", "cmyk": ".jpg", "turned": ".jpg"}
    target = source.with_suffix(endings.get(fault, source.suffix))
    match fault:
        case "damaged":
            target.write_bytes(encoded[: len(encoded) * 2 // 3])
        case "empty":
            target.write_bytes(b"")
        case "not_an_image":
            target.write_text("<html>404 Not Found</html>")
        case "animated":
            image.save(target, save_all=True, append_images=[image.rotate(5)])
        case "sixteen_bit":
            Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(target)
        case "cmyk":
            image.convert("CMYK").save(target)
        case "turned":
            exif = Image.Exif()
            exif[0x0112] = 6
            save(image.transpose(Image.Transpose.ROTATE_90), target, exif=exif.tobytes())
        case "tiny":
            save(image.resize((9, 9)), target)
    return target.relative_to(root).as_posix()


def _copy(root: Path, path: Path, fault: str) -> tuple[str, str]:
    """Put a copy of a picture beside it, or elsewhere."""
    image = Image.open(root / path).convert("RGB")
    split, kind = path.parts[:2]
    if fault == "across_splits":
        split = "test"
    if fault == "two_labels":
        kind = CLASSES[(CLASSES.index(kind) + 1) % len(CLASSES)]
    ending = path.suffix if fault in ("exact", "across_splits", "two_labels") else ".jpg"
    target = root / split / kind / f"{path.stem}-{fault}{ending}"
    match fault:
        case "encoded_again":
            save(image.resize((image.width * 3 // 5, image.height * 3 // 5), Image.Resampling.BICUBIC), target, quality=60)  # fmt: skip
        case "cropped":
            w, h = image.size
            save(image.crop((w // 20, h // 20, w - w // 20, h - h // 20)), target)
        case "mirrored":
            save(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), target)
        case _:
            target.write_bytes((root / path).read_bytes())
    return path.as_posix(), target.relative_to(root).as_posix()


def found(report: dict, planted: dict[str, list[tuple[str, ...]]]) -> dict[str, tuple[int, int]]:
    """For each fault, how many of those planted the report (vitral doctor --json) names as what they are, and how many there are."""
    named: dict[str, set[frozenset[str]]] = {finding["kind"]: set() for finding in report["findings"]}
    for finding in report["findings"]:
        named[finding["kind"]].update(frozenset(item["names"]) for item in finding["items"])
    ranked = {frozenset(item["names"]) for item in report["labels"]["ranking"]}
    counts = {}
    for fault, cases in planted.items():
        said = ranked if fault == "flipped" else named.get(KINDS.get(fault, fault), set())
        counts[fault] = (sum(frozenset(case) in said for case in cases), len(cases))
    return counts


def alarms(report: dict) -> dict[str, int]:
    """What the report finds of files, copies and classes, by kind: all of it false alarms on clean data."""
    return {finding["kind"]: finding["count"] for finding in report["findings"] if finding["kind"] not in QUIET}


def diagnose(data: Path) -> tuple[dict, int, float]:
    """The report on a folder, the exit code and the seconds of processor time that the command took."""
    start = _children_seconds()
    command = [
        sys.executable,
        "-m",
        "vitral",
        "doctor",
        str(data),
        "--json",
        "--out",
        str(data.parent / f"{data.name}.html"),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return json.loads(done.stdout), done.returncode, _children_seconds() - start


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--each", type=int, default=20, help="how often each fault is planted")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clean, messy = Path(folder) / "clean", Path(folder) / "messy"
        make_clean(clean, given.images)
        planted = make_messy(clean, messy, given.each)
        report, code, seconds = diagnose(messy)
        print(f"messy: {report['images']['listed']} images, exit code {code}")
        for fault, (n, total) in found(report, planted).items():
            print(f"  {fault:14} {n:4} of {total:4}  {n / total:.0%}")
        print(f"  {report['images']['listed'] / seconds:.0f} images/s of one core, starting and the page included")
        report, code, seconds = diagnose(clean)
        print(f"clean: exit code {code}, false alarms: {alarms(report) or 'none'}")
        looks_wrong = sum(finding["count"] for finding in report["findings"] if finding["kind"] in QUIET)
        print(f"  {looks_wrong} labels in question, {report['images']['listed'] / seconds:.0f} images/s of one core")


if __name__ == "__main__":
    main()
