"""A folder, a table or a built-in name becomes a `DataSet` of labelled, checked images.

Every image is checked first: its content is hashed and decoded to the end, so that training never meets an unreadable file, no image is in two
splits that vitral makes, and the fingerprint identifies the data. The result is cached until the file changes (`vitral.data.cache`).
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vitral.data import many
from vitral.data.bands import count_channels
from vitral.data.dataset import DataSet, Split
from vitral.data.divide import Held, compares, divide, fingerprint
from vitral.data.folder import UNLABELLED
from vitral.data.formats.shard_places import recognised
from vitral.data.formats.shards import open_index
from vitral.data.listers import list_data
from vitral.data.listing import Listing
from vitral.data.options import DataOptions
from vitral.data.progress import OnProgress
from vitral.data.remarks import notes, of_values, problems
from vitral.data.scan import Scan, UnreadableError, scan
from vitral.data.shards import Index
from vitral.data.splits import SPLITS
from vitral.data.values import reading
from vitral.errors import VitralError, all_of

_DEFAULTS = DataOptions()

READ_ANYWAY = 5_000
"""Up to so many images are all read even if their layout or labels are wrong, so that one error names all that is wrong."""


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
    scanned = _scan(data, listing, options, wrong, progress)
    scanned = _not_yet_named(listing, scanned) if strict else _usable(data, listing, scanned, least_side)
    groups = [listing.key(i) for i in scanned.rows]
    splits, division = divide(listing, scanned, groups, options, held, progress)
    train = [info for info, split in zip(scanned.infos, splits, strict=True) if split == "train"] or scanned.infos
    height, width = (int(np.median([getattr(info, side) for info in train] or [1])) for side in ("height", "width"))
    channels, differ = count_channels(scanned.infos, [listing.images.names[i] for i in scanned.rows], options.channels)
    if strict:
        skipping, least = options.skip_unreadable, None if least_side is None else least_side(height, width)
        wrong += problems(listing, scanned, skipping=skipping, training=training, least_side=least)
        _refuse(data, [*wrong, *filter(None, [differ])], [] if skipping else scanned.unreadable)
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


def _scan(
    data: str | Path, listing: Listing, options: DataOptions, wrong: Sequence[str], progress: OnProgress | None
) -> Scan:
    """Every image read and checked; wrong: what is known to be wrong already, for which many images are not read."""
    count = len(listing.images.names)
    if wrong and (not count or count > READ_ANYWAY):
        unread = [f"none of the {count:,} images was read: what they hold can be wrong, too"] if count else []
        raise VitralError(all_of(str(data), [*wrong, *unread]))
    scanned = scan(listing.images, progress, small=not wrong and compares(listing, options))
    return replace(scanned, unreadable=[*listing.skipped, *scanned.unreadable])


def _not_yet_named(listing: Listing, scanned: Scan) -> Scan:
    """The scan without the unreadable images that a problem of the listing names."""
    named = {name for problem in listing.problems for name in problem.names}
    return replace(scanned, unreadable=[one for one in scanned.unreadable if one[0] not in named])


def _can_be_folded(data: str | Path, listing: Listing) -> None:
    """VitralError where the data themselves have a test split."""
    if "test" in (listing.given or ()):
        raise VitralError(
            f"{data}: the data name their own test split, so folds cannot be made; leave out --folds, or give data without a test split "
            "(for a table: --split-column none)"
        )


def _refuse(data: str | Path, wrong: Sequence[str], unreadable: list[tuple[str, str]]) -> None:
    """The error of all that is wrong, if anything is; unreadable: the images for which it is an `UnreadableError`."""
    if wrong:
        message = all_of(str(data), wrong)
        raise UnreadableError(message, unreadable) if unreadable else VitralError(message)


SMALL = "smaller than one patch"
"""The reason for leaving out a small image begins with this."""


def _usable(data: str | Path, listing: Listing, scanned: Scan, least_side: Callable[[int, int], int] | None) -> Scan:
    """The scan with images that are too small moved to `unreadable`."""
    sides = [(info.height, info.width) for info in scanned.infos]
    least = 1 if least_side is None or not sides else least_side(*(int(side) for side in np.median(sides, axis=0)))
    small = [
        (listing.images.names[row], f"{SMALL} ({height}x{width} pixels)")
        for row, (height, width) in zip(scanned.rows, sides, strict=True)
        if min(height, width) < least
    ]
    usable = scanned.take([k for k, side in enumerate(sides) if min(side) >= least])
    if not usable.rows:
        raise VitralError(f"{data}: holds no image that can be used; restore them")
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
