"""Folders and tables as a person has them, good and bad: what comes out, or what the error says."""

import csv
import io
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from vitral.data import sources
from vitral.data.dataset import DataSet, write_skipped
from vitral.data.options import DataOptions
from vitral.data.scan import UnreadableError
from vitral.data.sources import open_data
from vitral.errors import VitralError

EVERYTHING_TRAINS = DataOptions(val_fraction=0, test_fraction=0)


def picture(seed: int, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def save(path: Path, seed: int, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, **options).save(path)  # type: ignore[arg-type]
    return path


def make_classes(root: Path, per_class: int = 20, seed: int = 0) -> Path:
    for c, label in enumerate(("cat", "dog")):
        for i in range(per_class):
            save(root / label / f"{label}{i}.png", seed + 1000 * c + i)
    return root


def names(data: DataSet) -> dict[str, list[str]]:
    return {name: list(split.names) for name, split in data.splits.items()}


def test_class_folders(tmp_path: Path) -> None:
    root = make_classes(tmp_path / "pets")
    save(root / "cat" / "deep" / "er" / "x.JPG", 77)
    (root / "README.md").write_text("about")
    (root / ".hidden").mkdir()
    for junk in (root / "Thumbs.db", root / "cat" / ".DS_Store", root / "dog" / "desktop.ini"):
        junk.write_text("junk")
    data = open_data(root)
    assert (data.name, data.labels, data.channels, data.bit_depth) == ("pets", ["cat", "dog"], 3, 8)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 29, "val": 4, "test": 8}
    assert (data.height, data.width) == (4, 6)
    every = [name for split in data.splits.values() for name in split.names]
    assert sorted(every)[0] == "cat/cat0.png"
    assert "cat/deep/er/x.JPG" in every
    for split in data.splits.values():
        for i, name in enumerate(split.names):
            assert data.labels[split.targets.values[i]] == name.split("/")[0]
            assert split.path(i) == root / name
            expected = np.array(Image.open(root / name))
            got = split.read(i).permute(1, 2, 0).numpy()
            assert np.abs(got.astype(int) - expected).max() <= 1
        assert split.targets.values.dtype == np.int64
    assert split.read(0, channels=1).shape == (1, 4, 6)


def test_splits_and_fingerprint_do_not_depend_on_names_order_or_place(tmp_path: Path) -> None:
    first = open_data(make_classes(tmp_path / "a"))
    renamed = tmp_path / "elsewhere" / "b"
    for n, path in enumerate(sorted((tmp_path / "a").rglob("*.png"))):
        target = renamed / path.parent.name / "sub" / f"{n * 7919 % 101}{path.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    second = open_data(renamed)
    assert second.fingerprint == first.fingerprint

    def contents(data: DataSet) -> dict[str, set[bytes]]:
        return {
            name: {split.read(i).numpy().tobytes() for i in range(len(split))} for name, split in data.splits.items()
        }

    assert contents(second) == contents(first)
    save(renamed / "cat" / "one-more.png", 9999)
    assert open_data(renamed).fingerprint != first.fingerprint


def test_copies_share_a_split(tmp_path: Path) -> None:
    root = make_classes(tmp_path)
    for i in range(20):
        shutil.copyfile(root / f"cat/cat{i}.png", root / f"cat/copy{i}.png")
    data = open_data(root)
    where = {name: split for split, listed in names(data).items() for name in listed}
    for i in range(20):
        assert where[f"cat/cat{i}.png"] == where[f"cat/copy{i}.png"]
    assert data.notes == ["exact copies of other images: 20; copies share a split unless the data divide them"]


def test_one_image_in_two_classes_is_an_error(tmp_path: Path) -> None:
    root = make_classes(tmp_path)
    shutil.copyfile(root / "cat/cat3.png", root / "dog/other.png")
    with pytest.raises(VitralError, match=r"cat/cat3\.png \(cat\) = dog/other\.png \(dog\)"):
        open_data(root)


def test_split_folders(tmp_path: Path) -> None:
    for split, seed, n in (("Train", 0, 20), ("validation", 100, 3), ("test", 200, 4)):
        make_classes(tmp_path / split, n, seed)
    shutil.copyfile(tmp_path / "Train/cat/cat0.png", tmp_path / "test/cat/again.png")
    (tmp_path / "Train" / "labels.txt").write_text("cat dog")
    data = open_data(tmp_path)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 40, "val": 6, "test": 9}
    assert "validation/dog/dog2.png" in data.splits["val"].names
    assert data.notes[0] == (
        "1 image is in both train and test, as the data divide them, so scores on test are too good; "
        "remove the copies from one of the two: test/cat/again.png (test) = Train/cat/cat0.png (train)"
    )


def test_missing_val_is_made_from_train(tmp_path: Path) -> None:
    make_classes(tmp_path / "train", 20)
    make_classes(tmp_path / "test", 5, 100)
    data = open_data(tmp_path)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 36, "val": 4, "test": 10}
    assert all(name.startswith("train/") for name in data.splits["val"].names)
    assert data.notes == ["the data give no val split: made from train"]


def two_spellings(root: Path) -> None:
    make_classes(root)
    save(root / "Cat" / "a.png", 5)


def empty_class(root: Path) -> None:
    make_classes(root)
    (root / "bird").mkdir()


def one_class(root: Path) -> None:
    save(root / "cat" / "a.png", 1)


def loose_images(root: Path) -> None:
    save(root / "a.png", 1)


def loose_among_classes(root: Path) -> None:
    make_classes(root)
    save(root / "a.png", 1)


def class_only_in_test(root: Path) -> None:
    make_classes(root / "train")
    make_classes(root / "test", 5, 100)
    save(root / "test" / "bird" / "a.png", 5)


def splits_beside_classes(root: Path) -> None:
    make_classes(root / "train")
    make_classes(root)


def no_train(root: Path) -> None:
    make_classes(root / "test")


def two_vals(root: Path) -> None:
    for i, split in enumerate(("train", "val", "valid")):
        make_classes(root / split, 3, 100 * i)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda root: None, "the folder is empty; put one folder of images for each class"),
        (two_spellings, "spelled in several ways: 'Cat' = 'cat'; rename"),
        (empty_class, "class folders without any image: bird; add images or remove"),
        (one_class, r"one class only \(cat\)"),
        (loose_images, "1 image lies outside of any class folder"),
        (loose_among_classes, "1 image lies outside of any class folder"),
        (class_only_in_test, "no image in the train split: bird"),
        (splits_beside_classes, r"folders for splits \(train\) beside others \(cat, dog\)"),
        (no_train, "there is no train split, only test"),
        (two_vals, r"two folders are for one split \(train, val, valid\)"),
    ],
)
def test_folders_that_cannot_be_meant_so(tmp_path: Path, make: Callable[[Path], object], says: str) -> None:
    make(tmp_path)
    with pytest.raises(VitralError, match=says) as error:
        open_data(tmp_path)
    assert str(error.value).startswith(str(tmp_path))


def test_all_that_is_wrong_with_a_folder_is_said_at_once(tmp_path: Path) -> None:
    root = make_classes(tmp_path)
    for spoil_more in (two_spellings, empty_class, loose_images):
        spoil_more(root)
    with pytest.raises(VitralError) as error:
        open_data(root)
    assert "4 things to fix" in str(error.value)
    copied = "Cat/a.png (Cat) = cat/cat5.png (cat)"
    for part in ("outside of any class folder (a.png)", "without any image: bird", "'Cat' = 'cat'", copied):
        assert part in str(error.value)


def test_all_that_is_wrong_with_the_images_is_said_at_once(tmp_path: Path) -> None:
    root = make_classes(tmp_path)
    (root / "cat" / "cut.png").touch()
    shutil.copyfile(root / "cat/cat3.png", root / "dog/other.png")
    for i in range(3):
        save(root / "dog" / f"tiny{i}.png", 50 + i, size=(6, 3))
    with pytest.raises(UnreadableError) as error:
        open_data(root, least_side=lambda height, width: height)
    assert "3 things to fix" in str(error.value)
    for part in (
        "1 of 45 images cannot be read",
        "cut.png",
        "cat/cat3.png (cat) = dog/other.png (dog)",
        "3 images are smaller",
    ):
        assert part in str(error.value)
    for i in range(3):
        assert f"dog/tiny{i}.png: 3x6 pixels" in str(error.value)


@pytest.mark.parametrize("skipping", [False, True])
def test_labels_layout_and_images_are_refused_together(tmp_path: Path, skipping: bool) -> None:
    root = make_classes(tmp_path)
    two_spellings(root)
    loose_images(root)
    (root / "bird").mkdir()
    (root / "bird" / "cut.png").touch()
    shutil.copyfile(root / "cat/cat3.png", root / "dog/other.png")
    with pytest.raises(VitralError) as error:
        open_data(root, DataOptions(skip_unreadable=skipping))
    said = str(error.value)
    assert f"{4 if skipping else 5} things to fix" in said
    assert ("images cannot be read" in said) != skipping
    for part in (
        "outside of any class folder (a.png)",
        "'Cat' = 'cat'",
        "cat/cat3.png (cat) = dog/other.png (dog)",
        "nothing is left to train on of: bird",
    ):
        assert part in said


def test_of_many_images_none_is_read_where_the_layout_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_classes(tmp_path)
    two_spellings(root)
    count = sum(path.is_file() for path in root.rglob("*"))
    monkeypatch.setattr(sources, "READ_ANYWAY", count - 1)
    monkeypatch.setattr(sources, "scan", None)
    with pytest.raises(VitralError, match=f"(?s)'Cat' = 'cat'.*none of the {count} images was read"):
        open_data(root)


def test_what_is_missing_is_said_once(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 1)
    (tmp_path / "b.png").touch()
    write_table(tmp_path / "t.csv", [["image", "label"], ["a.png", "x"], ["b.png", "y"], ["c.png", "y"]])
    with pytest.raises(UnreadableError) as error:
        open_data(tmp_path / "t.csv")
    assert "names 1 image that are not there: c.png" in str(error.value)
    assert [name for name, _ in error.value.unreadable] == ["b.png"]


def test_classes_with_few_images_are_named(tmp_path: Path) -> None:
    root = make_classes(tmp_path)
    save(root / "bird" / "a.png", 5000)
    assert open_data(root).notes == [
        "classes that are not in every split: bird (none in val and test); scores there leave them out",
        "fewer than 10 images of: bird (1); what is learned and scored on so few is chance",
    ]


def test_only_training_needs_two_classes_and_a_train_split(tmp_path: Path) -> None:
    one_class(tmp_path / "a")
    data = open_data(tmp_path / "a", EVERYTHING_TRAINS, training=False)
    assert (data.labels, len(data.splits["train"])) == (["cat"], 1)
    no_train(tmp_path / "b")
    data = open_data(tmp_path / "b", training=False)
    assert ({name: len(split) for name, split in data.splits.items()}, data.height) == ({"test": 40}, 4)


def test_labels_that_only_look_alike_are_kept_apart(tmp_path: Path) -> None:
    for i, label in enumerate(("cat", "cats", "-1", "1", "C", "C++")):
        save(tmp_path / label / "a.png", i)
    assert open_data(tmp_path, EVERYTHING_TRAINS).labels == ["-1", "1", "C", "C++", "cat", "cats"]
    save(tmp_path / "red_fox" / "a.png", 50)
    save(tmp_path / "Red-Fox " / "a.png", 51)
    with pytest.raises(VitralError, match="'Red-Fox ' = 'red_fox'"):
        open_data(tmp_path)


def test_whole_number_labels_are_ordered_by_number(tmp_path: Path) -> None:
    for i in range(11):
        save(tmp_path / str(i) / "a.png", i)
    assert open_data(tmp_path, EVERYTHING_TRAINS).labels == [str(i) for i in range(11)]


def test_links_in_a_loop_end(tmp_path: Path) -> None:
    root = make_classes(tmp_path)
    (root / "cat" / "loop").symlink_to(root, target_is_directory=True)
    (root / "dog" / "self").symlink_to(root / "dog", target_is_directory=True)
    with pytest.raises(VitralError, match="copies of one with another label"):  # the whole tree, as cats
        open_data(root)
    (root / "cat" / "loop").unlink()
    assert len(open_data(root, EVERYTHING_TRAINS).splits["train"]) == 40


def test_missing_path_and_odd_file(tmp_path: Path) -> None:
    with pytest.raises(VitralError, match=r"no such folder.*built-in data set \(digits, fashion-mnist, elpv\)"):
        open_data("digit")
    with pytest.raises(VitralError, match="neither a folder nor a table"):
        open_data(save(tmp_path / "a.png", 1))


def spoil(root: Path) -> list[str]:
    """Bad files of many kinds among the good: their names."""
    whole = io.BytesIO()
    picture(1, (64, 64)).save(whole, "JPEG")
    (root / "cat" / "a_cut.jpg").write_bytes(whole.getvalue()[:-200])
    (root / "cat" / "b_empty.png").touch()
    (root / "cat" / "c_text.jpg").write_text("hello")
    (root / "dog" / "e_link.png").symlink_to("nowhere.png")
    os.mkfifo(root / "dog" / "f_pipe.png")
    return [
        "cat/a_cut.jpg",
        "cat/b_empty.png",
        "cat/c_text.jpg",
        "dog/e_link.png",
        "dog/f_pipe.png",
    ]


def test_all_unreadable_files_are_listed_or_skipped(tmp_path: Path) -> None:
    root = make_classes(tmp_path / "data")
    bad = spoil(root)
    with pytest.raises(UnreadableError, match="5 of 45 images cannot be read") as error:
        open_data(root)
    assert [name for name, _ in error.value.unreadable] == bad
    assert all(name in str(error.value) for name in bad)

    data = open_data(root, DataOptions(skip_unreadable=True))
    assert [name for name, _ in data.skipped] == bad
    assert sum(len(split) for split in data.splits.values()) == 40
    write_skipped(data, tmp_path / "skipped.csv")
    with open(tmp_path / "skipped.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["name", "reason"]
    assert [row[0] for row in rows[1:]] == bad
    assert "0 bytes" in rows[2][1]
    with pytest.raises(VitralError, match="cannot be written"):
        write_skipped(data, tmp_path / "no" / "skipped.csv")


def test_more_than_twenty_unreadable_files_are_counted(tmp_path: Path) -> None:
    root = make_classes(tmp_path)
    for i in range(25):
        (root / "cat" / f"x{i:02}.png").touch()
    with pytest.raises(UnreadableError, match="and 5 more") as error:
        open_data(root)
    assert len(error.value.unreadable) == 25
    assert "x19.png" in str(error.value)
    assert "x20.png" not in str(error.value)


def test_skipping_must_not_empty_a_class(tmp_path: Path) -> None:
    root = make_classes(tmp_path)
    (root / "bird").mkdir()
    (root / "bird" / "a.png").touch()
    with pytest.raises(VitralError, match="nothing is left to train on of: bird"):
        open_data(root, DataOptions(skip_unreadable=True))


def test_a_file_that_changes_or_goes_after_the_scan(tmp_path: Path) -> None:
    data = open_data(make_classes(tmp_path), EVERYTHING_TRAINS)
    split = pickle.loads(pickle.dumps(data.splits["train"]))  # as a loader worker gets it
    before = split.read(0)
    os.utime(split.path(0), (1, 1))
    assert torch.equal(split.read(0), before)  # touched, but the same
    save(split.path(0), 4242)
    with pytest.raises(VitralError, match=r"cat/cat0\.png: has changed since the data were scanned"):
        split.read(0)
    split.path(1).unlink()
    with pytest.raises(VitralError, match=r"cat/cat1\.png: there is no such file"):
        split.read(1)


def test_grey_mixed_and_16_bit(tmp_path: Path) -> None:
    for i, label in enumerate(("a", "b")):
        save(tmp_path / label / "grey.png", i, mode="L")
    assert open_data(tmp_path, EVERYTHING_TRAINS).channels == 1
    Image.fromarray(np.full((9, 9), 40000, np.uint16)).save(tmp_path / "a" / "deep.png")
    data = open_data(tmp_path, EVERYTHING_TRAINS)
    assert (data.channels, data.bit_depth) == (1, 16)
    assert data.splits["train"].read(0)[0, 0, 0].item() == pytest.approx(40000 / 257)
    save(tmp_path / "b" / "colour.png", 8)
    assert open_data(tmp_path, EVERYTHING_TRAINS).channels == 3
    assert open_data(tmp_path, DataOptions(channels=1)).channels == 1


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    open_data(make_classes(tmp_path, 50), progress=lambda done, total: reports.append((done, total)))
    assert reports == [(64, 100), (100, 100)]


# Tables


def write_table(path: Path, rows: list[list[object]], **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, **options).writerows(rows)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".csv", ";"), (".tsv", "\t")])
def test_text_tables(tmp_path: Path, suffix: str, delimiter: str) -> None:
    rows: list[list[object]] = [["image", "label"]]
    for i in range(22):
        save(tmp_path / "pix" / f"im, {i}.png", i)
        rows.append([f"pix/im, {i}.png", i % 11])
    data = open_data(write_table(tmp_path / f"list{suffix}", rows, delimiter=delimiter), EVERYTHING_TRAINS)
    assert (data.name, data.labels) == ("list", [str(i) for i in range(11)])
    split = data.splits["train"]
    assert split.names[13] == "pix/im, 13.png"
    assert data.labels[split.targets.values[13]] == "2"
    assert split.path(13) == tmp_path / "pix" / "im, 13.png"


def test_columns_and_splits_of_a_table(tmp_path: Path) -> None:
    rows: list[list[object]] = [["file", "kind", "part"]]
    for i in range(40):
        save(tmp_path / f"{i}.png", i)
        rows.append([f"{i}.png", "ab"[i % 2], "Valid" if i < 4 else "train" if i < 30 else "test"])
    path = write_table(tmp_path / "list.csv", rows)
    options = DataOptions(image_column="file", label_column="kind", split_column="part")
    data = open_data(path, options)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 26, "val": 4, "test": 10}
    with pytest.raises(VitralError, match=r"no column 'label'; the columns are 'file', 'kind', 'part'.*--label-column"):
        open_data(path)
    with pytest.raises(VitralError, match=r"no column 'fold'.*--split-column"):
        open_data(path, DataOptions(image_column="file", label_column="kind", split_column="fold"))
    with pytest.raises(VitralError, match=r"row 2: 'a', row 3: 'b'.*and 30 more"):
        open_data(path, DataOptions(image_column="file", label_column="part", split_column="kind"))


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "there is no column 'image'; the columns are none"),
        ([["image", "label"]], "has no rows"),
        ([["image", "label"], ["0.png", "a"], ["1.png", " "]], "1 row has no label: row 3"),
        ([["image", "label"], ["", "a"]], "1 row has no image: row 2"),
        ([["image", "label"], ["0.png", "a"], ["0.png", "b"]], r"1 image has two labels: 0\.png \(a, b\)"),
        ([["image", "label"], ["0.png", "a"], ["./0.png", "b"]], "has two labels"),
        ([["image", "label"], ["0.png", "a"], ["1.png", "a"]], "one class only"),
        ([["image", "label"], ["0.png", "a"], ["1.png", "A "]], "spelled in several ways: 'A ' = 'a'"),
        ([["image", "label"], ["0.png", "a", "extra"]], "line 2 has 3 fields where the header has 2"),
        ([["image", "label", "label"], ["0.png", "a", "b"]], "several columns 'label'"),
    ],
)
def test_tables_that_cannot_be_meant_so(tmp_path: Path, rows: list[list[object]], says: str) -> None:
    for i in range(2):
        save(tmp_path / f"{i}.png", i)
    with pytest.raises(VitralError, match=says):
        open_data(write_table(tmp_path / "list.csv", rows))


def test_all_missing_images_of_a_table_are_counted(tmp_path: Path) -> None:
    save(tmp_path / "0.png", 0)
    save(tmp_path / "1.png", 1)
    rows: list[list[object]] = [["image", "label"], ["0.png", "a"], ["1.png", "b"]]
    rows += [[f"gone{i:02}.png", "a"] for i in range(12)]
    path = write_table(tmp_path / "list.csv", rows)
    with pytest.raises(VitralError, match=r"12 images that are not there: gone00\.png.*gone09\.png and 2 more"):
        open_data(path)
    data = open_data(path, DataOptions(skip_unreadable=True))
    assert len(data.skipped) == 12


def test_rows_listed_twice_are_kept_together(tmp_path: Path) -> None:
    rows: list[list[object]] = [["image", "label"]]
    for i in range(40):
        save(tmp_path / f"{i}.png", i)
        rows += [[f"{i}.png", "ab"[i % 2]]] * 2
    data = open_data(write_table(tmp_path / "list.csv", rows))
    listed = names(data)
    assert sum(map(len, listed.values())) == 80
    assert not set(listed["train"]) & set(listed["test"])


def test_a_table_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(b"image,label\n\xff\xfe\x00,a\n")
    with pytest.raises(VitralError, match="is not UTF-8"):
        open_data(path)


def png_bytes(seed: int) -> bytes:
    file = io.BytesIO()
    picture(seed).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("layout", ["paths", "bytes", "struct"])
def test_parquet(tmp_path: Path, layout: str) -> None:
    paths = [save(tmp_path / f"{i}.png", i).name for i in range(12)]
    column: object = paths
    if layout == "bytes":
        column = [png_bytes(i) for i in range(12)]
    elif layout == "struct":
        column = [{"bytes": png_bytes(i), "path": f"{i}.png"} for i in range(12)]
    table = pa.table({"image": column, "label": [i % 2 for i in range(12)]})
    features = b'{"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}'
    if layout == "struct":
        table = table.replace_schema_metadata({b"huggingface": features})
    parquet.write_table(table, tmp_path / "list.parquet")
    data = open_data(tmp_path / "list.parquet", EVERYTHING_TRAINS)
    assert data.labels == (["cat", "dog"] if layout == "struct" else ["0", "1"])
    split = pickle.loads(pickle.dumps(data.splits["train"]))
    assert np.array_equal(split.read(7).permute(1, 2, 0).numpy(), np.array(picture(7)))
    assert split.targets.values.tolist() == [0, 1] * 6
    assert split.names[7] == {"paths": "7.png", "bytes": "list/7", "struct": "list/7.png"}[layout]
    assert split.path(7) == (tmp_path / "7.png" if layout == "paths" else None)


def test_parquet_that_is_none_or_odd(tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    path.write_bytes(b"PAR1 no")
    with pytest.raises(VitralError, match="is not a readable Parquet file"):
        open_data(path)
    parquet.write_table(pa.table({"image": [1, 2], "label": ["a", "b"]}), path)
    with pytest.raises(VitralError, match="must hold paths or encoded images"):
        open_data(path)
    parquet.write_table(pa.table({"image": [b"x", png_bytes(1)], "label": ["a", "b"]}), path)
    with pytest.raises(UnreadableError, match="list/0: is not a JPEG"):
        open_data(path)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(VitralError, match=r"pip install 'vitral\[parquet\]'"):
        open_data(tmp_path / "list.parquet")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"channels": 0}, "1 .grey., 3 .RGB. or the number of bands"),
        ({"val_fraction": 1.5}, "not a share"),
        ({"test_fraction": 0.95}, "leave"),
    ],
)
def test_options_are_checked(values: dict, says: str) -> None:
    with pytest.raises(VitralError, match=says):
        DataOptions(**values)
