"""Where shards lie, their index and their table of classes: in a folder, or behind a URL."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from vitral.data.files import cache_folder, write_whole
from vitral.data.ranges import fetch_if_there, file_system, is_url
from vitral.data.shards import INDEX
from vitral.errors import VitralError

CLASSES = "classnames.txt"
FEW = 8  # folders that may be splits with shards; more are classes


def shards_in(data: str) -> list[str]:
    """The tar files of a folder (to any depth), a tar file, or a URL with {000000..000031}, sorted; [] where there are none."""
    if found := re.search(r"\{(\d+)\.\.(\d+)\}", data):
        first, last = found.groups()
        if int(last) - int(first) > 10**6:
            raise VitralError(f"{data}: names over a million shards; give fewer, larger ones")
        numbers = [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
        return [data[: found.start()] + number + data[found.end() :] for number in numbers]
    if is_url(data):
        if data.endswith(".tar"):
            return [data]
        kind = data.partition("://")[0]
        if kind in ("http", "https"):
            return []
        return [f"{kind}://{path}" for path in sorted(file_system(data).glob(f"{data.rstrip('/')}/**/*.tar"))]
    path = Path(data)
    if path.is_file():
        return [path.name] if path.suffix == ".tar" else []
    return sorted(each.relative_to(path).as_posix() for each in path.rglob("*.tar") if each.is_file())


def recognised(data: str) -> bool:
    """Whether the data are shards, or an index of some."""
    if is_url(data):
        return True
    path = Path(data)
    if path.is_dir():
        splits = [each for each in path.iterdir() if each.is_dir()]
        inside = any(any(each.glob("*.tar")) for each in splits) if len(splits) <= FEW else False
        return (path / INDEX).is_file() or any(path.glob("*.tar")) or inside
    return path.suffix == ".tar" or re.search(r"\{\d+\.\.\d+\}\.tar$", data) is not None


def place_of(data: str) -> Path:
    """Where the index of local shards is looked for, and written if it can be."""
    path = Path(os.path.abspath(data))
    return path if path.is_dir() else path.parent / f"{path.name}-index"


def tables_here(tables: str, names: Sequence[str]) -> Path:
    """The folder with the tables of classes; from a URL the first of these names that is there is fetched."""
    if not is_url(tables):
        return Path(tables)
    here = cache_folder() / "indices" / re.sub(r"\W+", "-", f"{tables}-tables")
    for name in names:
        if (table := fetch_if_there(f"{tables}/{name}")) is not None:
            write_whole(here / name, table)
            break
        (here / name).unlink(missing_ok=True)
    return here


def beside_shards(url: str) -> str:
    """Where the tables of classes lie: in the folder of shards, or in that of the shards that are named."""
    plain = url.partition("{")[0]
    return plain.rpartition("/")[0] if plain != url or url.endswith(".tar") else url.rstrip("/")


def listed_classes(tables: str) -> list[str]:
    """The lines of classnames.txt."""
    place = tables_here(tables, (CLASSES,)) / CLASSES
    return place.read_text(encoding="utf-8").splitlines() if place.is_file() else []
