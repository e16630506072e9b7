"""Tar shards in the WebDataset layout, with an index by which any image is read alone, in any order, here or behind a URL.

    train-000000.tar: cat-17.jpg, cat-17.cls, dog-3.jpg, dog-3.cls, ...     https://github.com/webdataset/webdataset

A sample is the members of one name up to its first dot: an image, and beside it `.cls` (a class: its name, or its number in classnames.txt), or
`.json` (`label`, or `labels` for several; `objects` as in Parquet with boxes and masks), or `.txt` (a caption; a class where `label_column` says
txt), or `.mask.png` (also seg, label, gt: a map of class values), or `.panoptic.png` (a map of segments' ids) with `segments_info` in the .json as
COCO has them. img2dataset's and ImageNet's shards are so. Splits are told by the words in a shard's name and its folders'.

The index is made once, by reading every image and map to its end: `vitral data index SHARDS`, or `vitral data pack` with the shards. It lies beside
them, or in a folder of its own; `vitral.data.shards` says of which files.
"""

import contextlib
import json
import os
from pathlib import Path

from vitral.data.far import fetch, fetch_if_there, sizes
from vitral.data.files import write_whole
from vitral.data.formats.indexing import write_index
from vitral.data.formats.shard_places import cached, names_tars, place_of, shards_in
from vitral.data.progress import OnProgress
from vitral.data.ranges import is_url
from vitral.data.shards import INDEX, Index, OldIndexError, files_of, read_index, refuse_older
from vitral.errors import VitralError

ASKED = 64  # shards behind a URL whose sizes are asked for when an index is opened


def open_index(data: str, room: int, progress: OnProgress | None = None, label: str | None = None) -> Index:
    """The index of the data; made on the way where there is none of this version yet, or its shards changed. label: as in `write_index`;
    None takes an index made for any."""
    if is_url(data) and not names_tars(data) and (found := _beside(data.rstrip("/"), room, label)) is not None:
        return found
    other = cached(data if is_url(data) else str(place_of(data)))
    own = other if is_url(data) else place_of(data)
    for place in (own, other):
        if not (place / INDEX).is_file():
            continue
        try:
            index = read_index(str(place), room)
        except OldIndexError:
            if not shards_in(data):
                raise
            continue
        if label in (None, index.label) and _unchanged(index):
            return index
        if not shards_in(data):
            raise _outdated(data, index, label)
    place = own if os.access(own if own.exists() else own.parent, os.W_OK) else other
    write_index(data, place, progress, label)
    return read_index(str(place), room)


def _beside(url: str, room: int, label: str | None) -> Index | None:
    """The index that lies behind a URL, in the folder of its shards or elsewhere; None where it can be made from these."""
    try:
        if (told := fetch_if_there(f"{url}/{INDEX}")) is not None:
            index = _read_copy(url, _copied(url, told), room)
            if label in (None, index.label):
                return index
    except OldIndexError:
        if not shards_in(url):
            raise
    if shards_in(url):
        return None
    if told is not None:
        raise _outdated(url, index, label)
    raise VitralError(
        f"{url}/{INDEX}: is not there, or may not be read; check the address, put an index there by vitral data index, or name the shards: "
        f"{url}/train-{{000000..000031}}.tar"
    )


def _read_copy(url: str, here: str, room: int) -> Index:
    """The copied index; one that cannot be used is not kept, so that a mended one counts at once."""
    try:
        return read_index(here, room)
    except VitralError as error:
        Path(here, INDEX).unlink()
        error.args = (str(error).replace(here, url),)
        raise


def _outdated(data: str, index: Index, label: str | None) -> VitralError:
    """That an index far from its shards is not of these, or not for this label."""
    what = (
        f"for {index.label or 'the usual labels'}" if label not in (None, index.label) else "before its shards changed"
    )
    again = f" --label {label}" if label is not None else ""
    return VitralError(f"{data}: its index was made {what}; make it again: vitral data index SHARDS --out INDEX{again}")


def _copied(url: str, told: bytes) -> str:
    """A copy here of the index behind a URL, of which index.json was fetched; it says where its shards are."""
    here = cached(f"{url} copied")
    try:
        index = json.loads(told)
        whole = json.dumps(index | {"root": index["root"] or url})
        refuse_older(index, index["root"] or url)
        files = files_of(index)
    except OldIndexError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise VitralError(f"{url}/{INDEX}: is no index of shards ({error}); make it with vitral data index") from error
    if not (here / INDEX).is_file() or (here / INDEX).read_text() != whole:
        for name in files:
            write_whole(here / name, fetch(f"{url}/{name}"))
        write_whole(here / INDEX, whole.encode())
    return str(here)


def _unchanged(index: Index) -> bool:
    """Whether the shards have the sizes that the index knows, and those here the times; behind URLs some are asked."""
    ranges = index.ranges
    places = [ranges.place(file) for file in range(len(ranges.files))]
    if is_url(places[0]):
        with contextlib.suppress(VitralError):  # what is kept here may be enough
            some = slice(None, None, -(-len(places) // ASKED))
            return sizes(places[some]) == list(ranges.sizes[some])
        return True
    for place, size, time in zip(places, ranges.sizes, ranges.times, strict=True):
        try:
            status = os.stat(place)
        except OSError as error:
            raise VitralError(
                f"{place}: a shard is gone ({error.strerror}); restore it, or make the index again"
            ) from error
        if (status.st_size, status.st_mtime_ns) != (size, time):
            return False
    return True
