"""YOLO's texts (https://docs.ultralytics.com/datasets/detect/), with the data.yaml of Ultralytics and Roboflow, or classes.txt, or neither.

    images/train/1.jpg, labels/train/1.txt     or     train/images/1.jpg, train/labels/1.txt     or     1.jpg, 1.txt

A line is `class cx cy w h`, `class x y x y x y ...` (an outline), or `class rle h w counts` (github.com/ultralytics/ultralytics/pull/25944), each
line for itself, in shares of the upright image. `download:` in a data.yaml is a program, and is never run.
"""

import posixpath
import re
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vitral.data.annotated import AnnotatedData, ClassTable, Fault, Object, Polygons, Runs
from vitral.data.formats.draft import Draft, Drafted, Found
from vitral.data.formats.files import Tree, numbers, read_text, read_yaml, split_in, whole
from vitral.data.formats.write import Writing, write_text
from vitral.data.shapes import area_and_box, as_runs, mask_of, outlines
from vitral.errors import VitralError, counted, some

HOLDS = frozenset({"boxes", "outlines", "parts", "holes", "classes", "splits"})
_KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_NAMES = (
    "classes.txt",
    "obj.names",
    "labels/classes.txt",
    "labels.txt",
    "train/classes.txt",
    "train/labels/classes.txt",
)
_POINTS = 6  # numbers of the smallest outline


def yaml_in(tree: Tree, data: Path) -> str | None:
    """The data.yaml of a folder, by its keys; or the file that was given."""
    if data.is_file():
        return data.relative_to(tree.root).as_posix()
    for name in tree.files(".yaml", ".yml"):
        if "/" not in name and re.search(r"^(names|nc|train)\s*:", read_text(tree.root / name, name), re.M):
            return name
    return None


def recognised(tree: Tree, data: Path) -> bool:
    """Whether there is a data.yaml, or a folder labels of such lines."""
    if yaml_in(tree, data) is not None:
        return True
    texts = [name for name in tree.files(".txt") if posixpath.basename(name) not in map(posixpath.basename, _NAMES)]
    known = [name for name in texts if label_of(name, tree)]
    return bool(known) and any(
        _is_row(line) for name in known[:20] for line in read_text(tree.root / name, name).splitlines()[:1]
    )


def _is_row(line: str) -> bool:
    found = line.split()
    return len(found) >= 5 and (found[1] == "rle" or numbers(found) is not None)


def label_of(text: str, tree: Tree) -> str | None:
    """The image that a text file labels."""
    stem = posixpath.splitext(text)[0]
    parts = ("/" + stem).rpartition("/labels/")
    tried = [f"{parts[0]}/images/{parts[2]}".lstrip("/")] if parts[1] else []
    return next((found[0] for each in [*tried, stem] if (found := tree.of_stem(each))), None)


def read(data: Path) -> Drafted:
    """A folder, or its data.yaml."""
    data = data.absolute()
    tree = Tree(data.parent if data.is_file() else data)
    file = yaml_in(tree, data)
    drafted = Drafted(tree.root, "objects", ClassTable((), ()), [], [])
    yaml = read_yaml(tree.root / file, file) if file else {}
    if "download" in yaml:
        drafted.understood.append(f"{file}: download is a program, which was not run")
    images = _images(tree, file, yaml, drafted)
    drafted.classes = _classes(tree, file, yaml)
    texts = {found: name for name in tree.files(".txt") if (found := label_of(name, tree))}
    if not any(image in texts for image, _ in images):
        raise VitralError(
            f"{data}: no image has a text of labels: looked beside the images, and in labels/ where they are in images/"
        )
    rows = {
        texts[image]: read_text(tree.root / texts[image], texts[image]).splitlines()
        for image, _ in images
        if image in texts
    }
    if not len(drafted.classes):
        drafted.classes = _numbered(data, [line for lines in rows.values() for line in lines])
        drafted.understood.append(
            "nothing names the classes: they are called by their numbers; add classes.txt, a name a line"
        )
    keypoints = "kpt_shape" in yaml
    if keypoints:
        drafted.understood.append("keypoints (kpt_shape) are not read, the boxes are")
    read_more = 0
    for image, split in images:
        text = texts.get(image)
        draft = Draft(image, text or image, split, unlabelled=text is None)
        for number, line in enumerate(rows.get(text or "", []), 1):
            one, confident = _row(line, f"{text} line {number}", drafted, keypoints)
            read_more += confident
            if one is not None:
                draft.found.append(one)
        drafted.drafts.append(draft)
    if read_more:
        drafted.understood.append(
            f"{counted(read_more, 'line has', 'lines have')} a sixth number, a score as of predictions; it is not read"
        )
    listed = {image for image, _ in images}
    homeless = [
        name for name in tree.files(".txt") if re.search(r"(^|/)labels/", name) and label_of(name, tree) is None
    ]
    drafted.faults += [
        Fault("missing_image", name, "no image of its name")
        for name in homeless
        if posixpath.basename(name) not in ("classes.txt", "labels.txt")
    ]
    if rest := [image for image in texts if image not in listed and not file]:
        drafted.understood.append(f"{counted(len(rest), 'image')} in no split not read: {some(rest, 2)}")
    return drafted


def _numbered(data: Path, lines: list[str]) -> ClassTable:
    """Classes that nothing names, up to the highest number of any line."""
    most = max((c for line in lines if line.split() and (c := whole(line.split()[0])) is not None), default=-1)
    if most > 100_000:
        raise VitralError(
            f"{data}: holds a class {most:,}, and nothing names the classes; add classes.txt, a name a line"
        )
    return ClassTable(tuple(range(most + 1)), tuple(map(str, range(most + 1))))


def _classes(tree: Tree, file: str | None, yaml: dict[str, Any]) -> ClassTable:
    names = yaml.get("names")
    if names is None:
        listed = next((name for name in _NAMES if (tree.root / name).is_file()), None)
        if listed is not None:
            names, file = (
                [line.strip() for line in read_text(tree.root / listed, listed).splitlines() if line.strip()],
                listed,
            )
        elif (count := whole(yaml.get("nc"))) is not None and 0 < count < 100_000:
            names = list(map(str, range(count)))
        else:
            return ClassTable((), ())
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(isinstance(label, str | int | float) for label in names.values()):
        raise VitralError(
            f"{file}: names is neither a list of names nor a mapping of numbers to names; write it as one of them"
        )
    numbered = {whole(key): str(label) for key, label in names.items()}
    if None in numbered or min(numbered, default=0, key=lambda key: key or 0) < 0:  # type: ignore[operator]
        raise VitralError(f"{file}: names has a key that is no whole number from 0; write 0: first, 1: second")
    labels = list(numbered.values())
    if double := sorted({label for label in labels if labels.count(label) > 1}):
        raise VitralError(f"{file}: names has {some(double)} twice; rename all but one")
    stated = whole(yaml.get("nc"))
    if stated is not None and stated != len(numbered):
        raise VitralError(f"{file}: nc says {stated} classes, and names has {len(numbered)}; correct the wrong one")
    ids = sorted(key for key in numbered if key is not None)
    return ClassTable(tuple(ids), tuple(numbered[key] for key in ids))


def _images(tree: Tree, file: str | None, yaml: dict[str, Any], drafted: Drafted) -> list[tuple[str, str | None]]:
    """(image, its split) of all."""
    given: dict[str, list[Any]] = {}
    for split, keys in _KEYS.items():
        for key in keys:
            if yaml.get(key):
                given[split] = yaml[key] if isinstance(yaml[key], list) else [yaml[key]]
    if not given:
        return [(name, split_in(*reversed(name.split("/")[:-1]))) for name in tree.images]
    found: dict[str, str] = {}
    bases = [posixpath.normpath(str(yaml.get("path") or ".").replace("\\", "/")), "."]
    for split, entries in given.items():
        for entry in entries:
            for name in _entry(tree, str(entry), bases, f"{file}: {split}", drafted):
                if found.setdefault(name, split) != split:
                    drafted.faults.append(Fault("same_image", f"{file}: {split}", f"{name} is in {found[name]}, too"))
    return list(found.items())


def _entry(tree: Tree, entry: str, bases: list[str], where: str, drafted: Drafted) -> list[str]:
    """The images of a folder, or of a text that lists them, as a data.yaml names it."""
    plain = entry.strip().replace("\\", "/")
    ends = PurePosixPath(re.sub(r"^([A-Za-z]:)?/+|^(\.\.?/)+", "", plain)).parts
    tried = [posixpath.normpath(posixpath.join(base, plain)) for base in bases]
    tried += [posixpath.join(*ends[k:]) for k in range(len(ends))]
    if ends and split_in(ends[0]) == "val":
        tried += [posixpath.join(each, *ends[1:]) for each in ("valid", "val", "validation")]
    for each in dict.fromkeys(tried):
        if each.startswith(("..", "/")):
            continue
        if each.endswith(".txt") and (tree.root / each).is_file():
            return _listed(tree, each, bases, drafted)
        inside = [name for name in tree.images if each == "." or name.startswith(each + "/")]
        if beside := [name for name in inside if "/images/" in f"/{name}"]:
            return beside
        if inside:
            return inside
    raise VitralError(
        f"{where}: {entry!r} names no folder or list with images; looked for {some(list(dict.fromkeys(tried)), 6)} in {tree.root}"
    )


def _listed(tree: Tree, text: str, bases: list[str], drafted: Drafted) -> list[str]:
    names = []
    for number, line in enumerate(read_text(tree.root / text, text).splitlines(), 1):
        if line.strip():
            found = tree.image(line, [*bases, posixpath.dirname(text)])
            if found is None:
                drafted.faults.append(Fault("missing_image", f"{text} line {number}", line.strip()[:120]))
            else:
                names.append(found)
    return names


def _row(line: str, where: str, drafted: Drafted, keypoints: bool) -> tuple[Found | None, bool]:
    """The object of a line, and whether the line has a score."""
    words = line.split()
    if not words:
        return None, False
    key = whole(words[0])
    if key is None or len(words) < 5:
        drafted.faults.append(Fault("line", where, line.strip()[:60]))
        return None, False
    if key not in drafted.classes.by_id:
        drafted.faults.append(Fault("unknown_class", where, f"class {key}, of {len(drafted.classes)}"))
        return None, False
    index = drafted.classes.by_id[key]
    if words[1] == "rle":
        return _mask(words, index, where, drafted), False
    values = numbers(words[1:])
    if values is None:
        drafted.faults.append(Fault("number", where, line.strip()[:60]))
        return None, False
    if len(values) in (4, 5) or keypoints:
        cx, cy, w, h = values[:4]
        return Found(index, where, (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), relative=True), len(values) == 5
    if len(values) < _POINTS or len(values) % 2:
        drafted.faults.append(
            Fault("line", where, f"{len(words)} numbers: neither a box (5) nor an outline (7, 9, ...)")
        )
        return None, False
    return Found(index, where, shape=Polygons((np.array(values).reshape(-1, 2),)), relative=True), False


def _mask(words: list[str], index: int, where: str, drafted: Drafted) -> Found | None:
    h, w = (whole(word) or 0 for word in words[2:4])
    counts = words[4] if len(words) == 5 else ""
    try:
        if not (h > 0 and w > 0 and counts and counts.isascii()):
            raise ValueError("no height, width and run lengths")
        runs = Runs(h, w, counts.encode())
        area_and_box(runs, h, w)
    except ValueError as error:
        drafted.faults.append(Fault("outline", where, str(error)))
        return None
    return Found(index, where, shape=runs)


def write(data: AnnotatedData, out: Path) -> None:
    """data.yaml, images/SPLIT/NAME and labels/SPLIT/NAME.txt; images without a split are in train."""
    writing = Writing(data, out)
    folders = []
    for split, rows in writing.splits("train"):
        folders.append(f"{split}: images/{split}")
        for i in rows:
            writing.copy(i, f"images/{split}")
            one = data.annotated[i]
            if one.unlabelled:
                continue
            lines = [f"{each.index} {row_of(each, one.height, one.width)}\n" for each in one.objects]
            write_text(out / f"labels/{split}/{writing.stem(i)}.txt", "".join(lines))
    names = "".join(f"  {k}: {_quoted(label)}\n" for k, label in enumerate(data.classes.names))
    write_text(
        out / "data.yaml",
        "\n".join([*folders, f"nc: {len(data.classes)}", f"names:\n{names}" if names else "names: []\n"]),
    )


def _quoted(label: str) -> str:
    return "'" + re.sub(r"[\x00-\x1f\x7f]", " ", label).replace("'", "''") + "'"


def row_of(each: Object, height: int, width: int) -> str:
    """What stands behind the class: an outline, `rle` where it has holes or parts, or the box of an object without one."""
    shape = each.shape
    if shape is None:
        x0, y0, x1, y1 = each.box
        values = [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height]
        return " ".join(f"{value:.12g}" for value in values)
    if isinstance(shape, Runs):
        traced = outlines(mask_of(shape, height, width))
        shape = traced if traced is not None else shape
    if isinstance(shape, Polygons) and len(shape.parts) == 1:
        return " ".join(f"{value:.12g}" for value in (shape.parts[0] / (width, height)).ravel().tolist())
    return f"rle {height} {width} {as_runs(shape, height, width).counts.decode()}"
