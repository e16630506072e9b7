"""Made scenes: the same anywhere, masks that are what one sees, nothing of training in testing."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("faster_coco_eval")

from vitral.data.formats import read_annotated, recognise
from vitral.data.formats.maps import read_map
from vitral.data.options import SceneOptions
from vitral.data.scenes import SHAPES, Scenes, drawn, of_split, write_scenes
from vitral.data.shapes import mask_of
from vitral.errors import VitralError


def test_a_scene_is_a_function_of_seed_split_and_number():
    options = SceneOptions(size=64, classes=5)
    pixels, marks = Scenes(options)("train", 7)
    again = Scenes(options)
    again("train", 3)
    more, same = again("train", 7)
    assert (pixels == more).all()
    assert [(index, mask.sum()) for index, mask in marks] == [(index, mask.sum()) for index, mask in same]
    for other in (
        Scenes(options)("test", 7),
        Scenes(options)("train", 8),
        Scenes(SceneOptions(size=64, classes=5, seed=1))("train", 7),
    ):
        assert (other[0] != pixels).any()


def test_masks_do_not_overlap_and_are_seen():
    make = Scenes(SceneOptions(size=96))
    seen, counts = set(), set()
    for number in range(60):
        pixels, marks = make("train", number)
        assert (pixels.shape, pixels.dtype) == ((96, 96, 3), np.uint8)
        masks = np.array([mask for _, mask in marks], int)
        assert masks.sum(0).max() <= 1
        assert masks.sum((1, 2)).min() >= 16
        seen |= {index for index, _ in marks}
        counts.add(len(marks))
    assert seen == set(range(8))
    assert {1, 2, 3, 4} <= counts <= set(range(1, 7))


def test_every_shape_is_another():
    """And each fills a good part of its square, so that none is a dot."""
    areas = {shape: drawn(np.random.default_rng(3), shape, 64)[1] for shape in SHAPES}
    assert all(0.08 < alpha.mean() < 0.75 for alpha in areas.values())
    flat = [alpha >= 0.5 for alpha in areas.values()]
    for k, one in enumerate(flat):
        for other in flat[:k]:
            assert (one & other).sum() < 0.9 * (one | other).sum()


def test_what_is_written_is_read_as_it_was_made(tmp_path):
    options = SceneOptions(images=4, test=2, size=64, classes=3)
    data = write_scenes(tmp_path / "out", options)
    assert recognise(tmp_path / "out") == "coco"
    read = read_annotated(tmp_path / "out")
    assert list(read.faults) == []
    assert sorted(str(one.split) for one in read.annotated) == ["test"] * 2 + ["train"] * 4
    assert read.classes.names == SHAPES[:3]
    make = Scenes(options)
    for i, one in enumerate(read.annotated):
        _, marks = make(one.split, int(read.images.names[i][-9:-4]))
        assert [(each.index, mask_of(each.shape, 64, 64).tolist()) for each in one.objects] == [
            (index, mask.tolist()) for index, mask in marks
        ]
        values = read_map((tmp_path / "out/masks" / read.images.names[i]).with_suffix(".png"), "map")
        assert (values == sum((index + 1) * mask for index, mask in marks)).all()
    maps = read_annotated(tmp_path / "out", "masks")
    assert list(maps.faults) == []
    assert len(maps.images.names) == len(data.images.names)
    with pytest.raises(VitralError, match="is there already"):
        write_scenes(tmp_path / "out", options)


def cutouts(root):
    for name in ("cats", "dogs"):
        for k in range(6):
            pixels = np.zeros((20, 24, 4), np.uint8)
            pixels[4:18, 3:20] = (255, 10 * k, 0 if name == "cats" else 255, 255)
            (root / name / "inner").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / name / "inner" / f"{name}{k}.png")
    Image.fromarray(np.zeros((9, 9, 4), np.uint8)).save(root / "cats/x_mirror.png")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(root / "cats/opaque.png")
    return root


def test_cutouts_by_folder_in_one_split_each(tmp_path):
    make = Scenes(SceneOptions(size=64, cutouts=cutouts(tmp_path)))
    assert make.names == ["cats", "dogs"]
    for _, paths in make.cutouts:
        assert len(paths) == 6
        train, test = (set(of_split(paths, split, 0, False)) for split in ("train", "test"))
        assert train | test == set(paths)
        assert not train & test
        assert len(test) == 1
    _, marks = make("test", 0)
    assert marks


def test_a_validation_split_has_cutouts_and_photographs_of_its_own(tmp_path):
    """And leaves the test scenes as they were."""
    options = SceneOptions(images=5, val=3, test=2, size=64, cutouts=cutouts(tmp_path / "cut"))
    make = Scenes(options)
    for _, paths in make.cutouts:
        parts = [of_split(paths, split, 0, True) for split in ("train", "val", "test")]
        assert sorted(path for part in parts for path in part) == paths
        assert [len(part) for part in parts] == [4, 1, 1]
    widths = [[ground.width for ground in make.grounds[split]] for split in ("train", "val", "test")]
    assert [sum(one) for one in zip(*widths, strict=True)] == [640, 640]
    without = Scenes(SceneOptions(size=64, cutouts=tmp_path / "cut"))
    assert (make("test", 1)[0] == without("test", 1)[0]).all()
    data = write_scenes(tmp_path / "out", options)
    assert [one.split for one in data.annotated] == ["train"] * 5 + ["val"] * 3 + ["test"] * 2
    read = read_annotated(tmp_path / "out")
    assert sorted(str(one.split) for one in read.annotated) == ["test"] * 2 + ["train"] * 5 + ["val"] * 3


@pytest.mark.parametrize(("options", "says"), [
    ({"images": 0}, "--images 0: give 1 to"), ({"size": 9}, "--size 9: give 32 to"), ({"classes": 11}, "there are 10 drawn shapes"),
])  # fmt: skip
def test_what_cannot_be_made(options, says):
    with pytest.raises(VitralError, match=says):
        Scenes(SceneOptions(**options))


def test_folders_without_what_is_needed(tmp_path):
    for options, says in (({"cutouts": tmp_path}, "has no folder with 2 PNGs"), ({"cutouts": tmp_path / "x"}, "there is no such folder"),
                          ({"backgrounds": tmp_path}, "holds no 2 photographs")):  # fmt: skip
        with pytest.raises(VitralError, match=says):
            Scenes(SceneOptions(**options))
