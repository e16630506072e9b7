"""Images larger than the training images, answered in tiles: an object on a border once and whole, maps without seams."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finder import Finder, Segmenter, finder, picture
from vitral.cli import main
from vitral.data.tiles import cut_off, nearness, tiles
from vitral.errors import VitralError
from vitral.models.heads.outputs import Found

SQUARES = [(3, 5, 6, 8, 100), (10, 24, 7, 7, 200), (30, 60, 6, 6, 100), (40, 12, 5, 9, 200), (20, 76, 8, 4, 100)]
"""In a picture of 48 x 80: the second lies on the border of the first two tiles, the last at the image's edge."""


def run(capsys, *words, status=0):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    said = capsys.readouterr()
    assert stop.value.code == status, said.err
    return said


@given(st.integers(1, 300), st.integers(1, 300), st.tuples(st.integers(1, 90), st.integers(1, 90)))
def test_tiles_cover_an_image_and_overlap(height, width, side):
    found = tiles(height, width, side)
    covered = np.zeros((height, width), int)
    for top, left, tall, wide in found:
        assert (tall, wide) == (min(side[0], height), min(side[1], width))
        assert 0 <= top <= height - tall
        assert 0 <= left <= width - wide
        covered[top : top + tall, left : left + wide] += 1
    assert covered.min() == 1 or len(found) > 1
    assert covered.min() >= 1
    lefts = sorted({left for _, left, _, _ in found})
    wide = min(side[1], width)
    assert all(after - before <= 0.75 * wide + 1 for before, after in itertools.pairwise(lefts))


def test_a_box_is_cut_only_where_the_image_goes_on():
    boxes = np.array([(0, 0, 5, 5), (20, 4, 32, 9), (27, 27, 31, 31), (10, 10, 20, 20)], float)
    assert cut_off(boxes, (0, 0, 32, 32), 32, 64).tolist() == [False, True, True, False]
    assert cut_off(boxes, (0, 0, 32, 32), 32, 32).tolist() == [False] * 4
    assert nearness(4).tolist() == [0.5, 1.5, 1.5, 0.5]


@pytest.mark.parametrize("task", ["detect", "instance"])
def test_objects_on_borders_are_found_once_and_whole(task):
    image = picture(48, 80, *SQUARES)
    answer = finder(task).predict(image, tile=True)
    found = sorted((round(each.box[1]), round(each.box[0])) for each in answer.objects)
    assert found == sorted((top, left) for top, left, *_ in SQUARES)
    for each in answer.objects:
        x0, y0, x1, y1 = (round(edge) for edge in each.box)
        assert (y0, x0, y1 - y0, x1 - x0, 200 if each.label == "disc" else 100) in SQUARES
        truth = np.zeros((48, 80), bool)
        truth[y0:y1, x0:x1] = True
        assert np.array_equal(each.mask, truth)
    scores = [each.score for each in answer.objects]
    assert scores == sorted(scores, reverse=True)


def test_an_object_larger_than_a_tile_is_found_in_the_look_at_the_whole():
    """Its parts in the tiles go, though each of them is surer."""
    image = picture(64, 96, (2, 2, 60, 90, 200), (62, 94, 2, 2, 100))
    (large,) = [each for each in finder("detect").predict(image, tile=True).objects if each.label == "disc"]
    assert large.box == pytest.approx((2, 2, 92, 62), abs=6)


def test_a_part_whose_whole_was_not_found_stays():
    class Blind(Finder):
        """Finds nothing in the whole image, which is the first that it is given."""

        calls = 0

        def _one(self, image):
            self.calls += 1
            return super()._one(image) if self.calls > 1 else []

    answer = finder("detect", engine=Blind()).predict(picture(32, 96, (4, 40, 20, 20, 200)), tile=True)
    assert [each.box for each in answer.objects] == [(43, 4, 60, 24)]  # the larger of two parts that overlap


def test_maps_have_no_seams():
    image = picture(48, 80, *SQUARES)
    vit = finder("semantic", engine=Segmenter())
    truth = (image[..., 0] > 50).astype(int)
    seen = vit.predict(image, tile=True).map
    inner = np.zeros(truth.shape, bool)
    inner[2:-2, 2:-2] = True  # at the image's own edges no other tile knows better
    assert np.array_equal(seen[inner], truth[inner])
    assert (seen[~inner] != truth[~inner]).all()


class Grounded(Finder):
    """What is dark is ground, which is stuff."""

    def __call__(self, pixels):
        found = super().__call__(pixels)
        dark = (pixels[:, :1] == 0) * 12.0 - 6
        cat = [np.concatenate([each, more], 1) for each, more in (
            (found.logits.numpy(), np.tile(np.float32([[[-6, 4]]]), (len(pixels), 1, 1))),
            (found.boxes.numpy(), np.tile(np.float32([[[0, 0, 1, 1]]]), (len(pixels), 1, 1))),
            (found.masks.numpy(), dark.astype(np.float32)),
        )]  # fmt: skip
        return Found(*map(torch.from_numpy, cat), stride=1.0, stuff=frozenset({1}))


def test_panoptic_segments_on_borders_are_one():
    squares = [(top, left, tall, wide, 100) for top, left, tall, wide, _ in SQUARES]
    image = picture(48, 80, *squares)
    answer = finder("panoptic", engine=Grounded(), labels=("box", "ground")).predict(image, tile=True)
    assert sorted(each.label for each in answer.segments) == ["box"] * len(squares) + ["ground"]
    for top, left, tall, wide, _ in squares:
        (number,) = np.unique(answer.map[top : top + tall, left : left + wide])
        assert (answer.map == number).sum() == tall * wide
    assert (answer.map > 0).all()
    assert {each.id: each.area for each in answer.segments} == dict(
        zip(*np.unique(answer.map, return_counts=True), strict=True)
    )


@pytest.mark.parametrize(("task", "engine"), [("detect", Finder), ("semantic", Segmenter), ("panoptic", Grounded)])
def test_a_small_image_is_one_tile(task, engine):
    vit = finder(task, engine=engine())
    image = picture(30, 20, (4, 4, 8, 8, 100))
    assert vit.predict(image, tile=True).to_json() == vit.predict(image).to_json()
    assert vit.predict(image, tile=40).to_json() == vit.predict(image).to_json()


def test_tiles_of_another_size():
    class Counted(Finder):
        seen = 0

        def __call__(self, pixels):
            self.seen += len(pixels)
            return super().__call__(pixels)

    vit, image = finder("detect", engine=Counted()), picture(48, 80, *SQUARES)
    assert vit.tile_size == (32, 32)
    vit.predict(image, tile=60)
    assert vit.engine.seen == 1 + 2  # the whole, and two tiles
    vit.predict(image, tile=True)
    assert vit.engine.seen == 3 + 1 + 2 * 3
    with pytest.raises(VitralError, match="give 1, one patch"):
        vit.predict(image, tile=-1)


def test_tiles_on_the_command_line(tmp_path, capsys, monkeypatch):
    from PIL import Image

    Image.fromarray(picture(48, 80, *SQUARES)).save(tmp_path / "a.png")
    monkeypatch.setattr("vitral.predict.load", lambda path: finder("detect"))
    rows = run(capsys, "predict", "model", tmp_path / "a.png", "--tile", "--format", "csv").out.splitlines()
    assert len(rows) == 1 + len(SQUARES)
    Image.fromarray(picture(48, 80)).save(tmp_path / "empty.png")
    said = run(capsys, "predict", "model", tmp_path / "empty.png")
    assert "nothing found" in said.out
    assert "nothing scored 40% or more; --threshold 0.1 shows" in said.err
    both = run(capsys, "predict", "model", tmp_path / "empty.png", tmp_path / "a.png", "--tile")
    assert "nothing scored" not in both.err
    (tmp_path / "bad.png").write_bytes(b"no image")
    assert "error" in run(capsys, "predict", "model", tmp_path / "bad.png", "--tile", status=1).out
    assert "nothing found" not in run(capsys, "predict", "model", tmp_path / "a.png", "--nms", "--tile").out
    monkeypatch.setattr("vitral.predict.load", lambda path: finder("semantic", engine=Segmenter()))
    assert "nms: is for models that find objects" in run(capsys, "predict", "model", "a.png", "--nms", status=2).err
    monkeypatch.setattr("vitral.predict.load", lambda path: finder("detect"))
    assert "give both" in run(capsys, "predict", "model", "a.png", "--tile-size", "8", status=2).err
    said = run(capsys, "predict", "model", tmp_path / "a.png", "--tile", "--tile-size", "0", status=2).err
    assert "one patch of the model" in said


def test_models_with_one_answer_an_image_refuse_tiles():
    class Classes(Finder):
        def __call__(self, pixels):
            return np.zeros((len(pixels), 2), np.float32)

    with pytest.raises(VitralError, match="says one thing of an image"):
        finder("classify", engine=Classes()).predict(picture(48, 80), tile=True)
