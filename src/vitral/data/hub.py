"""Folders as Hugging Face's `datasets` reads and writes them: ImageFolder with metadata.csv, .jsonl or .parquet, and folders of Parquet shards.

https://huggingface.co/docs/datasets/image_dataset and https://huggingface.co/docs/hub/datasets-file-names-and-splits
"""

import os
from pathlib import Path

from vitral.data.columns import LABELS, plain_name
from vitral.data.folder import check_no_run, closed_folders
from vitral.data.listing import Listing
from vitral.data.options import DataOptions
from vitral.data.problem import Problem
from vitral.data.rows import read_rows
from vitral.data.splits import split_of
from vitral.data.table import Part, list_parts
from vitral.data.walk import Walk
from vitral.errors import VitralError, counted, some

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def list_hub(root: Path, options: DataOptions, *, training: bool, labelled: bool) -> Listing | None:
    """The data set in a folder of one of these layouts; None for other folders."""
    root = Path(os.path.abspath(root))
    check_no_run(root)
    walk = Walk(root)
    folders, files = walk.entries(root)
    places = [(root, None), *((folder, split_of(folder.name)) for folder in folders)]
    tables = [(folder / name, split) for folder, split in places for name in METADATA if (folder / name).is_file()]
    if tables and (tables[0][0].parent == root or all(split for _, split in tables)):
        return _image_folder(walk, tables, options, training, labelled)
    shards = _shards(walk, folders, files)
    return _sharded(walk, shards, options, training, labelled) if shards else None


def _image_folder(
    walk: Walk,
    tables: list[tuple[Path, str | None]],
    options: DataOptions,
    training: bool,
    labelled: bool,
) -> Listing | None:
    """Images with a table beside them that holds each one's file_name and label. None if the tables hold no labels, as folders may."""
    root, parts, problems = walk.root, [], []
    own = {path.parent for path, _ in tables}
    if len(own) < len(tables):
        raise VitralError(f"{root}: has several of {', '.join(METADATA)} in one folder; keep the one that is right")
    for path, split in tables:
        rows = read_rows(path, options)
        if labelled and not options.label_columns and options.label_column is None and walk.entries(root)[0]:
            known = any(plain_name(name) in LABELS for name in rows.header) or len(rows.header) > 2
            if not known:
                return None
        parts.append(Part(rows, "" if path.parent == root else walk.named(path.parent), split))
    if len(parts) == 1 and parts[0].split is None:
        _split_by_folder(parts[0])
    listing = list_parts(
        root.name, root, root, parts, options, training=training, labelled=labelled,
        said=[f"labels from {some([walk.named(path) for path, _ in tables], 3)}"],
    )  # fmt: skip
    names = {os.path.normpath(name) for name in listing.images.names}
    rest = [name for name in map(walk.named, walk.under(root)) if name not in names]
    if rest and options.images_folder is None:
        text = f"{counted(len(rest), 'image has', 'images have')} no row in {some([walk.named(path) for path, _ in tables], 3)}: {some(rest)}"
        if options.skip_unreadable:
            listing.understood = [*listing.understood, f"left out: {text}"]
        else:
            remedy = "add rows, move the images away, or leave them out with --skip-unreadable"
            problems.append(Problem("unlisted_images", f"{text}; {remedy}", tuple(rest)))
    closed, notes = closed_folders(walk, options.skip_unreadable)
    listing.understood = [*listing.understood, *notes]
    listing.problems = [*listing.problems, *problems, *closed]
    return listing


def _split_by_folder(part: Part) -> None:
    """If all paths begin with split folders, rows belong to these splits, unless a column names them."""
    rows = part.rows
    column = next((name for name in rows.header if plain_name(name) == "filename"), None)
    if column is None or any(plain_name(name) == "split" for name in rows.header):
        return
    firsts = [str(cell).replace("\\", "/").removeprefix("./").partition("/") for cell in rows.columns[column]]
    splits = [split_of(first) if rest else None for first, _, rest in firsts]
    if splits and all(splits):
        rows.header.append("split")
        rows.columns["split"] = splits


def _shards(walk: Walk, folders: list[Path], files: list[Path]) -> list[tuple[Path, str | None]]:
    """(Parquet file, its split) for a folder of shards: in it, in data/ or another folder inside, or in split folders; empty if images lie there."""
    found: list[tuple[Path, str | None]] = []
    if walk.images(files):
        return []
    for folder in (walk.root, *folders):
        inner = walk.entries(folder)[1]
        tables = [path for path in inner if path.suffix.lower() == ".parquet"]
        if folder != walk.root and not tables and (walk.images(inner) or not found):
            deeper = [
                p for sub in walk.entries(folder)[0] for p in walk.entries(sub)[1] if p.suffix.lower() == ".parquet"
            ]
            if walk.images(inner) or not deeper:
                return [] if walk.under(folder) else found
            tables = deeper
        found += [(path, _split_of_shard(path, walk.root)) for path in tables]
    return found


def _split_of_shard(path: Path, root: Path) -> str | None:
    """The split in a shard's name, such as train-00000-of-00002.parquet, or in the name of a folder above it."""
    for name in (
        path.stem.partition("-")[0],
        path.stem.partition(".")[0],
        *(p.name for p in path.parents if p != root and root in p.parents),
    ):
        if split := split_of(name):
            return split
    return None


def _sharded(
    walk: Walk,
    shards: list[tuple[Path, str | None]],
    options: DataOptions,
    training: bool,
    labelled: bool,
) -> Listing:
    root = walk.root
    homes = sorted(
        {walk.named(path.parent.parent if split_of(path.parent.name) else path.parent) for path, _ in shards}
    )
    if len(homes) > 1:
        raise VitralError(
            f"{root}: holds several data sets of Parquet files ({some(homes)}); give one of these folders"
        )
    unnamed = [walk.named(path) for path, split in shards if split is None]
    if unnamed and len(unnamed) < len(shards):
        raise VitralError(
            f"{root}: of these Parquet files it is not clear which split they are: {some(unnamed)}, beside "
            f"{some([walk.named(path) for path, split in shards if split], 3)}; name them train-..., validation-... or test-..., or give one file"
        )
    parts = [Part(read_rows(path, options), "", split) for path, split in shards]
    splits = [split for _, split in shards]
    counts = ", ".join(f"{splits.count(split)} of {split}" for split in dict.fromkeys(splits) if split)
    said = [f"{counted(len(shards), 'Parquet file')}{f' ({counts})' if counts else ''} read as one data set"]
    known = [part.rows.classes for part in parts]
    if any(each != known[0] for each in known):
        raise VitralError(
            f"{root}: the Parquet files name their classes differently; write them alike, or give one file"
        )
    return list_parts(root.name, root, root, parts, options, training=training, labelled=labelled, said=said)
