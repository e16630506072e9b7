"""Semantic maps and panoptic segments in tar shards: there and back, as others write them, wrong in every way, and learned as from their folder."""

import io
import json
import pickle
import tarfile

import fsspec
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from annotations import CLASSES, data_of, encoded, masked
from folder_server import serving
from vitral.cli import main
from vitral.data import many
from vitral.data.formats import read_annotated, recognise
from vitral.data.formats.convert import plan_conversion, write_planned
from vitral.data.formats.faults import refuse
from vitral.data.formats.maps import ids_picture, values_of
from vitral.data.formats.shards import open_index
from vitral.data.options import DataOptions
from vitral.data.shards import BESIDES, INDEX, NAMES, ROW, ROWS, TOLD, VALUE, VALUES, read_index
from vitral.data.sources import open_data
from vitral.errors import VitralError

WORDS = "--image-size 24 32 --patch-size 8 --dim 32 --depth 1 --num-heads 2 --precision fp32 --workers 0 --near-copies apart --steps 2 --batch-size 4"
SEGMENTS = [{"id": 70_000, "category_id": 9}, {"id": 3, "category_id": 5, "iscrowd": 1}]
CATEGORIES = {
    "categories": [
        {"id": 5, "name": "cat", "isthing": 1, "supercategory": "animal"},
        {"id": 9, "name": "sky", "isthing": 0, "supercategory": "air"},
    ]
}


def run(*words, status=0):
    with pytest.raises(SystemExit) as stop:
        main([*map(str, words)])
    assert stop.value.code == status


def tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            data = json.dumps(data).encode() if isinstance(data, dict) else data
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return path.parent


def picture(values, kind="PNG"):
    """A map as a file: of values uint8 or uint16, or of ids int32."""
    buffer = io.BytesIO()
    (ids_picture(values) if values.dtype == np.int32 else Image.fromarray(values)).save(buffer, kind)
    return buffer.getvalue()


def stripes(*there, dtype=np.uint8):
    """A map of 20 x 30: a row of each value, and 0 below."""
    found = np.zeros((20, 30), dtype)
    for k, value in enumerate(there):
        found[k] = value
    return found


IMAGE = encoded(30, 20)


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """A folder of sixteen images and maps in three splits, 16-bit values and an image that EXIF turns among them."""
    root = tmp_path_factory.mktemp("maps") / "ground"
    for k in range(16):
        split = "train" if k < 10 else "val" if k < 13 else "test"
        for folder in (f"images/{split}", f"masks/{split}"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        turned = k == 3
        (root / f"images/{split}/{k}.{'jpg' if turned else 'png'}").write_bytes(encoded(30, 20, 6 if turned else 1, k))
        values = stripes(3, 255, 700 if k % 2 else 3, dtype=np.uint16 if k % 2 else np.uint8)
        values[5:, : 3 * k % 30] = 3
        (root / f"masks/{split}/{k}.png").write_bytes(picture(values))
    (root / "classes.json").write_text('{"classes": {"0": "sky", "3": "road", "700": "sea"}, "void": [255]}')
    return root


@pytest.fixture(scope="module")
def segments(tmp_path_factory):
    """A folder of eight images with COCO's panoptic segments, a crowd and stuff among them."""
    rows = []
    for k in range(8):
        one, other = np.zeros((20, 30), bool), np.zeros((20, 30), bool)
        one[2 : 9 + k % 3, 3:15], other[12:19, 10 + k :] = True, True
        rows.append([masked(0, one), masked(k % 3, other, crowd=k == 5)])
    data = data_of(rows, splits=["train"] * 5 + ["val"] * 2 + ["test"])
    root = tmp_path_factory.mktemp("segments") / "panoptic"
    write_planned(plan_conversion(data, "panoptic"), root)
    for path in (root / "annotations").glob("*.json"):
        told = json.loads(path.read_text())
        told["categories"][2]["isthing"] = 0
        path.write_text(json.dumps(told))
    return root


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """A folder of eight images with a mask or two each."""
    rows = []
    for k in range(8):
        mask = np.zeros((20, 30), bool)
        mask[2 : 9 + k, 3:15] = True
        rows.append([masked(k % 3, mask), *([masked(1, mask[::-1], crowd=True)] if k == 2 else [])])
    root = tmp_path_factory.mktemp("things") / "things"
    write_planned(plan_conversion(data_of(rows, splits=["train"] * 5 + ["val"] * 2 + ["test"]), "parquet"), root)
    return root


def convert(data, out, to):
    run("data", "convert", data, out, "--to", to)
    return out


def same(one, other):
    """That two annotated data hold the same maps, segments, splits and classes, image by image."""
    assert (one.kind, one.classes, [*one.faults], [*other.faults]) == (other.kind, other.classes, [], [])
    there = {digest: i for i, digest in enumerate(other.digests)}
    assert len(there) == len(one.digests) == len(other.digests)
    for i, digest in enumerate(one.digests):
        k = there[digest]
        a, b = one.annotated[i], other.annotated[k]
        assert (a.height, a.width, a.split, a.segments) == (b.height, b.width, b.split, b.segments)
        assert (values_of(one, i) == values_of(other, k)).all()


def test_maps_there_and_back(ground, tmp_path):
    shards = convert(ground, tmp_path / "shards", "shards")
    assert recognise(shards) == "shards"
    tars = {f"{split}-000000.tar" for split in ("train", "val", "test")}
    assert {path.name for path in shards.iterdir()} == {"classes.json", INDEX, ROWS, NAMES, BESIDES, VALUES, *tars}
    with tarfile.open(shards / "train-000000.tar") as file:
        assert [name.partition(".")[2] for name in file.getnames()[:3]] == ["png", "mask.png", "json"]
    index = open_index(str(shards), 0)
    assert index.kind == "maps"
    assert index.beside["map_size"].min() > 0
    assert index.beside["orientation"].tolist().count(6) == 1
    folder, packed, back = (
        read_annotated(each) for each in (ground, shards, convert(shards, tmp_path / "masks", "masks"))
    )
    upright = next(i for i, one in enumerate(folder.annotated) if one.turn == 6)
    assert values_of(packed, upright).shape == (30, 20)
    refuse("ground", folder.faults)
    assert [fault.kind for fault in folder.faults] == ["turned"]
    folder.faults.clear()
    same(folder, packed)
    same(folder, back)
    assert packed.classes.void == {255}


def test_shards_can_be_moved(ground, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a relative place is written beside it first, and renamed
    run("data", "convert", ground, "shards", "--to", "shards")
    (tmp_path / "shards").rename(tmp_path / "elsewhere")
    assert len(read_annotated(tmp_path / "elsewhere").annotated) == 16
    assert json.loads((tmp_path / "elsewhere" / INDEX).read_text())["root"] == ""


def test_colours_become_the_values_that_they_stand_for(tmp_path):
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:9] = (0xC8, 0x1E, 0x1E)
    table = {"classes": {"#c81e1e": "roof", "#1ec81e": "tree"}, "void": ["#000000"]}
    for place, files in (("folder", None), ("shards", {"a.png": IMAGE, "a.mask.png": picture(pixels)})):
        root = tmp_path / place
        if files is None:
            for folder in ("images", "masks"):
                (root / folder).mkdir(parents=True)
            (root / "images/a.png").write_bytes(IMAGE)
            (root / "masks/a.png").write_bytes(picture(pixels))
        else:
            tar(root / "train-0.tar", files)
        (root / "classes.json").write_text(json.dumps(table))
        read = read_annotated(root)
        assert read.classes.colours
        assert values_of(read, 0)[[0, 10], 0].tolist() == [0, 2]
        written = read_annotated(convert(root, tmp_path / f"{place}-written", "shards"))
        assert (written.classes.names, written.classes.ids, written.classes.void) == (("roof", "tree"), (0, 1), {2})
        assert (values_of(written, 0) == values_of(read, 0)).all()


def test_panoptic_there_and_back(segments, tmp_path):
    shards = convert(segments, tmp_path / "shards", "shards")
    assert open_index(str(shards), 0).kind == "panoptic"
    folder, packed, back = (
        read_annotated(each) for each in (segments, shards, convert(shards, tmp_path / "back", "panoptic"))
    )
    assert (folder.classes.ids, folder.classes.stuff, folder.classes.groups) == (CLASSES.ids, {2}, CLASSES.groups)
    assert any(segment.crowd for one in packed.annotated for segment in one.segments)
    same(folder, packed)
    same(folder, back)
    with tarfile.open(shards / "train-000000.tar") as file:
        names = file.getnames()[:3]
        assert [name.partition(".")[2] for name in names] == ["png", "panoptic.png", "json"]
        told = json.loads(file.extractfile(names[2]).read())
    first = json.loads((segments / "annotations/panoptic_train.json").read_text())["annotations"][0]
    assert told["segments_info"] == first["segments_info"]


@pytest.mark.parametrize("suffix", ["mask.png", "masks.PNG", "seg.png", "label.tif", "labels.bmp", "gt.png"])
def test_maps_as_others_name_them(tmp_path, suffix):
    stored = picture(stripes(1, 1, 2), {"tif": "TIFF", "bmp": "BMP"}.get(suffix[-3:], "PNG"))
    files = {
        "x/0.jpg": encoded(30, 20, 3),
        f"x/0.{suffix}": stored,
        "x/0.txt": b"a street",
        "x/0.json": {"tags": ["day"]},
    }
    root = tar(tmp_path / "s/val-0.tar", files)
    (root / "classnames.txt").write_text("sky\nroad\nsea\n")
    data = read_annotated(root)
    assert (data.kind, data.classes.names, data.annotated[0].split) == ("semantic", ("sky", "road", "sea"), "val")
    assert data.annotated[0].values == (0, 1, 2)
    assert list(data.faults) == []
    assert read_annotated(root / "val-0.tar").classes == data.classes


def test_what_a_class_says_goes_before_a_map(tmp_path):
    def files(**more):
        return {
            f"{k}.{suffix}": data
            for k in range(4)
            for suffix, data in {
                "png": encoded(30, 20, seed=k), "seg.png": picture(stripes(1)), "json": {"kind": f"k{k % 2}", "label": "guessed"}, **more,
            }.items()
        }  # fmt: skip

    options = DataOptions(label_column="kind", task="classify", near_copies="apart")
    root = tar(tmp_path / "named/a.tar", files())
    assert open_index(str(root), 0).kind == "maps"
    assert open_data(str(root), options).labels == ["k0", "k1"]
    assert open_index(str(root), 0).kind == "classes"  # as it was asked for
    root = tar(tmp_path / "cls/a.tar", files(cls=b"x"))
    assert (open_index(str(root), 0).kind, recognise(root)) == ("classes", None)


def test_kinds_are_not_mixed_and_pretraining_needs_none(tmp_path):
    files = {"0.png": IMAGE, "0.mask.png": picture(stripes(1)), "1.png": encoded(30, 20, seed=1)}
    root = tar(tmp_path / "a.tar", files)
    with pytest.raises(VitralError, match="some samples have maps and some none; give every one the same kind"):
        open_data(str(root))
    tar(tmp_path / "a.tar", {**files, "1.mask.png": picture(stripes(0, 1))})
    assert len(open_data(str(root), labelled=False).splits["train"]) == 2
    with pytest.raises(
        VitralError,
        match=r"no class .* but maps; leave out --task to learn these, or learn without labels: vitral pretrain",
    ):
        open_data(str(root), DataOptions(task="classify"))


def test_an_index_of_an_earlier_version_is_made_again(tmp_path):
    root = tar(tmp_path / "s/a.tar", {"0.png": IMAGE, "0.mask.png": picture(stripes(1))})
    index = open_index(str(root), 0)
    told = json.loads((root / INDEX).read_text())
    rows = np.zeros(
        1, np.dtype([*((name, ROW[name]) for name in ROW.names), ("beside", "<u8"), ("beside_size", "<u4")])
    )
    for name in ROW.names:
        rows[name] = index.rows[name]
    (root / ROWS).write_bytes(rows.tobytes())
    (root / INDEX).write_text(json.dumps(told | {"layout": 1, "kind": "none"}))
    with pytest.raises(VitralError, match="an earlier version made the index of its shards; make it again"):
        read_index(str(root), 0)
    assert open_index(str(root), 0).kind == "maps"
    alone = tmp_path / "index"
    alone.mkdir()
    for name in (INDEX, ROWS, NAMES):
        (alone / name).write_bytes((root / name).read_bytes())
    (alone / INDEX).write_text(json.dumps(told | {"layout": 1, "root": str(root)}))
    with pytest.raises(VitralError, match=f"{root}: an earlier version made"):
        open_index(str(alone), 0)
    (root / INDEX).write_text(json.dumps(told | {"layout": 99}))
    with pytest.raises(VitralError, match="another version wrote it"):
        open_index(str(root), 0)


MAP = "map of train-0.tar/0.png"


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"0.mask.png": picture(stripes(1), "JPEG")}, f"1 map cannot be used: {MAP} (is a JPEG, which changes values"),
        ({"0.mask.jpg": picture(stripes(1), "JPEG")}, f"1 map cannot be used: {MAP} (is a JPEG, which changes values"),
        ({"0.mask.png": b"nothing"}, f"1 map cannot be used: {MAP} (is no picture, and maps are PNGs"),
        ({"0.mask.png": picture(stripes(1))[:50]}, f"1 map cannot be used: {MAP} ("),
        ({"0.mask.png": picture(np.ones((10, 15), np.uint8))},
         f"1 image is of another size than its annotations: {MAP} (train-0.tar/0.png has 30 x 20 pixels, not 15 x 10)"),
        ({"0.mask.png": picture(stripes(1, 1, 7))}, f"1 map holds a value that is no class: {MAP} (value 7 at x 0, y 2)"),
        ({"0.mask.png": picture(stripes(1)), "0.json": b"{"}, "train-0.tar/0.png: '0.json' is no JSON"),
        ({"0.panoptic.png": picture(stripes(1, dtype=np.int32))}, "train-0.tar/0.png: segments_info is no list of objects"),
        ({"0.panoptic.png": picture(stripes(1, dtype=np.int32)), "0.json": {"segments_info": SEGMENTS}},
         f"{MAP} (id 1 of the map is not in the list)"),
        ({"0.panoptic.png": picture(stripes(1)), "0.json": {"segments_info": SEGMENTS}},
         f"1 map cannot be used: {MAP} (is a picture of kind L; a panoptic map has its ids in red, green and blue)"),
        ({"0.json": {"segments_info": SEGMENTS}}, "1 map cannot be used: train-0.tar/0.png (has no map)"),
        ({"0.panoptic.png": picture(np.ones((10, 15), np.int32)), "0.json": {"segments_info": [{"id": 1, "category_id": 5}]}},
         "(train-0.tar/0.png has 30 x 20 pixels, not 15 x 10)"),
        ({"0.panoptic.png": picture(stripes(3, dtype=np.int32)), "0.json": {"segments_info": [{"id": 3, "category_id": 6}]}},
         "train-0.tar/0.png, segment 3 (category_id 6)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path, files, says):
    """Beside a second sample of the same kind in which nothing is wrong."""
    other = {"1.png": encoded(30, 20, seed=1)}
    if any("mask" in name for name in files):
        (tmp_path / "classes.json").write_text('{"classes": {"0": "sky", "1": "road"}, "void": []}')
        other["1.mask.png"] = picture(stripes(1))
    else:
        (tmp_path / "classes.json").write_text(json.dumps(CATEGORIES))
        ids = stripes(70_000, 3, dtype=np.int32)
        other |= {"1.panoptic.png": picture(ids), "1.json": {"segments_info": SEGMENTS}}
    tar(tmp_path / "train-0.tar", {"0.png": IMAGE, **files, **other})
    with pytest.raises(VitralError) as stop:
        refuse("data", read_annotated(tmp_path).faults)
    assert says in str(stop.value)


def test_segments_need_their_classes(tmp_path):
    files = {
        "0.png": IMAGE,
        "0.panoptic.png": picture(stripes(3, dtype=np.int32)),
        "0.json": {"segments_info": SEGMENTS},
    }
    tar(tmp_path / "a.tar", files)
    with pytest.raises(VitralError, match=r"classes\.json: write the classes of the segments' category_id there"):
        read_annotated(tmp_path)


def test_images_that_cannot_be_read_and_shards_cut_short(tmp_path):
    files = {f"{k}.{suffix}": data for k in range(3) for suffix, data in (
        ("png", encoded(30, 20, seed=k) if k else IMAGE[:200]), ("mask.png", picture(stripes(1))))}  # fmt: skip
    root = tar(tmp_path / "a.tar", files)
    found = read_annotated(root)
    assert [(fault.kind, fault.where) for fault in found.faults] == [("unreadable_image", "a.tar/0.png")]
    stored = found.annotated[0].map
    whole = (root / "a.tar").read_bytes()
    with tarfile.open(root / "a.tar") as file:
        last = file.getmember("2.mask.png")
    for end in (last.offset_data + 20, last.offset + 100, last.offset):  # inside a file, inside a header, and between
        (root / "a.tar").write_bytes(whole[:end])
        with pytest.raises(VitralError, match=r"map of a\.tar/1\.png: .*a\.tar has changed since it was indexed"):
            stored.read()
        with pytest.raises(VitralError, match=r"a\.tar: is cut short .*'2\.(mask\.)?png'; copy or download it again"):
            read_annotated(root)


def test_doctor_looks_at_maps_in_shards(ground, tmp_path, capsys):
    shards = convert(ground, tmp_path / "shards", "shards")
    capsys.readouterr()
    run("doctor", shards, "--json", "--out", tmp_path / "page.html")
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["images"], told["format"]) == ("semantic", 16, "shards")
    assert [each["name"] for each in told["classes"]] == ["sky", "road", "sea"]


@pytest.mark.parametrize("kind", ["ground", "segments"])
def test_training_from_shards_is_training_from_their_folder(request, tmp_path, capsys, kind):
    folder = request.getfixturevalue(kind)
    shards = convert(folder, tmp_path / "shards", "shards")
    options = DataOptions(near_copies="apart")
    one, other = open_data(folder, options), open_data(str(shards), options)
    for name, split in one.splits.items():
        there = pickle.loads(pickle.dumps(other.splits[name]))
        assert (there.contents == split.contents).all()
        assert len({there.targets.key(i, other.labels) for i in range(len(there))}) > len(there) // 4
        assert (there.read(1 % len(there)) == split.read(1 % len(there))).all()
    more = "--head query --query-dim 32 --query-heads 2 --queries 8" if kind == "segments" else ""
    for data, out in ((folder, "folder"), (shards, "shards")):
        run("train", data, *WORDS.split(), *more.split(), "--out", tmp_path / "runs" / out)
    a, b = (load_file(tmp_path / "runs" / out / "model.safetensors") for out in ("folder", "shards"))
    assert all((a[name] == b[name]).all() for name in a)
    scores = []
    for data in (folder, shards):
        capsys.readouterr()
        run("evaluate", tmp_path / "runs/shards", data, "--split", "test", "--json")
        told = json.loads(capsys.readouterr().out)
        scores.append({name: value for name, value in told.items() if name not in ("data", "fingerprint")})
    assert scores[0] == scores[1]


# -- behind a URL --


@pytest.fixture
def server(request, tmp_path, monkeypatch):
    """Of the shards of a folder; of no folder, of an empty one."""
    shards = tmp_path / "shards"
    if request.param is None:
        shards.mkdir()
    else:
        convert(request.getfixturevalue(request.param), shards, "shards")
    with serving(shards, tmp_path, monkeypatch) as server:
        yield server


ALL = pytest.mark.parametrize("server", ["ground", "segments", "things"], indirect=True)
EMPTY = pytest.mark.parametrize("server", [None], indirect=True)


@ALL
def test_behind_a_url_they_are_what_they_are_on_a_disk(server, tmp_path, capsys):
    """Though the first answer for each image and map is dropped, comes late or is damaged."""
    server.once, server.pause = True, 0.01
    semantic = open_index(str(server.folder), 0).kind == "maps"
    more = "" if semantic else "--head query --query-dim 32 --query-heads 2 --queries 8"
    weights, told = [], []
    for data, out in ((server.folder, "disk"), (server.url, "url")):
        run("train", data, *WORDS.split(), *more.split(), "--out", tmp_path / "runs" / out)
        weights.append(load_file(tmp_path / "runs" / out / "model.safetensors"))
        capsys.readouterr()
        run("evaluate", tmp_path / "runs/disk", data, "--split", "test", "--json")
        run("doctor", data, "--json", "--out", tmp_path / "page.html")
        rows = map(json.loads, capsys.readouterr().out.splitlines())
        told.append([{name: value for name, value in row.items() if name not in ("data", "name")} for row in rows])
    assert weights[0].keys() == weights[1].keys()
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
    assert told[0] == told[1]
    assert "fingerprint" in told[0][0]
    assert server.spoiled >= 8


@pytest.mark.parametrize("server", ["segments", "things"], indirect=True)
def test_of_an_index_without_them_each_json_is_asked_for(server):
    """As those from before 2026-12 are."""
    index = json.loads((server.folder / INDEX).read_text())
    whole = read_annotated(server.folder)
    (server.folder / INDEX).write_text(json.dumps({name: value for name, value in index.items() if name != "told"}))
    (server.folder / TOLD).unlink()
    data = read_annotated(server.url)
    assert server.asked == len(data.annotated)
    for one, other in zip(data.annotated, whole.annotated, strict=True):
        assert one.segments == other.segments
        assert [(each.index, each.box) for each in one.objects] == [(each.index, each.box) for each in other.objects]


@pytest.mark.parametrize("server", ["things"], indirect=True)
def test_an_index_whose_json_is_damaged(server):
    told = (server.folder / TOLD).read_bytes()
    for damaged, said in (
        (told[:-5], "objects or segments are cut short"),
        (b" " + told[1:], "the index has its .json damaged"),
    ):
        (server.folder / TOLD).write_bytes(damaged)
        with pytest.raises(VitralError, match=said):
            read_annotated(server.folder)


@ALL
def test_opening_reads_no_image_no_map_and_no_json(server):
    data = read_annotated(server.url)
    assert server.asked == 0
    same_there = read_annotated(server.folder)
    assert (data.root, data.name) == (server.url, server.url.partition("//")[2])
    assert (data.digests, data.orientations, data.understood) == (
        same_there.digests,
        same_there.orientations,
        same_there.understood,
    )
    assert [one.digest() for one in _maps(data)] == [one.digest() for one in _maps(same_there)]
    opened = open_data(server.url, DataOptions(near_copies="apart"))
    assert opened.fingerprint == open_data(str(server.folder), DataOptions(near_copies="apart")).fingerprint
    assert server.asked == 0
    named = server.url + "/train-{000000..000000}.tar"
    assert recognise(named) == "shards"
    assert set(read_annotated(named).digests) < set(data.digests)


def _maps(data):
    return [one.map for one in data.annotated if one.map is not None]


@pytest.mark.parametrize("server", ["ground"], indirect=True)
def test_maps_from_a_server_that_never_answers_rightly(server):
    data = read_annotated(server.url)
    server.bad, server.pause = 1.0, 0.0
    with pytest.raises(
        VitralError, match=rf"map of test-000000\.tar/.*: {server.url}/test-000000\.tar could not be read in 6 tries"
    ):
        values_of(data, 0)


@EMPTY
def test_tables_are_those_beside_the_shards_now(server):
    root, files = server.folder, {"0.png": IMAGE, "0.mask.png": picture(stripes(1, 2))}
    tar(root / "a.tar", files)
    open_index(str(root), 0)
    assert read_annotated(server.url).classes.names == ("0", "1", "2")
    (root / "labels.txt").write_text("sky\nroad\nsea\n")
    assert read_annotated(server.url).classes.names == ("sky", "road", "sea")
    (root / "classes.json").write_text('{"0": "a", "1": "b"}')
    with pytest.raises(VitralError, match=rf"^{server.url}: .*value 2 at x 0, y 1"):
        open_data(server.url)
    (root / "classes.json").write_text("[")
    with pytest.raises(VitralError, match=rf"^{server.url}: classes\.json: is not JSON"):
        open_data(server.url)
    (root / "classes.json").unlink()
    assert read_annotated(server.url).classes.names == ("sky", "road", "sea")


@EMPTY
def test_colours_that_are_named_after_the_index_was_made(server):
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:9] = (0x80, 0, 0)  # VOC's first class, by itself
    tar(server.folder / "a.tar", {"0.png": IMAGE, "0.mask.png": picture(pixels)})
    open_index(str(server.folder), 0)
    assert read_annotated(server.url).annotated[0].values == (0, 1)
    table = {"classes": {"#ffffff": "snow", "#800000": "roof"}, "void": ["#000000"]}
    (server.folder / "classes.json").write_text(json.dumps(table))
    for data in (server.url, server.folder):
        assert read_annotated(data).annotated[0].values == (1, 2)


@EMPTY
def test_what_a_server_lacks_is_named(server, monkeypatch):
    root = server.folder
    segments = {
        "0.png": IMAGE,
        "0.panoptic.png": picture(stripes(3, dtype=np.int32)),
        "0.json": {"segments_info": SEGMENTS[1:]},
    }
    tar(root / "a.tar", segments)
    open_index(str(root), 0)
    with pytest.raises(VitralError, match=rf"{server.url}/classes\.json: write the classes of the segments"):
        open_data(server.url)
    (root / "classes.json").write_text(json.dumps(CATEGORIES))
    monkeypatch.setattr(many, "MANY", 0)
    with pytest.raises(
        VitralError,
        match=rf"{server.url}: holds 1 image with panoptic segments, which are held in memory: up to 0 are learned; .* vitral pretrain {server.url}",
    ):
        open_data(server.url)
    told = json.loads((root / INDEX).read_text())
    (root / INDEX).write_text(json.dumps(told | {"layout": 2}))
    with pytest.raises(
        VitralError, match=f"{server.url}: an earlier version made the index of its shards; make it again"
    ):
        open_data(server.url)
    (root / INDEX).write_text(json.dumps(told | {"names": told["names"] + 1}))
    with pytest.raises(VitralError, match="do not belong together"):
        open_data(server.url)


def test_in_a_store_that_lists_its_files(tmp_path, monkeypatch):
    """As S3 does; fsspec's store in memory has the same calls."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tar(tmp_path / "here/val-0.tar", {"0.png": IMAGE, "0.seg.png": picture(stripes(1, 2))})
    (root / "classes.json").write_text('["sky", "road", "sea"]')
    here, store = read_annotated(root), fsspec.filesystem("memory")
    store.put(str(root / "val-0.tar"), "/maps/val-0.tar")
    store.put(str(root / "classes.json"), "/maps/classes.json")
    for named in ("memory://maps", "memory://maps/val-{0..0}.tar"):
        there = read_annotated(named)
        same(here, there)
        assert (there.root, there.annotated[0].split) == (named, "val")


def test_an_index_whose_annotations_are_cut_short(tmp_path):
    root = tar(tmp_path / "a.tar", {"0.png": IMAGE, "0.mask.png": picture(stripes(1))})
    open_index(str(root), 0)
    for name in (BESIDES, VALUES):
        whole = (root / name).read_bytes()
        for damaged in (whole[:-8], bytes(len(whole)) if name == BESIDES else whole * 2):
            (root / name).write_bytes(damaged)
            with pytest.raises(VitralError, match=r"the index of its shards cannot be used"):
                read_index(str(root), 0)
        (root / name).write_bytes(whole)
    assert read_index(str(root), 0).beside["values"].tolist() == [2]


def test_an_index_that_counts_values_which_no_map_has(tmp_path):
    root = tar(tmp_path / "a.tar", {"0.png": IMAGE, "0.mask.png": picture(stripes(1))})
    (root / "classes.json").write_text('["sky", "road"]')
    open_index(str(root), 0)
    counted = np.fromfile(root / VALUES, VALUE)
    counted["value"][-1] = 77
    counted.tofile(root / VALUES)
    with pytest.raises(VitralError, match="has no pixel of value 77, which the index of its shards counts"):
        read_annotated(root)
