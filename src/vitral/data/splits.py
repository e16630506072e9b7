"""Dividing images into train, val and test by what they show, not by where they lie or how they are called.

Within each class (or stratum) the distinct contents are ordered by their hash; the first share goes to test,
the next to val, the rest to train. The same image therefore gets the same split in any folder, order or file
name, and copies of one image always share a split.
"""

from collections import defaultdict
from collections.abc import Sequence

SPLITS = ("train", "val", "test")
_LEAST = 3  # distinct contents that a class needs before it gives any away
_OWN_SHARE = 10  # distinct contents of a set of labels that is divided on its own


def make_splits(
    digests: Sequence[bytes],
    groups: Sequence[str],
    given: Sequence[str] | None = None,
    *,
    val_fraction: float,
    test_fraction: float,
    test_count: int | None = None,
) -> list[str]:
    """The split of each image.

    digests: content hashes. groups: what to balance by. given: splits that the data state, which stay as they
    are; those that nothing is in are taken out of train, as shares of it (of everything, if given is None).
    test_count: make exactly this many distinct contents the test split, apportioned to the groups by size.
    """
    splits = list(given) if given is not None else ["train"] * len(digests)
    stated = set(splits) if given is not None else {"train"}
    share = {
        "test": 0.0 if "test" in stated or test_count is not None else test_fraction,
        "val": 0.0 if "val" in stated else val_fraction,
    }
    if test_count is not None:
        assert "test" not in stated
        pool = _pool(digests, groups, splits)
        counts = apportion({group: len(contents) for group, contents in pool.items()}, test_count)
        for group, contents in pool.items():
            _move(contents, slice(0, counts[group]), "test", splits)
    for contents in _pool(digests, groups, splits).values():
        n = len(contents)
        if n < _LEAST:
            continue
        test, val = _take(share["test"], share["val"], n)
        _move(contents, slice(0, test), "test", splits)
        _move(contents, slice(test, test + val), "val", splits)
    return splits


def common(groups: Sequence[str], digests: Sequence[bytes]) -> list[str]:
    """The groups, with all that are too small for a share of their own as one: most sets of several labels are rare."""
    contents: dict[str, set[bytes]] = defaultdict(set)
    for group, digest in zip(groups, digests, strict=True):
        contents[group].add(digest)
    return [group if len(contents[group]) >= _OWN_SHARE else "" for group in groups]


def keep_in_train(
    splits: list[str], given: Sequence[str] | None, digests: Sequence[bytes], labels: Sequence[Sequence[str]]
) -> None:
    """Move images back into train, in place, until each label has one there: of those that were taken out, the first by content hash.

    labels: of each image, several or none. given: the splits before any were made, None for all train.
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
    """Divide `total` over groups in proportion to their sizes, exactly: whole parts, then the largest
    remainders.
    """
    whole = sum(sizes.values())
    assert 0 <= total <= whole
    parts = {group: size * total // whole for group, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda group: (-(sizes[group] * total % whole), group))
    for group in by_remainder[: total - sum(parts.values())]:
        parts[group] += 1
    return parts


def _take(test: float, val: float, n: int) -> tuple[int, int]:
    """How many of n contents go to test and val: each share rounded, at least one; where that leaves none to train on, fewer of what gained most.

    So each is within one of its share, unless the least that every split keeps forbids it.
    """
    parts = [max(1, round(share * n)) if share else 0 for share in (test, val)]
    while sum(parts) > n - 1:
        over = [part - share * n if part > 1 else -n for part, share in zip(parts, (test, val), strict=True)]
        parts[over.index(max(over))] -= 1
    return parts[0], parts[1]


def _pool(digests: Sequence[bytes], groups: Sequence[str], splits: Sequence[str]) -> dict[str, list[list[int]]]:
    """What is in train: by group, the images of each distinct content, in the order of the hashes."""
    pool: dict[str, dict[bytes, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i, (digest, group) in enumerate(zip(digests, groups, strict=True)):
        if splits[i] == "train":
            pool[group][digest].append(i)
    return {group: [contents[digest] for digest in sorted(contents)] for group, contents in pool.items()}


def _move(contents: list[list[int]], which: slice, split: str, splits: list[str]) -> None:
    for copies in contents[which]:
        for i in copies:
            splits[i] = split
