"""Every format there and back, and from each to each: classes by name, boxes, masks and splits are the same as far as the format can hold them."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("faster_coco_eval")
pytest.importorskip("pyarrow")
pytest.importorskip("yaml")

from annotations import data_of, masked, outlined
from vitral.data.annotated import Object, Polygons, Runs
from vitral.data.formats import FORMATS, read_annotated, recognise
from vitral.data.formats.convert import fresh_folder, plan_conversion, write_planned
from vitral.data.formats.maps import values_of
from vitral.data.shapes import area_and_box, mask_of
from vitral.errors import VitralError

OBJECTS = [name for name, each in FORMATS.items() if "objects" in each.holds]
H, W = 20, 30


@st.composite
def boxes(draw, least=1.5):
    x0, y0 = draw(st.floats(0, W - least - 0.5)), draw(st.floats(0, H - least - 0.5))
    x1, y1 = draw(st.floats(x0 + least, W)), draw(st.floats(y0 + least, H))
    return x0, y0, x1, y1


@st.composite
def objects(draw):
    index, kind = draw(st.integers(0, 2)), draw(st.sampled_from(["box", "outline", "mask"]))
    x0, y0, x1, y1 = draw(boxes(1.5 if kind == "box" else 5))
    more = {"crowd": draw(st.booleans()), "hard": draw(st.booleans())} if draw(st.booleans()) else {}
    if kind == "box":
        return Object(index, (x0, y0, x1, y1), **more)
    if kind == "outline":
        parts = [[(x0, y0), (x1, y0), (x1, y1), (x0 + 0.3, y1)], [(x0, y0), (x0 + 2, y0), (x0, y0 + 2)]]
        return outlined(index, *parts[: draw(st.integers(1, 2))], **more)
    mask = np.random.default_rng(draw(st.integers(0, 1000))).random((H, W)) < draw(st.sampled_from([0.5, 0.95, 1]))
    rows, columns = np.mgrid[:H, :W]
    mask &= (columns >= int(x0)) & (columns < int(x1)) & (rows >= int(y0)) & (rows < int(y1))
    mask[int(y0), int(x0)] = mask[int(y0) + 1, int(x0) + 1] = True
    return masked(index, mask, **more)


def there_and_back(data, to, folder):
    planned = plan_conversion(data, to)
    write_planned(planned, folder)
    assert recognise(folder) == to
    return planned.data, read_annotated(folder)


def same(one, other):
    """That data hold the same: the first, as it was to be written, and what was read."""
    assert list(other.faults) == []
    assert Counter(one.digests) == Counter(other.digests)
    rows = dict(zip(other.digests, other.annotated, strict=True))
    for digest, a in zip(one.digests, one.annotated, strict=True):
        b = rows[digest]
        assert (a.height, a.width, a.split) == (b.height, b.width, b.split)
        assert len(a.objects) == len(b.objects)
        for x, y in zip(a.objects, b.objects, strict=True):
            assert one.classes.names[x.index] == other.classes.names[y.index]
            assert (x.crowd, x.hard, x.shape is None) == (y.crowd, y.hard, y.shape is None)
            box = x.box
            if x.shape is not None:
                before, after = mask_of(x.shape, H, W), mask_of(y.shape, H, W)
                # YOLO's shares of the width round 1e-12 off, which may fall on the other side of a pixel's middle
                assert (before != after).sum() <= (
                    W + H if other.format == "yolo" and isinstance(x.shape, Polygons) else 0
                )
                if other.format in ("yolo", "labelme") and Runs in (
                    type(x.shape),
                    type(y.shape),
                ):  # whose box is the mask's
                    box = area_and_box(x.shape, H, W)[1]
            assert np.allclose(box, y.box, atol=1e-6 if box is x.box else 1)


@pytest.mark.parametrize("to", OBJECTS)
@settings(max_examples=15)
@given(rows=st.lists(st.lists(objects(), max_size=4), min_size=1, max_size=3), given=st.data())
def test_objects_there_and_back(tmp_path_factory, to, rows, given):
    """VOC's masks are of one object a pixel, so there they need not be equal."""
    splits = [given.draw(st.sampled_from(["train", "val", "test"])) for _ in rows]
    written, read = there_and_back(data_of(rows, splits=splits), to, tmp_path_factory.mktemp("data") / "out")
    alone = all(sum(each.shape is not None for each in one.objects) < 2 for one in written.annotated)
    if to == "voc" and not alone:
        return
    same(written, read)
    assert read.classes.names == written.classes.names or to in ("voc", "labelme")
    if "ids" in FORMATS[to].holds["objects"]:
        assert read.classes == written.classes


@pytest.mark.parametrize("first", OBJECTS)
@pytest.mark.parametrize("second", OBJECTS)
def test_from_each_format_to_each(tmp_path, first, second):
    rows = [[Object(0, (1, 2, 9.5, 8)), Object(2, (0, 0, 30, 20))], [outlined(1, [(2, 2), (9.25, 2), (5, 9)])], []]
    start = data_of(rows, splits=["train", "val", "train"])
    written, read = there_and_back(start, first, tmp_path / "one")
    same(written, read)
    again, back = there_and_back(read, second, tmp_path / "two")
    same(again, back)
    assert [fault.kind for fault in back.faults] == []
    assert sum(len(one.objects) for one in back.annotated) == 3


def overlapping():
    one, other = np.zeros((H, W), bool), np.zeros((H, W), bool)
    one[2:12, 3:15], other[8:14, 10:20] = True, True
    hole = np.zeros((H, W), bool)
    hole[14:19, 20:28], hole[16, 23] = True, False
    return [masked(0, one), masked(2, other), masked(1, hole)]


def test_objects_to_maps_and_from_panoptic_back(tmp_path):
    data = data_of([overlapping(), []], splits=["test", "train"])
    semantic, read = there_and_back(data, "masks", tmp_path / "masks")
    assert read.classes == semantic.classes
    assert read.classes.names == ("background", *data.classes.names)
    values = values_of(read, 0)
    assert values[5, 5] == 1
    assert values[9, 12] == 3  # the smaller one shows
    assert values[16, 23] == 0
    assert (values_of(read, 1) == 0).all()
    _, panoptic = there_and_back(data, "panoptic", tmp_path / "panoptic")
    assert panoptic.classes == data.classes
    planned = plan_conversion(panoptic, "coco")
    assert planned.left_out == []
    found = [mask_of(each.shape, H, W) for each in planned.data.annotated[0].objects]
    assert (found[1] == mask_of(overlapping()[1].shape, H, W)).all()
    assert (found[0] == mask_of(overlapping()[0].shape, H, W) & ~found[1]).all()
    again, both = there_and_back(panoptic, "masks", tmp_path / "again")
    assert both.classes == again.classes
    assert (values_of(both, 0) == np.where(values == 0, 0, np.array([0, *data.classes.ids])[values])).all()
    _, stuff = there_and_back(both, "panoptic", tmp_path / "stuff")
    assert stuff.classes.stuff == frozenset(range(3))


def test_what_is_lost_is_said_before(tmp_path):
    rows = [
        [*overlapping(), Object(0, (1, 1, 5, 5), crowd=True), Object(1, (1, 1, 5, 5), hard=True)],
        [outlined(1, [(2, 2), (9, 2), (5, 9)], [(12, 12), (15, 12), (15, 15)])],
    ]
    data = data_of(rows)
    said = {to: {what: count for count, what, _ in plan_conversion(data, to).left_out} for to in OBJECTS}
    assert said["coco"] == {}
    assert said["yolo"] == {
        "crowd": 1, "object set aside as difficult": 1, "outline in several parts": 1, "class number": 3, "supercategory": 2,
        "image without a split": 2,
    }  # fmt: skip
    assert said["voc"] == {"crowd": 1, "supercategory": 2, "outline that lies partly under another": 1}
    assert said["labelme"] == {"supercategory": 2}
    with pytest.raises(
        VitralError,
        match=r"2 objects have a box and no outline, the first in images/im 0\.png; a map needs every outline",
    ):
        plan_conversion(data, "masks")
    _, read = there_and_back(data_of([overlapping()]), "masks", tmp_path / "masks")
    with pytest.raises(VitralError, match="do not say where one object ends and the next begins"):
        plan_conversion(read, "coco")


def _half_written(folder):
    with fresh_folder(folder) as part:
        (part / "half").write_text("written")
        raise RuntimeError("killed")


def test_the_original_and_what_is_there_stay(tmp_path):
    data = data_of([[Object(0, (1, 2, 9, 8))]])
    write_planned(plan_conversion(data, "coco"), tmp_path / "one")
    read = read_annotated(tmp_path / "one")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(VitralError, match="is there already and not empty"):
        write_planned(plan_conversion(read, "yolo"), tmp_path / "one")
    with pytest.raises(VitralError, match="lies in the data"):
        write_planned(plan_conversion(read, "yolo"), tmp_path / "one" / "new")
    with pytest.raises(RuntimeError, match="killed"):
        _half_written(tmp_path / "two")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_names_that_clash_or_lead_elsewhere(tmp_path):
    data = data_of([[Object(0, (1, 2, 9, 8))]] * 5, splits=["train"] * 5)
    data.images.names = ["a/1.png", "b/1.PNG", "c/1.jpg", "../../etc/x\n.png", ".."]
    _, read = there_and_back(data, "yolo", tmp_path / "out")
    assert sorted(name.rpartition("/")[2] for name in read.images.names) == [
        "1-2.PNG",
        "1-3.jpg",
        "1.png",
        "image-4.png",
        "x_.png",
    ]
    same(data, read)
