"""Semantic maps: a PNG of class values beside each image, as VOC, ADE20K, Cityscapes and most others have them.

    images/train/1.jpg, masks/train/1.png, classes.json     or     leftImg8bit/…_leftImg8bit.png, gtFine/…_gtFine_labelIds.png

There is no switch for a background or a shift by one: the values that occur are looked up in one table, which is said. classes.json is
{"classes": {"0": "sky", "1": "road"}, "void": [255]}, or has colours such as "#c81e1e" in place of values; without it the classes come from a list of
names, the layout, or the values themselves, and 255 is void.
"""

import posixpath
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitral.data.annotated import AnnotatedData, ClassTable, Fault
from vitral.data.files import StoredFile
from vitral.data.formats.draft import Draft, Drafted
from vitral.data.formats.files import MAP_ENDINGS, Tree, read_json, read_text, split_in, stems, whole
from vitral.data.formats.maps import VOID, Counted, count_values, decode_map, values_of
from vitral.data.formats.voc import VOC_CLASSES
from vitral.data.formats.write import Writing, dump_json, save_map
from vitral.data.progress import OnProgress
from vitral.data.ranges import NoRangesError
from vitral.data.scan import in_threads
from vitral.errors import VitralError, counted, some

HOLDS = frozenset({"values", "classes", "splits"})
_IMAGES = ("images", "image", "imgs", "img", "jpegimages", "leftimg8bit", "photos", "pictures")
_MAPS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "segmentationclass", "segmentation", "segmentations", "gtfine", "gt",
    "ground_truth", "groundtruth", "maps",
)  # fmt: skip
_ENDINGS = ("", *(f"_{ending}" for ending in MAP_ENDINGS), "-mask", ".mask")
_CITY = "_leftImg8bit"
_CITY_MAPS = ("_gtFine_labelTrainIds", "_gtFine_labelIds", "_gtCoarse_labelIds")
TABLE = "classes.json"
NAMES = (TABLE, "classes.txt", "class_names.txt", "classnames.txt", "label_names.txt", "labels.txt")
TRAIN_IDS = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider",
    "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Cityscapes' value of each of these; the others are void (cityscapesScripts, helpers/labels.py)."""


def photographs(tree: Tree) -> list[str]:
    """The images that are none of maps; where some lie in a folder of images, these alone: others are drawn from them."""
    folders = {name: {part.lower() for part in name.split("/")[:-1]} for name in tree.images}
    found = [name for name, parts in folders.items() if not parts & set(_MAPS)]
    return [name for name in found if folders[name] & set(_IMAGES)] or found


def pairs(tree: Tree) -> dict[str, str]:
    """Image -> its map, by folders and names."""
    found: dict[str, str] = {}
    maps = {
        posixpath.splitext(name)[0]: name
        for name in tree.images
        if name.lower().endswith((".png", ".tif", ".tiff", ".bmp", ".gif"))
    }
    folders = {part for name in maps for part in name.split("/")[:-1] if part.lower() in _MAPS}
    for name in photographs(tree):
        parts = posixpath.splitext(name)[0].split("/")
        stems = [parts[-1] + ending for ending in _ENDINGS]
        if parts[-1].endswith(_CITY):
            stems = [parts[-1].removesuffix(_CITY) + ending for ending in _CITY_MAPS] + stems
        places = [
            [*parts[:k], folder, *parts[k + 1 : -1]]
            for k, part in enumerate(parts[:-1])
            if part.lower() in _IMAGES
            for folder in sorted(folders)
        ]
        beside = [parts[:-1]] if not places else []
        places += [[*parts[:-1], folder] for folder in sorted(folders)] + [
            [*parts[:-2], folder] for folder in sorted(folders) if len(parts) > 1
        ]
        places += [[folder, *parts[:-1]] for folder in sorted(folders)]
        tried = ["/".join([*place, stem]) for place in places for stem in stems]
        tried += ["/".join([*place, stem]) for place in beside for stem in stems[1:]]
        if (stem := next((each for each in tried if each in maps), None)) is not None:
            found[name] = maps[stem]
    return found


def recognised(tree: Tree) -> bool:
    """Whether most images have a map."""
    found = pairs(tree)
    return len(found) > 0 and len(found) >= 0.5 * len(set(photographs(tree)) - set(found.values()))


def read(data: Path, progress: OnProgress | None = None) -> Drafted:
    """A folder of such a layout; every map is read, for its values."""
    tree = Tree(data.absolute())
    found = pairs(tree)
    if not found:
        raise VitralError(
            f"{data}: no image has a map: looked for images/1.jpg with masks/1.png, and for 1_mask.png beside 1.jpg"
        )
    drafted = Drafted(tree.root, "semantic", ClassTable((), ()), [], [])
    split_lists = _split_lists(tree)
    for name, file in found.items():
        stem = posixpath.splitext(posixpath.basename(name))[0]
        if not split_lists or stem in split_lists:
            split = split_lists.get(stem) or split_in(*reversed(name.split("/")[:-1]))
            drafted.drafts.append(Draft(name, file, split, map=StoredFile(file, tree.root / file)))
    understand(drafted, tree.root, progress)
    mapped = set(found) | set(found.values())
    if not split_lists:
        bare = [name for name in photographs(tree) if name not in mapped]
        drafted.faults += [Fault("map", name, "has no map") for name in bare]
    return drafted


def understand(drafted: Drafted, tables: Path, progress: OnProgress | None) -> None:
    """Look up size and values of every draft's map, which is read where they are not known, and what names the classes in the folder `tables`;
    maps that cannot be used are faults."""
    drafts, colours = drafted.drafts, colours_in(tables)

    def values(i: int) -> NDArray[np.int32]:
        if (stored := drafts[i].map) is None:
            raise VitralError("has no map")
        return decode_map(stored.read(), stored.name, colours)

    def look(i: int) -> Counted | VitralError:
        try:
            return drafts[i].counted or count_values(values(i))
        except NoRangesError:
            raise
        except VitralError as error:
            return error

    counts: Counter[int] = Counter()
    where: dict[int, int] = {}
    kept: list[int] = []
    for i, one in enumerate(in_threads(look, len(drafts), progress)):
        draft = drafts[i]
        if isinstance(one, VitralError):
            drafted.faults.append(Fault("map", draft.where, str(one).removeprefix(f"{draft.where}: ")))
            continue
        draft.size, draft.values = one.size, tuple(one.values)
        counts.update(one.values)
        for value in one.values:
            where.setdefault(value, i)
        kept.append(i)
    drafted.classes = replace(_table(drafted, tables, sorted(counts)), colours=colours)
    known = set(drafted.classes.ids) | drafted.classes.void
    for value in sorted(set(counts) - known):
        there = np.argwhere(values(where[value]) == value)
        if not len(there):
            raise VitralError(
                f"{drafts[where[value]].where}: has no pixel of value {value}, which the index of its shards counts; make the index again"
            )
        y, x = there[0].tolist()
        drafted.faults.append(Fault("value", drafts[where[value]].where, f"value {value} at x {x}, y {y}"))
    total = max(1, sum(counts.values()))
    rows = [f"{value} {_called(drafted.classes, value)} {counts[value] / total:.1%}" for value in sorted(counts)]
    drafted.understood.append(f"values of the maps: {some(rows, 24)}")
    drafted.keep(kept)


def _called(classes: ClassTable, value: int) -> str:
    return (
        "void"
        if value in classes.void
        else classes.names[classes.by_id[value]]
        if value in classes.by_id
        else "(no class)"
    )


def _split_lists(tree: Tree) -> dict[str, str]:
    """Stem -> split, by VOC's ImageSets/Segmentation."""
    lists = {
        name: split
        for name in tree.files(".txt")
        if "ImageSets/Segmentation/" in name and (split := split_in(posixpath.splitext(posixpath.basename(name))[0]))
    }
    return stems(tree, lists)


def _table(drafted: Drafted, tables: Path, values: list[int]) -> ClassTable:
    maps = [draft.where for draft in drafted.drafts]
    listed = next((name for name in NAMES if (tables / name).is_file()), None)
    if listed is not None:
        return _of_json(tables) if listed == TABLE else _of_list(drafted, tables / listed, values)
    plain = set(values) - {VOID}
    void = frozenset({VOID})
    if all(name.endswith("_labelTrainIds.png") for name in maps) and plain <= set(range(19)):
        drafted.understood.append("Cityscapes' 19 classes, by labelTrainIds")
        return ClassTable(tuple(range(19)), TRAIN_IDS, void=void)
    if all(re.search(r"_gt(Fine|Coarse)_labelIds\.png$", name) for name in maps):
        drafted.understood.append("Cityscapes' 19 classes, by labelIds; its other values are void")
        return ClassTable(LABEL_IDS, TRAIN_IDS, void=frozenset(range(256)) - set(LABEL_IDS))
    if set(values) in ({0, 255}, {0, 1}):
        thing = max(values)
        drafted.understood.append(f"two values: 0 is taken as background, {thing} as foreground")
        return ClassTable((0, thing), ("background", "foreground"))
    if "SegmentationClass" in maps[0] and plain <= set(range(21)):
        drafted.understood.append("VOC's 20 classes and background, by the folder SegmentationClass; 255 is void")
        return ClassTable(tuple(range(21)), ("background", *VOC_CLASSES), void=void)
    drafted.understood.append(
        "nothing names the classes: each value is one, called by its number, and 255 is void; add classes.txt or classes.json"
    )
    return _checked({value: str(value) for value in plain}, {VOID}, "maps")


def colours_in(root: Path) -> tuple[tuple[int, int], ...]:
    """Of the colours that classes.json names each one's code and its value: 0, 1, ... in their order there, those of void last."""
    path = root / TABLE
    told = read_json(path, TABLE) if path.is_file() else {}
    if not isinstance(told, dict):
        return ()
    classes, void = told.get("classes", told), told.get("void", ())
    keys = [*(classes if isinstance(classes, dict) else ()), *(void if isinstance(void, list) else [void])]
    codes = dict.fromkeys(code for key in keys if (code := _code(key)) is not None)
    return tuple((code, value) for value, code in enumerate(codes))


def _code(key: object) -> int | None:
    """R + 256 G + 65536 B of #rrggbb; None for anything else."""
    if not (isinstance(key, str) and re.fullmatch("#[0-9a-fA-F]{6}", key)):
        return None
    return int.from_bytes(bytes.fromhex(key[1:]), "little")


def _of_json(root: Path) -> ClassTable:
    """{"classes": {value: name}, "void": [value]}, or {value: name}, or [name, ...]; a value may be a colour."""
    told = read_json(root / TABLE, TABLE)
    void, colours = {VOID}, dict(colours_in(root))

    def value_of(key: object) -> int | None:
        code = _code(key)
        return whole(key) if code is None else colours.get(code)

    if isinstance(told, dict) and "classes" in told:
        listed = told.get("void", [VOID])
        void = {
            value
            for each in (listed if isinstance(listed, list) else [listed])
            if (value := value_of(each)) is not None
        }
        told = told["classes"]
    if isinstance(told, list):
        told = dict(enumerate(told))
    if not isinstance(told, dict) or not all(isinstance(label, str) for label in told.values()):
        raise VitralError(f'{TABLE}: write {{"classes": {{"0": "sky", "1": "road"}}, "void": [255]}}')
    named = {value_of(key): label for key, label in told.items()}
    return _checked(
        {key: label for key, label in named.items() if key is not None}, void, TABLE, whole_keys=None not in named
    )


def _checked(named: dict[int, str], void: set[int], name: str, *, whole_keys: bool = True) -> ClassTable:
    labels = list(named.values())
    if not whole_keys or any(not 0 <= key <= 65535 for key in [*named, *void]):
        raise VitralError(f"{name}: values of a map are whole numbers, 0 to 65535; correct the others")
    if double := sorted({label for label in labels if labels.count(label) > 1}):
        raise VitralError(f"{name}: names {some(double)} twice; a class has one value")
    ids = tuple(sorted(named))
    return ClassTable(ids, tuple(named[key] for key in ids), void=frozenset(void - set(ids)))


def _of_list(drafted: Drafted, path: Path, values: list[int]) -> ClassTable:
    """A name a line: of value 0, 1, ...; of 1, 2, ... where these fit and 0 is left over (ADE20K); labelme's __ignore__ is void."""
    name = path.name
    names = [line.strip() for line in read_text(path, name).splitlines() if line.strip()]
    if names[:1] == ["__ignore__"]:
        names = names[1:]
    highest = max((value for value in values if value != VOID), default=0)
    void = {VOID}
    first = 0
    if highest == len(names) and 0 in values:
        first, void = 1, {0, VOID}
        drafted.understood.append(
            f"{name} names {counted(len(names), 'class', 'classes')}, and values go to {highest}: the names are of 1 to {highest}, 0 is void"
        )
    return _checked({first + k: label for k, label in enumerate(names)}, void, name)


def write(data: AnnotatedData, out: Path) -> None:
    """images/SPLIT/NAME, masks/SPLIT/NAME.png and classes.json."""
    writing = Writing(data, out)
    for split, rows in writing.splits():
        for i in rows:
            writing.copy(i, f"images/{split}" if split else "images")
            save_map(out / "masks" / (split or "") / f"{writing.stem(i)}.png", values_of(data, i))
    write_table(data, out)


def write_table(data: AnnotatedData, out: Path) -> None:
    """classes.json in a folder."""
    classes = {str(value): label for value, label in zip(data.classes.ids, data.classes.names, strict=True)}
    dump_json(out / TABLE, {"classes": classes, "void": sorted(data.classes.void)})
