"""Where shards lie, their index and their table of classes: in a folder, or behind a URL."""

import os
import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from vitral.data.far import fetch_if_there
from vitral.data.files import cache_folder, write_whole
from vitral.data.ranges import file_system, is_url
from vitral.data.shards import INDEX
from vitral.data.walk import compressed_tars
from vitral.errors import VitralError

CLASSES = "classnames.txt"
FEW = 8  # folders that may be splits with shards; more are classes


def shards_in(data: str) -> list[str]:
    """The tar files of a folder (to any depth), a tar file, or several as in {000000..000031}, sorted; [] where there are none. Local ones are named
    relative to `root_of`."""
    named = _expanded(data)
    if is_url(data):
        if (said := compressed_tars([path_of(data)])) is not None:
            raise VitralError(f"{data}: {said}")
        if names_tars(data):
            return named
        kind = data.partition("://")[0]
        if kind in ("http", "https"):
            return []
        return [f"{kind}://{path}" for path in sorted(file_system(data).glob(f"{data.rstrip('/')}/**/*.tar"))]
    path = Path(data)
    if path.is_dir():
        return sorted(each.relative_to(path).as_posix() for each in path.rglob("*.tar") if each.is_file())
    if named == [data] and not (path.is_file() and path.suffix == ".tar"):
        return []
    return [os.path.relpath(each, root_of(data)) for each in named]


def _expanded(data: str) -> list[str]:
    """The names that {first..last} stand for, also twice; or the name itself."""
    if (found := re.search(r"\{(\d+)\.\.(\d+)\}", data)) is None:
        return [data]
    first, last = found.groups()
    if not 0 <= int(last) - int(first) <= 10**6:
        raise VitralError(f"{data}: {{first..last}} counts up, to a million shards at most; name fewer, larger ones")
    numbers = (str(n).zfill(len(first)) for n in range(int(first), int(last) + 1))
    return [each for n in numbers for each in _expanded(data[: found.start()] + n + data[found.end() :])]


def names_tars(url: str) -> bool:
    """Whether a URL is of one tar or several, and not of a folder."""
    return _expanded(url) != [url] or path_of(url).endswith(".tar")


def path_of(shard: str) -> str:
    """A shard's name; without a URL's query, which may hold a key."""
    return shard.partition("?")[0] if is_url(shard) else shard


def root_of(data: str) -> str:
    """The folder or URL in which the shards and the tables of classes lie."""
    if not is_url(data):
        path = os.path.abspath(data)
        return path if os.path.isdir(path) else os.path.dirname(os.path.abspath(f"{data.partition('{')[0]}x"))
    plain = path_of(data).partition("{")[0]
    return plain.rpartition("/")[0] if plain != data or plain.endswith(".tar") else data.rstrip("/")


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


def cached(data: str) -> Path:
    """A folder of this user for an index."""
    words = re.sub(r"\W+", "-", path_of(data))[-80:]
    return cache_folder() / "indices" / f"{words}-{sha256(data.encode(errors='surrogateescape')).hexdigest()[:16]}"


def tables_here(tables: str, names: Sequence[str]) -> Path:
    """The folder with the tables of classes; from a URL the first of these names that is there is fetched."""
    if not is_url(tables):
        return Path(tables)
    here = cached(f"{tables} tables")
    for name in names:
        if (table := fetch_if_there(f"{tables}/{name}")) is not None:
            write_whole(here / name, table)
            break
        (here / name).unlink(missing_ok=True)
    return here


def listed_classes(tables: str) -> list[str]:
    """The lines of classnames.txt."""
    place = tables_here(tables, (CLASSES,)) / CLASSES
    return place.read_text(encoding="utf-8").splitlines() if place.is_file() else []
