"""Splits depend on content alone, keep copies together, and have the sizes that were asked for."""

from collections import Counter
from hashlib import blake2b

from hypothesis import assume, example, given
from hypothesis import strategies as st

from vitral.data.splits import apportion, make_splits


def digests_of(contents: list[int]) -> list[bytes]:
    return [blake2b(str(content).encode(), digest_size=16).digest() for content in contents]


classes = st.lists(st.integers(1, 60), min_size=1, max_size=4)  # distinct contents of each class
shares = st.sampled_from([0.0, 0.05, 0.1, 0.2, 0.34, 0.6])


def images(sizes: list[int]) -> tuple[list[bytes], list[str]]:
    groups = [str(group) for group, size in enumerate(sizes) for _ in range(size)]
    return digests_of(list(range(len(groups)))), groups


@given(sizes=classes, val=shares, test=shares)
@example(sizes=[6], val=0.34, test=0.6)  # 2.04 and 3.6 of 6, of which one must be left to train on
@example(sizes=[6], val=0.6, test=0.34)
def test_sizes_are_within_one_of_the_share(sizes: list[int], val: float, test: float) -> None:
    assume(val + test < 1)
    digests, groups = images(sizes)
    splits = make_splits(digests, groups, val_fraction=val, test_fraction=test)
    for group, n in enumerate(sizes):
        counts = Counter(split for split, g in zip(splits, groups, strict=True) if g == str(group))
        assert counts["train"] >= 1
        if n < 3:
            assert counts == {"train": n}
            continue
        for split, share in (("val", val), ("test", test)):
            assert abs(counts[split] - share * n) <= 1
            assert (counts[split] >= 1) == (share > 0)


@given(
    sizes=classes,
    order=st.randoms(use_true_random=False),
    copies=st.lists(st.integers(0, 10**6), max_size=20),
)
def test_order_and_copies_change_nothing(sizes: list[int], order: object, copies: list[int]) -> None:
    digests, groups = images(sizes)
    expected = dict(zip(digests, make_splits(digests, groups, val_fraction=0.1, test_fraction=0.2), strict=True))
    rows = list(range(len(digests))) + [copy % len(digests) for copy in copies]
    order.shuffle(rows)  # type: ignore[attr-defined]
    splits = make_splits([digests[i] for i in rows], [groups[i] for i in rows], val_fraction=0.1, test_fraction=0.2)
    assert [expected[digests[i]] for i in rows] == splits  # so copies never straddle either


@given(sizes=classes, extra=st.integers(1, 30))
def test_other_classes_do_not_matter(sizes: list[int], extra: int) -> None:
    digests, groups = images(sizes)
    more_digests, more_groups = images([*sizes, extra])
    before = make_splits(digests, groups, val_fraction=0.1, test_fraction=0.2)
    assert make_splits(more_digests, more_groups, val_fraction=0.1, test_fraction=0.2)[: len(before)] == before


def test_given_splits_stay_and_missing_ones_come_from_train() -> None:
    digests, groups = images([100, 100])
    given_splits = ["test" if i % 5 == 0 else "train" for i in range(200)]
    splits = make_splits(digests, groups, given_splits, val_fraction=0.1, test_fraction=0.5)
    assert [s == "test" for s in splits] == [s == "test" for s in given_splits]
    assert Counter(splits) == {"train": 144, "val": 16, "test": 40}
    all_given = ["val", *given_splits[1:]]
    assert make_splits(digests, groups, all_given, val_fraction=0.1, test_fraction=0.2) == all_given
    only_train = make_splits(digests, groups, ["train"] * 200, val_fraction=0.1, test_fraction=0.2)
    assert only_train == make_splits(digests, groups, val_fraction=0.1, test_fraction=0.2)


def test_no_fractions_no_splits() -> None:
    assert set(make_splits(*images([9, 9]), val_fraction=0, test_fraction=0)) == {"train"}


def test_three_images_give_one_each_and_two_stay_in_train() -> None:
    splits = make_splits(*images([3]), val_fraction=0.01, test_fraction=0.9)
    assert Counter(splits) == {"train": 1, "val": 1, "test": 1}
    assert make_splits(*images([2]), val_fraction=0.3, test_fraction=0.3) == ["train", "train"]


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 900), min_size=1), st.floats(0, 1))
def test_apportion_is_exact_and_within_one(sizes: dict[str, int], share: float) -> None:
    assume(sum(sizes.values()))
    total = int(share * sum(sizes.values()))
    parts = apportion(sizes, total)
    assert sum(parts.values()) == total
    for group, size in sizes.items():
        assert abs(parts[group] - size * total / sum(sizes.values())) < 1
        assert 0 <= parts[group] <= size


def test_an_exact_test_count_is_met() -> None:
    digests, groups = images([920, 588, 402, 313, 178, 117, 56, 50])
    splits = make_splits(digests, groups, val_fraction=0.1, test_fraction=0.2, test_count=656)
    counts = Counter(splits)
    assert counts["test"] == 656
    assert counts["train"] + counts["val"] == 1968
    of_largest = Counter(split for split, group in zip(splits, groups, strict=True) if group == "0")
    assert of_largest["test"] == 230


@given(
    sizes=classes,
    val=shares,
    test=shares,
    pairs=st.lists(st.tuples(st.integers(0, 239), st.integers(0, 239)), max_size=30),
)
def test_what_belongs_together_shares_a_split_of_about_the_same_size(
    sizes: list[int], val: float, test: float, pairs: list[tuple[int, int]]
) -> None:
    assume(val + test < 1)
    digests, groups = images(sizes)
    together = list(digests)
    for a, b in pairs:
        least, other = sorted(together[i % len(digests)] for i in (a, b))
        together = [least if key == other else key for key in together]
    splits = make_splits(digests, groups, val_fraction=val, test_fraction=test, together=together)
    assert len(set(zip(together, splits, strict=True))) == len(set(together))
    of_unit = Counter(together)
    home = {key: groups[digests.index(key)] for key in of_unit}
    for group in set(groups):
        inside = [
            (of_unit[key], split)
            for key, split in dict(zip(together, splits, strict=True)).items()
            if home[key] == group
        ]
        assert not inside or "train" in {split for _, split in inside}
        if len(inside) < 3:
            continue
        whole, largest = sum(size for size, _ in inside), max(size for size, _ in inside)
        for name, share in (("val", val), ("test", test)):
            held = sum(size for size, split in inside if split == name)
            assert (held > 0) == (share > 0)
            assert abs(held - share * whole) <= 1 + largest


def test_a_unit_counts_as_many_contents_as_it_holds() -> None:
    digests, groups = images([40])
    first = sorted(digests)[:4]
    together = [
        first[0] if digest in first else digest for digest in digests
    ]  # the four that are the first of the test share
    splits = make_splits(digests, groups, val_fraction=0.1, test_fraction=0.2, together=together)
    assert Counter(splits) == {"train": 28, "val": 4, "test": 8}
    assert {split for split, digest in zip(splits, digests, strict=True) if digest in first} == {"test"}


@given(sizes=classes, folds=st.integers(2, 6), val=st.sampled_from([0.0, 0.1]), pairs=st.integers(0, 10))
def test_every_image_is_in_one_fold_and_classes_are_dealt_evenly(
    sizes: list[int], folds: int, val: float, pairs: int
) -> None:
    digests, groups = images(sizes)
    together = list(digests)
    for first in range(0, 2 * min(pairs, len(digests) // 2), 2):
        least = min(digests[first : first + 2])
        together[first : first + 2] = [least, least]
    made = [
        make_splits(digests, groups, val_fraction=val, test_fraction=0.2, fold=(k, folds), together=together)
        for k in range(1, folds + 1)
    ]
    held = [[splits[i] for splits in made].count("test") for i in range(len(digests))]
    units = {group: {together[i] for i in range(len(digests)) if groups[i] == group} for group in groups}
    for group, times in zip(groups, held, strict=True):
        assert times == (len(units[group]) >= 3 or times)
    for splits in made:
        for key in set(together):  # near copies stay in one split
            assert len({split for split, own in zip(splits, together, strict=True) if own == key}) == 1
        assert "train" in splits
    if not pairs:
        for group in units:
            shares = [sum(s == "test" for s, g in zip(splits, groups, strict=True) if g == group) for splits in made]
            assert max(shares) - min(shares) <= 1
        sizes_of = [splits.count("test") for splits in made]
        assert max(sizes_of) - min(sizes_of) <= 1
