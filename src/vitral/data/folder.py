"""Folders as a data set: DATA/<class>/... or DATA/{train,val,test}/<class>/..., each class to any depth."""

import os
from collections.abc import Iterator
from pathlib import Path

from vitral.data.decode import EXTENSIONS
from vitral.data.images import FileImages
from vitral.data.listing import SPLIT_NAMES, Listing, build_listing
from vitral.errors import VitralError

JUNK = frozenset({"thumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "icon\r"})  # and all that starts with a dot


def list_folder(root: Path) -> Listing:
    """The images under a folder; VitralError if its layout is none of the two.

    Hidden files and those that operating systems leave behind do not count, nor do files beside the class
    folders that are no images by their extension (a README). Whatever lies in a class folder counts as an
    image.
    """
    root = Path(os.path.abspath(root))
    folders, loose = _entries(root)
    splits = {
        folder.name: SPLIT_NAMES[folder.name.casefold()] for folder in folders if folder.name.casefold() in SPLIT_NAMES
    }
    _check_loose(root, loose, "of its class")
    if not folders:
        raise VitralError(f"{root}: the folder is empty; put one folder of images for each class into it")
    names: list[str] = []
    labels: list[str] = []
    if not splits:
        _collect(root, folders, names, labels)
        return build_listing(root.name, str(root), FileImages(root, names), labels)

    _check_split_folders(root, [folder.name for folder in folders], splits)
    given: list[str] = []
    for folder in folders:
        classes, loose = _entries(folder)
        _check_loose(folder, loose, "of its class")
        if not classes:
            raise VitralError(f"{folder}: the split's folder is empty; put class folders into it or remove it")
        _collect(root, classes, names, labels)
        given += [splits[folder.name]] * (len(names) - len(given))
    return build_listing(root.name, str(root), FileImages(root, names), labels, given)


def _collect(root: Path, classes: list[Path], names: list[str], labels: list[str]) -> None:
    """Append the images of class folders, named relative to the root."""
    empty = []
    for folder in classes:
        found = sorted(path.relative_to(root).as_posix() for path in _files(folder, ()))
        if not found:
            empty.append(folder.relative_to(root).as_posix())
        names += found
        labels += [folder.name] * len(found)
    if empty:
        raise VitralError(
            f"{root}: class folders without any image: {', '.join(empty)}; add images or remove the folders"
        )


def _check_loose(folder: Path, files: list[Path], where: str) -> None:
    images = [path.name for path in files if path.suffix.lower() in EXTENSIONS]
    if images:
        raise VitralError(
            f"{folder}: {len(images)} images lie outside of any class folder ({', '.join(images[:3])}...); "
            f"move each into the folder {where}, or give a table with image and label columns"
        )


def _check_split_folders(root: Path, folders: list[str], splits: dict[str, str]) -> None:
    others = [name for name in folders if name not in splits]
    if others:
        raise VitralError(
            f"{root}: has folders for splits ({', '.join(splits)}) beside others ({', '.join(others)}); "
            "put every class into the split folders, or rename the class that is called like a split"
        )
    if len(set(splits.values())) < len(splits):
        raise VitralError(f"{root}: two folders are for one split ({', '.join(splits)}); merge them")


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
