"""What is wrong with the data, and what a person should know of them, once every image has been read."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from vitral.data.listing import Listing
from vitral.data.scan import Scan
from vitral.data.splits import SPLITS
from vitral.data.values import ImageInfo, beyond, clipped_in_words
from vitral.errors import counted, some

_SHOWN = 20  # images of a kind in an error's text
_PAIRS = 3  # copies in a note's text
_FEW = 10  # images of a class


def problems(listing: Listing, scan: Scan, *, skipping: bool, training: bool, least_side: int | None) -> list[str]:
    """What is wrong, each with its remedy.

    skipping: whether unreadable images are left out. training: whether every class must have images to train on. least_side: pixels that each
    side must have, if any.
    """
    found = _contradictions(listing, scan)
    if scan.unreadable:
        found = [*([] if skipping else [_unreadable(scan)]), *found, *_emptied_classes(listing, scan, training)]
    if least_side is not None:
        found += _too_small(listing, scan, least_side)
    return found


def notes(listing: Listing, scan: Scan, splits: Sequence[str]) -> list[str]:
    """What a person should know but that is no error. splits: of each image that was read."""
    of_images = [listing.of(i) for i in scan.rows]
    found = []
    if scan.unreadable:
        left_out = [name for name, _ in scan.unreadable]
        found.append(f"left out {counted(len(left_out), 'unreadable image')}: {some(left_out, _PAIRS)}")
    found += _straddling([listing.images.names[i] for i in scan.rows], scan.digests, splits)
    copies = len(scan.digests) - len(set(scan.digests))
    if copies:
        found.append(f"exact copies of other images: {copies}; copies share a split unless the data divide them")
    found += listing.targets.take(scan.rows).remarks()
    if listing.targets.by_label:
        found += _few(of_images, listing.labels, splits, listing.targets.nouns[1])
    made = [split for split in SPLITS if split in splits and (listing.given is None or split not in listing.given)]
    if made and listing.given is not None:
        found.append(f"the data give no {' or '.join(made)} split: made from train")
    absent = [split for split in SPLITS if split not in splits]
    if absent:
        found.append(f"there is no {' or '.join(absent)} split")
    return [*found, *listing.understood]


def of_values(infos: Sequence[ImageInfo], value_range: tuple[float, float] | None) -> list[str]:
    """What a person should know of how the files' values become pixels."""
    found = []
    if cut := [info.cut for info in infos if info.cut]:
        found.append(
            f"{counted(len(cut), 'image')} of up to {max(cut)} bits a channel are read with 8, all that their decoder gives"
        )
    deep = [info.extremes for info in infos if info.extremes is not None]
    if value_range is None or not infos:
        return found
    if clipped := [each for each in deep if beyond(each, value_range)]:
        found.append(clipped_in_words(clipped, value_range))
    if shallow := len(infos) - len(deep):
        found.append(
            f"--value-range is not for images of 8 bits: {counted(shallow, 'image keeps', 'images keep')} 0 to 255"
        )
    return found


def _unreadable(scan: Scan) -> str:
    unreadable, total = scan.unreadable, len(scan.unreadable) + len(scan.rows)
    return (
        f"{len(unreadable)} of {counted(total, 'image')} cannot be read; mend or remove them, or leave "
        "them out with --skip-unreadable:\n" + _lines([f"{name}: {reason}" for name, reason in unreadable])
    )


def _emptied_classes(listing: Listing, scan: Scan, training: bool) -> list[str]:
    """Without the unreadable images, every class must have some to train on."""
    trained = [i for i in range(len(listing.images.names)) if listing.given is None or listing.given[i] == "train"]
    kept = set(scan.rows)
    left = {label for i in trained if i in kept for label in listing.of(i)}
    lost = {label for i in trained if i not in kept for label in listing.of(i)} - left
    empty = [label for label in listing.labels if label in lost]
    if training and empty and listing.targets.by_label:
        return [
            f"without the unreadable images nothing is left to train on of: {', '.join(empty)}; "
            "restore these images or remove the class"
        ]
    return [] if scan.rows else ["without the unreadable images nothing is left; restore them"]


def _contradictions(listing: Listing, scan: Scan) -> list[str]:
    """The same content may not have two labels."""
    first: dict[bytes, int] = {}
    clashes = []
    for i, digest in zip(scan.rows, scan.digests, strict=True):
        j = first.setdefault(digest, i)
        if listing.key(i) != listing.key(j):
            clashes.append((j, i))
    if not clashes:
        return []
    names = listing.images.names
    lines = [f"{names[j]} ({listing.describe(j)}) = {names[i]} ({listing.describe(i)})" for j, i in clashes]
    are = "image is a copy" if len(clashes) == 1 else "images are copies"
    return [f"{len(clashes)} {are} of one with another label; remove the wrong one of each pair:\n{_lines(lines)}"]


def _too_small(listing: Listing, scan: Scan, side: int) -> list[str]:
    lines = [
        f"{listing.images.names[i]}: {info.height}x{info.width} pixels"
        for i, info in zip(scan.rows, scan.infos, strict=True)
        if min(info.height, info.width) < side
    ]
    if not lines:
        return []
    are = "image is" if len(lines) == 1 else "images are"
    return [
        f"{len(lines)} {are} smaller than one {side}x{side} patch; enlarge or remove them (--skip-unreadable does not "
        f"leave them out), or use a model with smaller patches:\n{_lines(lines)}"
    ]


def _lines(items: Sequence[str]) -> str:
    more = [f"... and {len(items) - _SHOWN} more"] if len(items) > _SHOWN else []
    return "\n".join(f"  {line}" for line in (*items[:_SHOWN], *more))


def _straddling(names: Sequence[str], digests: Sequence[bytes], splits: Sequence[str]) -> list[str]:
    """Which images the data themselves put into two splits."""
    seen: dict[bytes, dict[str, str]] = defaultdict(dict)  # the first name in each split
    for name, digest, split in zip(names, digests, splits, strict=True):
        seen[digest].setdefault(split, name)
    pairs: dict[tuple[str, str], list[str]] = defaultdict(list)
    for where in seen.values():
        inside = [split for split in SPLITS if split in where]
        if len(inside) > 1:
            first, last = inside[0], inside[-1]
            pairs[first, last].append(f"{where[last]} ({last}) = {where[first]} ({first})")
    return [
        f"{counted(len(found), 'image is', 'images are')} in both {first} and {last}, as the data divide them, so "
        f"scores on {last} are too good; remove the copies from one of the two: {some(found, _PAIRS)}"
        for (first, last), found in pairs.items()
    ]


def _few(of_images: Sequence[Sequence[str]], labels: Sequence[str], splits: Sequence[str], what: str) -> list[str]:
    """Classes (or labels, as `what` says) of which there is too little for scores that say much."""
    total = Counter(label for own in of_images for label in own)
    inside = {(label, split) for own, split in zip(of_images, splits, strict=True) for label in own}
    notes = []
    absent = []
    for label in labels:
        without = [split for split in SPLITS if split in splits and (label, split) not in inside]
        if without:
            absent.append(f"{label} (none in {' and '.join(without)})")
    if absent:
        notes.append(f"{what} that are not in every split: {some(absent)}; scores there leave them out")
    few = [f"{label} ({total[label]})" for label in labels if total[label] < _FEW]
    if few:
        notes.append(f"fewer than {_FEW} images of: {some(few)}; what is learned and scored on so few is chance")
    return notes
