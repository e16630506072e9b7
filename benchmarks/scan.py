"""What the cache of the scan saves: Fashion-MNIST's 70,000 images as PNG files, opened without it and with it.

    python benchmarks/scan.py FOLDER [--repeats 3] [--run RUN]

Makes the files once, under FOLDER/fashion (class folders, some 300 MB on most file systems). Each opening is a process of its own. Cold: no cache;
the files themselves lie in memory. Warm: the cache that the last one left. run: a run that was trained on them, to be evaluated both ways.
Prints the median of the wall time and of the processor time, in seconds.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

OPEN = "import sys; from vitral.data.sources import open_data; print(open_data(sys.argv[1]).fingerprint)"


def make(folder: Path) -> None:
    """The images as PNG files in class folders, older than what the cache takes for unsettled."""
    from PIL import Image

    from vitral.data.builtin import fashion_mnist
    from vitral.data.options import DataOptions

    listing = fashion_mnist(DataOptions())
    for i, name in enumerate(listing.images.names):
        path = folder / listing.of(i)[0].replace("/", "-") / f"{name.replace('/', '-')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(listing.images.read(i, 1, None)[0].numpy()).save(path)
    time.sleep(3)


def timed(words: list[str], cache: Path) -> tuple[float, float, str]:
    """Wall and processor time of a process in seconds, and what it printed."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words], env=os.environ | {"XDG_CACHE_HOME": str(cache)}, stdout=subprocess.PIPE, text=True, check=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--run")
    given = parser.parse_args()
    data, cache = given.folder / "fashion", given.folder / "cache"
    if not data.exists():
        make(data)
    commands = {"open_data": ["-c", OPEN, str(data)]}
    if given.run:
        commands["vitral evaluate"] = ["-m", "vitral", "evaluate", given.run, str(data), "--split", "test", "--json"]
    for what, words in commands.items():
        printed = set()
        for how in ("cold", "warm"):
            taken = []
            for _ in range(given.repeats):
                if how == "cold":
                    shutil.rmtree(cache / "vitral" / "scans", ignore_errors=True)
                *seconds, answer = timed(words, cache)
                taken.append(seconds)
                printed.add(answer)
            wall, processor = (statistics.median(each) for each in zip(*taken, strict=True))
            print(f"{what:16} {how}  {wall:6.1f} s wall  {processor:6.1f} s processor", flush=True)
        assert len(printed) == 1, "the answers differ"


if __name__ == "__main__":
    main()
