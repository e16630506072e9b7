"""Folders as a data set: DATA/<class>/... or DATA/{train,val,test}/<class>/..., each class to any depth."""

import os
from collections.abc import Iterator
from pathlib import Path

from vitral.data.decode import EXTENSIONS
from vitral.data.images import FileImages
from vitral.data.listing import SPLIT_NAMES, Listing, Problem, build_listing
from vitral.errors import VitralError, counted, some

JUNK = frozenset({"thumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "icon\r"})  # and all that starts with a dot


UNLABELLED = "unlabelled"


def list_folder(root: Path, *, training: bool = True, labelled: bool = True, strict: bool = True) -> Listing:
    """The images under a folder; one VitralError with all that is wrong if its layout is none of the two.

    Hidden files and those that operating systems leave behind do not count, nor do files beside the class
    folders that are no images by their extension (a README). Whatever lies in a class folder counts as an
    image. training: whether there must be two classes and images of each to train on. labelled: False if images
    need no class; where some lie in the folder itself, all of them, to any depth, are then of one class. strict: False
    to list what there is, and the problems in the listing, instead of raising them.
    """
    root = Path(os.path.abspath(root))
    folders, loose = _entries(root)
    if not labelled and any(path.suffix.lower() in EXTENSIONS for path in loose):
        found = [p.relative_to(root).as_posix() for p in files_under(root) if p.suffix.lower() in EXTENSIONS]
        n = len(found)
        return build_listing(
            root.name, str(root), FileImages(root, found), [UNLABELLED] * n, ["train"] * n, training=False
        )
    splits = {
        folder.name: SPLIT_NAMES[folder.name.casefold()] for folder in folders if folder.name.casefold() in SPLIT_NAMES
    }
    problems = _loose_images("", root, loose)
    ignored = _ignored(root, loose)
    if not folders and not problems:
        raise VitralError(f"{root}: the folder is empty; put one folder of images for each class into it")
    names: list[str] = []
    labels: list[str] = []
    given: list[str] | None = None
    if splits:
        problems += _split_problems([folder.name for folder in folders], splits)
        given = []
        for folder in (folder for folder in folders if folder.name in splits):
            classes, loose = _entries(folder)
            problems += _loose_images(f"in {folder.name}/ ", root, loose)
            ignored += _ignored(root, loose)
            if not classes:
                text = f"{folder.name}/: the split's folder is empty; put class folders into it or remove it"
                problems.append(Problem("split_folders", text, (folder.name,)))
            problems += _collect(root, classes, names, labels)
            given += [splits[folder.name]] * (len(names) - len(given))
    else:
        problems += _collect(root, folders, names, labels)
    images = FileImages(root, names)
    listing = build_listing(
        root.name, str(root), images, labels, given, training=training, problems=problems, strict=strict
    )
    listing.ignored = ignored
    return listing


def files_under(folder: Path) -> list[Path]:
    """Every file that counts under a folder, to any depth, by name."""
    return sorted(_files(folder, ()))


def _collect(root: Path, classes: list[Path], names: list[str], labels: list[str]) -> list[Problem]:
    """Append the images of class folders, named relative to the root; what is wrong with them."""
    empty = []
    for folder in classes:
        found = sorted(path.relative_to(root).as_posix() for path in _files(folder, ()))
        if not found:
            empty.append(folder.relative_to(root).as_posix())
        names += found
        labels += [folder.name] * len(found)
    text = f"class folders without any image: {', '.join(empty)}; add images or remove the folders"
    return [Problem("empty_classes", text, tuple(empty))] if empty else []


def _ignored(root: Path, files: list[Path]) -> list[str]:
    return [path.relative_to(root).as_posix() for path in files if path.suffix.lower() not in EXTENSIONS]


def _loose_images(where: str, root: Path, files: list[Path]) -> list[Problem]:
    images = [path for path in files if path.suffix.lower() in EXTENSIONS]
    if not images:
        return []
    lie = "lies" if len(images) == 1 else "lie"
    text = (
        f"{where}{counted(len(images), 'image')} {lie} outside of any class folder ({some([path.name for path in images])}); "
        "move each into the folder of its class, or give a table with image and label columns"
    )
    return [Problem("loose_images", text, tuple(path.relative_to(root).as_posix() for path in images))]


def _split_problems(folders: list[str], splits: dict[str, str]) -> list[Problem]:
    problems = []
    others = [name for name in folders if name not in splits]
    if others:
        text = (
            f"has folders for splits ({', '.join(splits)}) beside others ({', '.join(others)}); "
            "put every class into the split folders, or rename the class that is called like a split"
        )
        problems.append(Problem("split_folders", text, tuple(others)))
    if len(set(splits.values())) < len(splits):
        text = f"two folders are for one split ({', '.join(splits)}); merge them"
        problems.append(Problem("split_folders", text, tuple(splits)))
    return problems


def _files(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """All files under a folder, links followed, except into a folder that we are in already (a loop)."""
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    folders, files = _entries(folder)
    yield from files
    for inner in folders:
        yield from _files(inner, (*above, here))


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders and the files in a folder, sorted; broken links are files, which fail later, by name."""
    try:
        entries = sorted(os.listdir(folder))
    except OSError as error:
        raise VitralError(f"{folder}: the folder cannot be read ({error.strerror}); make it readable") from error
    paths = [folder / name for name in entries if not name.startswith(".") and name.casefold() not in JUNK]
    folders = [path for path in paths if path.is_dir()]
    return folders, [path for path in paths if path not in set(folders)]
