"""The files of annotated data: texts, JSON and YAML, which may be hostile, and the images that they name.

Names are looked up among the data's own files only: a path that leads out of their folder finds nothing.
"""

import json
import math
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vitral.data.files import read_file
from vitral.data.splits import split_of
from vitral.data.walk import Walk
from vitral.errors import VitralError, some

MAP_ENDINGS = ("mask", "masks", "seg", "label", "labels", "gt")
"""Of the names of maps of classes that lie beside their images."""
_LARGE, _DEEP = 2**21, 50  # characters and depth of a YAML, at most
_MOST = 1e7  # pixels: a coordinate, at most


def read_text(path: Path, name: str) -> str:
    """A text in UTF-8, or in UTF-16 with a byte order mark; "" for an empty file."""
    if path.is_file() and not path.stat().st_size:
        return ""
    data = read_file(path, name)[0]
    try:
        return data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise VitralError(
            f"{name}: is not UTF-8 text ({error.reason} at byte {error.start:,}); save it as UTF-8"
        ) from error


def parse_json(text: str, name: str) -> Any:
    """JSON without NaN and infinities."""

    def refuse(constant: str) -> None:
        raise VitralError(f"{name}: holds {constant}, which is no number in JSON; write the file anew")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise VitralError(f"{name}: is nested too deep to be annotations; restore it from its source") from None
    except VitralError:
        raise
    except ValueError as error:
        raise VitralError(f"{name}: is not JSON ({error}); restore it from its source") from None


def read_json(path: Path, name: str) -> Any:
    """The JSON in a file."""
    return parse_json(read_text(path, name), name)


def read_yaml(path: Path, name: str) -> dict[str, Any]:
    """The mapping in a YAML file, of texts, lists and mappings only (a class may be called no); tags are ignored, aliases refused."""
    try:
        import yaml
    except ImportError:
        raise VitralError(f"{name}: YAML needs pyyaml; run pip install 'vitral[dense]'") from None
    opening = (
        yaml.FlowSequenceStartToken,
        yaml.FlowMappingStartToken,
        yaml.BlockSequenceStartToken,
        yaml.BlockMappingStartToken,
    )
    closing = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)
    text = read_text(path, name)
    if len(text) > _LARGE:
        raise VitralError(f"{name}: has {len(text):,} characters, too many for a list of classes and folders")
    try:
        depth = 0
        for token in yaml.scan(text, yaml.BaseLoader):
            line = token.start_mark.line + 1
            if isinstance(token, yaml.AliasToken):  # aliases can expand to a billion values
                raise VitralError(f"{name}: line {line} has an alias (*), which is not read; write the value itself")
            depth += isinstance(token, opening) - isinstance(token, closing)
            if depth > _DEEP:
                raise VitralError(
                    f"{name}: line {line} is nested too deep for a list of classes and folders; restore it from its source"
                )
        found = yaml.load(text, yaml.BaseLoader)
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, VitralError):
            raise
        raise VitralError(f"{name}: is not YAML ({' '.join(str(error).split())}); mend it") from None
    if not isinstance(found, dict):
        raise VitralError(f"{name}: is no mapping; write names, train and val, as Ultralytics' data.yaml has them")
    return {str(key): value for key, value in found.items()}


def number(value: object) -> float | None:
    """A finite number of pixels; None for anything else."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) and abs(found) < _MOST else None


def numbers(values: object) -> list[float] | None:
    """A list of finite numbers; else None."""
    if not isinstance(values, list | tuple):
        return None
    found = [number(value) for value in values]
    return None if None in found else found  # type: ignore[return-value]


def whole(value: object) -> int | None:
    """A whole number, as 3, 3.0 or "3"."""
    found = number(value) if not isinstance(value, int) or isinstance(value, bool) else None
    if found is None:
        return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**62 else None
    return int(found) if found == int(found) else None


def size_of(height: object, width: object) -> tuple[int, int] | None:
    """A stated size; None if it is missing or zero."""
    h, w = whole(height), whole(width)
    return (h, w) if h and w and h > 0 and w > 0 else None


def rows_of(value: object, name: str, what: str) -> list[dict[str, Any]]:
    """A list of JSON objects."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise VitralError(f"{name}: {what} is no list of objects; restore it from its source")
    return value


def split_in(*names: str) -> str | None:
    """The split that a file's (without suffix) or folder's name means: instances_train2017, valid."""
    for name in names:
        plain = re.sub(
            r"^(instances|panoptic|stuff|annotations?|labels?|masks?|coco)[ _-]+|[ _-]+(coco|labels?)$",
            "",
            name,
            flags=re.I,
        )
        if found := split_of(plain):
            return found
    return None


class Tree:
    """The files under a folder, by name, and the images among them."""

    def __init__(self, root: Path) -> None:
        self.root, self.walk = root, Walk(root)
        self.images = [self.walk.named(path) for path in self.walk.under(root)]
        self._images = set(self.images)
        self._by_end: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for name in self.images:
            self._by_end[posixpath.basename(name)].append(name)
            self._by_stem[posixpath.splitext(name)[0]].append(name)

    def files(self, *endings: str) -> list[str]:
        """Every file with one of these suffixes, to any depth, by relative name."""
        return sorted(self._files(self.root, endings, ()))

    def _files(self, folder: Path, endings: tuple[str, ...], above: tuple[Path, ...]) -> Iterator[str]:
        real = folder.resolve()
        if real in above:
            return
        folders, files = self.walk.entries(folder)
        yield from (self.walk.named(path) for path in files if path.suffix.lower() in endings)
        for inner in folders:
            yield from self._files(inner, endings, (*above, real))

    def of_stem(self, stem: str) -> list[str]:
        """The images with this relative name plus a suffix."""
        return self._by_stem.get(stem, [])

    def beside(self, labelled: Iterable[str]) -> list[str]:
        """The other images in the folders of these, which may be unannotated; images elsewhere do not belong to the data."""
        known = set(labelled)
        folders = {posixpath.dirname(name) for name in known}
        return [name for name in self.images if name not in known and posixpath.dirname(name) in folders]

    def image(self, named: object, bases: Iterable[str]) -> str | None:
        """The image that a file names, relative to one of these folders; else the only image of that name. None if there is none, or several."""
        if not isinstance(named, str) or not named.strip():
            return None
        plain = named.strip().replace("\\", "/")
        for base in dict.fromkeys(bases):
            tried = posixpath.normpath(posixpath.join(base, plain.lstrip("/")))
            if tried in self._images:
                return tried
        same = self._by_end.get(posixpath.basename(plain), [])
        return same[0] if len(same) == 1 else None


def stems(tree: Tree, lists: dict[str, str]) -> dict[str, str]:
    """Stem of an image -> split, from VOC's lists and their splits: a stem a line, which may have spaces, or a second column."""
    lines = [
        (line.strip(), split)
        for name, split in lists.items()
        for line in read_text(tree.root / name, name).splitlines()
        if line.strip()
    ]
    return {line.split()[0]: split for line, split in lines} | dict(lines)


def largest_json(tree: Tree) -> str | None:
    """The largest JSON of a folder, by which the format is recognised."""
    return max(tree.files(".json"), key=lambda name: (tree.root / name).stat().st_size, default=None)


def lost(named: object, bases: Iterable[str]) -> str:
    """Why an image was not found, in words."""
    where = some([base or "." for base in dict.fromkeys(bases)], 4)
    text = named if isinstance(named, str) else repr(named)
    out = (
        " leads out of the folder,"
        if isinstance(named, str) and posixpath.normpath(text.replace("\\", "/")).startswith(("..", "/"))
        else ""
    )
    return f"{text[:120]}:{out} looked in {where}"
