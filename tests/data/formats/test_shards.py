"""Tar shards: packed, indexed, read here and from a server, and trained on as the folder that they were packed from."""

import io
import json
import os
import pickle
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from folder_server import serving
from vitral.cli import main
from vitral.data import many
from vitral.data.formats.indexing import write_index
from vitral.data.formats.shard_places import shards_in
from vitral.data.formats.shards import open_index
from vitral.data.loader import TrainingBatches
from vitral.data.options import DataOptions, SceneOptions
from vitral.data.scenes import write_scenes
from vitral.data.shards import INDEX, ROWS, read_index
from vitral.data.sources import open_data
from vitral.errors import VitralError

SMALL = "--image-size 20 20 --patch-size 4 --dim 32 --depth 2 --num-heads 2 --steps 12 --batch-size 12 --precision fp32 --workers 0 --keep last"


def run(*words, status=0):
    with pytest.raises(SystemExit) as stop:
        main([*map(str, words)])
    assert stop.value.code == status


@pytest.fixture(scope="module")
def shards(shapes_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("shards") / "packed"
    run("data", "pack", shapes_folder, out, "--shard-megabytes", "1")
    return out


def tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))


def png(value, side=8):
    buffer = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_packed_images_are_those_of_the_folder_in_its_order(shapes_folder, shards):
    folder, packed = open_data(shapes_folder), open_data(str(shards))
    assert packed.labels == folder.labels
    assert packed.fingerprint == folder.fingerprint
    for name, split in folder.splits.items():
        assert (packed.splits[name].contents == split.contents).all()
        assert (packed.splits[name].targets.values == split.targets.values).all()
        assert (packed.splits[name].read(3) == split.read(3)).all()


def test_training_on_shards_ends_with_the_weights_of_the_folder(shapes_folder, shards, tmp_path):
    for data, out in ((shapes_folder, "folder"), (shards, "shards")):
        run("train", data, *SMALL.split(), "--out", tmp_path / out)
    one, other = (load_file(tmp_path / out / "model.safetensors") for out in ("folder", "shards"))
    assert all((one[name] == other[name]).all() for name in one)
    run("evaluate", tmp_path / "shards", shards)


@pytest.mark.parametrize(
    ("beside", "labels"),
    [
        ([("cls", b"cat"), ("cls", b"dog")], ["cat", "dog"]),
        ([("cls", b"1"), ("cls", b"0")], ["zero", "one"]),
        ([("json", b'{"label": "cat"}'), ("json", b'{"label": "dog"}')], ["cat", "dog"]),
        ([("json", b'{"labels": ["a", "b"]}'), ("json", b'{"labels": []}')], ["a", "b"]),
        ([("txt", b"a photo"), ("txt", b"another")], None),
    ],
)
def test_labels_beside_the_images(tmp_path, beside, labels):
    members = []
    for i in range(12):
        kind, text = beside[i % 2]
        members += [(f"x/{i:03d}.png", png(20 * i)), (f"x/{i:03d}.{kind}", text)]
    tar(tmp_path / "s/train-0.tar", members[:16])
    tar(tmp_path / "s/val-0.tar", members[16:])
    (tmp_path / "s/classnames.txt").write_text("zero\none\n")
    if labels is None:
        with pytest.raises(VitralError, match="vitral pretrain"):
            open_data(str(tmp_path / "s"))
        assert len(open_data(str(tmp_path / "s"), labelled=False).splits["train"]) == 8
        return
    data = open_data(str(tmp_path / "s"), DataOptions(test_fraction=0, near_copies="apart"))
    assert sorted(data.labels) == sorted(labels)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 8, "val": 4}
    assert data.splits["train"].names[1] == "train-0.tar/x/001.png"
    assert data.splits["train"].targets.named(1, data.labels) == [] if "a" in labels else True


def test_an_index_is_made_again_when_a_shard_changed_and_refused_in_a_run(tmp_path):
    tar(tmp_path / "a.tar", [("0.png", png(0)), ("0.cls", b"x"), ("1.png", png(9)), ("1.cls", b"y")])
    index = open_index(str(tmp_path), 0)
    images = many.ShardImages(index)
    tar(tmp_path / "a.tar", [("2.png", png(50)), ("2.cls", b"z")])
    with pytest.raises(VitralError, match="has changed since it was indexed"):
        images.read(0, None, None)
    assert [*many.ShardImages(open_index(str(tmp_path), 0)).names] == ["a.tar/2.png"]


@pytest.mark.parametrize("damage", ["cut", "garbage", "gzip", "empty", "no image"])
def test_damaged_shards_are_named(tmp_path, damage):
    path = tmp_path / "a.tar"
    tar(path, [("0.png", png(0)), ("0.cls", b"x"), ("1.png", png(9)), ("1.cls", b"y")])
    whole = path.read_bytes()
    if damage == "gzip":
        import gzip

        whole = gzip.compress(whole)
    if damage == "no image":
        tar(path, [("0.cls", b"x")])
        whole = path.read_bytes()
    path.write_bytes({"cut": whole[:1700], "garbage": b"x" * 4000, "empty": b""}.get(damage, whole))
    with pytest.raises(VitralError, match=r"a\.tar|no image"):
        open_data(str(tmp_path))


def test_an_index_that_lies_is_refused(shards, tmp_path):
    for name in ("index.json", "index.bin", "index.names"):
        shutil.copy(shards / name, tmp_path / name)
    told = json.loads((tmp_path / INDEX).read_text())
    for change in ({"images": 10**9}, {"layout": 0}, {"shards": []}, {"texts": None}, {"names": -1}):
        (tmp_path / INDEX).write_text(json.dumps(told | change))
        with pytest.raises(VitralError, match="index"):
            read_index(str(tmp_path), 0)
    (tmp_path / INDEX).write_text(json.dumps(told))
    (tmp_path / ROWS).write_bytes((shards / ROWS).read_bytes()[:-7])
    with pytest.raises(VitralError, match="index"):
        read_index(str(tmp_path), 0)


def test_many_images_are_opened_as_arrays_with_the_same_labels_and_lazy_names(shapes_folder, shards, monkeypatch):
    few = open_data(str(shards), DataOptions(near_copies="apart"))
    monkeypatch.setattr(many, "MANY", 10)
    data = open_data(str(shards), DataOptions(val_fraction=0.2, test_fraction=0.2))
    assert data.labels == few.labels
    assert sum(len(split) for split in data.splits.values()) == 90
    assert all(10 <= len(split) <= 70 for split in data.splits.values())
    known = {
        name: few_split.targets.values[i] for few_split in few.splits.values() for i, name in enumerate(few_split.names)
    }
    for split in data.splits.values():
        assert not isinstance(split.names, list)
        assert [known[name] for name in split.names] == split.targets.values.tolist()
    again = pickle.loads(pickle.dumps(data.splits["train"]))
    assert (again.read(5) == data.splits["train"].read(5)).all()


def test_the_order_is_the_same_for_any_number_of_loader_processes(shards):
    from vitral.data.augment import Augmentation
    from vitral.data.options import AugmentOptions
    from vitral.data.preprocess import Preprocess

    split = open_data(str(shards)).splits["train"]
    steps = Preprocess(20, 20, 1, (0.5,), (0.5,))
    batches = TrainingBatches(split, steps, [Augmentation(AugmentOptions(crop="none"), steps)], 8, 0)
    alone, ahead = ([batch.keys.tolist() for batch in batches.stream(0, 10, workers)] for workers in (0, 3))
    assert alone == ahead


@pytest.fixture
def broken(shapes_folder, tmp_path):
    """A folder with a truncated JPEG, an animated GIF and an empty file among its images."""
    folder = tmp_path / "broken"
    shutil.copytree(shapes_folder, folder)
    inside = sorted(path for path in folder.iterdir() if path.is_dir())[0]
    still, other = (Image.new("RGB", (24, 24), colour) for colour in ("red", "blue"))
    still.save(inside / "cut.jpg")
    (inside / "cut.jpg").write_bytes((inside / "cut.jpg").read_bytes()[:300])
    still.save(inside / "moving.gif", save_all=True, append_images=[other])
    (inside / "empty.png").touch()
    return folder


def test_images_that_cannot_be_read_are_named_by_pack_index_and_training(broken, tmp_path, capsys):
    out = tmp_path / "packed"
    run("data", "pack", broken, out)
    said = capsys.readouterr().err
    assert "left out 3 images that cannot be read" in said
    assert all(f"/{name}: " in said for name in ("cut.jpg", "moving.gif", "empty.png"))
    assert len(json.loads((out / INDEX).read_text())["skipped"]) == 3
    run("train", out, *SMALL.split(), "--out", tmp_path / "run", "--skip-unreadable")
    assert "left out 3 unreadable images" in capsys.readouterr().err
    assert len((tmp_path / "run/skipped.csv").read_text().splitlines()) == 4
    run("data", "index", out)
    assert "left out 2 images that cannot be read" in capsys.readouterr().err
    run("train", out, *SMALL.split(), "--out", tmp_path / "other", status=2)
    assert "2 images could not be read when the index was made" in capsys.readouterr().err


def test_samples_without_an_image_are_counted(tmp_path, capsys):
    tar(
        tmp_path / "s/a.tar",
        [
            ("0.png", png(0)),
            ("0.cls", b"x"),
            ("1.cls", b"y"),
            ("2.wav", b"z"),
            ("2.cls", b"y"),
            ("3.png", png(9)),
            ("3.cls", b"y"),
        ],
    )
    run("data", "index", tmp_path / "s")
    assert "left out 2 samples without an image: a.tar/1.cls, a.tar/2.wav and 1 beside it" in capsys.readouterr().err
    data = open_data(str(tmp_path / "s"), DataOptions(test_fraction=0, val_fraction=0))
    assert "left out 2 samples without an image" in data.notes


@pytest.mark.parametrize("bare", [(4,), (1, 2, 4)])
def test_the_first_sample_of_the_smaller_group_is_named(tmp_path, bare):
    members = [(f"{i}.png", png(9 * i)) for i in range(5)] + [(f"{i}.cls", b"x") for i in range(5) if i not in bare]
    tar(tmp_path / "a.tar", sorted(members))
    few, first = ("1 of 5 with none", 4) if len(bare) == 1 else ("2 of 5 with classes", 0)
    with pytest.raises(
        VitralError, match=rf"some samples have classes and some none.*: {few}, the first a\.tar/{first}\.png"
    ):
        write_index(str(tmp_path), tmp_path)


@pytest.mark.parametrize("words", [("data", "index", "--label"), ("train", "--label-column")])
def test_a_field_that_no_sample_has_is_refused_and_the_index_stays(tmp_path, capsys, words):
    members = [
        (f"{i}.{kind}", data)
        for i in range(4)
        for kind, data in (("png", png(9 * i)), ("json", b'{"kind": "x", "id": 3, "not": {}}'))
    ]
    tar(tmp_path / "a.tar", members)
    run("data", "index", tmp_path, "--label", "kind")
    before = (tmp_path / INDEX).read_bytes()
    capsys.readouterr()
    run(*words[:-1], tmp_path, words[-1], "nope", status=2)
    assert "no sample has the field 'nope'; fields that can be a class: id, kind" in capsys.readouterr().err
    assert (tmp_path / INDEX).read_bytes() == before


@pytest.mark.parametrize(("name", "command"), [("a.tar.gz", "gunzip"), ("a.tgz", "gunzip"), ("a.tar.zst", "unzstd")])
def test_compressed_shards_are_named_with_the_remedy(tmp_path, name, command):
    for place in ("plain", "divided/train"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / name).write_bytes(b"\x1f\x8b")
    said = rf"a compressed tar is no shard, .* decompress it \({command}\)"
    for data in ("plain", "divided", f"plain/{name}"):
        with pytest.raises(VitralError, match=said):
            open_data(str(tmp_path / data))
        with pytest.raises(VitralError, match=said):
            write_index(str(tmp_path / data), tmp_path / "index")


def test_shards_are_whole_or_absent(tmp_path, capsys):
    for name in ("a/0.png", "b/1.png"):
        (tmp_path / "folder" / name).parent.mkdir(parents=True)
        (tmp_path / "folder" / name).touch()
    run("data", "pack", tmp_path / "folder", tmp_path / "packed", status=2)
    assert f"{tmp_path / 'packed'}: no image in its 1 shard can be read; a/0.png: is empty" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]


# -- behind a URL --


@pytest.fixture
def server(shards, tmp_path, monkeypatch):
    with serving(shards, tmp_path, monkeypatch) as server:
        yield server


def test_images_come_from_a_server_and_are_kept(server, shards):
    here, there = open_data(str(shards)), open_data(server.url)
    assert there.fingerprint == here.fingerprint
    train = there.splits["train"]
    for i in range(len(train)):
        assert (train.read(i) == here.splits["train"].read(i)).all()
    asked = server.asked
    for i in range(len(train)):
        train.read(i)
    assert server.asked == asked
    named = f"{server.url}/{shards_in(str(shards))[0]}"
    assert len(open_data(named).splits["train"]) == len(train)


def test_a_server_that_drops_stalls_and_damages_costs_no_image(server, shards):
    here = open_data(str(shards), DataOptions(near_copies="apart"))
    there = open_data(server.url, DataOptions(near_copies="apart", keep_gigabytes=0))
    server.bad = 0.1
    for _ in range(3):
        for i in range(len(here.splits["train"])):
            assert (there.splits["train"].read(i) == here.splits["train"].read(i)).all()
    assert server.spoiled >= 5
    said = there.splits["train"].images.happened()
    assert "asked for again" in said
    told = sum(int(word) for word in said.split() if word.isdigit())
    assert (
        0 < told <= server.spoiled
    )  # the library asks a second time by itself where a connection that it kept is closed
    assert there.splits["train"].images.happened() is None


def test_a_server_that_never_answers_rightly_is_named(server):
    data = open_data(server.url, DataOptions(near_copies="apart", keep_gigabytes=0))
    server.bad, server.pause = 1.0, 0.0
    with pytest.raises(VitralError, match=r"could not be read in 6 tries"):
        data.splits["train"].read(0)


def test_a_url_without_an_index_says_how_one_is_made(server):
    with pytest.raises(
        VitralError, match=r"index\.json: is not there.*vitral data index.*/nowhere/train-\{000000\.\.000031\}\.tar"
    ):
        open_data(f"{server.url}/nowhere/")


@pytest.mark.parametrize("skipping", [False, True])
def test_a_server_without_ranges_is_named_at_its_first_answer(server, skipping):
    server.whole = True
    with pytest.raises(VitralError, match=r"\.tar: its server does not answer parts of a file \(HTTP Range\)"):
        open_data(server.url, DataOptions(skip_unreadable=skipping))
    assert server.asked <= os.cpu_count()  # one of each thread


def test_an_index_is_not_made_over_a_server_without_ranges(server, tmp_path):
    filler = bytes(3 << 20)  # more than is read ahead
    tar(
        server.folder / "far-0.tar",
        [(f"{i}.{kind}", data) for i in range(6) for kind, data in (("png", png(i)), ("bin", filler))],
    )
    server.whole = True
    with pytest.raises(VitralError, match="HTTP Range"):
        write_index(f"{server.url}/far-{{0..0}}.tar", tmp_path / "index")
    (server.folder / "far-0.tar").unlink()


def test_a_run_tells_what_the_server_did(server, tmp_path):
    server.bad = 0.05
    run(
        "train",
        server.url,
        *SMALL.split(),
        "--near-copies",
        "apart",
        "--keep-gigabytes",
        "0",
        "--out",
        tmp_path / "run",
    )
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert any("asked for again" in line.get("text", "") for line in lines)


def test_objects_and_masks_travel_in_shards(tmp_path):
    write_scenes(tmp_path / "scenes", SceneOptions(images=12, test=4, size=48, classes=3))
    run("data", "convert", tmp_path / "scenes", tmp_path / "packed", "--to", "shards")
    options = DataOptions(near_copies="apart", task="instance", val_fraction=0)
    folder, packed = (open_data(str(tmp_path / name), options) for name in ("scenes", "packed"))
    assert packed.labels == folder.labels
    for name, split in folder.splits.items():
        other = packed.splits[name]
        places = {content: i for i, content in enumerate(other.contents.tolist())}
        for i, content in enumerate(split.contents.tolist()):
            k = places[content]
            assert (split.read(i) == other.read(k)).all()
            assert split.targets.named(i, folder.labels) == other.targets.named(k, packed.labels)
