"""The door to the data: a folder, a table or a built-in name becomes a `DataSet` of labelled, checked images.

Every image is read once before anything else happens: its content is hashed and decoded to the end, so that
training never meets an unreadable file, no image is in two splits that we make, and the fingerprint says what
the data were.
"""

import csv
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
from torch import Tensor

from vitral.data.builtin import BUILTIN
from vitral.data.folder import list_folder
from vitral.data.images import Images
from vitral.data.listing import Listing
from vitral.data.options import DataOptions
from vitral.data.scan import Progress, UnreadableError, scan
from vitral.data.splits import SPLITS, make_splits
from vitral.data.table import TABLES, list_table
from vitral.errors import VitralError

_SHOWN = 20  # contradictions in an error's text
_DEFAULTS = DataOptions()


@dataclass
class Split:
    """The images of one split, in a stable order. Can be sent to another process."""

    name: str
    """train, val or test."""
    names: Sequence[str]
    """What a person calls image i: its path relative to the data, or for example fashion-mnist/train/17."""
    targets: np.ndarray
    """int64 [n], positions in the data set's labels."""
    images: Images
    """Where the pixels are, for all splits together."""
    rows: np.ndarray
    """int64 [n]: image i of this split is image rows[i] of `images`."""

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, i: int, channels: int | None = None, hint: int | None = None) -> Tensor:
        """Image i as [C,h,w], 0..255, not to be written to. channels, hint: as in
        `vitral.data.decode.decode`.

        Raises VitralError if the file has vanished or changed since the scan.
        """
        return self.images.read(int(self.rows[i]), channels, hint)

    def path(self, i: int) -> Path | None:
        """The file of image i; None if it does not come from a file of its own."""
        return self.images.path(int(self.rows[i]))


@dataclass
class DataSet:
    """Labelled images, divided, every one of which has been read to its end."""

    name: str
    labels: list[str]
    """Class names; targets are positions in this list."""
    splits: dict[str, Split]
    """train always; val and test where given or made."""
    channels: int
    """1 or 3, what the model should see."""
    bit_depth: int
    """8, or 16 if any image holds 16 bits a channel."""
    height: int
    width: int
    """Median size of the training images in pixels."""
    smallest: tuple[str, int, int]
    """Name, height and width of the image with the shortest side."""
    fingerprint: str
    """sha256 (hex) of the sorted (content, label, split) triples, wherever and however the files lie."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """(name, reason) of the unreadable images that were left out."""
    given: frozenset[str] = frozenset()
    """Splits that the data themselves name; the others were made from content hashes."""
    notes: list[str] = field(default_factory=list)
    """What a person should know about the data but that is no error."""


def open_data(data: str | Path, options: DataOptions = _DEFAULTS, *, progress: Progress | None = None) -> DataSet:
    """Find, read, check and divide a data set.

    data: a folder of class folders, or of train, val and test folders of class folders; a CSV, TSV or Parquet
    file; or a built-in name (digits, fashion-mnist, elpv). progress: called with (images checked, images in
    all) now and then. Raises VitralError with all that is wrong; UnreadableError, a VitralError, lists every
    image that cannot be read.
    """
    listing = _list(data, options)
    total = len(listing.targets)
    checked, unreadable = scan(listing.images, progress)
    if unreadable and not options.skip_unreadable:
        raise UnreadableError(unreadable, total)
    rows = [i for i, result in enumerate(checked) if result is not None]
    results = [result for result in checked if result is not None]
    digests, infos = [digest for digest, _ in results], [info for _, info in results]
    targets = listing.targets[rows]
    if unreadable:
        _check_classes_left(listing, rows)
    _check_contradictions(listing, rows, digests)

    given = None if listing.given is None else [listing.given[i] for i in rows]
    groups = [listing.labels[target] for target in targets]
    splits = make_splits(
        digests,
        groups if listing.strata is None else [listing.strata[i] for i in rows],
        given,
        val_fraction=options.val_fraction,
        test_fraction=options.test_fraction,
        test_count=listing.test_count,
    )
    train = [info for info, split in zip(infos, splits, strict=True) if split == "train"]
    short = min(range(len(infos)), key=lambda i: min(infos[i].height, infos[i].width))
    return DataSet(
        name=listing.name,
        labels=listing.labels,
        splits=_build_splits(listing.images, rows, targets, splits),
        channels=options.channels or max(info.channels for info in infos),
        bit_depth=max(info.bit_depth for info in infos),
        height=int(np.median([info.height for info in train])),
        width=int(np.median([info.width for info in train])),
        smallest=(listing.images.names[rows[short]], infos[short].height, infos[short].width),
        fingerprint=_fingerprint(digests, groups, splits),
        skipped=unreadable,
        given=frozenset(listing.given or ()),
        notes=_notes(listing, digests, splits),
    )


def write_skipped(dataset: DataSet, path: str | Path) -> None:
    """Write the images that were left out, and why, as a CSV file with the columns name and reason."""
    try:
        with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(["name", "reason"])
            writer.writerows(dataset.skipped)
    except OSError as error:
        raise VitralError(f"{path}: cannot be written ({error.strerror}); choose a folder that can be") from error


def _list(data: str | Path, options: DataOptions) -> Listing:
    path = Path(data)
    if isinstance(data, str) and data in BUILTIN:
        return BUILTIN[data](options)
    if not path.exists():
        raise VitralError(
            f"{data}: there is no such folder or file, and it is no built-in data set "
            f"({', '.join(BUILTIN)}); check the path"
        )
    if path.is_dir():
        return list_folder(path)
    if path.suffix.lower() in TABLES:
        return list_table(path, options)
    raise VitralError(
        f"{data}: is neither a folder nor a table ({', '.join(TABLES)}); give a folder of class folders, "
        "or a table with image and label columns"
    )


def _check_classes_left(listing: Listing, rows: Sequence[int]) -> None:
    """Skipping must leave every class something to train on."""
    left = {int(listing.targets[i]) for i in rows if listing.given is None or listing.given[i] == "train"}
    empty = [label for target, label in enumerate(listing.labels) if target not in left]
    if empty:
        raise VitralError(
            f"{listing.name}: without the unreadable images nothing is left to train on of: "
            f"{', '.join(empty)}; restore these images or remove the class"
        )


def _check_contradictions(listing: Listing, rows: Sequence[int], digests: Sequence[bytes]) -> None:
    """The same content may not have two labels."""
    first: dict[bytes, int] = {}
    clashes = []
    for i, digest in zip(rows, digests, strict=True):
        j = first.setdefault(digest, i)
        if listing.targets[i] != listing.targets[j]:
            clashes.append((j, i))
    if clashes:
        names, targets, labels = listing.images.names, listing.targets, listing.labels
        lines = [
            f"  {names[j]} ({labels[targets[j]]}) = {names[i]} ({labels[targets[i]]})" for j, i in clashes[:_SHOWN]
        ]
        if len(clashes) > _SHOWN:
            lines.append(f"  ... and {len(clashes) - _SHOWN} more")
        raise VitralError(
            f"{listing.name}: {len(clashes)} images are copies of one with another label; remove the wrong "
            "one of each pair:\n" + "\n".join(lines)
        )


def _build_splits(images: Images, rows: Sequence[int], targets: np.ndarray, splits: Sequence[str]) -> dict[str, Split]:
    built = {}
    for split in SPLITS:
        inside = [k for k, name in enumerate(splits) if name == split]
        if inside:
            of_images = np.array([rows[k] for k in inside], dtype=np.int64)
            built[split] = Split(split, [images.names[i] for i in of_images], targets[inside], images, of_images)
    return built


def _fingerprint(digests: Sequence[bytes], labels: Sequence[str], splits: Sequence[str]) -> str:
    total = sha256()
    for digest, label, split in sorted(zip(digests, labels, splits, strict=True)):
        # lengths first, so that no two different lists of triples run together to the same bytes
        text = f"{split}/{label}".encode(errors="surrogateescape")
        total.update(digest + len(text).to_bytes(4, "little") + text)
    return total.hexdigest()


def _notes(listing: Listing, digests: Sequence[bytes], splits: Sequence[str]) -> list[str]:
    notes = []
    seen: dict[bytes, set[str]] = defaultdict(set)
    for digest, split in zip(digests, splits, strict=True):
        seen[digest].add(split)
    straddling = Counter(tuple(split for split in SPLITS if split in where) for where in seen.values())
    notes += [
        f"images in {' and '.join(where)} alike, as the data divide them: {count}; scores on {where[-1]} flatter"
        for where, count in straddling.items()
        if len(where) > 1
    ]
    copies = len(digests) - len(seen)
    if copies:
        notes.append(f"exact copies of other images: {copies}; copies share a split unless the data divide them")
    made = [split for split in SPLITS if split in splits and (listing.given is None or split not in listing.given)]
    if made and listing.given is not None:
        notes.append(f"the data give no {' or '.join(made)} split: made from train")
    absent = [split for split in SPLITS if split not in splits]
    if absent:
        notes.append(f"there is no {' or '.join(absent)} split")
    return notes
