"""Files that somebody made to do harm, or that a disk spoiled: every reader of ours answers with what they hold or a VitralError, and nothing else.

Each format starts from a file that is right, in which bytes are changed, cut out, doubled and put in. Where the format is text, so are the changes:
names and numbers that mean something to it.
"""

import functools
import io
import os
import tarfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from annotations import data_of, outlined
from vitral.checkpoints.atomic import read_safetensors
from vitral.checkpoints.recognise import read_source
from vitral.data.formats import FORMATS, read_annotated
from vitral.data.formats.convert import plan_conversion
from vitral.data.formats.maps import values_of
from vitral.data.formats.shards import open_index
from vitral.data.listers import list_data
from vitral.data.options import DataOptions
from vitral.errors import VitralError
from vitral.training.toml import read_recipe

EXAMPLES = 60
TEXTS = [b"-1", b"0", b"1e999", b"NaN", b"null", b"[]", b"{}", b'""', b"9" * 30, b"../../etc/passwd", b"\xff\xfe", b"\0", b"[" * 3000, b"'" * 9,
         b"&x;", b"true", b"=", b"\n", b"<!DOCTYPE a [<!ENTITY b 'c'>]>"]  # fmt: skip


@st.composite
def spoiled(draw, whole):
    """The bytes with a few changes."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        at, length = draw(st.integers(0, len(data) - 1)), draw(st.integers(0, 40))
        how = draw(st.sampled_from(["flip", "cut", "end", "double", "put", "text"]))
        if how == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "cut":
            del data[at : at + length]
        elif how == "end":
            del data[at:]
        elif how == "double":
            data[at:at] = data[at : at + length]
        else:
            data[at:at] = draw(st.binary(max_size=20)) if how == "put" else draw(st.sampled_from(TEXTS))
    return bytes(data)


def answered(read, *arguments):
    """What a reader of a spoiled file gives, or None where it says why it cannot."""
    try:
        return read(*arguments)
    except VitralError:
        return None


@functools.cache
def weights():
    return save({"a": torch.zeros(2, 3), "b": torch.ones(4)}, {"vitral": '{"a": 1}'})


@functools.cache
def google():
    buffer = io.BytesIO()
    np.savez(buffer, **{"embedding/kernel": np.zeros((2, 2, 3, 4), np.float32), "embedding/bias": np.zeros(4)})
    return buffer.getvalue()


@functools.cache
def shard():
    buffer, picture = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (4, 4)).save(picture, "PNG")
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in (
            ("0.png", picture.getvalue()),
            ("0.json", b'{"label": "x"}'),
            ("1.png", picture.getvalue()),
            ("1.cls", b"y"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@functools.cache
def table():
    import pyarrow
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table({"image": ["a.png", "b.png"], "label": ["x", "y"]}), buffer)
    return buffer.getvalue()


RECIPE = b"""[model]
name = "vit_tiny_patch16_224"
image_size = [20, 20]
[train]
steps = 10
batch_size = 4
[objective]
name = "mae"
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


@given(spoiled(weights()))
@settings(max_examples=EXAMPLES)
def test_weights(place, data):
    (place / "w.safetensors").write_bytes(data)
    answered(read_safetensors, place / "w.safetensors")


@given(spoiled(google()))
@settings(max_examples=EXAMPLES)
def test_npz(place, data):
    (place / "w.npz").write_bytes(data)
    answered(read_source, place / "w.npz")


@given(spoiled(shard()))
@settings(max_examples=EXAMPLES)
def test_tar_shards(place, data):
    folder = place / "shards"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    (folder / "a.tar").write_bytes(data)
    found = answered(open_index, str(folder), 0)
    assert found is None or 1 <= len(found.rows) <= 2
    assert {path.name for path in place.iterdir()} <= {
        "shards",
        "w.npz",
        "w.safetensors",
        "t.parquet",
        "r.toml",
        *FORMATS,
    }


@pytest.mark.parametrize(("good", "bad"), [(b"image", b"im\xa2ge"), (b"a.png", b"a.p\x92g")])
def test_parquet_whose_texts_are_not_utf8(place, good, bad):
    """As fuzzing found them: a column's name, and a cell."""
    (place / "t.parquet").write_bytes(table().replace(good, bad))
    with pytest.raises(VitralError, match="not a readable Parquet file"):
        list_data(str(place / "t.parquet"), DataOptions())


@given(spoiled(table()))
@settings(max_examples=EXAMPLES)
def test_parquet(place, data):
    (place / "t.parquet").write_bytes(data)
    answered(list_data, str(place / "t.parquet"), DataOptions())


@given(spoiled(RECIPE))
@settings(max_examples=EXAMPLES)
def test_recipes(place, data):
    (place / "r.toml").write_bytes(data)
    answered(read_recipe, place / "r.toml")


@pytest.mark.parametrize("name", ["coco", "yolo", "voc", "labelme", "parquet"])
def test_annotations(place, name):
    made = data_of([[outlined(0, [(1, 1), (9, 1), (9, 9)])], [outlined(2, [(3, 2), (8, 2), (8, 15)])]])
    folder = place / name
    FORMATS[name].write(made, folder)
    texts = [
        path for path in sorted(folder.rglob("*")) if path.suffix in (".json", ".txt", ".xml", ".yaml", ".parquet")
    ]
    assert texts

    @given(st.sampled_from(texts).flatmap(lambda path: st.tuples(st.just(path), spoiled(path.read_bytes()))))
    @settings(max_examples=EXAMPLES)
    def spoil(case):
        path, data = case
        whole = path.read_bytes()
        path.write_bytes(data)
        try:
            answered(read_annotated, folder, name)
        finally:
            path.write_bytes(whole)

    spoil()


@pytest.mark.parametrize("kind", ["masks", "panoptic"])
def test_maps_in_shards(place, kind):
    """The shard, its table of classes, and its index."""
    made = data_of([[outlined(0, [(1, 1), (9, 1), (9, 9)])], [outlined(2, [(3, 2), (8, 2), (8, 15)])]])
    folder = place / kind
    FORMATS["shards"].write(plan_conversion(made, kind).data, folder)
    whole = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    times = {path: path.stat().st_mtime_ns for path in whole}
    assert len(read_annotated(folder).annotated) == 2

    @given(st.sampled_from(list(whole)).flatmap(lambda path: st.tuples(st.just(path), spoiled(whole[path]))))
    @settings(max_examples=2 * EXAMPLES)
    def spoil(case):
        for path, data in whole.items():
            path.unlink()
            path.write_bytes(case[1] if path == case[0] else data)
            if path != case[0]:
                os.utime(path, ns=(times[path], times[path]))  # so that the index is as old as its shard
        found = answered(read_annotated, folder)
        for i in range(0 if found is None else len(found.annotated)):
            answered(values_of, found, i)
        assert {path.name for path in folder.iterdir()} <= {path.name for path in whole}

    spoil()
