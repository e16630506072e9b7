"""Tables as a data set: a CSV, TSV or Parquet file with a column of images, one of labels, perhaps one of
splits.

Images are paths relative to the table's folder. A Parquet column may also hold the encoded images, as bytes
or as Hugging Face's struct of `bytes` and `path`; names of its ClassLabel features are used. A cell holds one
label, or any number of them: with a separator between them, or as a Parquet column's lists.
"""

import csv
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitral.data.images import FileImages, Images, PackedImages
from vitral.data.listing import Labels, Listing, Problem, build_listing, in_words, split_of
from vitral.data.options import DataOptions
from vitral.errors import VitralError, counted, some

TABLES = (".csv", ".tsv", ".parquet")


@dataclass
class _Columns:
    images: list[Any]
    """Paths, bytes, or {bytes, path}, one for each row."""
    labels: Labels
    splits: list[str] | None
    first_row: int
    """What a person calls the first row: 2 in a CSV file, whose line 1 is the header."""


def list_table(path: Path, options: DataOptions, *, training: bool = True, strict: bool = True) -> Listing:
    """The images that a table names or holds; VitralError for what is missing in it or contradicts itself.

    strict: False to leave out the rows that lack something, and keep the problems in the listing, instead of raising them.
    """
    read = _read_parquet if path.suffix.lower() == ".parquet" else _read_csv
    columns = read(path, options)
    if not columns.images:
        raise VitralError(f"{path}: has no rows; add one for each image")
    if options.label_separator is not None:
        columns.labels = [
            _parts(label, options.label_separator) if isinstance(label, str) else label for label in columns.labels
        ]
    problems = _incomplete(columns)
    given = None if columns.splits is None else [_split(cell) for cell in columns.splits]
    images = _images(path, columns, options) if columns.images else FileImages(path.parent, [])
    if isinstance(images, FileImages):
        problems += _contradictions(columns, images, options)
    return build_listing(
        path.stem, str(path), images, columns.labels, given, training=training, problems=problems, strict=strict
    )


def _parts(cell: str, separator: str) -> frozenset[str]:
    """The labels in a cell; space around them does not count, nor does a separator with nothing before or after it."""
    return frozenset(label for part in cell.split(separator) if (label := part.strip()))


def _read_csv(path: Path, options: DataOptions) -> _Columns:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            file.seek(0)
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ";" if "," not in header and ";" in header else ","
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            names = next(reader, [])
            wanted = _wanted(path, names, options)
            rows = []
            for row in reader:
                if row and len(row) != len(names):
                    raise VitralError(
                        f"{path}: line {reader.line_num} has {len(row)} fields where the header has "
                        f"{len(names)}; quote fields that contain the delimiter"
                    )
                if row:
                    rows.append(row)
    except UnicodeDecodeError as error:
        raise VitralError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except csv.Error as error:
        raise VitralError(f"{path}: line {reader.line_num} is not valid CSV ({error}); mend the line") from error
    except OSError as error:
        raise VitralError(f"{path}: cannot be read ({error.strerror}); make it a readable file") from error

    def column(name: str) -> list[str]:
        return [row[names.index(name)] for row in rows]

    image, label, split = wanted
    return _Columns(column(image), column(label), column(split) if split else None, first_row=2)


def _read_parquet(path: Path, options: DataOptions) -> _Columns:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise VitralError(f"{path}: Parquet needs pyarrow; run pip install 'vitral[parquet]'") from None
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            wanted = _wanted(path, names, options)
            metadata = file.schema_arrow.metadata or {}
            table = file.read(columns=[name for name in wanted if name])
    except (ArrowException, OSError) as error:
        raise VitralError(f"{path}: is not a readable Parquet file ({error}); write it again") from error
    image, label, split = wanted
    labels = _class_names(path, table.column(label).to_pylist(), metadata, label)
    splits = ["" if value is None else str(value) for value in table.column(split).to_pylist()] if split else None
    images = table.column(image).to_pylist()
    structs = [value for value in images if isinstance(value, dict)]
    if structs and all(struct.get("bytes") is None for struct in structs):  # files beside the table
        images = [value.get("path") if isinstance(value, dict) else value for value in images]
    return _Columns(images, labels, splits, first_row=1)


def _class_names(path: Path, values: list[Any], metadata: dict[bytes, bytes], column: str) -> Labels:
    """Labels, or sets of labels, as text; whole numbers become names where Hugging Face's ClassLabel gives some."""
    lists = any(isinstance(value, list) for value in values)
    flat = [one for value in values for one in value or []] if lists else values
    feature = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {}).get(column, {})
    if lists:  # what the lists hold: [feature], or {"feature": feature}
        feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
    names = feature.get("names")
    if names is not None and any(not isinstance(one, int) or not 0 <= one < len(names) for one in flat):
        raise VitralError(f"{path}: column {column} holds labels outside of 0..{len(names) - 1}; label every row")

    def name(value: Any) -> str:
        return ("" if value is None else str(value)) if names is None else str(names[value])

    if not lists:
        return [name(value) for value in values]
    sets = [frozenset(name(one) for one in value or []) for value in values]
    if any(not label.strip() for each in sets for label in each):
        raise VitralError(f"{path}: column {column} holds lists with an empty label; leave it out of the list")
    return sets


def _wanted(path: Path, names: Sequence[str], options: DataOptions) -> tuple[str, str, str | None]:
    """The image, label and split columns; the last is None if there is none and none was asked for."""
    default_split = options.split_column == DataOptions.split_column
    wanted = [("--image-column", options.image_column), ("--label-column", options.label_column)]
    if options.split_column in names or not default_split:
        wanted.append(("--split-column", options.split_column))
    for option, name in wanted:
        if name not in names:
            raise VitralError(
                f"{path}: there is no column {name!r}; the columns are "
                f"{', '.join(map(repr, names)) or 'none'}; choose one by {option}"
            )
        if names.count(name) > 1:
            raise VitralError(f"{path}: there are several columns {name!r}; rename all but one")
    return options.image_column, options.label_column, wanted[2][1] if len(wanted) == 3 else None


def _split(cell: str) -> str:
    """train, val or test, or "" for none of them."""
    return (
        "" if cell.strip().casefold() == "dev" else split_of(cell) or ""
    )  # dev is some people's test: --val-fold dev says


def _incomplete(columns: _Columns) -> list[Problem]:
    """What is missing in some rows, which are then taken out of the columns."""
    rows = range(len(columns.images))

    def blank(cells: Sequence[Any]) -> list[int]:
        return [i for i in rows if not cells[i] or not str(cells[i]).strip()]

    problems = []
    lacking = {"image": blank(columns.images)}
    lacking["label"] = blank(columns.labels) if isinstance(columns.labels[0], str) else []
    for what, found in lacking.items():
        if found:
            have, named = _in_rows(found, columns)
            text = f"{have} no {what}: {some(named)}; fill it in or remove the rows"
            problems.append(Problem(f"no_{what}", text, tuple(named)))
    splits = columns.splits
    wrong = [] if splits is None else [i for i in rows if not _split(splits[i])]
    if splits is not None and wrong:
        _, named = _in_rows(wrong, columns)
        named = [f"{row}: {splits[i]!r}" for row, i in zip(named, wrong, strict=True)]
        text = (
            f"the split of each row must be train, val or test, not ({counted(len(wrong), 'row')}) "
            f"{some(named)}; correct them, or leave the column out to have splits made"
        )
        problems.append(Problem("wrong_split", text, tuple(named)))
    if problems:
        _take(columns, sorted(set(rows).difference(wrong, *lacking.values())))
    return problems


def _in_rows(found: Sequence[int], columns: _Columns) -> tuple[str, list[str]]:
    """How many rows have something, and what a person calls them."""
    return counted(len(found), "row has", "rows have"), [f"row {i + columns.first_row}" for i in found]


def _take(columns: _Columns, rows: Sequence[int]) -> None:
    columns.images = [columns.images[i] for i in rows]
    columns.labels = [columns.labels[i] for i in rows]  # type: ignore[assignment]  # all of one kind
    columns.splits = None if columns.splits is None else [columns.splits[i] for i in rows]


def _images(path: Path, columns: _Columns, options: DataOptions) -> Images:
    if all(isinstance(image, str) for image in columns.images):
        return FileImages(Path(os.path.abspath(path)).parent, columns.images)
    structs = [image if isinstance(image, dict) else {"bytes": image} for image in columns.images]
    blobs = [blob for struct in structs if isinstance(blob := struct.get("bytes"), bytes)]
    if len(blobs) < len(structs):
        raise VitralError(
            f"{path}: column {options.image_column!r} must hold paths or encoded images, the same in every "
            "row; write it again"
        )
    ends = np.concatenate([[0], np.cumsum([len(blob) for blob in blobs], dtype=np.int64)])
    names = [f"{path.stem}/{struct.get('path') or i}" for i, struct in enumerate(structs)]
    return PackedImages(np.frombuffer(b"".join(blobs), np.uint8), ends, names)


def _contradictions(columns: _Columns, images: FileImages, options: DataOptions) -> list[Problem]:
    """Images by path that have two labels (or sets of labels), or are not there."""
    labels: dict[str, set[str]] = defaultdict(set)
    for name, label in zip(columns.images, columns.labels, strict=True):
        labels[os.path.normpath(name)].add(label if isinstance(label, str) else f"[{in_words(sorted(label))}]")
    problems = []
    clashing = [f"{name} ({', '.join(sorted(given))})" for name, given in labels.items() if len(given) > 1]
    if clashing:
        one = isinstance(columns.labels[0], str)
        text = (
            f"{counted(len(clashing), 'image has', 'images have')} {'two labels' if one else 'rows with different labels'}: "
            f"{some(clashing)}; {'keep the right row of each' if one else 'give each image one row with all its labels'}"
        )
        problems.append(Problem("clashing_rows", text, tuple(clashing)))
    missing = [name for name in labels if not os.path.lexists(images.root / name)]
    if missing and not options.skip_unreadable:
        text = (
            f"names {counted(len(missing), 'image')} that are not there: {some(missing)}; "
            f"paths are relative to {images.root}; correct them, or leave these images out with --skip-unreadable"
        )
        problems.append(Problem("missing_images", text, tuple(missing)))
    return problems
