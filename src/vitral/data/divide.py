"""Splits for data that name none: by content, near copies together; a run's stored splits are kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from vitral.data.copies import exact_copies, families, members, near_copies
from vitral.data.listing import Listing
from vitral.data.options import DataOptions
from vitral.data.progress import OnProgress
from vitral.data.scan import Scan
from vitral.data.splits import make_splits
from vitral.errors import counted, some

MOST_COMPARED = 20_000
"""Near copies are sought among up to so many images before splits are made."""
_SHOWN = 3  # near copies in a note


@dataclass(frozen=True)
class Held:
    """Splits made earlier for a data set, kept even if this version would make others."""

    fingerprint: str
    """Of the data set with these splits; they are used for no other data."""
    contents: Mapping[str, np.ndarray]
    """For each split that was made (val, test): its images, as in `Split.contents`."""


def compares(listing: Listing, options: DataOptions) -> bool:
    """Whether near copies are sought; `scan` then keeps small pictures."""
    return _parts_copies(listing, options) and len(_movable(listing)) <= MOST_COMPARED


def divide(
    listing: Listing,
    scanned: Scan,
    groups: Sequence[str],
    options: DataOptions,
    held: Held | None = None,
    progress: OnProgress | None = None,
) -> tuple[list[str], list[str]]:
    """The split of each image that was read, and messages about the division.

    groups: the label, or all labels, of each image; splits are balanced over them. held: kept if it belongs to these data, else new splits are made.
    """
    if held is not None:
        splits = _as_held(listing, scanned, held)
        if fingerprint(scanned.digests, groups, splits) == held.fingerprint:
            return splits, []
    own = [listing.images.together(i, digest) for i, digest in zip(scanned.rows, scanned.digests, strict=True)]
    said: list[str] = []
    together: Sequence[bytes] = own
    if scanned.small:
        together, said = _together(listing, scanned, own, progress)
    elif _parts_copies(listing, options):
        said = [
            f"near copies were not sought among more than {MOST_COMPARED:,} images, so they can be in two splits; vitral doctor finds them"
        ]
    given = None if listing.given is None else [listing.given[i] for i in scanned.rows]
    targets = listing.targets.take(scanned.rows)
    splits = make_splits(
        own,
        targets.strata(groups, own) if listing.strata is None else [listing.strata[i] for i in scanned.rows],
        given,
        val_fraction=options.val_fraction,
        test_fraction=options.test_fraction,
        test_count=listing.test_count,
        fold=options.fold,
        together=together,
    )
    targets.mend_splits(splits, given, together, [listing.of(i) for i in scanned.rows])
    return splits, said


def fingerprint(digests: Sequence[bytes], labels: Sequence[str], splits: Sequence[str]) -> str:
    """sha256 (hex) of the sorted (content, label, split) triples."""
    total = sha256()
    for digest, label, split in sorted(zip(digests, labels, splits, strict=True)):
        # lengths first, so that different lists of triples never give the same bytes
        text = f"{split}/{label}".encode(errors="surrogateescape")
        total.update(digest + len(text).to_bytes(4, "little") + text)
    return total.hexdigest()


def _movable(listing: Listing) -> list[int]:
    """The images that can be moved to another split: all, or those that the data name as train."""
    return [i for i in range(len(listing.images.names)) if listing.given is None or listing.given[i] == "train"]


def _parts_copies(listing: Listing, options: DataOptions) -> bool:
    """Whether splits are made from train with near copies kept together."""
    stated = {"train"} if listing.given is None else set(listing.given)
    shares = {"val": options.val_fraction, "test": options.fold or listing.test_count or options.test_fraction}
    takes = "train" in stated and any(share for name, share in shares.items() if name not in stated)
    return takes and options.near_copies == "together"


def _as_held(listing: Listing, scanned: Scan, held: Held) -> list[str]:
    splits = ["train"] * len(scanned.rows) if listing.given is None else [listing.given[i] for i in scanned.rows]
    of = {content: name for name, contents in held.contents.items() for content in contents.tolist()}
    return [
        of.get(int.from_bytes(digest[:8], "big"), "train") if split == "train" else split
        for split, digest in zip(splits, scanned.digests, strict=True)
    ]


def _together(
    listing: Listing, scanned: Scan, own: Sequence[bytes], progress: OnProgress | None
) -> tuple[list[bytes], list[str]]:
    """For each image the least digest among its near copies, and messages about them. own: the digests of the images."""
    sides = np.array([min(info.height, info.width) for info in scanned.infos], np.int64)
    place = {row: k for k, row in enumerate(scanned.rows)}
    movable = {place[i] for i in _movable(listing) if i in place}
    found = [
        pair
        for pair in near_copies(np.array(scanned.small), scanned.digests, sides, progress)
        if {pair.first, pair.second} <= movable and own[pair.first] != own[pair.second]
    ]
    if not found:
        return list(own), []
    together = list(own)
    for alike in members(families(len(own), [*found, *exact_copies(own)])):
        least = min(own[k] for k in alike)
        for k in alike:
            together[k] = least
    names = [listing.images.names[i] for i in scanned.rows]
    pairs = [f"{names[pair.second]} ({pair.how}) of {names[pair.first]}" for pair in found]
    groups = members(families(len(own), found))
    shown = f"{counted(sum(map(len, groups)), 'image')} in {counted(len(groups), 'group')}"
    return together, [
        f"near copies kept in one split, {shown}: {some(pairs, _SHOWN)}; --near-copies apart divides them"
    ]
