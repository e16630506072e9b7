"""Many tiny images in tar shards: the index's size, the time to make it and to open it, memory, and images a second in random order.

    python benchmarks/shards.py [--images 1000000] [--read 20000] [--keep FOLDER]

The same images are read from a folder, and in a tar's own order by webdataset and Hugging Face's datasets (`pip install webdataset datasets`), if
they are there, in the same process, one after another, in rounds; each reader decodes to pixels by our decoder. Also the time that the order of a
billion images takes, of which none is kept. --keep: shards and index are made there once, and measured again from there.
"""

import argparse
import struct
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vitral.data.augment import Augmentation
from vitral.data.dataset import Split
from vitral.data.decode import decode_bytes
from vitral.data.formats.indexing import write_index
from vitral.data.formats.shards import open_index
from vitral.data.loader import TrainingBatches
from vitral.data.options import AugmentOptions, DataOptions
from vitral.data.preprocess import Preprocess
from vitral.data.sources import open_data
from vitral.randomness import Permutation

IN_SHARD = 50_000
ROUNDS, BATCHES = 3, 100


def picture(i: int) -> bytes:
    """A PNG of 8 x 8 grey pixels that no other number has."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    rows = (b"\0" + i.to_bytes(8, "little")) * 8
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b"")


def member(name: str, data: bytes) -> bytes:
    told = tarfile.TarInfo(name)
    told.size = len(data)
    return told.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def write(folder: Path, images: int) -> None:
    for start in range(0, images, IN_SHARD):
        with open(folder / f"data-{start // IN_SHARD:05d}.tar", "wb") as tar:
            for i in range(start, min(start + IN_SHARD, images)):
                tar.write(member(f"{i:09d}.png", picture(i)) + member(f"{i:09d}.cls", str(i % 1000).encode()))
            tar.write(bytes(tarfile.RECORDSIZE))


def timed(what: str, work: Callable[[], object]) -> object:
    began = time.perf_counter()
    result = work()
    print(f"{what}: {time.perf_counter() - began:,.1f} s", flush=True)
    return result


def memory(pid: int | str = "self", kind: str = "Anonymous") -> float:
    """MB of a process's own memory, or of another kind of smaps_rollup."""
    told = dict(line.split(":") for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return int(told[kind].split()[0]) / 1e3


def batches_by(split: Split, workers: int) -> tuple[list[Tensor], list[float]]:
    """The first batches, and the private MB of each loader process once all are read."""
    steps = Preprocess(8, 8, 1, (0.5,), (0.5,))
    plain = Augmentation(AugmentOptions(crop="none", hflip=0), steps)
    found, private = [], list[float]()
    for batch in TrainingBatches(split, steps, [plain], 64, 0).stream(0, BATCHES, workers):
        found.append(batch.images.clone())
        if len(found) == BATCHES:
            private = [memory(each.pid, "Private_Dirty") for each in active_children()]
    return found, private


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--read", type=int, default=20_000)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        shards, folder = given.keep or Path(place, "shards"), Path(place, "folder")
        if not shards.exists():
            shards.mkdir()
            timed("writing the shards", lambda: write(shards, given.images))
            timed("making the index, every image decoded", lambda: write_index(str(shards), shards))
        size = sum((shards / name).stat().st_size for name in ("index.json", "index.bin", "index.names"))
        print(f"index: {size / 1e6:,.1f} MB, {size / given.images:.0f} bytes an image")
        before = memory()
        data = timed("opening the data set", lambda: open_data(str(shards), DataOptions(near_copies="apart")))
        print(f"memory: {memory() - before:,.0f} MB of its own more")
        split = data.splits["train"]  # type: ignore[attr-defined]
        alone, _ = batches_by(split, 0)
        for workers in (1, 8):
            found, private = batches_by(split, workers)
            same = all(torch.equal(a, b) for a, b in zip(found, alone, strict=True))
            print(
                f"{workers} loader processes: the same {BATCHES} batches: {same}; private memory of each {max(private):,.0f} MB at most",
                flush=True,
            )
        order = Permutation(len(split), 0, 0)
        rows = order(np.arange(min(given.read, len(split)))).tolist()
        index = open_index(str(shards), 0)
        files = []
        for k in rows:
            row = split.rows[k]
            path = folder / f"{row % 1000}" / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(split.images.encoded(int(row)))
            files.append(path)

        def from_shards() -> None:
            for k in rows:
                split.read(k)

        def from_folder() -> None:
            for path in files:
                decode_bytes(path.read_bytes(), None, str(path))

        readers = {"shards, random order": from_shards, "folder, random order": from_folder}
        try:
            import webdataset
        except ImportError:
            print("webdataset is not installed")
        else:
            first = [str(shards / index.ranges.files[0])]

            def from_webdataset() -> None:
                pictures = webdataset.WebDataset(first, shardshuffle=False, empty_check=False)
                for number, sample in enumerate(pictures):
                    decode_bytes(sample["png"], None, sample["__key__"])
                    if number + 1 == len(rows):
                        break

            readers["webdataset, in the tar's order"] = from_webdataset
        try:
            import datasets
        except ImportError:
            print("datasets is not installed")
        else:
            streamed = datasets.load_dataset(
                "webdataset", data_files={"train": str(shards / index.ranges.files[0])}, split="train", streaming=True
            ).cast_column("png", datasets.Image(decode=False))

            def from_datasets() -> None:
                for number, sample in enumerate(streamed):
                    decode_bytes(sample["png"]["bytes"], None, sample["__key__"])
                    if number + 1 == len(rows):
                        break

            readers["datasets, in the tar's order"] = from_datasets
        rates: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(ROUNDS):
            for name, read in readers.items():
                began = time.perf_counter()
                read()
                rates[name].append(len(rows) / (time.perf_counter() - began))
        for name, found in rates.items():
            print(f"{name}: {sorted(found)[ROUNDS // 2]:,.0f} images/s (median of {ROUNDS} rounds)")
        billion, before = Permutation(10**9, 0, 0), memory()
        began = time.perf_counter()
        billion(np.arange(10**6))
        print(
            f"a million places in the order of a billion images: {time.perf_counter() - began:.1f} s, {memory() - before:,.0f} MB more"
        )


if __name__ == "__main__":
    main()
