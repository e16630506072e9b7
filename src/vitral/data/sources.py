"""A folder, a table or a built-in name becomes a `DataSet` of labelled, checked images.

Every image is checked first: its content is hashed and decoded to the end, so that training never meets an unreadable file, no image is in two
splits that vitral makes, and the fingerprint identifies the data. The result is cached until the file changes (`vitral.data.cache`).
"""

import csv
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from vitral.data import many
from vitral.data.bands import count_channels
from vitral.data.builtin import BUILTIN
from vitral.data.dense import list_annotated
from vitral.data.divide import Held, compares, divide, fingerprint
from vitral.data.folder import UNLABELLED, list_folder
from vitral.data.formats.files import Tree
from vitral.data.formats.shards import open_index, recognised
from vitral.data.given import look_at
from vitral.data.hub import list_hub
from vitral.data.images import Images, PagedImages
from vitral.data.listing import Listing
from vitral.data.moments import moments
from vitral.data.options import DataOptions
from vitral.data.progress import OnProgress
from vitral.data.remarks import notes, of_values, problems
from vitral.data.rows import TABLES
from vitral.data.scan import Scan, UnreadableError, in_threads, scan
from vitral.data.shards import Index
from vitral.data.splits import SPLITS
from vitral.data.table import list_table
from vitral.data.targets import Targets
from vitral.data.values import reading
from vitral.data.walk import compressed_tars
from vitral.errors import VitralError, all_of

_DEFAULTS = DataOptions()

READ_ANYWAY = 5_000
"""Up to so many images are all read even if their layout or labels are wrong, so that one error names all that is wrong."""


@dataclass
class Split:
    """The images of one split, in a stable order. Can be pickled for another process."""

    name: str
    """train, val or test."""
    names: Sequence[str]
    """The name of image i in messages: its path relative to the data, or for example fashion-mnist/train/17."""
    targets: Targets
    """Label indices refer to the data set's labels."""
    images: Images
    """The images of all splits."""
    rows: np.ndarray
    """int64 [n]: image i of this split is image rows[i] of `images`."""
    contents: np.ndarray
    """uint64 [n]: the first eight bytes of each image's content hash; copies have the same."""

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, i: int, channels: int | None = None, hint: int | None = None) -> Tensor:
        """Image i as [C, h, w], 0..255, read-only; channels, hint as in `decode`. Raises VitralError if its file is gone or has changed."""
        return self.images.read(int(self.rows[i]), channels, hint)

    def path(self, i: int) -> Path | None:
        """The file of image i; None if it has no file of its own."""
        return self.images.path(int(self.rows[i]))

    def take(self, chosen: np.ndarray) -> "Split":
        """The images at these positions, int64 [m], in this order."""
        names = [self.names[i] for i in chosen.tolist()]
        return Split(self.name, names, self.targets.take(chosen), self.images, self.rows[chosen], self.contents[chosen])

    def thinned(self, most: int) -> "Split":
        """Up to `most` images, evenly spread over the split, which may be sorted by class."""
        return self.take(spread(len(self), most))


def spread(count: int, most: int) -> np.ndarray:
    """int64 [m]: up to `most` of the positions 0..count - 1, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(np.int64))


@dataclass
class DataSet:
    """Labelled images in splits; each has been decoded to its end."""

    name: str
    labels: list[str]
    """Class names; targets are indices into this list."""
    splits: dict[str, Split]
    """train where training was asked for; val and test where given or made."""
    channels: int
    """Of the model's input: 1 grey, 3 RGB, or the number of bands."""
    bit_depth: int
    """8, or 16 if any image holds 16 bits a channel."""
    height: int
    width: int
    """Median size of the training images in pixels."""
    fingerprint: str
    """sha256 (hex) of the sorted (content, label, split) triples, independent of file names and folders."""
    aspects: tuple[float, ...] = (1.0,)
    """Width over height of the training images at the quantiles 0, 0.05, ..., 1."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """(name, reason) of the unreadable images that were left out."""
    given: frozenset[str] = frozenset()
    """Splits that the data name; the others were made from content hashes."""
    notes: list[str] = field(default_factory=list)
    """Facts worth telling the user that are no errors."""

    @property
    def task(self) -> str:
        """A key of `TARGETS`, such as classify (one class an image) or multilabel (several labels, or none)."""
        return next(iter(self.splits.values())).targets.task

    @cached_property
    def moments(self) -> tuple[Tensor, Tensor, int]:
        """Mean and deviation of the training images' pixels, as `vitral.data.moments.moments` gives them; computed once."""
        return moments(self.splits["train"], self.channels)


def open_data(
    data: str | Path,
    options: DataOptions = _DEFAULTS,
    *,
    training: bool = True,
    labelled: bool = True,
    least_side: Callable[[int, int], int] | None = None,
    progress: OnProgress | None = None,
    strict: bool = True,
    held: Held | None = None,
) -> DataSet:
    """Find, read, check and divide a data set.

    data: a folder of class folders, or of train, val and test folders of class folders; a CSV, TSV or Parquet file; annotated data as
    `vitral.data.formats` reads them; or a built-in name (digits, fashion-mnist, elpv). training: whether there must be two classes or more, each
    with training images. labelled: False if images need no class, as in pre-training; then a folder without class folders is accepted. least_side:
    from the images' median height and width to the least pixels a side must have (one patch). progress: called now and then with (images checked,
    all images). strict: False to look only: images that cannot be read or are too small go to `skipped`, and only data without any image are an
    error. held: the splits of an earlier run, kept if the data are the same.

    Raises:
        VitralError: one error with all that is wrong with layout, labels and images; without reading the images where there are none, or more
            than `READ_ANYWAY` and the layout or labels are wrong already.
        UnreadableError: a VitralError that lists every image that cannot be read.
    """
    if recognised(str(data)):
        index = open_index(str(data), options.room, progress, options.label_column)
        if len(index.rows) > many.MANY:
            return _of_many(str(data), index, options, labelled=labelled, least_side=least_side)
    listing = list_data(data, options, training=training, labelled=labelled, progress=progress)
    if training and options.fold is not None:
        _can_be_folded(data, listing)
    if listing.labels == [UNLABELLED]:
        options = replace(options, val_fraction=0.0, test_fraction=0.0)
    wrong = [problem.text for problem in listing.problems] if strict else []
    count = len(listing.images.names)
    if wrong and (not count or count > READ_ANYWAY):
        unread = [f"none of the {count:,} images was read: what they hold can be wrong, too"] if count else []
        raise VitralError(all_of(str(data), [*wrong, *unread]))
    scanned = scan(listing.images, progress, small=not wrong and compares(listing, options))
    scanned = replace(scanned, unreadable=[*listing.skipped, *scanned.unreadable])
    if strict:
        named = {name for problem in listing.problems for name in problem.names}
        scanned = replace(scanned, unreadable=[one for one in scanned.unreadable if one[0] not in named])
    else:
        scanned = _usable(listing, scanned, least_side)
        if not scanned.rows:
            raise VitralError(f"{data}: holds no image that can be used; restore them")
    groups = [listing.key(i) for i in scanned.rows]
    splits, division = divide(listing, scanned, groups, options, held, progress)
    train = [info for info, split in zip(scanned.infos, splits, strict=True) if split == "train"] or scanned.infos
    height, width = (int(np.median([getattr(info, side) for info in train] or [1])) for side in ("height", "width"))
    least = None if least_side is None else least_side(height, width)
    skipping = options.skip_unreadable
    channels, differ = count_channels(scanned.infos, [listing.images.names[i] for i in scanned.rows], options.channels)
    wrong += problems(listing, scanned, skipping=skipping, training=training, least_side=least)
    if strict and (wrong := [*wrong, *filter(None, [differ])]):
        message = all_of(str(data), wrong)
        raise (
            VitralError(message) if skipping or not scanned.unreadable else UnreadableError(message, scanned.unreadable)
        )
    return DataSet(
        name=listing.name,
        labels=listing.labels,
        splits=_build_splits(listing, scanned, splits, options.train_fraction),
        channels=channels,
        bit_depth=max(info.bit_depth for info in scanned.infos),
        height=height,
        width=width,
        fingerprint=fingerprint(scanned.digests, groups, splits),
        aspects=tuple(np.quantile([info.width / info.height for info in train], np.linspace(0, 1, 21)).tolist()),
        skipped=scanned.unreadable,
        given=frozenset(listing.given or ()),
        notes=[*notes(listing, scanned, splits), *division, *of_values(scanned.infos, options.value_range)],
    )


def _can_be_folded(data: str | Path, listing: Listing) -> None:
    """VitralError where the data themselves have a test split."""
    if "test" in (listing.given or ()):
        raise VitralError(
            f"{data}: the data name their own test split, so folds cannot be made; leave out --folds, or give data without a test split "
            "(for a table: --split-column none)"
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


def list_data(
    data: str | Path,
    options: DataOptions,
    *,
    training: bool = True,
    labelled: bool = True,
    progress: OnProgress | None = None,
) -> Listing:
    """The images of `open_data` and their labels, before any image is opened. What training stops for is in its `problems`.

    Files are opened of annotated data alone, and with `options.page` "all", to count their pages. progress: as in `open_data`. Raises VitralError
    if nothing can be listed.
    """
    return _read_as(_listed(data, options, training, labelled, progress), options)


def _read_as(listing: Listing, options: DataOptions) -> Listing:
    """The listing with the value range and page to read, and with an entry for each page if all pages were asked for."""
    listing.images.reading = reading(options.value_range, options.page)
    if options.page != "all":
        return listing

    def count(i: int) -> int:
        try:
            return listing.images.pages(i)
        except VitralError:
            return 1  # reading it raises the error

    counts = in_threads(count, len(listing.images.names), None)
    files = np.repeat(np.arange(len(counts)), counts)
    pages = np.concatenate([np.arange(n) for n in counts]) if counts else files
    return replace(
        listing,
        images=PagedImages(listing.images, files, pages),
        targets=listing.targets.take(files),
        given=None if listing.given is None else [listing.given[i] for i in files.tolist()],
        strata=None if listing.strata is None else [listing.strata[i] for i in files.tolist()],
    )


def _listed(
    data: str | Path, options: DataOptions, training: bool, labelled: bool, progress: OnProgress | None
) -> Listing:
    path, built_in = Path(data), data in BUILTIN
    look_at(data)
    if not built_in and recognised(str(data)):
        if labelled:
            annotated = list_annotated(str(data), None, options, training=training, labelled=True, progress=progress)
            if annotated is not None:
                return annotated
        return many.list_shards(str(data), options, training=training, labelled=labelled, progress=progress)
    folder = path.is_dir() and not built_in
    tree = Tree(Path(os.path.abspath(path))) if folder else None
    if not built_in:
        annotated = list_annotated(path, tree, options, training=training, labelled=labelled, progress=progress)
        if annotated is not None:
            return annotated
    if folder and (listing := list_hub(path, options, training=training and labelled, labelled=labelled)) is not None:
        return listing
    if options.label_separator is not None and (built_in or folder):
        raise VitralError(
            f"{data}: label_separator {options.label_separator!r} (several labels an image) needs a table; give a CSV, TSV or Parquet file"
        )
    if built_in:
        return BUILTIN[str(data)](options)
    if tree is not None:
        return list_folder(path, options, training=training and labelled, labelled=labelled, walk=tree.walk.again())
    if path.suffix.lower() in TABLES:
        return list_table(path, options, training=training, labelled=labelled)
    if (said := compressed_tars([path.name])) is not None:
        raise VitralError(f"{data}: {said}")
    raise VitralError(
        f"{data}: is neither a folder nor a table ({', '.join(TABLES)}); give a folder of class folders, or a table with image and label columns"
    )


SMALL = "smaller than one patch"
"""The reason for leaving out a small image begins with this."""


def _usable(listing: Listing, scanned: Scan, least_side: Callable[[int, int], int] | None) -> Scan:
    """The scan with images that are too small moved to `unreadable`."""
    sides = [(info.height, info.width) for info in scanned.infos]
    least = 1 if least_side is None or not sides else least_side(*(int(side) for side in np.median(sides, axis=0)))
    small = [
        (listing.images.names[row], f"{SMALL} ({height}x{width} pixels)")
        for row, (height, width) in zip(scanned.rows, sides, strict=True)
        if min(height, width) < least
    ]
    usable = scanned.take([k for k, side in enumerate(sides) if min(side) >= least])
    return replace(usable, unreadable=scanned.unreadable + small)


def _of_many(
    data: str, index: Index, options: DataOptions, *, labelled: bool, least_side: Callable[[int, int], int] | None
) -> DataSet:
    """The data set of an index of many images."""
    facts = many.Facts(data, index, options, labelled=labelled)
    many.check(data, facts, least_side)
    splits = {}
    for number, name in enumerate(SPLITS):
        rows = np.flatnonzero(facts.split == number)
        if name == "train" and options.train_fraction < 1:
            rows = rows[np.argsort(facts.contents[rows])[: share_of(len(rows), options.train_fraction)]]
        if len(rows):
            names = many.Chosen(facts.images.names, rows)
            splits[name] = Split(name, names, facts.targets.take(rows), facts.images, rows, facts.contents[rows])
    facts.images.reading = reading(options.value_range, options.page)
    return DataSet(
        Path(data).stem, facts.labels, splits, facts.channels, facts.bit_depth, facts.height, facts.width, facts.fingerprint,
        facts.aspects, index.skipped, facts.given, many.notes(index, facts),
    )  # fmt: skip


def _build_splits(listing: Listing, scanned: Scan, splits: Sequence[str], train_fraction: float) -> dict[str, Split]:
    images, targets, digests = listing.images, listing.targets.take(scanned.rows), scanned.digests
    contents = np.frombuffer(b"".join(digest[:8] for digest in digests), ">u8").astype(np.uint64)
    built = {}
    for split in SPLITS:
        inside = [k for k, name in enumerate(splits) if name == split]
        if split == "train" and train_fraction < 1:
            keys = [listing.key(scanned.rows[k]) for k in inside]
            inside = _share(inside, targets.take(inside).groups(keys), digests, train_fraction)
        if inside:
            of_images = np.array([scanned.rows[k] for k in inside], dtype=np.int64)
            names = [images.names[i] for i in of_images]
            built[split] = Split(split, names, targets.take(inside), images, of_images, contents[inside])
    return built


def _share(inside: Sequence[int], groups: Sequence[str], digests: Sequence[bytes], fraction: float) -> list[int]:
    """From each group the given share of its images, those with the smallest content hashes; at least one."""
    members = defaultdict(list)
    for k, group in zip(inside, groups, strict=True):
        members[group].append(k)
    return sorted(
        k
        for found in members.values()
        for k in sorted(found, key=lambda k: digests[k])[: share_of(len(found), fraction)]
    )


def share_of(members: int, fraction: float) -> int:
    """How many of a class's training images a train_fraction keeps."""
    return max(1, round(fraction * members))
