"""Answers as files that stand beside the truth: in the training data's own numbers, and read back by our readers of the formats."""

import json

import numpy as np
import pytest
from PIL import Image

from finder import Finder, Segmenter, finder, picture
from test_tiles import SQUARES, Grounded, run
from vitral.data.formats import read_annotated
from vitral.data.formats.maps import read_ids, read_map
from vitral.data.shapes import area_and_box, mask_of

IDS = (90, 7)
"""Of the two classes: with a gap, and not in the order of the names."""


@pytest.fixture
def written(tmp_path, capsys, monkeypatch):
    """The files that a finder of a task writes for the picture of `SQUARES`, in folders as a data set has them."""

    def write(task, engine=None, labels=("box", "disc")):
        images = tmp_path / "images"
        images.mkdir()
        Image.fromarray(picture(48, 80, *SQUARES)).save(images / "a.png")
        monkeypatch.setattr("vitral.predict.load", lambda path: finder(task, 80, engine, labels, IDS))
        run(capsys, "predict", "model", images, "--out", tmp_path / "out")
        return tmp_path / "out"

    return write


def test_maps_have_the_values_of_the_data(written):
    out = written("semantic", Segmenter())
    values = read_map(out / "a.png", "a.png")
    truth = np.where(picture(48, 80, *SQUARES)[..., 0] > 50, 7, 90)
    assert np.array_equal(values[2:-2, 2:-2], truth[2:-2, 2:-2])
    assert json.loads((out / "classes.json").read_text()) == {"classes": {"7": "disc", "90": "box"}}
    with Image.open(out / "a.png") as picture_:
        assert picture_.mode == "P"
    with Image.open(out / "a-overlay.jpg") as overlay:
        assert overlay.width >= 80
        assert overlay.height > 48  # with the names of the classes


def test_maps_are_read_back_as_data(written, tmp_path):
    out = written("semantic", Segmenter())
    (tmp_path / "masks").mkdir()
    (out / "a.png").rename(tmp_path / "masks/a.png")
    (out / "classes.json").rename(tmp_path / "classes.json")
    data = read_annotated(tmp_path, "masks")
    assert not data.faults
    assert (data.classes.ids, data.classes.names) == ((7, 90), ("disc", "box"))


def test_objects_are_read_back_as_coco(written, tmp_path):
    out = written("instance")
    (out / "predictions.json").rename(tmp_path / "predictions.json")
    data = read_annotated(tmp_path / "predictions.json")
    assert not data.faults
    assert (data.classes.ids, data.classes.names) == ((7, 90), ("disc", "box"))
    found = {(each.box, data.classes.names[each.index]) for each in data.annotated[0].objects}
    assert found == expected()
    assert all(area_and_box(each.shape, 48, 80)[0] == each.area for each in data.annotated[0].objects)


def expected():
    return {
        ((left, top, left + wide, top + tall), "disc" if level == 200 else "box")
        for top, left, tall, wide, level in SQUARES
    }


@pytest.mark.parametrize("task", ["detect", "instance"])
def test_objects_are_read_back_as_yolo(written, tmp_path, task):
    class Boxes(Finder):
        def __call__(self, pixels):
            found = super().__call__(pixels)
            return type(found)(found.logits, found.boxes)

    out = written(task, Boxes() if task == "detect" else None)
    (tmp_path / "labels").mkdir()
    (out / "a.txt").rename(tmp_path / "labels/a.txt")
    names = (out / "classes.txt").read_text().splitlines()
    (tmp_path / "data.yaml").write_text(f"train: images\nnames: {json.dumps(names)}\n")
    data = read_annotated(tmp_path, "yolo")
    assert not data.faults
    objects = data.annotated[0].objects
    assert {
        (tuple(round(edge, 3) for edge in each.box), data.classes.names[each.index]) for each in objects
    } == expected()
    assert all((each.shape is None) == (task == "detect") for each in objects)
    assert not (out / "a-masks").exists() or task == "instance"


def test_each_mask_alone(written):
    out = written("instance")
    rows = json.loads((out / "predictions.json").read_text())["annotations"]
    masks = [np.asarray(Image.open(out / f"a-masks/{k}.png")) for k in range(len(rows))]
    assert len(rows) == len(SQUARES)
    for row, mask in zip(rows, masks, strict=True):
        x, y, w, h = (round(side) for side in row["bbox"])
        truth = np.zeros((48, 80), np.uint8)
        truth[y : y + h, x : x + w] = 255
        assert np.array_equal(mask, truth)
        assert row["category_id"] in IDS
    with Image.open(out / "a.png") as drawn:
        assert max(drawn.size) >= 320


def test_segments_are_read_back_as_panoptic_data(written, tmp_path):
    out = written("panoptic", Grounded(), labels=("box", "ground"))
    (out / "predictions.json").rename(tmp_path / "predictions.json")
    (tmp_path / "predictions").mkdir()
    (out / "a.png").rename(tmp_path / "predictions/a.png")
    data = read_annotated(tmp_path / "predictions.json", "panoptic")
    assert not data.faults
    assert (data.classes.ids, data.classes.names) == ((7, 90), ("ground", "box"))
    assert data.classes.stuff == {0}
    ids = read_ids(tmp_path / "predictions/a.png", "a.png")
    assert {each.id for each in data.annotated[0].segments} == set(np.unique(ids).tolist()) - {0}


def test_files_of_two_folders_are_told_apart(written, tmp_path, capsys):
    written("detect")
    other = tmp_path / "other"
    other.mkdir()
    Image.fromarray(picture(48, 80, *SQUARES[:1])).save(other / "a.png")
    run(capsys, "predict", "model", tmp_path / "images", other, "--out", tmp_path / "both")
    told = json.loads((tmp_path / "both/predictions.json").read_text())
    assert [each["file_name"] for each in told["images"]] == [str(tmp_path / "images/a.png"), str(other / "a.png")]
    assert {path.name for path in (tmp_path / "both").glob("*.txt")} == {"a.txt", "a-2.txt", "classes.txt"}


def test_outlines_of_a_mask_in_a_large_image_are_the_masks():
    from vitral.data.shapes import outlines

    mask = np.zeros((50, 60), bool)
    mask[20:30, 41:55] = True
    mask[25, 41] = False
    found = outlines(mask)
    assert np.array_equal(mask_of(found, 50, 60), mask)
    assert outlines(np.zeros((4, 4), bool)) is None
