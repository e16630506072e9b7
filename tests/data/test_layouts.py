"""Layouts of folders as people and programs leave them: what is a split, a class, an image, a run, and what is asked."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitral.checkpoints.claim import Claim
from vitral.data.listers import list_data
from vitral.data.options import DataOptions
from vitral.data.sources import open_data
from vitral.data.splits import split_of
from vitral.errors import VitralError

ALL = DataOptions(val_fraction=0, test_fraction=0)


def save(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    Image.fromarray(values).save(path, "PNG")
    return path


def fill(root: Path, folders: list[str], n: int = 3) -> Path:
    for k, folder in enumerate(folders):
        for i in range(n):
            save(root / folder / f"{i}.png", 100 * k + i + 10_000 * len(str(root)))
    return root


def divided(data) -> dict[str, set[str]]:
    """Split -> the classes in it."""
    return {name: {data.labels[t] for t in split.targets.values} for name, split in data.splits.items()}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("Training", "train"), ("seg_train", "train"), ("train_images", "train"), ("TrainSet", "train"), ("training_set", "train"),
        ("train2017", "train"), ("Testing", "test"), ("TEST", "test"), ("test_set", "test"), ("images-test", "test"), ("valid", "val"),
        ("Validation", "val"), ("val_data", "val"), ("dev", "val"), ("cat", None), ("trainer", None), ("contest", None), ("trainval", None),
        ("images", None), ("1", None), ("street train", None), ("valley", None),
    ],
)  # fmt: skip
def test_names_of_splits(name, split):
    assert split_of(name) == split


@pytest.mark.parametrize(
    "names", [("Training", "Testing"), ("seg_train", "seg_test"), ("train_images", "test_images"), ("TRAIN", "Test")]
)
def test_split_folders_in_their_usual_spellings(tmp_path, names):
    train, _ = names
    fill(tmp_path, [f"{split}/{label}" for split in names for label in ("cat", "dog")])
    data = open_data(tmp_path, DataOptions(val_fraction=0))
    assert divided(data) == {"train": {"cat", "dog"}, "test": {"cat", "dog"}}
    said = [note for note in data.notes if note.startswith("split folders")]
    assert len(said) == (train != "TRAIN")
    assert all(f"{train}/ is train" in note for note in said)


def test_splits_inside_the_classes(tmp_path):
    fill(tmp_path, [f"{label}/{split}" for label in ("cat", "dog") for split in ("train", "Testing")])
    data = open_data(tmp_path, DataOptions(val_fraction=0))
    assert (data.labels, divided(data)) == (["cat", "dog"], {"train": {"cat", "dog"}, "test": {"cat", "dog"}})
    assert "each class folder holds its splits: Testing/ is test, train/ is train" in data.notes
    save(tmp_path / "bird" / "0.png", 5)
    with pytest.raises(
        VitralError, match=r"beside others that do not \(bird\); divide all of them or none, or say --class-depth 1"
    ):
        open_data(tmp_path)
    assert open_data(tmp_path, DataOptions(class_depth=1)).labels == ["bird", "cat", "dog"]


def test_classes_that_all_hold_the_same_folders_are_asked_about(tmp_path):
    kinds, labels = ("color", "grayscale"), ("apple", "pear", "plum")
    fill(tmp_path, [f"{kind}/{label}" for kind in kinds for label in labels])
    with pytest.raises(VitralError, match=r"all hold the same folders .*--class-depth 1 .*--class-depth 2 .*color\)"):
        open_data(tmp_path)
    assert [p.kind for p in list_data(tmp_path, ALL).problems] == ["nested_classes"]
    assert open_data(tmp_path, DataOptions(class_depth=1)).labels == list(kinds)
    assert open_data(tmp_path, DataOptions(class_depth=2)).labels == list(labels)
    assert open_data(tmp_path / "color").labels == list(labels)
    with pytest.raises(VitralError, match="class_depth 0"):
        DataOptions(class_depth=0)
    with pytest.raises(VitralError, match="no folders at depth 4"):
        open_data(tmp_path, DataOptions(class_depth=4))


def test_one_folder_of_images_in_each_class_is_no_question(tmp_path):
    fill(tmp_path, ["train/n01/images", "train/n02/images"])  # as Tiny ImageNet has it
    assert open_data(tmp_path, ALL).labels == ["n01", "n02"]


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, ["train", "bus", "plane"])
    assert open_data(tmp_path, ALL).labels == ["bus", "plane", "train"]


def test_runs_are_no_data(tmp_path):
    fill(tmp_path, ["cat", "dog", "runs/photos", "cat/inside"])
    for run in ("runs/photos", "cat/inside"):
        (tmp_path / run / "run.json").write_text("{}")
    data = open_data(tmp_path, ALL)
    assert data.labels == ["cat", "dog"]
    assert len(data.splits["train"]) == 6
    assert "left out 2 folders that hold a run of vitral: cat/inside, runs/photos" in data.notes
    with pytest.raises(VitralError, match=r"photos: holds a run of vitral \(run.json\), not data"):
        open_data(tmp_path / "runs/photos")


def test_what_is_left_of_a_run_that_died_at_its_start_is_no_class(tmp_path):
    fill(tmp_path, ["cat", "dog"])
    run = tmp_path / "runs" / "photos"
    Claim(run).release()
    (run / "recipe.toml").write_text("")
    data = open_data(tmp_path, ALL)
    assert data.labels == ["cat", "dog"]
    assert "left out 1 folder that holds a run of vitral: runs/photos" in data.notes
    with pytest.raises(VitralError, match=r"photos: holds a run of vitral \(lock\), not data"):
        open_data(run)
    (tmp_path / "cat" / "lock").touch()  # beside images it is a file like others
    assert list_data(tmp_path, ALL).labels == ["cat", "dog"]


def test_texts_and_companions_do_not_count_and_are_named(tmp_path):
    fill(tmp_path, ["cat", "dog"])
    (tmp_path / "cat" / "notes.txt").write_text("Überblick")
    (tmp_path / "dog" / "0.AAE").write_bytes(b"\x00\x01")
    (tmp_path / "dog" / "LICENSE").write_text("as you like")
    save(tmp_path / "dog" / "IMG_7", 77)
    save(tmp_path / "dog" / "really.txt", 78)
    data = open_data(tmp_path, ALL)
    assert "left out 3 files that are no images: cat/notes.txt, dog/0.AAE, dog/LICENSE" in data.notes
    assert {"dog/IMG_7", "dog/really.txt"} < set(data.splits["train"].names)
    (tmp_path / "cat" / "what").write_bytes(b"\x93\x00\x07")
    (tmp_path / "cat" / "empty").touch()
    with pytest.raises(VitralError, match="2 of 10 images cannot be read"):
        open_data(tmp_path, ALL)


def test_a_flat_folder_counts_images_by_their_content(tmp_path):
    for i in range(3):
        save(tmp_path / f"{i}.png", i)
        save(tmp_path / "more" / f"h{i}", 10 + i)
    (tmp_path / "list.csv").write_text("a,b")
    data = open_data(tmp_path, labelled=False)
    assert sorted(data.splits["train"].names) == ["0.png", "1.png", "2.png", "more/h0", "more/h1", "more/h2"]
    assert "left out 1 file that is no images: list.csv" in data.notes
    only = tmp_path / "only"
    for i in range(3):
        save(only / f"h{i}", 20 + i)
    assert len(open_data(only, labelled=False).splits["train"]) == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may read every folder")
def test_folders_that_cannot_be_read(tmp_path):
    fill(tmp_path, ["cat", "dog", "closed", "cat/too"])
    fill(tmp_path, ["lost+found"], 1)
    for name in ("lost+found", "closed", "cat/too"):
        (tmp_path / name).chmod(0)
    try:
        with pytest.raises(VitralError, match=r"2 folders cannot be read: .*--skip-unreadable"):
            open_data(tmp_path)
        data = open_data(tmp_path, DataOptions(skip_unreadable=True))
        assert data.labels == ["cat", "dog"]
        assert any("left out 2 folders that cannot be read" in note for note in data.notes)
    finally:
        for name in ("lost+found", "closed", "cat/too"):
            (tmp_path / name).chmod(stat.S_IRWXU)


def test_lost_and_found_is_no_class(tmp_path):
    fill(tmp_path, ["cat", "dog"])
    (tmp_path / "lost+found").mkdir()
    assert open_data(tmp_path, ALL).labels == ["cat", "dog"]


def test_many_class_folders_are_each_looked_at_once(tmp_path, monkeypatch):
    for k in range(300):
        (tmp_path / f"c{k:03}").mkdir()
        (tmp_path / f"c{k:03}" / "0.png").touch()
    seen: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: (seen.append(str(path)), scandir(path))[1])
    assert len(list_data(tmp_path, ALL).labels) == 300
    assert len(seen) <= 304


def test_tables_near_by_are_suggested(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path, ["train_images", "test_images"])
    (tmp_path / "train.csv").write_text("image_id,label\n")
    with pytest.raises(VitralError, match=r"perhaps train\.csv with --images train_images"):
        open_data(tmp_path)
