"""The cache of what a scan learned: it never changes what is learned, and never stops anything."""

import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vitral.data import cache, files, images
from vitral.data.cache import Cache
from vitral.data.dataset import DataSet
from vitral.data.images import FileImages, PagedImages
from vitral.data.options import DataOptions
from vitral.data.scan import Scan, scan
from vitral.data.sources import open_data
from vitral.data.values import Reading
from vitral.errors import VitralError
from vitral.guidance.doctor.diagnose import diagnose


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the caches, where everything is worth keeping and every file has settled."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "LEAST", 0.0)
    monkeypatch.setattr(files, "SETTLED", -1e9)
    return tmp_path / "cache" / "vitral" / "scans"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are decoded."""
    names: list[str] = []
    decode = images.decode_bytes

    def counted(data: bytes, channels: int | None, name: str, *rest: Any) -> Any:
        names.append(name)
        return decode(data, channels, name, *rest)

    monkeypatch.setattr(images, "decode_bytes", counted)
    return names


def photo(path: Path, seed: int, side: int = 32, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(coarse).convert(mode).resize((side, side)).save(path)


def make(root: Path, per_class: int = 6) -> Path:
    for c, label in enumerate(("cat", "dog")):
        for i in range(per_class):
            photo(root / label / f"{i}.png", 100 * c + i)
    return root


def facts(data: DataSet) -> dict[str, Any]:
    """All that a data set says."""
    found = {f.name: getattr(data, f.name) for f in fields(data) if f.name != "splits"}
    for name, split in data.splits.items():
        values = split.targets.values.tolist(), split.rows.tolist(), split.contents.tolist()
        found[name] = (list(split.names), *values, [split.read(i).tolist() for i in range(len(split))])
    return found


def outcome(root: Path, options: DataOptions) -> dict[str, Any] | str:
    try:
        return facts(open_data(root, options))
    except VitralError as error:
        return str(error)


def fresh(root: Path, options: DataOptions) -> dict[str, Any] | str:
    """As `outcome`, without a cache."""
    before = os.environ["XDG_CACHE_HOME"]
    os.environ["XDG_CACHE_HOME"] = "/dev/null"
    try:
        return outcome(root, options)
    finally:
        os.environ["XDG_CACHE_HOME"] = before


def test_unchanged_files_are_not_read_again(tmp_path: Path, kept: Path, reads: list[str]) -> None:
    root = make(tmp_path / "pets")
    first = outcome(root, DataOptions())
    assert len(set(reads)) == 12
    reads.clear()
    data = open_data(root)
    assert reads == []
    assert facts(data) == first == fresh(root, DataOptions())
    photo(root / "dog" / "new.png", 77)
    photo(root / "cat" / "0.png", 78)
    reads.clear()
    open_data(root)
    assert sorted(reads) == ["cat/0.png", "dog/new.png"]
    photo(root / "cat" / "1.png", 79)
    with pytest.raises(VitralError, match=r"cat/1\.png: has changed since the data were scanned"):
        next(split.read(split.names.index("cat/1.png")) for split in data.splits.values() if "cat/1.png" in split.names)


def test_small_pictures_are_made_once_they_are_wanted(tmp_path: Path, kept: Path, reads: list[str]) -> None:
    root = make(tmp_path / "pets")
    for options, read in ((DataOptions(near_copies="apart"), 12), (DataOptions(), 12), (DataOptions(), 0)):
        reads.clear()
        open_data(root, options)
        assert len(reads) == read


def swap_bytes(path: Path) -> None:
    """Another content of the same size, with the time of the old one."""
    status, data = path.stat(), bytearray(path.read_bytes())
    data[-20] ^= 0xFF
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def put_in_place(path: Path) -> None:
    """Another file, moved there with its own time."""
    photo(path.with_name("other.png"), 500 + len(path.name))
    os.utime(path.with_name("other.png"), ns=(0, path.stat().st_mtime_ns))
    os.replace(path.with_name("other.png"), path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "removed": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-30]),
    "another": lambda path: photo(path, 900),
    "larger": lambda path: photo(path, 901, side=48),
    "grey": lambda path: photo(path, 902, mode="L"),
    "same size and time": swap_bytes,
    "put in its place": put_in_place,
    "touched": lambda path: os.utime(path),
    "no image": lambda path: path.write_text("about"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "another class": lambda path: shutil.move(path, path.parent.parent / "dog" / f"moved-{path.name}"),
    "a copy": lambda path: shutil.copy2(path, path.with_name(f"copy-{path.name}")),
    "nothing": lambda path: None,
}


@settings(max_examples=20)
@given(
    steps=st.lists(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(sorted(CHANGES))), max_size=3), min_size=1, max_size=3),
    skipping=st.booleans(),
)  # fmt: skip
def test_what_is_learned_is_what_a_fresh_scan_learns(
    steps: list[list[tuple[int, str]]], skipping: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("changes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(cache, "LEAST", 0.0)
        patch.setattr(files, "SETTLED", -1e9)
        root = make(folder / "pets")
        options = DataOptions(skip_unreadable=skipping)
        open_data(root, options)
        for step in steps:
            for i, change in step:
                if (path := root / "cat" / f"{i}.png").is_file():
                    CHANGES[change](path)
            assert outcome(root, options) == fresh(root, options)


def test_a_file_that_was_just_changed_is_not_trusted(
    tmp_path: Path, kept: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SETTLED", 1e9)
    root = make(tmp_path / "pets")
    for _ in range(2):
        reads.clear()
        open_data(root)
        assert len(reads) == 12
    assert not kept.exists()


def test_what_is_wrong_is_found_again(tmp_path: Path, kept: Path, reads: list[str]) -> None:
    root = make(tmp_path / "pets")
    (root / "cat" / "0.png").write_bytes((root / "cat" / "0.png").read_bytes()[:-30])
    first = outcome(root, DataOptions())
    assert "cat/0.png: is damaged or cut short" in first
    reads.clear()
    assert outcome(root, DataOptions()) == first
    assert reads == ["cat/0.png"]


def test_each_page_and_each_range_is_kept_by_itself(tmp_path: Path, kept: Path, reads: list[str]) -> None:
    root = tmp_path / "stacks"
    root.mkdir()
    for i in range(3):
        pages = [Image.fromarray(np.full((8, 8), 40 * i + 10 * k, np.uint8)) for k in range(3)]
        pages[0].save(root / f"{i}.tif", save_all=True, append_images=pages[1:])
    np.save(root / "3.npy", np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    names = ["0.tif", "1.tif", "2.tif", "3.npy"]

    def learned(reading: Reading, paged: bool) -> tuple[Scan, list[bytes]]:
        found: FileImages | PagedImages = FileImages(root, names)
        found.reading = reading
        if paged:
            found = PagedImages(found, np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 3]), np.array([0, 1, 2] * 3 + [0]))
        result = scan(found, None, small=True)
        return result, [found.together(i, digest) for i, digest in zip(result.rows, result.digests, strict=True)]

    def same(one: tuple[Scan, list[bytes]], other: tuple[Scan, list[bytes]]) -> bool:
        pictures = all(map(np.array_equal, one[0].small, other[0].small))
        plain = [(s.rows, s.digests, s.infos, s.unreadable, len(s.small)) for s in (one[0], other[0])]
        return plain[0] == plain[1] and pictures and one[1] == other[1]

    cases = [(Reading((0.0, 1.0), page), False) for page in (0, 2)]
    cases += [(Reading((0.0, high)), True) for high in (1.0, 2.0)]
    first = [learned(*case) for case in cases]
    assert not same(first[0], first[1])
    assert not same(first[2], first[3])
    reads.clear()
    assert all(same(learned(*case), before) for case, before in zip(cases, first, strict=True))
    assert set(reads) == {"3.npy"}  # which has no page 2
    assert len(list(kept.iterdir())) == 2


def test_doctor_keeps_what_training_needs(tmp_path: Path, kept: Path, reads: list[str]) -> None:
    root = make(tmp_path / "pets")
    found = [diagnose(root, DataOptions()) for _ in range(2)]
    assert len(reads) == 24  # it looks at every image, every time
    assert [f.text for f in found[0].findings] == [f.text for f in found[1].findings]
    reads.clear()
    data = open_data(root)
    assert reads == []
    assert facts(data) == fresh(root, DataOptions())


def damaged(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 0x55
    path.write_bytes(data)


@pytest.mark.parametrize("place", range(0, 4000, 293))
def test_a_damaged_cache_is_not_used(place: int, tmp_path: Path, kept: Path) -> None:
    root = make(tmp_path / "pets", per_class=3)
    options = DataOptions(near_copies="apart")
    first = outcome(root, options)
    damaged(next(kept.iterdir()), place)
    assert outcome(root, options) == first


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"\x93NUMPY\1\0v\0{'descr'", b"\x80\4."])
def test_what_is_no_cache_is_not_used(content: bytes, tmp_path: Path, kept: Path) -> None:
    root = make(tmp_path / "pets")
    first = outcome(root, DataOptions())
    next(kept.iterdir()).write_bytes(content)
    assert outcome(root, DataOptions()) == first


def test_a_cache_of_other_versions_is_not_used(
    tmp_path: Path, kept: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make(tmp_path / "pets")
    open_data(root)
    monkeypatch.setattr(cache, "DECODERS", ("pillow",))
    reads.clear()
    open_data(root)
    assert len(reads) == 12


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make(tmp_path / "pets")
    first = outcome(root, DataOptions())
    shutil.rmtree(kept)
    (tmp_path / "cache" / "vitral").rmdir()
    (tmp_path / "cache" / "vitral").write_text("a file")
    assert outcome(root, DataOptions()) == first
    (tmp_path / "cache" / "vitral").unlink()

    def full(file: Any, **arrays: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert outcome(root, DataOptions()) == first
    assert list(kept.iterdir()) == []


def test_nothing_is_written_among_the_images(tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(tmp_path / "pets")
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "cat"))
    before = sorted(root.rglob("*"))
    open_data(root)
    assert sorted(root.rglob("*")) == before


def test_the_caches_take_no_more_than_their_room(
    tmp_path: Path, kept: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for k, name in enumerate("abc"):
        make(tmp_path / name)
        open_data(tmp_path / name)
        (newest,) = [path for path in kept.iterdir() if path.stat().st_mtime > 1e6]
        os.utime(newest, (k, k))
    assert len(list(kept.iterdir())) == 3
    monkeypatch.setattr(cache, "MOST", int(2.5 * next(kept.iterdir()).stat().st_size))
    photo(tmp_path / "c" / "cat" / "more.png", 7)
    open_data(tmp_path / "c")
    assert len(list(kept.iterdir())) == 2
    reads.clear()
    open_data(tmp_path / "a")
    assert len(reads) == 12  # the one that was not used for longest
    open_data(tmp_path / "c")
    assert len(reads) == 12


def test_what_other_tables_name_in_the_folder_stays_known(tmp_path: Path, kept: Path, reads: list[str]) -> None:
    root = make(tmp_path / "pets")
    listed = sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))
    for part in (listed[::2], listed[1::2], listed):
        reads.clear()
        scan(FileImages(root, part), None)
        assert len(reads) == (0 if part is listed else 6)
    (root / "cat" / "0.png").unlink()
    photo(root / "cat" / "1.png", 7)
    scan(FileImages(root, ["cat/1.png"]), None)
    assert len(Cache(root, None).rows) == 11


def test_two_scans_at_once_do_no_harm(tmp_path: Path, kept: Path) -> None:
    root = make(tmp_path / "pets")
    first = fresh(root, DataOptions())
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(outcome(root, DataOptions()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [*found, outcome(root, DataOptions())] == [first] * 5
    assert len(list(kept.iterdir())) == 1
