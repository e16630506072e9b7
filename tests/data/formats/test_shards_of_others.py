"""Tar shards as others write them: names, links, holes, patterns, and what in them would be lost without a word."""

import io
import json
import subprocess
import tarfile

import numpy as np
import pytest
from PIL import Image

from processes import run
from vitral.data.formats.indexing import write_index
from vitral.data.options import DataOptions
from vitral.data.sources import open_data
from vitral.errors import VitralError

WHOLE = DataOptions(test_fraction=0, val_fraction=0, near_copies="apart")


def png(value, side=8):
    buffer = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def four(before="", start=0):
    return [
        (f"{before}{i}.{k}", data)
        for i in range(4)
        for k, data in (("png", png(start + 20 * i)), ("cls", b"ab"[i % 2 :][:1]))
    ]


def tar(path, members, form=tarfile.PAX_FORMAT):
    """members: (name, bytes), or (name, (type, target)) for a link."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as file:
        for name, data in members:
            member = tarfile.TarInfo(name)
            if isinstance(data, tuple):
                member.type, member.linkname = data
                file.addfile(member)
            else:
                member.size = len(data)
                file.addfile(member, io.BytesIO(data))
    return path.parent


def learned(data):
    """The labels, the names and the first pixel of each image."""
    split = open_data(str(data), WHOLE).splits["train"]
    return [*split.names], [int(split.read(i)[0, 0, 0]) for i in range(len(split))]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("before", ["./", "/", "../../", "a.b/c/", "é" * 40 + "/" + "x" * 150])
def test_names_of_any_kind_are_read_where_they_lie(tmp_path, before, form):
    names, values = learned(tar(tmp_path / "s/a.tar", four(before), form))
    assert names == [f"a.tar/{before}{i}.png" for i in range(4)]
    assert values == [0, 20, 40, 60]


def test_one_name_in_several_shards_is_several_samples_and_an_empty_shard_is_none(tmp_path):
    for name, members in (("a", four()), ("b", four(start=7)), ("c", [])):
        tar(tmp_path / f"s/{name}.tar", members)
    assert learned(tmp_path / "s") == (
        [f"{shard}.tar/{i}.png" for shard in "ab" for i in range(4)],
        [0, 20, 40, 60, 7, 27, 47, 67],
    )


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("0.png", png(1)), ("0.cls", b"a"), ("0.png", png(2)), ("0.cls", b"b")], "has '0.png' twice"),
        ([("0.jpg", png(1)), ("0.png", png(2)), ("0.cls", b"a")], "'0.jpg' and '0.png' are images of one sample"),
        (
            [("a.v2.png", png(1)), ("a.v2.cls", b"a")],
            r"a\.v2\.png and 1 beside it: no image, for .* up to its first dot",
        ),
        (
            sorted(four(), key=lambda one: one[0][2:]),
            "its samples have no class .* 4 have no image: .* next to each other",
        ),
        ([("0.png", png(1)), ("0.cls", b" \n")], "its samples have no class"),
    ],
)
def test_what_would_be_lost_is_told(tmp_path, members, said):
    with pytest.raises(VitralError, match=said):
        open_data(str(tar(tmp_path / "s/a.tar", members)), WHOLE)


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_links_are_counted_and_named(tmp_path, kind):
    made = write_index(str(tar(tmp_path / "s/a.tar", [*four(), ("9.png", (kind, "/etc/passwd"))])), tmp_path / "s")
    assert (made.images, made.bare) == (4, ["a.tar/9.png (a link, which is not followed)"])


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_files_stored_with_holes_are_refused(tmp_path, form):
    with open(tmp_path / "0.png", "wb") as file:
        file.write(png(5))
        file.truncate(2**20)
    (tmp_path / "s").mkdir()
    subprocess.run(["tar", "--sparse", f"--format={form}", "-cf", "s/a.tar", "0.png"], cwd=tmp_path, check=True)
    with pytest.raises(VitralError, match=r"a\.tar: '0\.png' is stored with holes; write the tar without --sparse"):
        open_data(str(tmp_path / "s"), WHOLE, labelled=False)


@pytest.mark.parametrize(
    "given", ["s/x-{000..002}.tar", "./s/x-{000..002}.tar", "s/x-{0..0}{00..02}.tar", "{here}/s/x-{{000..002}}.tar"]
)
def test_patterns_name_local_shards_from_any_folder(tmp_path, monkeypatch, given):
    for i in range(3):
        tar(tmp_path / f"test/s/x-{i:03d}.tar", four(start=i))
    monkeypatch.chdir(tmp_path / "test")
    data = given.format(here=tmp_path / "test") if "here" in given else given
    names, values = learned(data)  # all in train: what lies above the shards names no split
    assert names[::4] == ["x-000.tar/0.png", "x-001.tar/0.png", "x-002.tar/0.png"]
    assert values[::4] == [0, 1, 2]


def test_a_pattern_that_counts_down_or_names_a_missing_shard(tmp_path):
    tar(tmp_path / "x-0.tar", four())
    for numbers, said in (("{3..0}", "counts up"), ("{0..1}", r"x-1\.tar: cannot be read")):
        with pytest.raises(VitralError, match=said):
            open_data(f"{tmp_path}/x-{numbers}.tar", WHOLE)


def test_a_cls_goes_before_what_a_json_calls_a_label_unless_a_field_is_named(tmp_path):
    members = []
    for i, (one, other, third) in enumerate([("a", "c0", "t0"), ("b", "c1", "t1")] * 2):
        beside = {
            "png": png(20 * i),
            "json": json.dumps({"class": other}).encode(),
            "cls": one.encode(),
            "txt": third.encode(),
        }
        members += [(f"{i}.{kind}", data) for kind, data in beside.items()]
    root = tar(tmp_path / "s/a.tar", members)
    for label, labels in ((None, ["a", "b"]), ("class", ["c0", "c1"]), ("txt", ["t0", "t1"])):
        assert open_data(str(root), DataOptions(label_column=label)).labels == labels


def test_a_class_beyond_the_table_of_names(tmp_path):
    root = tar(
        tmp_path / "s/a.tar",
        [(f"{i}.{k}", data) for i in range(4) for k, data in (("png", png(9 * i)), ("cls", b"%d" % i))],
    )
    (root / "classnames.txt").write_text("cat\ndog\nfox\n")
    with pytest.raises(VitralError, match=r"class 3 is beyond the 3 lines of classnames\.txt"):
        open_data(str(root), WHOLE)


def test_an_index_in_a_folder_of_its_own_is_refused_for_changed_shards_and_other_labels(tmp_path):
    root = tar(tmp_path / "s/a.tar", four())
    write_index(str(root), tmp_path / "index")
    assert learned(tmp_path / "index")[1] == [0, 20, 40, 60]
    with pytest.raises(VitralError, match=r"made for the usual labels; make it again: .* --label kind"):
        open_data(str(tmp_path / "index"), DataOptions(label_column="kind"))
    tar(tmp_path / "s/a.tar", four(start=3))
    with pytest.raises(
        VitralError, match="made before its shards changed; make it again: vitral data index SHARDS --out INDEX"
    ):
        open_data(str(tmp_path / "index"), WHOLE)


def test_two_that_make_one_index_at_once_do_not_meet(tmp_path):
    """As two runs over fresh shards do: the second begins while the first reads, and ends before it."""
    root, inner = tar(tmp_path / "s/a.tar", [one for k in range(3) for one in four(f"{k}/", k)]), []

    def meanwhile(n, total):
        if not inner:
            inner.append(run("data", "index", root))

    write_index(str(root), root, meanwhile)
    assert inner[0].returncode == 0, inner[0].stderr
    assert learned(root)[1] == [k + 20 * i for k in range(3) for i in range(4)]
    assert sorted(path.name for path in root.iterdir()) == ["a.tar", "index.bin", "index.json", "index.names"]


def test_an_index_that_cannot_be_written_is_named(tmp_path):
    root = tar(tmp_path / "s/a.tar", four())
    (tmp_path / "file").touch()
    with pytest.raises(VitralError, match=r"file/index: its index could not be made .*check the folder"):
        write_index(str(root), tmp_path / "file/index")
