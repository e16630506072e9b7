"""Several labels an image: what a table's cells mean, how such data are divided, and what is refused."""

import csv
import json
import shutil
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet

from vitral.data.dataset import DataSet
from vitral.data.options import DataOptions
from vitral.data.sources import open_data
from vitral.data.splits import common, keep_in_train, make_splits
from vitral.data.table import _parts
from vitral.errors import VitralError

SEVERAL = DataOptions(label_separator=";")
ALL_TRAIN = DataOptions(label_separator=";", val_fraction=0, test_fraction=0)
CELLS = ["cat;dog", "", "dog", " cat ; dog;", "bird;dog"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(60):
        values = np.random.default_rng(i).integers(0, 256, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{i}.png")
    return folder


def table(folder: Path, cells: list[str], name: str = "t.csv", splits: list[str] | None = None) -> Path:
    rows = [(f"{i}.png", cell, *([splits[i]] if splits else [])) for i, cell in enumerate(cells)]
    with open(folder / name, "w", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if name.endswith(".tsv") else ",")
        writer.writerows([("image", "label", *(["split"] if splits else [])), *rows])
    return folder / name


def sets(data: DataSet) -> dict[str, set[str]]:
    """Image -> its labels, of all splits."""
    return {
        name: {data.labels[k] for k in np.flatnonzero(row)}
        for split in data.splits.values()
        for name, row in zip(split.names, split.targets.values, strict=True)
    }


WANTED = {"0.png": {"cat", "dog"}, "1.png": set(), "2.png": {"dog"}, "3.png": {"cat", "dog"}, "4.png": {"bird", "dog"}}


@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_cells_of_a_text_table(pictures, name):
    data = open_data(table(pictures, CELLS, name), ALL_TRAIN)
    assert (data.labels, data.task) == (["bird", "cat", "dog"], "multilabel")
    assert data.splits["train"].targets.values.dtype == np.float32
    assert sets(data) == WANTED
    assert "1.4 labels an image on average; 1 image has none" in data.notes
    assert (
        "fewer than 10 images of: bird (1), cat (2), dog (4); what is learned and scored on so few is chance"
        in data.notes
    )


@pytest.mark.parametrize("kind", ["text", "lists", "numbers", "old numbers"])
def test_cells_of_a_parquet_table(pictures, kind):
    names = ["dog", "bird", "cat"]
    lists = [sorted(WANTED[f"{i}.png"]) for i in range(5)]
    schema = None
    values = [";".join(own) or None for own in lists] if kind == "text" else [own or None for own in lists]
    if "numbers" in kind:
        values = [[names.index(label) for label in own] for own in lists]
        inner = {"names": names, "_type": "ClassLabel"}
        feature = [inner] if kind == "old numbers" else {"feature": inner, "_type": "List"}
        about = {"info": {"features": {"label": feature}}}
        schema = pa.schema(
            [("image", pa.string()), ("label", pa.list_(pa.int64()))], metadata={"huggingface": json.dumps(about)}
        )
    path = pictures / f"{kind}.parquet"
    parquet.write_table(pa.table({"image": [f"{i}.png" for i in range(5)], "label": values}, schema=schema), path)
    separator = ";" if kind == "text" else None
    data = open_data(path, DataOptions(label_separator=separator, val_fraction=0, test_fraction=0))
    assert data.labels == ["bird", "cat", "dog"]
    assert sets(data) == WANTED


def test_without_a_separator_an_image_has_one_label(pictures):
    data = open_data(table(pictures, ["cat;dog", "dog", "cat;dog"]), DataOptions(val_fraction=0, test_fraction=0))
    assert (data.labels, data.task) == (["cat;dog", "dog"], "classify")
    assert data.splits["train"].targets.values.tolist() == [0, 1, 0]


def test_empty_cells_beside_several_labels_get_a_hint(pictures):
    with pytest.raises(VitralError, match=r'1 row has no label.*--label-separator ";"'):
        open_data(table(pictures, ["cat;dog", "dog", ""]), DataOptions(val_fraction=0, test_fraction=0))


names = st.text(st.characters(exclude_characters=";", exclude_categories=["Cs", "Cc"]), max_size=4).map(str.strip)


@given(st.lists(names, max_size=6), st.sampled_from([";", " ; ", ";;"]))
def test_any_labels_come_out_of_the_cell_that_holds_them(labels, between):
    assert _parts(between.join(labels), ";") == frozenset(filter(None, labels))


def test_the_fingerprint_is_of_all_labels(pictures):
    def fingerprint(*cells):
        return open_data(table(pictures, [*cells, ""]), ALL_TRAIN).fingerprint

    assert fingerprint("a;b", "a") == fingerprint(" b; a", "a")
    several = {fingerprint("a;b", "a"), fingerprint("a;b", "b"), fingerprint("a;b", ""), fingerprint("a;c", "a")}
    assert len(several) == 4
    lists = [[["a, b"], ["c"]], [["a", "b"], ["c"]], [['a", "b'], ["c"]]]  # no name can look like two
    seen = set()
    for labels in lists:
        path = pictures / "lists.parquet"
        parquet.write_table(pa.table({"image": ["0.png", "1.png"], "label": labels}), path)
        seen.add(open_data(path, DataOptions(val_fraction=0, test_fraction=0)).fingerprint)
    assert len(seen) == 3


def test_each_set_of_labels_is_divided_in_the_same_proportions(pictures):
    cells = ["a"] * 20 + ["a;b"] * 20 + [""] * 15 + ["c", "a;c", "b;c", "a;b;c", "b"]
    data = open_data(table(pictures, cells), SEVERAL)
    counts = {name: len(split) for name, split in data.splits.items()}
    assert counts == {"train": 14 + 14 + 10 + 3, "val": 2 + 2 + 2 + 1, "test": 4 + 4 + 3 + 1}
    for name, of_a, of_ab in (("val", 2, 2), ("test", 4, 4)):
        own = [frozenset(data.labels[k] for k in np.flatnonzero(row)) for row in data.splits[name].targets.values]
        assert (own.count(frozenset("a")), own.count(frozenset("ab"))) == (of_a, of_ab)
    again = open_data(table(pictures, cells), SEVERAL)
    assert all(list(again.splits[name].names) == list(data.splits[name].names) for name in data.splits)


@st.composite
def labelled(draw):
    """Content hashes (some twice), label sets (copies alike), and perhaps given splits."""
    own = draw(st.lists(st.frozensets(st.sampled_from("abcdef"), max_size=3), min_size=1, max_size=60))
    copies = draw(st.lists(st.integers(0, len(own) - 1), max_size=8))
    rows = [*range(len(own)), *copies]
    stated = draw(
        st.one_of(st.none(), st.lists(st.sampled_from(["train", "test"]), min_size=len(rows), max_size=len(rows)))
    )
    return [blake2b(str(i).encode(), digest_size=16).digest() for i in rows], [sorted(own[i]) for i in rows], stated


@given(labelled())
def test_no_label_is_taken_out_of_train_altogether(case):
    digests, labels, stated = case
    groups = common([" ".join(own) for own in labels], digests)
    made = make_splits(digests, groups, stated, val_fraction=0.3, test_fraction=0.5)
    splits = list(made)
    keep_in_train(splits, stated, digests, labels)
    start = stated or ["train"] * len(splits)
    could = {label for own, split in zip(labels, start, strict=True) if split == "train" for label in own}
    assert {label for own, split in zip(labels, splits, strict=True) if split == "train" for label in own} == could
    for k, split in enumerate(splits):
        assert split in (made[k], "train")
        assert start[k] == "train" or split == start[k]
        if stated is None:
            assert {splits[i] for i, digest in enumerate(digests) if digest == digests[k]} == {
                split
            }  # copies stay together
    held = {label for own, split in zip(labels, made, strict=True) if split == "train" for label in own}
    if held == could:
        assert splits == made


def test_the_sheet_of_augmentations_names_all_labels(pictures):
    from vitral.data.augment import Augmentation
    from vitral.data.loader import TrainingBatches
    from vitral.data.mix import Mix
    from vitral.data.options import AugmentOptions
    from vitral.data.preprocess import Preprocess
    from vitral.data.sheet import contact_sheet

    data = open_data(table(pictures, CELLS), ALL_TRAIN)
    steps, options = Preprocess(4, 4, 3, (0.5,) * 3, (0.5,) * 3), AugmentOptions(crop="none", mixup=0.5)
    batches = TrainingBatches(
        data.splits["train"], steps, [Augmentation(options, steps)], 5, 0, mix=Mix(options, len(data.labels))
    )
    targets = batches[0].targets
    assert targets.shape == (5, 3)
    assert targets.max() <= 1
    assert contact_sheet(batches, data.labels).width > 0


def test_rare_sets_share_one_group():
    digests = [blake2b(str(i).encode(), digest_size=16).digest() for i in range(40)]
    groups = ["x"] * 20 + ["y"] * 9 + ["z"] * 11
    assert common(groups, digests) == ["x"] * 20 + [""] * 9 + ["z"] * 11
    assert common(["x"] * 30, digests[:3] * 10) == [""] * 30  # copies do not count


def test_copies_with_other_labels_are_an_error(pictures, tmp_path):
    for i in range(4):
        shutil.copy(pictures / f"{i // 2}.png", tmp_path / f"{i}.png")  # 0 = 1, 2 = 3
    with pytest.raises(VitralError, match=r"1 image is a copy .*\n  0\.png \(a, b\) = 1\.png \(no label\)"):
        open_data(table(tmp_path, ["a;b", "", "b;a", "a;b"]), ALL_TRAIN)


def test_one_image_in_two_rows(pictures):
    path = pictures / "twice.csv"
    path.write_text("image,label\n0.png,a;b\n0.png,b; a\n1.png,c\n")
    assert len(open_data(path, ALL_TRAIN).splits["train"]) == 3
    path.write_text("image,label\n0.png,a\n0.png,b\n1.png,c\n")
    with pytest.raises(
        VitralError, match=r"rows with different labels: 0\.png \(\[a\], \[b\]\); give each image one row"
    ):
        open_data(path, ALL_TRAIN)


def test_what_cannot_be_meant_is_refused(pictures, tmp_path):
    with pytest.raises(VitralError, match="one character"):
        DataOptions(label_separator="")
    with pytest.raises(VitralError, match="one character"):
        DataOptions(label_separator=", ")
    for cells, says in (
        (["a", "a"], r"same labels \(a\)"),
        (["", ""], r"same labels \(no label\)"),
        (["a;A", ""], "spelled in several ways"),
    ):
        with pytest.raises(VitralError, match=says):
            open_data(table(pictures, cells), ALL_TRAIN)
    with pytest.raises(VitralError, match="no image in the train split: b"):
        open_data(table(pictures, ["a", "b", ""], splits=["train", "test", "train"]), SEVERAL)
    for place in (tmp_path, "digits"):
        with pytest.raises(VitralError, match="needs a table"):
            open_data(place, SEVERAL)
    parquet.write_table(pa.table({"image": ["0.png", "1.png"], "label": [["a", " "], ["b"]]}), pictures / "gap.parquet")
    with pytest.raises(VitralError, match="lists with an empty label"):
        open_data(pictures / "gap.parquet", DataOptions())


def test_data_to_score_on_need_no_second_label_set(pictures):
    data = open_data(table(pictures, ["a", "a"]), ALL_TRAIN, training=False)
    assert (data.labels, data.splits["train"].targets.values.tolist()) == (["a"], [[1.0], [1.0]])
    empty = open_data(table(pictures, ["", ""]), ALL_TRAIN, training=False)
    assert (empty.labels, empty.splits["train"].targets.values.shape) == ([], (2, 0))


def test_unreadable_images_may_not_take_a_label_with_them(pictures, tmp_path):
    shutil.copy(pictures / "0.png", tmp_path / "0.png")
    shutil.copy(pictures / "1.png", tmp_path / "1.png")
    (tmp_path / "2.png").write_text("no")
    options = DataOptions(label_separator=";", val_fraction=0, test_fraction=0, skip_unreadable=True)
    assert open_data(table(tmp_path, ["a;b", "", "b"]), options).skipped
    with pytest.raises(VitralError, match="nothing is left to train on of: b;"):
        open_data(table(tmp_path, ["a", "", "b"]), options)
