"""The kinds of findings: what is wrong with data or worth knowing, how severe it is and what to do.

error: training refuses the data, or their test scores would certainly be wrong. warning: probably a mistake. note: nothing to correct, or a question.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitral.data.bands import count_channels, in_words
from vitral.data.copies import Copies
from vitral.data.listing import Listing
from vitral.data.problem import Problem
from vitral.data.walk import JUNK
from vitral.errors import counted
from vitral.guidance.doctor.reading import Looks, Unusable
from vitral.training.options import ModelOptions
from vitral.training.sizes import patch_for

SEVERITIES = ("error", "warning", "note")
INTENDED = "check that this is intended"  # the remedy for notes on how data were understood
TINY = 16  # pixels of a side up to which an image counts as tiny,
TINY_SHARE = 0.25  # if it is at most this share of the others'
LONG = 3.0  # ratio of the sides from which an image counts as long,
LONG_TIMES = 2.0  # if it is so many times the others'
BLANK = 1.0  # deviation of grey values
FEW = 10  # images of a class
UNEVEN = 10  # times as many images of one class as of another
UNUSABLE = {  # kind: (text for one, for several, remedy)
    "missing": ("image is named but not there", "images are named but not there", "correct each path, or remove its row"),
    "empty": ("file is empty", "files are empty", "restore each from its source or remove it"),
    "not_an_image": ("file is no image that can be opened", "files are no images that can be opened", "replace each or remove it"),
    "damaged": ("image is damaged or cut short", "images are damaged or cut short", "restore each from its source or remove it"),
    "animated": ("image holds several frames or pages", "images hold several frames or pages",
                 "extract the one wanted into a file of its own, or choose by --page N or --page all"),
    "no_range": ("image holds values whose black and white are not stated", "images hold values whose black and white are not stated",
                 "state them with --value-range LOW HIGH"),
    "other_format": ("file is in a format that is not read", "files are in formats that are not read", "convert each as its reason says"),
    "other_bands": ("file has channels that do not fit", "files have channels that do not fit", "write each with the channels of the others"),
    "too_large": ("image is too large to open", "images are too large to open", "cut each into tiles or shrink it"),
    "unreadable": ("image cannot be read", "images cannot be read", "mend what the reason says, or remove it"),
}  # fmt: skip


@dataclass(frozen=True)
class Item:
    """One case of a finding: an image, a pair of copies, a class, a folder."""

    names: tuple[str, ...]
    note: str = ""
    images: tuple[int, ...] = ()
    """Positions of the images in the listing, if they can be shown."""


@dataclass
class Finding:
    kind: str
    severity: str
    """error, warning or note."""
    text: str
    """What was found, with its count."""
    remedy: str
    items: list[Item] = field(default_factory=list)
    stops: bool = False
    """Whether training refuses the data for it."""
    named: bool = False
    """Whether the text names the cases, or the first of them."""


def layout_findings(listing: Listing) -> list[Finding]:
    """Findings before any image is opened."""
    found = [_problem(problem) for problem in listing.problems]
    if listing.ignored:
        text = f"{counted(len(listing.ignored), 'file or folder', 'files or folders')} skipped: no images, or a run of vitral"
        found.append(Finding("stray_files", "note", text, "nothing to do", [Item((name,)) for name in listing.ignored]))
    found += [
        Finding("reading", "note", said, INTENDED) for said in listing.understood if not said.startswith("left out")
    ]
    numbers = [label for label in listing.labels if label.lstrip("+-").isdigit()]
    if len(numbers) == len(listing.labels) > 1 and numbers != sorted(numbers):
        text = f"class names are numbers, ordered by number, not by character: {', '.join(numbers[:12])}"
        found.append(
            Finding("label_order", "note", text, "remember it when comparing with tools that sort by character")
        )
    return found


def system_files(root: Path) -> list[Finding]:
    """Hidden files and those of operating systems, which are never read."""
    found = sorted(
        (Path(folder) / name).relative_to(root).as_posix()
        for folder, _, names in os.walk(root)
        for name in names
        if name.startswith(".") or name.casefold() in JUNK
    )
    if not found:
        return []
    text = f"{counted(len(found), 'system or hidden file')} ignored"
    return [Finding("system_files", "note", text, "nothing to do", [Item((name,)) for name in found])]


def _problem(problem: Problem) -> Finding:
    what, _, remedy = problem.text.rpartition("; ")
    return Finding(problem.kind, "error", what, remedy, [Item((name,)) for name in problem.names], True, named=True)


def file_findings(listing: Listing, looks: Looks, unusable: dict[int, Unusable], *, skipping: bool) -> list[Finding]:
    """Files that cannot be used, and usable files that may not be what they seem. skipping: whether training leaves out the unusable."""
    return [
        *_unusable(listing, unusable, skipping),
        *_bands(listing, looks),
        *_emptied(listing, looks, unusable),
        *_too_small(listing, looks),
        *_odd_pixels(listing, looks),
        *_odd_packings(listing, looks),
    ]


def _unusable(listing: Listing, unusable: dict[int, Unusable], skipping: bool) -> list[Finding]:
    found = []
    for kind, (one_is, several_are, remedy) in UNUSABLE.items():
        items = [Item((listing.images.names[i],), one.reason) for i, one in unusable.items() if one.kind == kind]
        if items:
            text = counted(len(items), one_is, several_are)
            if skipping:
                text, remedy = f"{text}, left out", f"nothing to do, or {remedy}"
            else:
                remedy += "; or train without, by --skip-unreadable"
            found.append(Finding(kind, "note" if skipping else "error", text, remedy, items, not skipping))
    return found


def _too_small(listing: Listing, looks: Looks) -> list[Finding]:
    """Images smaller than one patch of the model that training would choose for these data."""
    side = patch_of(listing, looks)
    if side < 2:
        return []
    sizes = [f"{info.height}x{info.width} pixels" for info in looks.infos]
    remedy = f"enlarge or remove them, or train with smaller patches: --patch-size {max(1, int(looks.least_sides.min()))} or less"
    what = f"smaller than one {side}x{side} patch of the model"
    found = _odd(listing, looks, "smaller_than_patch", "error", what, remedy, looks.least_sides < side, sizes)
    for finding in found:
        finding.stops = True
    return found


def patch_of(listing: Listing, looks: Looks) -> int:
    """The side of the default model's patch, from the median size of the training images; 1 if there are none."""
    trained = [k for k, row in enumerate(looks.rows) if listing.given is None or listing.given[row] == "train"]
    infos = [looks.infos[k] for k in trained] or looks.infos
    if not infos:
        return 1
    height, width = (int(np.median([getattr(info, side) for info in infos])) for side in ("height", "width"))
    return patch_for(ModelOptions(), height, width)


def _bands(listing: Listing, looks: Looks) -> list[Finding]:
    """Images whose bands differ from those of most: a model takes one set of bands."""
    names = [listing.images.names[row] for row in looks.rows]
    _, differ = count_channels(looks.infos, names, None)
    if differ is None:
        return []
    common = Counter(info.channels for info in looks.infos).most_common(1)[0][0]
    items = [
        Item((name,), in_words(info.channels), (row,))
        for row, name, info in zip(looks.rows.tolist(), names, looks.infos, strict=True)
        if info.channels != common
    ]
    text = f"{counted(len(items), 'image')} with other bands than most ({in_words(common)})"
    return [Finding("other_bands", "error", text, "give files that all have the same bands", items, stops=True)]


def _odd_pixels(listing: Listing, looks: Looks) -> list[Finding]:
    """Images that are far smaller or longer than the others, or empty."""
    if not len(looks):
        return []
    least, sizes = looks.least_sides, [f"{info.width} x {info.height} pixels" for info in looks.infos]
    longer = np.array([max(info.height, info.width) / min(info.height, info.width) for info in looks.infos])
    tiny = least < min(TINY, TINY_SHARE * float(np.median(least)))
    long = longer > max(LONG, LONG_TIMES * float(np.median(longer)))
    blank = looks.grey.std((1, 2)) < BLANK
    return [
        *_odd(listing, looks, "tiny", "warning", "with hardly any pixels",
              "look whether they are thumbnails or icons; remove them, or find the originals", tiny, sizes),
        *_odd(listing, looks, "long", "warning", "far longer than wide, or wider than long",
              "crop them to what matters: a square model squeezes them or cuts their ends off", long, sizes),
        *_odd(listing, looks, "blank", "warning", "of one plain colour",
              "remove them, unless they mean something", blank, [""] * len(looks)),
    ]  # fmt: skip


def _odd_packings(listing: Listing, looks: Looks) -> list[Finding]:
    """Images stored in a way that other tools, or the user, may not expect."""
    packings, depths = looks.packings, [info.bit_depth for info in looks.infos]
    deep = "warning" if set(depths) == {8, 16} else "note"
    keeps = "training keeps all bits; where the others have 8, make sure that black and white mean the same in both"
    kinds: tuple[tuple[str, str, str, str, list[bool], str], ...] = (
        ("cmyk", "warning", "in CMYK",
         "training converts them without a colour profile: convert them to RGB if their colours matter",
         [p is not None and p.mode == "CMYK" for p in packings], "CMYK"),
        ("sixteen_bit", deep, "with 16 bits a colour", keeps, [depth == 16 for depth in depths], "16 bit"),
        ("turned", "note", "turned by their EXIF orientation", "nothing to do: training turns them upright; other tools may not",
         [p is not None and p.orientation != 1 for p in packings], "turned"),
        ("transparent", "note", "with transparency", "nothing to do: training lays them over white",
         [p is not None and p.transparent for p in packings], "transparent"),
        ("palette", "note", "with a palette", "nothing to do: training opens them as RGB",
         [p is not None and p.mode in ("P", "PA") for p in packings], "palette"),
    )  # fmt: skip
    return [
        finding
        for kind, severity, what, remedy, odd, note in kinds
        for finding in _odd(listing, looks, kind, severity, what, remedy, odd, [note] * len(looks))
    ]


def _odd(
    listing: Listing,
    looks: Looks,
    kind: str,
    severity: str,
    what: str,
    remedy: str,
    odd: Iterable[bool],
    notes: Sequence[str],
) -> list[Finding]:
    """A finding with the images that are odd; empty if none is. odd, notes: one for each readable image."""
    items = [
        Item((listing.images.names[row],), note, (row,))
        for row, is_odd, note in zip(looks.rows.tolist(), odd, notes, strict=True)
        if is_odd
    ]
    return [Finding(kind, severity, f"{counted(len(items), 'image')} {what}", remedy, items)] if items else []


def _emptied(listing: Listing, looks: Looks, unusable: dict[int, Unusable]) -> list[Finding]:
    """Classes without a readable image to train on."""
    left: set[str] = set()
    lost: set[str] = set()
    for i in range(len(listing.images.names)):
        if listing.given is None or listing.given[i] == "train":
            (lost if i in unusable else left).update(listing.of(i))
    emptied = [label for label in listing.labels if label in lost - left]
    if not emptied:
        return []
    items = [Item((label,)) for label in emptied]
    text = f"no image to train on can be read of {counted(len(items), 'class', 'classes')}"
    return [Finding("emptied_classes", "error", text, "restore these images or remove the class", items, stops=True)]


def copy_findings(listing: Listing, looks: Looks, copies: Sequence[Copies]) -> list[Finding]:
    """Copies by the harm they do: under two labels, in two splits, or merely twice."""
    groups: dict[tuple[bool, str], list[Item]] = defaultdict(list)
    for pair in copies:
        i, j = int(looks.rows[pair.first]), int(looks.rows[pair.second])
        names = listing.images.names[i], listing.images.names[j]
        splits = ("", "") if listing.given is None else (listing.given[i], listing.given[j])
        exact = pair.how == "exact"
        if listing.key(i) != listing.key(j):
            groups[exact, "labels"].append(
                Item(names, f"{listing.describe(i)} = {listing.describe(j)}, {pair.how}", (i, j))
            )
        elif splits[0] != splits[1]:
            groups[exact, "splits"].append(Item(names, f"{splits[0]} = {splits[1]}, {pair.how}", (i, j)))
        else:
            groups[exact, "alike"].append(Item(names, pair.how, (i, j)))
    made = listing.given is None  # exact copies always share a split that vitral makes
    alike = "nothing to do, unless they should count once"
    if made:
        alike = "keep one of each: where one is trained on and the other tested on, scores are too good"
    kinds = (
        (True, "labels", "copies_two_labels", "error", "of exact copies with different labels",
         "remove the wrong one of each pair"),
        (True, "splits", "copies_across_splits", "error", "of exact copies in two splits",
         "remove one of each pair: scores are too good"),
        (False, "labels", "near_copies_two_labels", "warning", "showing the same under different labels",
         "correct one label of each pair, or remove one image"),
        (False, "splits", "near_copies_across_splits", "warning", "showing the same in two splits",
         "remove one of each pair: scores are too good"),
        (False, "alike", "near_copies", "warning" if made else "note", "showing the same", alike),
        (True, "alike", "exact_copies", "note", "of exact copies", "nothing to do, unless they should count once: copies share a split"),
    )  # fmt: skip
    found = []
    for exact, matter, kind, severity, what, remedy in kinds:
        if items := groups[exact, matter]:
            stops = kind == "copies_two_labels"
            found.append(Finding(kind, severity, f"{counted(len(items), 'pair')} {what}", remedy, items, stops))
    return found


def class_findings(listing: Listing, looks: Looks) -> list[Finding]:
    """Classes with too few images that can be read, or far fewer than others."""
    total = class_counts(listing, looks.rows)
    found = []
    what = listing.targets.nouns
    single = [label for label in listing.labels if total[label] == 1]
    few = [label for label in listing.labels if 1 < total[label] < FEW]
    for kind, labels, words in (
        ("one_image", single, "with a single image"),
        ("few_images", few, f"with fewer than {FEW} images"),
    ):
        if labels:
            items = [Item((label,), counted(total[label], "image")) for label in labels]
            remedy = (
                "add images, or merge or remove the classes: on so few images learning and scores are largely chance"
            )
            found.append(Finding(kind, "warning", f"{counted(len(labels), *what)} {words}", remedy, items))
    most, least = max(total.values(), default=0), min((n for n in total.values() if n), default=1)
    if most >= UNEVEN * least:
        ordered = sorted(listing.labels, key=lambda label: -total[label])
        ends = [ordered[0], next(label for label in reversed(ordered) if total[label])]
        items = [Item((label,), counted(total[label], "image")) for label in ends]
        text = f"the largest {what[0]} has {most / least:.0f} times as many images as the smallest"
        found.append(Finding("imbalance", "note", text, "look at the scores of each class, not top-1 alone", items))
    return found


def class_counts(listing: Listing, rows: NDArray[np.int64]) -> Counter[str]:
    """How many of these images are of each class, or label."""
    totals = listing.targets.take(rows).counts(len(listing.labels)).tolist()
    return Counter(dict(zip(listing.labels, totals, strict=True)))
