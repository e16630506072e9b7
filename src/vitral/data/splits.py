"""Splits into train, val and test by content, not by path or file name.

Within each class (or stratum) the distinct contents are ordered by their hash; the first share goes to test, the next to val, the rest to train. An
image therefore gets the same split whatever its folder, order or file name, and copies of one image share a split. Near copies form one unit, ordered
by its least hash and counted as the number of its contents.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

SPLITS = ("train", "val", "test")
_LEAST = 3  # units that a class needs before any of them leaves train
_OWN_SHARE = 10  # distinct contents from which a set of labels is a stratum of its own

_SPLIT_WORDS = {
    "training": "train", "train": "train", "trn": "train", "validation": "val", "valid": "val", "val": "val", "dev": "val",
    "testing": "test", "test": "test", "tst": "test",
}  # fmt: skip
_BESIDE = "datasets?|data|sets?|splits?|parts?|subset|images?|imgs?|pictures?|pics?|photos?|files?|samples?|folder|dir|seg|cls|crops?|raw"
_SPLIT_NAME = re.compile(f"(?:{_BESIDE})*({'|'.join(_SPLIT_WORDS)})(?:{_BESIDE})*")


def split_of(name: str) -> str | None:
    """The split (train, val or test) that a folder's or table cell's name means, as Training, seg_train, TEST_SET, validationImages do; else None."""
    found = _SPLIT_NAME.fullmatch(re.sub(r"[\W\d_]+", "", unicodedata.normalize("NFKC", name).casefold()))
    return _SPLIT_WORDS[found[1]] if found else None


@dataclass
class Unit:
    """Images of one class (or stratum) that share a split."""

    rows: list[int] = field(default_factory=list)
    contents: set[bytes] = field(default_factory=set)

    @property
    def size(self) -> int:
        """Distinct contents."""
        return len(self.contents)


def make_splits(
    digests: Sequence[bytes],
    groups: Sequence[str],
    given: Sequence[str] | None = None,
    *,
    val_fraction: float,
    test_fraction: float,
    test_count: int | None = None,
    fold: tuple[int, int] | None = None,
    together: Sequence[bytes] | None = None,
) -> list[str]:
    """The split of each image.

    digests: content hashes. groups: the strata, over which the splits are balanced. given: splits that the data name; they are kept, and missing
    ones are taken from train (from everything if None), as shares of it. test_count: the test split gets exactly this many distinct contents,
    apportioned to the groups by size. fold: (k, n): train is dealt into n balanced parts, and the k-th, counted from 1, is the test split.
    together: images with equal values share a split: the least digest among each image's near copies; by default the digests, so that only exact
    copies do. Split sizes are as near as such units allow.
    """
    keys = digests if together is None else together
    splits = list(given) if given is not None else ["train"] * len(digests)
    stated = set(splits) if given is not None else {"train"}
    share = {
        "test": 0.0 if "test" in stated or test_count is not None or fold is not None else test_fraction,
        "val": 0.0 if "val" in stated else val_fraction,
    }
    if fold is not None and "test" not in stated:
        _move(_dealt(_pool(digests, keys, groups, splits), fold[1])[fold[0] - 1], "test", splits)
    elif test_count is not None:
        assert "test" not in stated
        pool = _pool(digests, keys, groups, splits)
        counts = apportion({group: sum(unit.size for unit in units) for group, units in pool.items()}, test_count)
        for group, units in pool.items():
            _move(_chosen(units, counts[group], keep=0)[0], "test", splits)
    for units in _pool(digests, keys, groups, splits).values():
        if len(units) < _LEAST:
            continue
        test, val = _take(share["test"], share["val"], sum(unit.size for unit in units))
        tested, left = _chosen(units, test, keep=2 if val else 1)
        _move(tested, "test", splits)
        _move(_chosen(left, val, keep=1)[0], "val", splits)
    return splits


def common(groups: Sequence[str], digests: Sequence[bytes]) -> list[str]:
    """The groups, with all that are too small to be divided alone merged into one: most sets of several labels are rare."""
    contents: dict[str, set[bytes]] = defaultdict(set)
    for group, digest in zip(groups, digests, strict=True):
        contents[group].add(digest)
    return [group if len(contents[group]) >= _OWN_SHARE else "" for group in groups]


def keep_in_train(
    splits: list[str], given: Sequence[str] | None, digests: Sequence[bytes], labels: Sequence[Sequence[str]]
) -> None:
    """Move images back into train, in place, until each label has one there, the first by content hash.

    labels: each image's labels. given: the splits that the data name; None for none.
    """
    there = {label for split, own in zip(splits, labels, strict=True) if split == "train" for label in own}
    copies = defaultdict(list)
    for i, digest in enumerate(digests):
        copies[digest].append(i)
    for i in sorted(range(len(splits)), key=lambda i: digests[i]):
        taken = splits[i] != "train" and (given is None or given[i] == "train")
        if taken and not there.issuperset(labels[i]):
            for copy in copies[digests[i]]:
                splits[copy] = "train" if given is None or given[copy] == "train" else splits[copy]
            there.update(labels[i])


def apportion(sizes: dict[str, int], total: int) -> dict[str, int]:
    """Divide `total` over groups in proportion to their sizes, exactly: whole parts, then the largest remainders."""
    whole = sum(sizes.values())
    assert 0 <= total <= whole
    parts = {group: size * total // whole for group, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda group: (-(sizes[group] * total % whole), group))
    for group in by_remainder[: total - sum(parts.values())]:
        parts[group] += 1
    return parts


def _take(test: float, val: float, n: int) -> tuple[int, int]:
    """How many of n contents go to test and val: each share rounded, at least one.

    If that leaves none for train, the split that was rounded up most gives one back.
    """
    parts = [max(1, round(share * n)) if share else 0 for share in (test, val)]
    while sum(parts) > n - 1:
        over = [part - share * n if part > 1 else -n for part, share in zip(parts, (test, val), strict=True)]
        parts[over.index(max(over))] -= 1
    return parts[0], parts[1]


def _dealt(pool: dict[str, list[Unit]], n: int) -> list[list[Unit]]:
    """The units of every group with `_LEAST` or more, in n parts: each unit to the part with the fewest of its group, then of all.

    Groups are dealt in the order of their names, so that all folds of a data set agree on the parts.
    """
    parts: list[list[Unit]] = [[] for _ in range(n)]
    total = [0] * n
    for group in sorted(pool):
        own = [0] * n
        for unit in pool[group] if len(pool[group]) >= _LEAST else ():
            least = min(range(n), key=lambda part: (own[part], total[part], part))
            parts[least].append(unit)
            own[least] += unit.size
            total[least] += unit.size
    return parts


def _chosen(units: Sequence[Unit], count: int, keep: int) -> tuple[list[Unit], list[Unit]]:
    """The first units that fit into `count` contents, and the rest, at least `keep` units.

    If they fall short of the count, one unit more where that is nearer; at least one unit if count is above 0.
    """
    taken: list[Unit] = []
    rest: list[Unit] = []
    missing = count
    for unit in units:
        if unit.size <= missing and len(units) - len(taken) > keep:
            taken.append(unit)
            missing -= unit.size
        else:
            rest.append(unit)
    if missing and len(rest) > keep:
        smallest = min(rest, key=lambda unit: unit.size)
        if not taken or smallest.size < 2 * missing:
            rest.remove(smallest)
            taken.append(smallest)
    return taken, rest


def _pool(
    digests: Sequence[bytes], keys: Sequence[bytes], groups: Sequence[str], splits: Sequence[str]
) -> dict[str, list[Unit]]:
    """The units in train, by group, in the order of their keys. A unit of several groups belongs to that of its first image."""
    home: dict[bytes, tuple[bytes, str]] = {}
    for i, key in enumerate(keys):
        if splits[i] == "train":
            home[key] = min(home.get(key, (digests[i], groups[i])), (digests[i], groups[i]))
    pool: dict[str, dict[bytes, Unit]] = defaultdict(lambda: defaultdict(Unit))
    for i, key in enumerate(keys):
        if splits[i] == "train":
            unit = pool[home[key][1]][key]
            unit.rows.append(i)
            unit.contents.add(digests[i])
    return {group: [units[key] for key in sorted(units)] for group, units in pool.items()}


def _move(units: Sequence[Unit], split: str, splits: list[str]) -> None:
    for unit in units:
        for i in unit.rows:
            splits[i] = split
