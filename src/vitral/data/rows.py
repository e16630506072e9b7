"""The rows of a table, as columns by name: CSV and TSV as people and spreadsheets write them, JSON lines, Parquet."""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitral.data.groups import LARGE, Left
from vitral.data.options import DataOptions
from vitral.errors import VitralError, some

TABLES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")


@dataclass
class Rows:
    """One table. Every column has as many cells as there are rows."""

    path: Path
    header: list[str]
    """The columns' names; without a header their numbers, from 1."""
    columns: dict[str, list[Any]]
    first_row: int = 1
    """The number of the first row in messages: 2 in a CSV file, whose line 1 is the header."""
    classes: dict[str, list[str]] = field(default_factory=dict)
    """Class names by column, from the table's metadata (Hugging Face's ClassLabel)."""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))


def read_rows(path: Path, options: DataOptions) -> Rows:
    """The table in a file, by its suffix. Raises VitralError if it is none."""
    ending = path.suffix.lower()
    if ending in (".csv", ".tsv"):
        return _csv(path, options)
    if not options.header:
        raise VitralError(f"{path}: --no-header is for CSV and TSV; the columns of this table have names")
    return _parquet(path, options) if ending == ".parquet" else _json_lines(path)


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise VitralError(f"{path}: cannot be read ({error.strerror}); make it a readable file") from error
    utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff")) and len(data) % 2 == 0
    try:
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise VitralError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from error


def _csv(path: Path, options: DataOptions) -> Rows:
    text = _text(path)
    stated = re.match(r"sep=(.)\r?\n", text)  # as Excel marks it
    text = text[stated.end() :] if stated else text
    first = text.partition("\n")[0]
    among = [each for each in ",\t;|" if each in first]
    delimiter = stated[1] if stated else "\t" if path.suffix.lower() == ".tsv" else among[0] if among else ","
    try:
        lines = _lines(text, delimiter)
    except csv.Error as error:
        try:  # a space between a closing quote and the delimiter
            lines = _lines(re.sub(rf'" +(?=[{re.escape(delimiter)}\r\n])', '"', text), delimiter)
        except csv.Error:
            raise VitralError(f"{path}: {error}; mend the line") from error
    head = [name.strip() for name in lines[0][1]] if lines else []
    if not options.header:
        head = [str(k + 1) for k in range(len(head))]
    body = lines[1:] if options.header else lines
    for _, row in body:
        while len(row) > len(head) and not row[-1].strip():  # delimiters at the end of a line
            row.pop()
    wrong = [
        f"line {number} has {len(row)} fields where the header has {len(head)}"
        for number, row in body
        if len(row) != len(head)
    ]
    if wrong:
        raise VitralError(f"{path}: {some(wrong)}; quote fields that contain the delimiter")
    columns = {name: [row[k] for _, row in body] for k, name in reversed(list(enumerate(head)))}
    return Rows(path, head, dict(reversed(columns.items())), 2 if options.header else 1)


def _lines(text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """(line number, fields) of each row; space after a delimiter is ignored, so that a quote may follow it."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    try:
        return [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise csv.Error(f"line {reader.line_num} is not valid CSV ({error})") from error


def _json_lines(path: Path) -> Rows:
    rows = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise VitralError(f"{path}: line {number} is not JSON ({error}); write one object a line") from error
        if not isinstance(row, dict):
            raise VitralError(f"{path}: line {number} is no JSON object; write one object a line")
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return Rows(path, names, {name: [row.get(name) for row in rows] for name in names})


def _parquet(path: Path, options: DataOptions) -> Rows:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise VitralError(f"{path}: Parquet needs pyarrow; run pip install 'vitral[parquet]'") from None
    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            images = options.image_column or next((name for name in schema.names if name.casefold() == "image"), None)

            def heavy(kind: Any) -> bool:
                return bool(
                    pyarrow.types.is_struct(kind)
                    or pyarrow.types.is_binary(kind)
                    or pyarrow.types.is_large_binary(kind)
                )

            wanted = [one.name for one in schema if not heavy(one.type) or images in (None, one.name)]
            left = (
                images
                if path.stat().st_size > LARGE and images in wanted and heavy(schema.field(images).type)
                else None
            )
            table = file.read(columns=[f"{name}.path" if name == left else name for name in wanted])
        metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = metadata.get("info", {}).get("features", {}) or {}
        classes = {name: names for name, feature in features.items() if (names := class_names(feature))}
        columns = {name: table.column(k).to_pylist() for k, name in reversed(list(enumerate(table.column_names)))}
        if left is not None:
            paths = columns.get(left, [None] * file.metadata.num_rows)
            columns[left] = [
                {"bytes": Left(path, left, row), "path": (cell or {}).get("path")} for row, cell in enumerate(paths)
            ]
    except Exception as error:  # whatever the library raises on a damaged file, or its metadata hold
        raise VitralError(f"{path}: is not a readable Parquet file ({error}); write it again") from error
    return Rows(path, list(schema.names), dict(reversed(columns.items())), 1, classes)


def class_names(feature: Any) -> list[str] | None:
    """The names of a ClassLabel, or of what a list of them holds: [feature], or {"feature": feature}."""
    while isinstance(feature, list) or (isinstance(feature, dict) and "names" not in feature and "feature" in feature):
        feature = feature[0] if isinstance(feature, list) else feature["feature"]
    names = feature.get("names") if isinstance(feature, dict) else None
    return None if names is None else [str(name) for name in names]


def cells(column: list[Any]) -> Iterator[Any]:
    """The cells of a column that are not empty."""
    return (cell for cell in column if cell is not None and cell != "")
