"""Tables as a data set: a CSV, TSV, JSON lines or Parquet file with a column of images, one of labels (or several of zeros and ones), perhaps
one of splits or folds; or several such files that are one data set (`hub`).

Images are paths relative to the table's folder, or to the one that --images names. A Parquet column may also hold the encoded images, as bytes
or as Hugging Face's struct of `bytes` and `path`; names of its ClassLabel features are used. A cell holds one label, or any number of them: with
a separator between them, as a list, or as zeros and ones.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vitral.data.columns import Chosen, choose, labels_of
from vitral.data.folder import UNLABELLED
from vitral.data.groups import GroupedImages, Left
from vitral.data.images import FileImages, Images, PackedImages
from vitral.data.listing import Listing, build_listing
from vitral.data.options import DataOptions
from vitral.data.places import Places
from vitral.data.problem import Problem
from vitral.data.rows import Rows, read_rows
from vitral.data.splits import split_of
from vitral.data.targets import Labels, in_words
from vitral.errors import VitralError, counted, some


@dataclass
class Part:
    """One table file of a data set, or its only one."""

    rows: Rows
    inside: str = ""
    """The folder that its paths are relative to, relative to the data set's."""
    split: str | None = None
    """The split that all its rows are of."""


@dataclass
class _Columns:
    images: list[Any]
    """Paths, bytes, or {bytes, path}, one for each row."""
    labels: Labels
    splits: list[str] | None
    rows: list[str]
    """The name of each row in messages."""
    column: str
    """The images' column."""
    said: list[str] = field(default_factory=list)
    numbers: bool = False
    """Whether the images are named by numbers (ids), converted to text."""


def list_table(path: Path, options: DataOptions, *, training: bool = True, labelled: bool = True) -> Listing:
    """The images that a table names or holds, without the rows that lack something, and what is wrong with it; a VitralError if it is no table."""
    parts = [Part(read_rows(path, options))]
    return list_parts(path.stem, path, path.parent, parts, options, training=training, labelled=labelled)


def list_parts(
    name: str,
    where: Path,
    folder: Path,
    parts: Sequence[Part],
    options: DataOptions,
    *,
    training: bool,
    labelled: bool,
    problems: Sequence[Problem] = (),
    said: Sequence[str] = (),
) -> Listing:
    """The images of one or several tables, as one data set. name, where: its name, and its name in errors. folder: paths are relative to it."""
    columns = _joined(where, parts, options, labelled)
    wrong = [*problems, *_incomplete(columns, options)]
    given = None if columns.splits is None else [_split(cell, options) for cell in columns.splits]
    if columns.images and not all(isinstance(image, str) for image in columns.images):
        images = _packed(where, columns)
    else:
        root = Path(os.path.abspath(folder if options.images_folder is None else options.images_folder))
        if not root.is_dir():
            raise VitralError(
                f"--images {options.images_folder}: there is no such folder; name the one that the table's images are in"
            )
        places = Places(root)
        names = places.find(columns.images, elsewhere=options.images_folder is not None)
        if columns.numbers and len(places.missing) == len(names) and columns.column.casefold() == "image":
            raise VitralError(
                f"{where}: column {columns.column!r} must hold paths or encoded images, not numbers; write it again"
            )
        wrong += _contradictions(columns, names) + places.problems(skipping=options.skip_unreadable)
        columns.said += places.said
        if options.skip_unreadable and places.missing and (near := places.near()):
            columns.said.append(f"{counted(len(places.missing), 'image is', 'images are')} not there: {near}")
        images = FileImages(root, names)
    listing = build_listing(
        name, images, columns.labels, given,
        task=options.task, training=training and bool(columns.labels) and labelled, problems=wrong,
    )  # fmt: skip
    listing.understood = [*said, *columns.said]
    return listing


def _joined(where: Path, parts: Sequence[Part], options: DataOptions, labelled: bool) -> _Columns:
    """The columns of all parts, which must have the same names."""
    first: Chosen | None = None
    joined = _Columns([], [], [], [], "")
    labels: list[Any] = []
    for part in parts:
        rows = part.rows
        if not len(rows):
            choose(rows, options, labelled=labelled)
            if len(parts) == 1:
                raise VitralError(f"{rows.path}: has no rows; add one for each image")
            continue
        chosen = choose(rows, options, labelled=labelled)
        if first is not None and (first.image, first.labels, first.split) != (
            chosen.image,
            chosen.labels,
            chosen.split,
        ):
            raise VitralError(
                f"{rows.path}: has other columns for images, labels and splits than {parts[0].rows.path.name}; write them alike"
            )
        own, said = labels_of(rows, chosen, options) if chosen.labels else ([UNLABELLED] * len(rows), [])
        joined.said += [] if first is not None else [*chosen.said, *said]
        if options.label_separator is not None and not said:
            own = [_parts(label, options.label_separator) if isinstance(label, str) else label for label in own]
        first, joined.column = first or chosen, chosen.image
        labels += list(own)
        before = f"{part.inside}/" if part.inside else ""
        joined.images += [
            f"{before}{cell}" if isinstance(cell, str) and cell.strip() else cell
            for cell in _files_only(rows.columns[chosen.image])
        ]
        column = None if chosen.split is None else rows.columns[chosen.split]
        splits = [part.split or "" for _ in own] if column is None or part.split else [_plain(cell) for cell in column]
        assert joined.splits is not None
        joined.splits += splits
        file = f"{rows.path.name} " if len(parts) > 1 else ""
        joined.rows += [f"{file}row {i + rows.first_row}" for i in range(len(rows))]
    if first is None:
        raise VitralError(f"{where}: has no rows; add one for each image")
    kinds = {type(label) for label in labels}
    joined.labels = (
        labels
        if len(kinds) == 1
        else [label if isinstance(label, frozenset) else frozenset([label]) for label in labels]
    )
    if first.split is None and not any(part.split for part in parts):
        joined.splits = None
    elif first.split is not None:
        _check_folds(where, first.split, joined, options)
    if (options.val_fold or options.test_fold) and first.split is None:
        raise VitralError(f"{where}: --val-fold and --test-fold need a column of folds; name it by --split-column")
    return joined


def _parts(cell: str, separator: str) -> frozenset[str]:
    """The labels in a cell, without surrounding space and empty parts between separators."""
    return frozenset(label for part in cell.split(separator) if (label := part.strip()))


def _plain(cell: Any) -> str:
    """A cell as text; a whole number without decimal point."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return "" if cell is None else str(cell).strip()


def _files_only(column: Sequence[Any]) -> Sequence[Any]:
    """Hugging Face's structs without bytes, as their paths."""
    structs = [cell for cell in column if isinstance(cell, dict)]
    if structs and all(struct.get("bytes") is None for struct in structs):
        return [cell.get("path") if isinstance(cell, dict) else cell for cell in column]
    return column


def _check_folds(where: Path, column: str, columns: _Columns, options: DataOptions) -> None:
    """Raise VitralError if a column of folds has no --val-fold or --test-fold, or does not hold the one named."""
    assert columns.splits is not None
    values = sorted({cell for cell in columns.splits if cell}, key=lambda cell: (len(cell), cell))
    folds = f"column {column!r} holds {some([repr(value) for value in values])}"
    for flag, fold in (("--val-fold", options.val_fold), ("--test-fold", options.test_fold)):
        if fold is not None and fold not in values:
            raise VitralError(f"{where}: {folds}, not {fold!r}; choose one of them by {flag}")
    if options.val_fold is not None or options.test_fold is not None:
        if options.val_fold == options.test_fold:
            raise VitralError(f"{where}: --val-fold and --test-fold are both {options.val_fold!r}; choose two")
        columns.said.append(f"{folds}: " + ", ".join(
            f"{value} is {what}" for what, value in (("val", options.val_fold), ("test", options.test_fold)) if value is not None
        ) + ", all others train")  # fmt: skip
    elif len(values) > 1 and all(value.lstrip("-").isdigit() for value in values):
        raise VitralError(
            f"{where}: {folds}: these look like folds; say which is for what, for example --val-fold {values[0]} --test-fold {values[1]} "
            "(all others train), or --split-column none to have splits made"
        )


def _split(cell: str, options: DataOptions) -> str:
    """train, val or test, or "" for none of them."""
    if options.val_fold is not None or options.test_fold is not None:
        return {options.val_fold: "val", options.test_fold: "test"}.get(cell, "train" if cell else "")
    return (
        "" if cell.strip().casefold() == "dev" else split_of(cell) or ""
    )  # dev may mean test to some: --val-fold dev decides


def _incomplete(columns: _Columns, options: DataOptions) -> list[Problem]:
    """The problems of rows with missing cells; these rows are removed from the columns."""
    rows = range(len(columns.images))

    def blank(cells: Sequence[Any]) -> list[int]:
        return [i for i in rows if (not cells[i] and cells[i] != 0) or not str(cells[i]).strip()]

    problems = []
    lacking = {"image": blank(columns.images)}
    lacking["label"] = blank(columns.labels) if isinstance(columns.labels[0], str) else []
    for what, found in lacking.items():
        if found:
            named = [columns.rows[i] for i in found]
            text = (
                f"{counted(len(found), 'row has', 'rows have')} no {what}: {some(named)}; fill it in or remove the rows"
            )
            if what == "label" and (
                mark := next((m for m in ";|," if any(m in str(label) for label in columns.labels)), None)
            ):
                text += f'. If an image can have several labels, or none, say what stands between them: --label-separator "{mark}"'
            problems.append(Problem(f"no_{what}", text, tuple(named)))
    splits = columns.splits
    wrong = [] if splits is None else [i for i in rows if not _split(splits[i], options)]
    if splits is not None and wrong:
        named = [f"{columns.rows[i]}: {splits[i]!r}" for i in wrong]
        text = (
            f"the split of each row must be train, val or test, not ({counted(len(wrong), 'row')}) "
            f"{some(named)}; correct them, say which is for what (--val-fold, --test-fold), or --split-column none to have splits made"
        )
        problems.append(Problem("wrong_split", text, tuple(named)))
    if problems:
        _take(columns, sorted(set(rows).difference(wrong, *lacking.values())))
    columns.numbers = bool(columns.images) and all(type(image) is int for image in columns.images)
    if columns.numbers:
        columns.images = [str(image) for image in columns.images]
    return problems


def _take(columns: _Columns, rows: Sequence[int]) -> None:
    columns.images = [columns.images[i] for i in rows]
    columns.labels = [columns.labels[i] for i in rows]  # type: ignore[assignment]  # all of one kind
    columns.splits = None if columns.splits is None else [columns.splits[i] for i in rows]
    columns.rows = [columns.rows[i] for i in rows]


def _packed(where: Path, columns: _Columns) -> Images:
    structs = [image if isinstance(image, dict) else {"bytes": image} for image in columns.images]
    names = [f"{where.stem}/{struct.get('path') or i}" for i, struct in enumerate(structs)]
    left = [blob for struct in structs if isinstance(blob := struct.get("bytes"), Left)]
    if left and len(left) == len(structs):
        return GroupedImages(left, names)
    blobs = [blob for struct in structs if isinstance(blob := struct.get("bytes"), bytes)]
    if len(blobs) < len(structs):
        raise VitralError(
            f"{where}: column {columns.column!r} must hold paths or encoded images, the same in every "
            "row; write it again"
        )
    ends = np.concatenate([[0], np.cumsum([len(blob) for blob in blobs], dtype=np.int64)])
    return PackedImages(np.frombuffer(b"".join(blobs), np.uint8), ends, names)


def _contradictions(columns: _Columns, names: Sequence[str]) -> list[Problem]:
    """Images by path that have two labels, or sets of labels."""
    labels: dict[str, set[str]] = defaultdict(set)
    for name, label in zip(names, columns.labels, strict=True):
        labels[os.path.normpath(name)].add(label if isinstance(label, str) else f"[{in_words(sorted(label))}]")
    clashing = [f"{name} ({', '.join(sorted(given))})" for name, given in labels.items() if len(given) > 1]
    if not clashing:
        return []
    one = isinstance(columns.labels[0], str)
    text = (
        f"{counted(len(clashing), 'image has', 'images have')} {'two labels' if one else 'rows with different labels'}: "
        f"{some(clashing)}; {'keep the right row of each' if one else 'give each image one row with all its labels'}"
    )
    return [Problem("clashing_rows", text, tuple(clashing))]
