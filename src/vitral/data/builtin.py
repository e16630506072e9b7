"""The built-in data sets: digits (in scikit-learn), fashion-mnist (Zalando's IDX files) and elpv (solar
cells).

digits: 1,797 handwritten digits, 8 x 8, grey 0..16 (UCI "Optical Recognition of Handwritten Digits", test
part).

fashion-mnist: 60,000 + 10,000 articles of clothing, 28 x 28, grey (arXiv:1708.07747).

elpv: 2,624 electroluminescence photographs of solar cells, 300 x 300, grey, with the share of experts' votes
for a defect (Deitsch et al. 2019, arXiv:1807.02894). Two classes, defective from one half up. Their split is
75/25, 1,968 to train on and 656 to test, stratified by cell type and defect level; which cells are in which
part is not published, so ours is a stable one of those sizes and strata, by content hash.
"""

import gzip
import importlib.util
import os
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from hashlib import md5
from pathlib import Path

import numpy as np

from vitral.data.files import cache_folder, read_file
from vitral.data.given import NAMES
from vitral.data.images import ArrayImages, FileImages
from vitral.data.listing import Listing
from vitral.data.options import DataOptions
from vitral.data.targets import Classes
from vitral.errors import VitralError

FASHION_LABELS = [
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"
]  # fmt: skip
FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FASHION_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FASHION_MD5 = {  # of the files as Zalando's README publishes them
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
ELPV_TEST_COUNT = 656


def digits(options: DataOptions) -> Listing:
    """scikit-learn's digits; the splits are made."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = np.rint(data.images * (255 / 16)).astype(np.uint8)  # [n,8,8]
    names = [f"digits/{i}" for i in range(len(pixels))]
    return Listing("digits", ArrayImages(pixels, names), list("0123456789"), Classes(data.target.astype(np.int64)))


def fashion_mnist(options: DataOptions) -> Listing:
    """Zalando's IDX files: from options.data_dir, else Debian's folder, else the cache, or downloaded."""
    folder = _fashion_folder(options)
    pixels, targets, names, given = [], [], [], []
    for split, stem in (("train", "train"), ("test", "t10k")):
        images = read_idx(_idx_path(folder, f"{stem}-images-idx3-ubyte"), 3)
        labels = read_idx(_idx_path(folder, f"{stem}-labels-idx1-ubyte"), 1)
        if len(images) != len(labels) or labels.max(initial=0) >= len(FASHION_LABELS):
            raise VitralError(
                f"{folder}: {len(images)} {stem} images do not go with {len(labels)} labels of 0..9; "
                "fetch the files again"
            )
        pixels.append(images)
        targets.append(labels)
        names += [f"fashion-mnist/{split}/{i}" for i in range(len(images))]
        given += [split] * len(images)
    if pixels[0].shape[1:] != pixels[1].shape[1:]:
        raise VitralError(f"{folder}: train and t10k images differ in size; fetch the files again")
    arrays = ArrayImages(np.concatenate(pixels), names)
    return Listing("fashion-mnist", arrays, FASHION_LABELS, Classes(np.concatenate(targets).astype(np.int64)), given)


def elpv(options: DataOptions) -> Listing:
    """The solar cells of the package elpv-dataset, or of a folder with its labels.csv and images/."""
    folder = Path(options.data_dir) if options.data_dir is not None else _elpv_folder()
    table = folder / "labels.csv"
    names, strata, targets = [], [], []
    for number, line in enumerate(read_file(table, str(table))[0].decode("utf-8", "replace").splitlines(), 1):
        if not line.strip():
            continue
        match line.replace(",", " ").split():
            case [path, probability, ("mono" | "poly") as kind] if _is_share(probability):
                names.append(path)
                strata.append(f"{kind} {float(probability):.3f}")
                targets.append(int(float(probability) >= 0.5))
            case _:
                raise VitralError(
                    f"{table}: line {number} is not 'path probability mono|poly' but {line[:80]!r}; "
                    "use the labels.csv of the ELPV data set"
                )
    if len(names) <= ELPV_TEST_COUNT or len(set(targets)) < 2:
        raise VitralError(
            f"{table}: has {len(names)} cells, where the ELPV data set has 2,624 of two classes; get it again"
        )
    return Listing(
        "elpv", FileImages(folder, names), ["functional", "defective"], Classes(np.array(targets, dtype=np.int64)),
        strata=strata, test_count=ELPV_TEST_COUNT,
    )  # fmt: skip


BUILTIN: dict[str, Callable[[DataOptions], Listing]] = dict(zip(NAMES, (digits, fashion_mnist, elpv), strict=True))


def at_hand(name: str, options: DataOptions) -> bool:
    """Whether a built-in data set opens without fetching anything."""
    if name != "fashion-mnist" or options.data_dir is not None:
        return True
    return _has_fashion(FASHION_DEBIAN) or _has_fashion(cache_folder() / name)


def read_idx(path: Path, dims: int) -> np.ndarray:
    """The `uint8` array of an IDX file with that many dimensions, gzipped or not; VitralError if it is no whole one."""
    data = read_file(path, str(path))[0]
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise VitralError(f"{path}: the gzip file is damaged or cut short ({error}); fetch it again") from error
    header = 4 + 4 * dims
    if len(data) < header or data[:4] != bytes([0, 0, 8, dims]):
        raise VitralError(f"{path}: is not an IDX file of unsigned bytes in {dims} dimensions; fetch it again")
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", dims, offset=4))
    wanted = header + int(np.prod(shape, dtype=object))
    if len(data) != wanted:
        raise VitralError(f"{path}: has {len(data):,} bytes where its header says {wanted:,}; fetch it again")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _idx_path(folder: Path, stem: str) -> Path:
    raw = folder / stem
    return raw if raw.exists() else folder / f"{stem}.gz"


def _has_fashion(folder: Path) -> bool:
    return all(_idx_path(folder, name.removesuffix(".gz")).exists() for name in FASHION_MD5)


def _fashion_folder(options: DataOptions) -> Path:
    if options.data_dir is not None:
        folder = Path(options.data_dir)
        if not _has_fashion(folder):
            raise VitralError(
                f"{folder}: fashion-mnist's files are not all there; put these in it, with or without .gz: "
                + ", ".join(FASHION_MD5)
            )
        return folder
    if _has_fashion(FASHION_DEBIAN):
        return FASHION_DEBIAN
    cache = cache_folder() / "fashion-mnist"
    for name, checksum in FASHION_MD5.items():
        if not _idx_path(cache, name.removesuffix(".gz")).exists():
            _download(name, checksum, cache)
    return cache


def _download(name: str, checksum: str, folder: Path) -> None:
    """Fetch one file, check it, and only then give it its name."""
    part = folder / f"{name}.{os.getpid()}.part"
    try:
        with urllib.request.urlopen(FASHION_URL + name, timeout=60) as response:
            data = response.read()
        if md5(data, usedforsecurity=False).hexdigest() != checksum:
            raise VitralError(
                f"{FASHION_URL}{name}: what came back is not the published file (its MD5 is not {checksum}); "
                "try again later, or give a folder with the files by --data-dir"
            )
        folder.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(folder / name)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise VitralError(
            f"fashion-mnist: {FASHION_URL} cannot be reached ({error}); either connect to the network, or "
            "on Debian run 'apt install dataset-fashion-mnist', or give a folder "
            "with the four IDX files by --data-dir"
        ) from error
    except OSError as error:
        raise VitralError(f"{folder}: cannot be written ({error}); free space, or set XDG_CACHE_HOME") from error
    finally:
        part.unlink(missing_ok=True)


def _elpv_folder() -> Path:
    """The package's data folder, found without importing the package."""
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise VitralError(
            "elpv: the package elpv-dataset is not installed; run pip install 'vitral[elpv]', or give "
            "a folder with its labels.csv and images/ by --data-dir"
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def _is_share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False
