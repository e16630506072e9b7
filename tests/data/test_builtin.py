"""The built-in data sets: digits as it comes, the others from small files of the same layout."""

import gzip
import io
import urllib.error
import urllib.request
from collections import Counter
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitral.data import builtin
from vitral.data.builtin import read_idx
from vitral.data.options import DataOptions
from vitral.data.sources import open_data
from vitral.errors import VitralError

RNG = np.random.default_rng(0)


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_fashion(folder: Path, compress: bool = True) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for stem, n in (("train", 200), ("t10k", 40)):
        arrays[f"{stem}-images-idx3-ubyte"] = RNG.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        arrays[f"{stem}-labels-idx1-ubyte"] = np.arange(n, dtype=np.uint8) % 10
    for name, array in arrays.items():
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array), mtime=0))
        else:
            (folder / name).write_bytes(idx(array))
    return arrays


def test_digits() -> None:
    data = open_data("digits")
    assert data.labels == list("0123456789")
    assert (data.channels, data.bit_depth, data.height, data.width) == (1, 8, 8, 8)
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 1259,
        "val": 179,
        "test": 359,
    }
    image = data.splits["train"].read(0)
    assert image.shape == (1, 8, 8)
    assert data.splits["train"].read(0, channels=3).shape == (3, 8, 8)
    assert data.splits["train"].path(0) is None
    assert max(int(data.splits["train"].read(i).max()) for i in range(50)) == 255
    assert sorted(name for split in data.splits.values() for name in split.names)[:2] == [
        "digits/0",
        "digits/1",
    ]
    again = open_data("digits")
    assert again.fingerprint == data.fingerprint
    assert again.splits["val"].names == data.splits["val"].names
    assert open_data("digits", DataOptions(test_fraction=0.1)).fingerprint != data.fingerprint


@pytest.mark.parametrize("compress", [True, False])
def test_fashion_mnist_from_a_folder(tmp_path: Path, compress: bool) -> None:
    arrays = write_fashion(tmp_path, compress)
    data = open_data("fashion-mnist", DataOptions(data_dir=str(tmp_path)))
    assert data.labels[9] == "Ankle boot"
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 180, "val": 20, "test": 40}
    test = data.splits["test"]
    assert test.names[17] == "fashion-mnist/test/17"
    assert np.array_equal(test.read(17)[0].numpy(), arrays["t10k-images-idx3-ubyte"][17])
    assert test.targets.values[17] == 7


def test_idx_files_that_are_none(tmp_path: Path) -> None:
    good = gzip.compress(idx(np.zeros((2, 3, 3), np.uint8)))
    for content, says in (
        (good[:-9], "damaged or cut short"),
        (gzip.compress(idx(np.zeros((2, 3, 3), np.uint8))[:-1]), "has 33 bytes where its header says 34"),
        (idx(np.zeros(4, np.uint8)), "is not an IDX file"),
        (b"<html>", "is not an IDX file"),
    ):
        (tmp_path / "x.gz").write_bytes(content)
        with pytest.raises(VitralError, match=rf"x\.gz: .*{says}"):
            read_idx(tmp_path / "x.gz", 3)
    (tmp_path / "x.gz").write_bytes(good)
    assert read_idx(tmp_path / "x.gz", 3).shape == (2, 3, 3)


def test_fashion_mnist_folder_without_the_files_or_with_odd_ones(tmp_path: Path) -> None:
    options = DataOptions(data_dir=str(tmp_path))
    with pytest.raises(VitralError, match="not all there; put these in it"):
        open_data("fashion-mnist", options)
    write_fashion(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(39, np.uint8))))
    with pytest.raises(VitralError, match="40 t10k images do not go with 39 labels"):
        open_data("fashion-mnist", options)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that answers for Zalando's server, with its checksums; no Debian package; an own cache."""
    folder = tmp_path / "server"
    write_fashion(folder)
    sums = {file.name: md5(file.read_bytes(), usedforsecurity=False).hexdigest() for file in folder.iterdir()}
    monkeypatch.setattr(builtin, "FASHION_MD5", sums)
    monkeypatch.setattr(builtin, "FASHION_DEBIAN", tmp_path / "none")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def urlopen(url: str, timeout: float) -> io.BytesIO:
        path = folder / url.removeprefix(builtin.FASHION_URL)
        if not path.exists():
            raise urllib.error.URLError("no network")
        return io.BytesIO(path.read_bytes())

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return folder


def test_fashion_mnist_is_downloaded_once_and_checked(server: Path, tmp_path: Path) -> None:
    first = open_data("fashion-mnist")
    cache = tmp_path / "cache" / "vitral" / "fashion-mnist"
    assert sorted(path.name for path in cache.iterdir()) == sorted(builtin.FASHION_MD5)
    for file in server.iterdir():
        file.unlink()
    assert open_data("fashion-mnist").fingerprint == first.fingerprint


def test_fashion_mnist_with_a_wrong_checksum_leaves_nothing(server: Path, tmp_path: Path) -> None:
    (server / "t10k-images-idx3-ubyte.gz").write_bytes(b"a portal's login page")
    with pytest.raises(VitralError, match="is not the published file"):
        open_data("fashion-mnist")
    left = {path.name for path in tmp_path.glob("cache/**/*.*")}
    assert left < set(builtin.FASHION_MD5) - {"t10k-images-idx3-ubyte.gz"}


def test_fashion_mnist_without_a_network_says_the_three_ways(server: Path) -> None:
    for file in server.iterdir():
        file.unlink()
    with pytest.raises(VitralError, match=r"network.*apt install dataset-fashion-mnist.*--data-dir"):
        open_data("fashion-mnist")


def write_elpv(folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    lines = []
    for i in range(800):
        Image.fromarray(RNG.integers(0, 256, (4, 4), dtype=np.uint8)).save(folder / f"images/cell{i:04}.png")
        probability = ("0.0", "0.3333333333333333", "0.6666666666666666", "1.0")[i % 4]
        lines.append(f"images/cell{i:04}.png  {probability}   {'mono' if i % 3 else 'poly'}\n")
    (folder / "labels.csv").write_text("".join(lines))


def test_elpv_is_divided_exactly_and_by_stratum(tmp_path: Path) -> None:
    write_elpv(tmp_path)
    data = open_data("elpv", DataOptions(data_dir=str(tmp_path)))
    assert data.labels == ["functional", "defective"]
    sizes = {name: len(split) for name, split in data.splits.items()}
    assert sizes["test"] == 656
    assert sizes["train"] + sizes["val"] == 144
    test = data.splits["test"]
    for name, target in zip(test.names, test.targets.values, strict=True):
        assert target == int(int(name[11:15]) % 4 >= 2)
    strata = Counter((int(name[11:15]) % 4, int(name[11:15]) % 3 == 0) for name in test.names)
    for (_, poly), count in strata.items():
        assert abs(count - (66.75 if poly else 133.3) * 656 / 800) < 2


def test_elpv_labels_that_are_odd(tmp_path: Path) -> None:
    write_elpv(tmp_path)
    (tmp_path / "labels.csv").write_text("images/cell0000.png  1.0  mono\nimages/cell0001.png  often  mono\n")
    with pytest.raises(VitralError, match=r"labels\.csv: line 2 is not 'path probability mono\|poly'"):
        open_data("elpv", DataOptions(data_dir=str(tmp_path)))
    (tmp_path / "labels.csv").write_text("images/cell0000.png  1.0  mono\n")
    with pytest.raises(VitralError, match="has 1 cells, where the ELPV data set has 2,624"):
        open_data("elpv", DataOptions(data_dir=str(tmp_path)))


def test_elpv_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(VitralError, match=r"pip install 'vitral\[elpv\]'"):
        open_data("elpv")
