"""Tables as people write them: names of columns, zeros and ones, folds, paths from elsewhere; and Hugging Face's folders."""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from vitral.cli import with_folder
from vitral.data.dataset import DataSet
from vitral.data.listers import list_data
from vitral.data.options import DataOptions
from vitral.data.sources import open_data
from vitral.errors import VitralError

ALL = {"val_fraction": 0.0, "test_fraction": 0.0}


def encoded(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with 0.png to 7.png in imgs/."""
    (tmp_path / "imgs").mkdir()
    for i in range(8):
        (tmp_path / "imgs" / f"{i}.png").write_bytes(encoded(i))
    return tmp_path


def opened(place: Path, text: str, **options) -> DataSet:
    (place / "t.csv").write_text(text)
    return open_data(place / "t.csv", DataOptions(**ALL | options))


def labels(data: DataSet, split: str = "train") -> list[object]:
    targets = data.splits[split].targets.values
    if targets.ndim == 1:
        return [data.labels[t] for t in targets]
    return [{data.labels[k] for k in np.flatnonzero(row)} for row in targets]


def rows(head: str, line: str, n: int = 4) -> str:
    return head + "\n" + "".join(line.format(i=i, c="ab"[i % 2]) + "\n" for i in range(n))


@pytest.mark.parametrize("image", ["file_name", "Filename", "PATH", "image_path", "img", "ImageId"])
@pytest.mark.parametrize("label", ["Category", "class", "target", "labels", "label_name"])
def test_usual_names_of_columns(place, image, label):
    data = opened(place, rows(f"{image},{label}", "imgs/{i}.png,{c}"))
    assert labels(data) == ["a", "b", "a", "b"]
    assert any(repr(image) in note and label in note for note in data.notes)


def test_the_cells_tell_between_columns_and_what_stays_unclear_is_listed(place):
    assert labels(opened(place, rows("id,filename,class_id,class_name", "{i},imgs/{i}.png,1{i},x{i}")))[0] == "x0"
    with pytest.raises(VitralError, match=r"'path', 'file' could each be the image column; .*--image-column"):
        opened(place, rows("path,file,label", "imgs/{i}.png,imgs/{i}.png,{c}"))
    with pytest.raises(
        VitralError, match=r"no column 'image'.*--image-column; there is no column 'label'.*--label-column"
    ):
        opened(place, rows("what,kind", "imgs/{i}.png,{c}"))


@pytest.mark.parametrize("cell", ["imgs\\{i}.png", "C:\\data\\imgs\\{i}.png", "D:/x/y/imgs/{i}.png"])
def test_paths_written_on_windows(place, cell):
    data = opened(place, rows("image,label", cell + ",{c}"))
    assert list(data.splits["train"].names) == [f"imgs/{i}.png" for i in range(4)]
    assert any("imgs/0.png" in note for note in data.notes)


def test_ids_and_bare_names_in_another_folder(place, monkeypatch):
    monkeypatch.chdir(place)
    for cell in ("{i}", "{i}.png", "elsewhere/{i}.png"):
        text = rows("id,label", cell + ",{c}")
        with pytest.raises(VitralError, match=r"in imgs/: add --images imgs"):
            opened(place, text)
        said = list_data(place / "t.csv", DataOptions(skip_unreadable=True)).understood
        assert any(note.endswith("not there: the files are in imgs/: add --images imgs") for note in said)
        assert len(opened(place, text, images_folder="imgs").splits["train"]) == 4
    (place / "imgs/1.jpg").write_bytes(b"x")
    with pytest.raises(VitralError, match=r"1 image could be several files: 1 \(1.jpg or 1.png\)"):
        opened(place, rows("id,label", "{i},{c}"), images_folder="imgs")
    with pytest.raises(VitralError, match="no such folder"):
        opened(place, rows("id,label", "{i},{c}"), images_folder="nowhere")
    assert with_folder(["train", "t.csv", "--images", "imgs"]) == ["train", "t.csv", "--images-folder", "imgs"]
    assert with_folder(["evaluate", "--images", "3"]) == ["evaluate", "--images", "3"]


def test_a_table_without_a_header(place):
    text = rows("imgs/7.png,b", "imgs/{i}.png,{c}")
    with pytest.raises(VitralError, match="--no-header --image-column 1 --label-column 2"):
        opened(place, text)
    assert labels(opened(place, text, header=False, image_column="1", label_column="2")) == ["b", "a", "b", "a", "b"]


def test_quotes_after_spaces_and_delimiters_at_the_end(place):
    assert labels(opened(place, rows("image, label", 'imgs/{i}.png, "{c}, x"'))) == ["a, x", "b, x"] * 2
    assert labels(opened(place, rows('"image" , "label"', '"imgs/{i}.png" , "{c}"'))) == ["a", "b"] * 2
    assert labels(opened(place, rows("image,label", "imgs/{i}.png,{c},,"))) == ["a", "b"] * 2


def test_columns_of_zeros_and_ones(place):
    one = opened(place, "image,cat,dog\nimgs/0.png,1,0\nimgs/1.png,0,1\n")
    assert (labels(one), one.task) == (["cat", "dog"], "classify")
    several = opened(place, "image,note,cat,dog\nimgs/0.png,x,1,1\nimgs/1.png,y,0,1\nimgs/2.png,z,0,0\n")
    assert labels(several) == [{"cat", "dog"}, {"dog"}, set()]
    with pytest.raises(VitralError, match="'cat' holds '2' in row 2"):
        opened(place, "image,cat,dog\nimgs/0.png,2,0\nimgs/1.png,0,1\n", label_columns=("cat", "dog"))


VECTORS = [[1, 0, 1], [0, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize("names", [None, ["x", "y", "z"]])
def test_vectors_of_zeros_and_ones_in_parquet(place, names):
    table = pa.table({"image": [encoded(i) for i in range(3)], "label": VECTORS})
    if names:
        feature = {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "List"}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": {"label": feature}}})})
    parquet.write_table(table, place / "t.parquet")
    data = open_data(place / "t.parquet", DataOptions(**ALL))
    assert data.labels == (names or ["class 0", "class 1", "class 2"])
    assert data.splits["train"].targets.values.tolist() == VECTORS


def test_vectors_of_zeros_and_ones_in_text(place):
    for cells, options in (
        (["1;0;1", "0;1;1"], {"label_separator": ";"}),
        (['"[1, 0, 1]"', '"[0, 1, 1]"'], {}),
        (["[1 0 1]", "[0 1 1]"], {}),
    ):
        text = "image,label\n" + "".join(f"imgs/{i}.png,{cell}\n" for i, cell in enumerate(cells))
        assert opened(place, text, **options).labels == ["class 0", "class 1", "class 2"]


@pytest.mark.parametrize("column", ["fold", "split"])
def test_folds(place, column):
    text = f"image,label,{column}\n" + "".join(f"imgs/{i}.png,{'ab'[i // 4]},{i % 4}\n" for i in range(8))
    with pytest.raises(VitralError, match=r"--val-fold 0 --test-fold 1 .*--split-column none"):
        opened(place, text)
    data = opened(place, text, val_fold="3", test_fold="0")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 4, "val": 2, "test": 2}
    assert set(data.splits["test"].names) == {"imgs/0.png", "imgs/4.png"}
    assert set(opened(place, text, split_column="none").splits) == {"train"}
    with pytest.raises(VitralError, match="not '9'"):
        opened(place, text, val_fold="9")


def write_metadata(folder: Path, kind: str, names: list[str], own: list[str]) -> None:
    if kind == "csv":
        (folder / "metadata.csv").write_text(
            "file_name,label\n" + "".join(f"{n},{x}\n" for n, x in zip(names, own, strict=True))
        )
    elif kind == "jsonl":
        lines = [json.dumps({"file_name": n, "label": x}) + "\n" for n, x in zip(names, own, strict=True)]
        (folder / "metadata.jsonl").write_text("".join(lines))
    else:
        parquet.write_table(pa.table({"file_name": names, "label": own}), folder / "metadata.parquet")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_hugging_faces_image_folder(tmp_path, kind):
    for k, split in enumerate(("train", "test")):
        (tmp_path / split / "deep").mkdir(parents=True)
        names = [f"{i}.png" if i else "deep/0.png" for i in range(4)]
        for i, name in enumerate(names):
            (tmp_path / split / name).write_bytes(encoded(10 * k + i))
        write_metadata(tmp_path / split, kind, names, ["a", "b", "a", "b"])
    data = open_data(tmp_path, DataOptions(**ALL))
    assert labels(data, "test") == ["a", "b", "a", "b"]
    assert "train/deep/0.png" in data.splits["train"].names
    (tmp_path / "train" / "extra.png").write_bytes(encoded(99))
    (tmp_path / "test" / "1.png").unlink()
    with pytest.raises(VitralError, match=r"not there: test/1\.png(.|\n)*1 image has no row .*train/extra\.png"):
        open_data(tmp_path, DataOptions(**ALL))
    skipped = open_data(tmp_path, DataOptions(**ALL, skip_unreadable=True))
    assert sum(len(split) for split in skipped.splits.values()) == 7


@pytest.mark.parametrize("inside", ["data", ""])
def test_a_folder_of_parquet_shards(tmp_path, inside):
    (tmp_path / inside).mkdir(exist_ok=True)
    info = json.dumps({"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}})
    for k, shard in enumerate(
        ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001", "test-00000-of-00001")
    ):
        images = [{"bytes": encoded(10 * k + i), "path": f"{i}.png"} for i in range(4)]
        table = pa.table({"image": images, "label": [0, 1, 0, 1]}).replace_schema_metadata({"huggingface": info})
        parquet.write_table(table, tmp_path / inside / f"{shard}.parquet")
    data = open_data(tmp_path, DataOptions(**ALL))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 8, "val": 4, "test": 4}
    assert data.labels == ["cat", "dog"]
    parquet.write_table(pa.table({"image": [encoded(1)], "label": [0]}), tmp_path / inside / "odd.parquet")
    with pytest.raises(VitralError, match=r"not clear which split they are: .*odd\.parquet"):
        open_data(tmp_path, DataOptions(**ALL))


@pytest.mark.parametrize("struct", [True, False])
def test_images_of_a_large_parquet_file_stay_in_it(tmp_path, monkeypatch, struct):
    """And are those of one that is read whole, in any order and in other processes; one row group is kept at a time here."""
    cells = [{"bytes": encoded(i), "path": f"{i}.png"} if struct else encoded(i) for i in range(11)]
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"image": cells, "label": list("ababababaab")}), path, row_group_size=3)
    whole = open_data(path, DataOptions(**ALL))
    monkeypatch.setattr("vitral.data.rows.LARGE", 0)
    monkeypatch.setattr("vitral.data.groups.KEPT", 1)
    left = open_data(path, DataOptions(**ALL))
    assert left.fingerprint == whole.fingerprint
    assert list(left.splits["train"].names) == list(whole.splits["train"].names)
    again = pickle.loads(pickle.dumps(left.splits["train"]))
    for i in (10, 0, 4, 4, 9):
        assert (again.read(i) == whole.splits["train"].read(i)).all()
    assert len(again.images._kept) == 1


def test_a_row_without_an_image_in_a_large_parquet_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("vitral.data.rows.LARGE", 0)
    cells = [{"bytes": encoded(i) if i != 2 else None, "path": f"{i}.png"} for i in range(4)]
    parquet.write_table(pa.table({"image": cells, "label": list("abab")}), tmp_path / "t.parquet", row_group_size=2)
    with pytest.raises(VitralError, match=r"2\.png: row 3 holds no image"):
        open_data(tmp_path / "t.parquet", DataOptions(**ALL))
