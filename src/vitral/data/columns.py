"""Which columns of a table hold the images, the labels and the splits, by their usual names; and what cells mean as labels.

A usual name is recognised in upper or lower case and reported. If several columns or none have one, an error lists the columns and the flag that
chooses.
"""

import ast
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitral.data.decode import EXTENSIONS
from vitral.data.listing import Labels
from vitral.data.options import DataOptions
from vitral.data.rows import Rows, cells
from vitral.errors import VitralError, some

IMAGES = frozenset(
    {
        "image", "filename", "imagepath", "imgpath", "imagefilename", "imagefile", "imgfile", "imagename", "imgname", "filepath", "file",
        "path", "img", "images", "imgs", "picture", "photo", "imageid", "imgid", "fname", "id",
    }
)  # fmt: skip
LABELS = frozenset(
    {
        "label", "labels", "class", "classes", "category", "categories", "target", "targets", "labelname", "classname", "categoryname",
        "targetname", "classlabel", "labelid", "classid", "categoryid", "targetid", "y", "groundtruth", "tag", "tags",
    }
)  # fmt: skip
SPLITS = ("split", "fold", "kfold", "folds")
_SAMPLE = 200  # cells that are looked at


@dataclass
class Chosen:
    """The columns to use."""

    image: str
    labels: list[str]
    """The label column, or several columns of zeros and ones, one for each class, or none."""
    split: str | None
    said: list[str] = field(default_factory=list)


def choose(rows: Rows, options: DataOptions, *, labelled: bool) -> Chosen:
    """The columns of a table. Raises one VitralError with all that is unclear. labelled: whether there must be labels."""
    wrong: list[str] = []
    split = _split(rows, options, wrong)
    image = _pick(rows, "image", IMAGES, options.image_column, options, wrong)
    hot = [] if image is None else _one_hot(rows, image, split, options)
    labels: list[str] = []
    if options.label_columns:
        wrong += [
            f"there is no column {name!r} (--label-columns)"
            for name in options.label_columns
            if name not in rows.header
        ]
        labels = list(options.label_columns)
    elif hot and options.label_column is None and not any(plain_name(name) in LABELS for name in rows.header):
        labels = hot
    else:
        unlabelled = (
            not labelled and options.label_column is None and not any(plain_name(n) in LABELS for n in rows.header)
        )
        label = None if unlabelled else _pick(rows, "label", LABELS, options.label_column, options, wrong)
        labels = [] if label is None else [label]
    if wrong:
        if options.header and _headless(rows):
            wrong = [_no_header(rows)]
        raise VitralError(f"{rows.path}: " + "; ".join(wrong))
    assert image is not None
    said = []
    if (image, labels[:1]) != ("image", ["label"]) and options.header:
        what = f"{', '.join(labels[:3])}{'...' if labels[3:] else ''}"
        said.append(f"columns: images in {image!r}" + (f", labels in {what!r}" if labels else ", no labels"))
    return Chosen(image, labels, split, said)


def plain_name(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _pick(
    rows: Rows, what: str, known: Collection[str], asked: str | None, options: DataOptions, wrong: list[str]
) -> str | None:
    """The column of this kind: the one asked for, or the one with a usual name; errors are added to `wrong`."""
    listed = ", ".join(map(repr, rows.header)) or "none"
    if asked is None:
        found = [name for name in dict.fromkeys(rows.header) if plain_name(name) in known]
        exact = [name for name in found if plain_name(name) == what]
        found = exact or found
        if len(found) > 1:
            found = _telling(rows, what, found)
        if len(found) > 1:
            wrong.append(
                f"{', '.join(map(repr, found))} could each be the {what} column; the columns are {listed}; choose one by --{what}-column"
            )
            return None
        asked = found[0] if found else what
    if asked not in rows.header:
        wrong.append(f"there is no column {asked!r}; the columns are {listed}; choose one by --{what}-column")
        return None
    if rows.header.count(asked) > 1:
        wrong.append(f"there are several columns {asked!r}; rename all but one")
        return None
    return asked


def _telling(rows: Rows, what: str, found: list[str]) -> list[str]:
    """Of several candidates, those whose cells fit: image file names; of two label columns that map one to one the names, not the numbers."""
    if what == "image":
        files = [name for name in found if _files(rows.columns[name])]
        strong = [name for name in found if plain_name(name) not in ("id", "imageid", "imgid")]
        return files if len(files) == 1 else strong if len(strong) == 1 and not files else found
    columns = [rows.columns[name] for name in found]
    pairs = {tuple(map(str, row)) for row in zip(*columns, strict=True)}
    if all(len({str(cell) for cell in column}) == len(pairs) for column in columns):
        words = [name for name in found if not all(_number(cell) for cell in rows.columns[name])]
        return words if len(words) == 1 else found
    return found


def _files(column: Sequence[Any]) -> bool:
    sample = list(cells(list(column[:_SAMPLE])))
    return bool(sample) and all(
        isinstance(cell, bytes | dict) or (isinstance(cell, str) and Path(cell).suffix.lower() in EXTENSIONS)
        for cell in sample
    )


def _number(cell: Any) -> bool:
    return isinstance(cell, int | float) or (
        isinstance(cell, str) and re.fullmatch(r"\s*-?\d+(\.0*)?\s*", cell) is not None
    )


def _split(rows: Rows, options: DataOptions, wrong: list[str]) -> str | None:
    if options.split_column == "none":
        return None
    if options.split_column is not None:
        return _pick(rows, "split", (), options.split_column, options, wrong)
    found = [name for name in dict.fromkeys(rows.header) if plain_name(name) in SPLITS]
    exact = [name for name in found if plain_name(name) == "split"]
    if len(found) > 1 and len(exact) != 1:
        return _pick(rows, "split", SPLITS, None, options, wrong)
    return next(iter(exact or found), None)


def _one_hot(rows: Rows, image: str, split: str | None, options: DataOptions) -> list[str]:
    """The columns that hold nothing but zeros and ones, if there are two or more."""
    others = [name for name in rows.header if name not in (image, split) and name in rows.columns and len(rows)]
    hot = [name for name in others if all(_bit(cell) is not None for cell in rows.columns[name])]
    return hot if len(hot) > 1 and len(set(hot)) == len(hot) else []


def _bit(cell: Any) -> int | None:
    """0 or 1 from a number, a text or a truth value; None for anything else."""
    if isinstance(cell, bool):
        return int(cell)
    if isinstance(cell, int | float) and cell in (0, 1):
        return int(cell)
    return (
        {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}.get(cell.strip().casefold())
        if isinstance(cell, str)
        else None
    )


def _headless(rows: Rows) -> bool:
    """Whether the first line of a table is a row like the others rather than a header."""
    return any(_files([name]) for name in rows.header) or (
        len(rows) > 0 and any(_number(name) for name in rows.header) and rows.first_row == 2
    )


def _no_header(rows: Rows) -> str:
    first = next((k for k, name in enumerate(rows.header) if _files([name])), 0)
    label = next((k for k in range(len(rows.header)) if k != first), first)
    return (
        f"the first line ({some(list(map(repr, rows.header)), 4)}) is no header; read the table with "
        f"--no-header --image-column {first + 1} --label-column {label + 1}, or write a first line with the names image and label"
    )


def labels_of(rows: Rows, chosen: Chosen, options: DataOptions) -> tuple[Labels, list[str]]:
    """Each row's label, or set of labels, as text, and messages on how they were read."""
    if len(chosen.labels) > 1 or options.label_columns:
        vectors: list[list[int]] = []
        for name in chosen.labels:
            bits = [_bit(cell) for cell in rows.columns[name]]
            if None in bits:
                where = bits.index(None)
                raise VitralError(
                    f"{rows.path}: column {name!r} holds {rows.columns[name][where]!r} in row {where + rows.first_row}; a column of --label-columns "
                    "holds 0 or 1 in every row"
                )
            vectors.append([bit for bit in bits if bit is not None])
        return _hot([list(each) for each in zip(*vectors, strict=True)], chosen.labels, "columns of 0 and 1")
    name = chosen.labels[0]
    values = rows.columns[name]
    if all(isinstance(cell, str) for cell in values):
        values = _written_lists(values)
    lists = values
    if options.label_separator is not None and all(isinstance(cell, str) for cell in values):
        lists = [[part.strip() for part in cell.split(options.label_separator)] for cell in values]
    known = rows.classes.get(name)
    vectors_there = [value for value in lists if isinstance(value, list)]
    if vectors_there and len(vectors_there) == len(values) and _are_vectors(vectors_there, known):
        width = len(vectors_there[0])
        names = known if known is not None and len(known) == width else [f"class {k}" for k in range(width)]
        hot = [[_bit(cell) or 0 for cell in value] for value in vectors_there]
        unnamed = "" if names is known else ", whose names it does not say"
        return _hot(hot, names, f"column {name!r} holds lists of {width} zeros and ones{unnamed}")
    return _named(rows, name, values, known), []


def _are_vectors(lists: Sequence[list[Any]], known: list[str] | None) -> bool:
    """Whether lists hold a zero or one for each class, all of one length, rather than class numbers, which never repeat in a list."""
    width = len(lists[0])
    if width < 2 or any(len(each) != width or any(_bit(cell) is None for cell in each) for each in lists):
        return False
    return width > 2 or known is None or any(each[0] == each[1] for each in lists)


def _hot(vectors: list[list[int]], names: Sequence[str], what: str) -> tuple[Labels, list[str]]:
    """Labels from zeros and ones: one class an image if every row has exactly one, else several labels."""
    single = all(sum(each) == 1 for each in vectors)
    how = "one class an image" if single else "several labels an image, or none"
    said = [f"{what}: {how} ({some(list(names), 5)})"]
    if single:
        return [names[each.index(1)] for each in vectors], said
    return [frozenset(name for name, bit in zip(names, each, strict=True) if bit) for each in vectors], said


def _written_lists(values: Sequence[str]) -> list[Any]:
    """The cells as lists if all are lists written as text, such as ['cat', 'dog'] or [1 0 1]; else the cells."""
    lists = []
    for cell in values:
        text = cell.strip()
        if not (text.startswith("[") and text.endswith("]")):
            return list(values)
        if re.fullmatch(r"\[\s*[01]\.?(\s+[01]\.?)*\s*\]", text):
            text = re.sub(r"(?<=[01.])\s+(?=[01])", ", ", text)
        try:
            read = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return list(values)
        lists.append(list(read))
    return lists


def _named(rows: Rows, column: str, values: Sequence[Any], names: list[str] | None) -> Labels:
    """Labels, or sets of labels, as text; whole numbers become names where ClassLabel gives some."""
    lists = any(isinstance(value, list) for value in values)
    flat = [one for value in values for one in value or []] if lists else values
    if names is not None and any(not isinstance(one, int) or not 0 <= one < len(names) for one in flat):
        raise VitralError(f"{rows.path}: column {column} holds labels outside of 0..{len(names) - 1}; label every row")

    def text(value: Any) -> str:
        return ("" if value is None else str(value)) if names is None else names[value]

    if not lists:
        return [text(value) for value in values]
    sets = [frozenset(text(one) for one in value or []) for value in values]
    if any(not label.strip() for each in sets for label in each):
        raise VitralError(f"{rows.path}: column {column} holds lists with an empty label; leave it out of the list")
    return sets
