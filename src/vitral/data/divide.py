"""How a data set is divided where it does not say so itself: by content, near copies together, and as before where a run holds its splits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from vitral.data.copies import Progress, exact_copies, families, members, near_copies
from vitral.data.listing import Listing
from vitral.data.options import DataOptions
from vitral.data.scan import Scan
from vitral.data.splits import make_splits
from vitral.errors import counted, some

MOST_COMPARED = 20_000
"""Training images up to which near copies are sought before splits are made."""
_SHOWN = 3  # near copies in a note


@dataclass(frozen=True)
class Held:
    """The splits that were made of a data set once, to be kept whatever would be made of it today."""

    fingerprint: str
    """Of the data set with these splits; no other data are divided by them."""
    contents: Mapping[str, np.ndarray]
    """Of each split that was made, val or test, its images as `Split.contents` has them."""


def compares(listing: Listing, options: DataOptions) -> bool:
    """Whether near copies are to be sought, for which `scan` keeps small pictures."""
    return _parts_copies(listing, options) and len(_movable(listing)) <= MOST_COMPARED


def divide(
    listing: Listing,
    scanned: Scan,
    groups: Sequence[str],
    options: DataOptions,
    held: Held | None = None,
    progress: Progress | None = None,
) -> tuple[list[str], list[str]]:
    """The split of each image that was read, and what to say of them.

    groups: of each, what to balance by: its label, or all its labels. held: of these data it is kept; others are divided anew.
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
            f"near copies were not sought, as there are more than {MOST_COMPARED:,} images to divide: they can be in two splits; "
            "vitral doctor finds them"
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
        # lengths first, so that no two different lists of triples run together to the same bytes
        text = f"{split}/{label}".encode(errors="surrogateescape")
        total.update(digest + len(text).to_bytes(4, "little") + text)
    return total.hexdigest()


def _movable(listing: Listing) -> list[int]:
    """The images that are not in a split that the data state."""
    return [i for i in range(len(listing.images.names)) if listing.given is None or listing.given[i] == "train"]


def _parts_copies(listing: Listing, options: DataOptions) -> bool:
    """Whether images are moved out of train, and their near copies with them."""
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
    listing: Listing, scanned: Scan, own: Sequence[bytes], progress: Progress | None
) -> tuple[list[bytes], list[str]]:
    """Of each image the least digest of those that show the same, and what to say of it. own: the digests by which images are told apart."""
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
