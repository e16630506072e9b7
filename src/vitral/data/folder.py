"""Folders as a data set: a folder for each class, in DATA, in each of its split folders, or the other way round (DATA/cat/train); each to any depth.

The layout is read from the names and reported; where two readings are possible, an error names the flag for either.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vitral.data.images import FileImages
from vitral.data.listing import Listing, build_listing
from vitral.data.options import DataOptions
from vitral.data.problem import Problem
from vitral.data.splits import split_of
from vitral.data.walk import CLAIMED, RUN_MARKS, Walk, compressed_tars, is_run
from vitral.errors import VitralError, counted, some

UNLABELLED = "unlabelled"
PLAIN = ("train", "val", "valid", "validation", "test")
"""Names of split folders that need no message."""
_TABLES_SHOWN = 3


@dataclass
class _Found:
    """Collects the images of a folder's classes."""

    names: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    given: list[str] = field(default_factory=list)
    """Empty where there are no splits."""
    problems: list[Problem] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    stray: list[str] = field(default_factory=list)
    """Files beside the class folders that are no images, for messages."""


def list_folder(
    root: Path, options: DataOptions, *, training: bool = True, labelled: bool = True, walk: Walk | None = None
) -> Listing:
    """The images under a folder, and the faults of its layout. Raises VitralError if there is no image.

    Hidden files, those that operating systems leave behind, folders that hold a run, and texts and other companions of pictures are skipped; any
    other file in a class folder counts as an image. training: whether there must be two classes or more, each with training images. labelled: False
    if images need no class; then, if some lie in the folder itself, all images at any depth are listed without a class. walk: a fresh one of this
    folder, if there is one already.
    """
    root = Path(os.path.abspath(root))
    check_no_run(root)
    walk = walk or Walk(root)
    folders, loose = walk.entries(root)
    if not labelled and (walk.images(loose) or not folders):
        return list_flat(walk, skipping=options.skip_unreadable)
    if not folders and not walk.images(loose):
        raise VitralError(f"{root}: {_nothing(walk, loose)}")
    found = _Found()
    _loose("", walk, loose, found)
    splits = _split_folders(walk, folders)
    if splits:
        _check_splits([folder.name for folder in folders], splits, found)
        for folder in (folder for folder in folders if folder.name in splits):
            _one_split(walk, folder, splits[folder.name], options, labelled, found)
    else:
        _classes_or_splits(walk, folders, options, labelled, found)
    problems, notes = closed_folders(walk, options.skip_unreadable)
    images = FileImages(root, found.names)
    listing = build_listing(
        root.name, images, found.labels, found.given or None,
        task=options.task, training=training, problems=[*found.problems, *problems],
    )  # fmt: skip
    listing.ignored = list(dict.fromkeys([*found.stray, *walk.others, *walk.runs]))
    listing.understood = [*found.said, *walk.left_out(), *notes]
    return listing


def list_flat(walk: Walk, *, skipping: bool = False) -> Listing:
    """All images under a folder, to any depth, without labels; those of unknown kinds count too."""
    found = sorted(map(walk.named, walk.under(walk.root)))
    if not found:
        raise VitralError(f"{walk.root}: {_nothing(walk, walk.entries(walk.root)[1])}")
    (problems, notes), n = closed_folders(walk, skipping), len(found)
    listing = build_listing(
        walk.root.name, FileImages(walk.root, found), [UNLABELLED] * n, ["train"] * n,
        training=False, problems=problems,
    )  # fmt: skip
    listing.ignored = [*walk.others, *walk.runs]
    listing.understood = [*walk.left_out(), *notes]
    return listing


def check_no_run(root: Path) -> None:
    """Raise VitralError if the folder given as data is a run."""
    if is_run(root):
        mark = next((mark for mark in RUN_MARKS if (root / mark).is_file()), CLAIMED)
        raise VitralError(
            f"{root}: holds a run of vitral ({mark}), not data; give the folder or table with the images"
            + ("" if mark == CLAIMED else f", which {mark} names")
        )


def closed_folders(walk: Walk, skipping: bool) -> tuple[list[Problem], list[str]]:
    """Folders that cannot be read: a problem, or a note if unreadable files are skipped."""
    if not walk.closed:
        return [], []
    which = f"{counted(len(walk.closed), 'folder')}{' that' if skipping else ''} cannot be read: {some(walk.closed, 3 if skipping else 10)}"
    if skipping:
        return [], [f"left out {which}"]
    text = f"{which}; make them readable (chmod -R u+rX), move them away, or leave them out with --skip-unreadable"
    return [Problem("closed_folders", text, tuple(walk.closed))], []


def _nothing(walk: Walk, loose: Sequence[Path]) -> str:
    """The message for a folder without any image."""
    if walk.closed:
        return "the folder cannot be read; make it readable (chmod u+rx)"
    there = [path.name for path in loose] + [f"{name}/" for name in walk.runs]
    if not there:
        return "the folder is empty; put one folder of images for each class into it"
    if (said := compressed_tars(there)) is not None:
        return f"there is no image in the folder, only {some(there)}; {said}"
    return f"there is no image in the folder, only {some(there)}; give the folder of class folders, or a table itself"


def _loose(where: str, walk: Walk, files: list[Path], found: _Found) -> None:
    """Files outside any class folder: images are a mistake, other files are noted."""
    images = walk.images(files)
    outside = set(images)
    found.stray += [walk.named(path) for path in files if path not in outside]
    if not images:
        return
    lie = "lies" if len(images) == 1 else "lie"
    text = (
        f"{where}{counted(len(images), 'image')} {lie} outside of any class folder ({some([path.name for path in images])}); "
        f"move each into the folder of its class, or give a table with image and label columns{_near(walk, images[0].parent)}"
    )
    found.problems.append(Problem("loose_images", text, tuple(map(walk.named, images))))


def _near(walk: Walk, folder: Path) -> str:
    """A hint at tables nearby, one of which may hold the labels of a folder's loose images."""
    kinds = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
    places = dict.fromkeys([walk.root, folder, walk.root.parent])
    tables = [path for place in places for path in _files_of(place) if path.suffix.lower() in kinds]
    if not tables:
        return ""
    shown = [os.path.relpath(path) for path in tables[:_TABLES_SHOWN]]
    return f", perhaps {' or '.join(shown)} with --images {os.path.relpath(folder)}"


def _files_of(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as scanned:
            return sorted(Path(entry.path) for entry in scanned if entry.is_file())
    except OSError:
        return []


def _split_folders(walk: Walk, folders: list[Path]) -> dict[str, str]:
    """Which folders are splits, by their names. A folder with a split's name but without folders in it, among other classes, is a class."""
    splits = {folder.name: split for folder in folders if (split := split_of(folder.name))}
    flat = all(not walk.entries(folder)[0] for folder in folders if folder.name in splits)
    if splits and len(splits) < len(folders) and len(set(splits.values())) == 1 and flat:
        return {}
    return splits


def _check_splits(folders: list[str], splits: dict[str, str], found: _Found) -> None:
    others = [name for name in folders if name not in splits]
    if others:
        text = (
            f"has folders for splits ({', '.join(splits)}) beside others ({some(others)}); "
            "put every class into the split folders, or rename the class that is called like a split"
        )
        found.problems.append(Problem("split_folders", text, tuple(others)))
    if len(set(splits.values())) < len(splits):
        text = f"two folders are for one split ({', '.join(splits)}); merge them"
        found.problems.append(Problem("split_folders", text, tuple(splits)))
    if any(name.casefold() not in PLAIN for name in splits):
        found.said.append("split folders: " + ", ".join(f"{name}/ is {split}" for name, split in splits.items()))


def _one_split(walk: Walk, folder: Path, split: str, options: DataOptions, labelled: bool, found: _Found) -> None:
    classes, loose = walk.entries(folder)
    _loose(f"in {folder.name}/ ", walk, loose, found)
    if not classes and not walk.images(loose):
        packed = compressed_tars([path.name for path in loose])
        why = packed or "the split's folder is empty; put class folders into it or remove it"
        text = f"{folder.name}/: {why}"
        found.problems.append(Problem("split_folders", text, (folder.name,)))
    _collect(walk, _at_depth(walk, classes, options, labelled, found), found)
    found.given += [split] * (len(found.names) - len(found.given))


def _classes_or_splits(walk: Walk, folders: list[Path], options: DataOptions, labelled: bool, found: _Found) -> None:
    """Class folders, perhaps with the splits inside them: DATA/cat/train and so on."""
    inner = {folder: _split_folders(walk, walk.entries(folder)[0]) for folder in folders}
    divided = [folder for folder in folders if inner[folder] and not walk.images(walk.entries(folder)[1])]
    whole = [f for f in divided if len(inner[f]) == len(walk.entries(f)[0])]
    if options.class_depth is None and whole and (len(whole) == len(folders) or any(len(inner[f]) > 1 for f in whole)):
        undivided = [folder.name for folder in folders if folder not in whole]
        if undivided:
            text = (
                f"class folders that hold folders for splits ({some([f.name for f in whole])}) beside others that do not "
                f"({some(undivided)}); divide all of them or none, or say --class-depth 1 to have splits made"
            )
            found.problems.append(Problem("split_folders", text, tuple(undivided)))
        spelled = sorted({name for folder in whole for name in inner[folder]})
        found.said.append(
            f"each class folder holds its splits: {', '.join(f'{name}/ is {split_of(name)}' for name in spelled)}"
        )
        for folder in folders:
            places = (
                [(path, inner[folder][path.name]) for path in walk.entries(folder)[0]]
                if folder in whole
                else [(folder, "train")]
            )
            for place, split in places:
                _collect(walk, [place], found, label=folder.name)
                found.given += [split] * (len(found.names) - len(found.given))
        return
    _collect(walk, _at_depth(walk, folders, options, labelled, found), found)


def _at_depth(walk: Walk, classes: list[Path], options: DataOptions, labelled: bool, found: _Found) -> list[Path]:
    """The class folders: these, or those `class_depth` levels down; if all of them hold the same folders, an error asks which."""
    if options.class_depth is None:
        if labelled:
            _ask(walk, classes, found)
        return classes
    for _ in range(options.class_depth - 1):
        below = []
        for folder in classes:
            folders, loose = walk.entries(folder)
            _loose(f"in {walk.named(folder)}/ ", walk, loose, found)
            below += folders
        classes = below
    if not classes:
        text = f"there are no folders at depth {options.class_depth}; give a smaller --class-depth"
        found.problems.append(Problem("nested_classes", text))
    return classes


def _ask(walk: Walk, classes: list[Path], found: _Found) -> None:
    """Folders that all hold the same folders, and no images beside these, may be classes or hold them (colour/cat, grey/cat)."""
    if len(classes) < 2:
        return
    inner = []
    for folder in classes:
        folders, loose = walk.entries(folder)
        if len(folders) < 2 or walk.images(loose):
            return
        inner.append({each.name for each in folders})
    shared, every = set.intersection(*inner), set.union(*inner)
    if len(shared) < 2 or 2 * len(shared) < len(every):
        return
    outer = [folder.name for folder in classes]
    text = (
        f"the folders {some(outer)} all hold the same folders ({some(sorted(shared))}), so either can be the classes: say --class-depth 1 if the "
        f"classes are {some(outer, 3)}, --class-depth 2 if they are {some(sorted(shared), 3)}, or give one of the folders alone "
        f"({os.path.relpath(classes[0])}); if they are splits, rename them to train, val and test"
    )
    found.problems.append(Problem("nested_classes", text, tuple(map(walk.named, classes))))


def _collect(walk: Walk, classes: list[Path], found: _Found, label: str | None = None) -> None:
    """Append the images of class folders, named relative to the root, and what is wrong with them. label: the class, if it is not the folder."""
    empty = []
    for folder in classes:
        images = sorted(map(walk.named, walk.under(folder)))
        inside = f"{walk.named(folder)}/"
        if not images and not any(place.startswith(inside) for place in walk.runs) and inside[:-1] not in walk.closed:
            empty.append(inside[:-1])
        found.names += images
        found.labels += [label or folder.name] * len(images)
    if empty:
        text = f"class folders without any image: {', '.join(empty)}; add images or remove the folders"
        found.problems.append(Problem("empty_classes", text, tuple(empty)))
