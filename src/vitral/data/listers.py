"""Data as somebody names them, listed: the images and their labels, before any image is opened."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from vitral.data import many
from vitral.data.builtin import BUILTIN
from vitral.data.dense import list_annotated
from vitral.data.folder import list_folder
from vitral.data.formats.files import Tree
from vitral.data.formats.shard_places import recognised
from vitral.data.given import look_at
from vitral.data.hub import list_hub
from vitral.data.images import PagedImages
from vitral.data.listing import Listing
from vitral.data.options import DataOptions
from vitral.data.progress import OnProgress
from vitral.data.rows import TABLES
from vitral.data.scan import in_threads
from vitral.data.table import list_table
from vitral.data.values import reading
from vitral.data.walk import compressed_tars
from vitral.errors import VitralError


def list_data(
    data: str | Path,
    options: DataOptions,
    *,
    training: bool = True,
    labelled: bool = True,
    progress: OnProgress | None = None,
) -> Listing:
    """The images of `open_data` and their labels, before any image is opened. What training stops for is in its `problems`.

    Files are opened of annotated data alone, and with `options.page` "all", to count their pages. progress: as in `open_data`. Raises VitralError
    if nothing can be listed.
    """
    return _read_as(_listed(data, options, training, labelled, progress), options)


def _read_as(listing: Listing, options: DataOptions) -> Listing:
    """The listing with the value range and page to read, and with an entry for each page if all pages were asked for."""
    listing.images.reading = reading(options.value_range, options.page)
    if options.page != "all":
        return listing

    def count(i: int) -> int:
        try:
            return listing.images.pages(i)
        except VitralError:
            return 1  # reading it raises the error

    counts = in_threads(count, len(listing.images.names), None)
    files = np.repeat(np.arange(len(counts)), counts)
    pages = np.concatenate([np.arange(n) for n in counts]) if counts else files
    return replace(
        listing,
        images=PagedImages(listing.images, files, pages),
        targets=listing.targets.take(files),
        given=None if listing.given is None else [listing.given[i] for i in files.tolist()],
        strata=None if listing.strata is None else [listing.strata[i] for i in files.tolist()],
    )


def _listed(
    data: str | Path, options: DataOptions, training: bool, labelled: bool, progress: OnProgress | None
) -> Listing:
    path, built_in = Path(data), data in BUILTIN
    look_at(data)
    if not built_in and recognised(str(data)):
        if labelled:
            annotated = list_annotated(str(data), None, options, training=training, labelled=True, progress=progress)
            if annotated is not None:
                return annotated
        return many.list_shards(str(data), options, training=training, labelled=labelled, progress=progress)
    folder = path.is_dir() and not built_in
    tree = Tree(Path(os.path.abspath(path))) if folder else None
    if not built_in:
        annotated = list_annotated(path, tree, options, training=training, labelled=labelled, progress=progress)
        if annotated is not None:
            return annotated
    if folder and (listing := list_hub(path, options, training=training and labelled, labelled=labelled)) is not None:
        return listing
    if options.label_separator is not None and (built_in or folder):
        raise VitralError(
            f"{data}: label_separator {options.label_separator!r} (several labels an image) needs a table; give a CSV, TSV or Parquet file"
        )
    if built_in:
        return BUILTIN[str(data)](options)
    if tree is not None:
        return list_folder(path, options, training=training and labelled, labelled=labelled, walk=tree.walk.again())
    if path.suffix.lower() in TABLES:
        return list_table(path, options, training=training, labelled=labelled)
    if (said := compressed_tars([path.name])) is not None:
        raise VitralError(f"{data}: {said}")
    raise VitralError(
        f"{data}: is neither a folder nor a table ({', '.join(TABLES)}); give a folder of class folders, or a table with image and label columns"
    )
