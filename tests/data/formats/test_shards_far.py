"""Shards behind URLs: keys in the address, redirections, servers that fail while an index is made, stores that list their files."""

import http.server
import random
import threading

import fsspec
import pytest
from test_shards_of_others import WHOLE, four, learned, tar

from vitral.data import ranges
from vitral.data.formats import shards
from vitral.data.formats.indexing import write_index
from vitral.data.formats.shards import open_index
from vitral.data.options import DataOptions
from vitral.data.sources import open_data
from vitral.errors import VitralError


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        way, _, name = self.path.partition("?")[0].strip("/").partition("/")
        if way == "moved":
            self.answer(302, b"", Location=f"/plain/{name}")
        elif way == "key" and not self.path.endswith("?key=val_SECRET"):
            self.answer(403, b"")
        elif not (self.server.folder / name).is_file():
            self.answer(404, b"")
        elif way == "failing" and self.server.random.random() < 0.4:
            if self.server.random.random() < 0.5:
                self.answer(503, b"")
            self.close_connection = True
        else:
            self.file((self.server.folder / name).read_bytes(), endless=way == "endless")

    def file(self, data, *, endless):
        if endless:  # no Content-Length
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))
        elif (asked := self.headers.get("Range")) is not None:
            first, last = map(int, asked.removeprefix("bytes=").split("-"))
            self.answer(206, data[first : last + 1], **{"Content-Range": f"bytes {first}-{last}/{len(data)}"})
        else:
            self.answer(200, data, **{"Accept-Ranges": "bytes"})

    def answer(self, status, data, **headers):
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(ranges, "WAIT", 0.001)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.folder, server.random = True, tmp_path / "public", random.Random(3)
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    for i in range(3):
        tar(server.folder / f"train-{i}.tar", four(start=i))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    "named",
    [
        "plain/train-{0..2}.tar",
        "moved/train-{0..2}.tar",
        "key/train-{0..2}.tar?key=val_SECRET",
        "failing/train-{0..2}.tar",
    ],
)
def test_shards_are_indexed_and_read(server, named):
    names, values = learned(f"{server.url}/{named}")
    way = named.partition("/")[0]
    assert names[::4] == [
        f"{server.url}/{way}/train-{i}.tar/0.png" for i in range(3)
    ]  # the key is in no name, and names no split
    assert values == [start + 20 * i for start in range(3) for i in range(4)]


def test_one_shard_with_a_key_in_its_address(server):
    assert learned(f"{server.url}/key/train-1.tar?key=val_SECRET")[1] == [1, 21, 41, 61]
    assert learned(f"{server.url}/plain/train-1.tar?key={'x' * 400}")[1] == [1, 21, 41, 61]


def test_addresses_that_differ_in_a_stroke_have_indices_of_their_own(server):
    tar(server.folder / "train/0.tar", four(start=9))
    assert learned(f"{server.url}/plain/train-{{0..0}}.tar")[1] == [0, 20, 40, 60]
    assert learned(f"{server.url}/plain/train/{{0..0}}.tar")[1] == [9, 29, 49, 69]


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("endless/train-{0..2}.tar", r"does not answer parts of a file \(HTTP Range\)"),
        ("plain/other-{0..2}.tar", r"other-0\.tar: is not there, or may not be read"),
        ("key/train-{0..2}.tar?key=wrong", r"train-0\.tar\?key=wrong: is not there, or may not be read"),
        ("plain/train-{0..2}.tar.gz", r"a compressed tar is no shard, .* \(gunzip\)"),
        ("plain/train.tgz", r"a compressed tar is no shard, .* \(gunzip\)"),
    ],
)
def test_what_cannot_be_read_is_named(server, named, said):
    with pytest.raises(VitralError, match=said):
        open_data(f"{server.url}/{named}", WHOLE)


def test_an_index_is_made_again_where_a_shard_has_another_size(server):
    assert len(learned(f"{server.url}/plain/train-{{0..1}}.tar")[0]) == 8
    tar(server.folder / "train-0.tar", [*four(), *four("more/", 5)])
    assert len(learned(f"{server.url}/plain/train-{{0..1}}.tar")[0]) == 12


def test_an_index_made_for_other_labels_is_refused_where_it_cannot_be_made_again(server):
    write_index(str(server.folder), server.folder)
    assert learned(f"{server.url}/plain")[1] == [start + 20 * i for start in range(3) for i in range(4)]
    with pytest.raises(
        VitralError, match=f"{server.url}/plain: its index was made for the usual labels; make it again"
    ):
        open_data(f"{server.url}/plain", DataOptions(label_column="kind"))


def test_a_damaged_index_is_named_by_its_address_and_counts_again_once_mended(server):
    write_index(str(server.folder), server.folder)
    whole = (server.folder / "index.bin").read_bytes()
    (server.folder / "index.bin").write_bytes(whole[:-3])
    with pytest.raises(
        VitralError,
        match=rf"^{server.url}/plain: the index of its shards cannot be used .* vitral data index {server.url}/plain$",
    ):
        open_index(f"{server.url}/plain", 0)
    (server.folder / "index.bin").write_bytes(whole)
    assert len(open_index(f"{server.url}/plain", 0).rows) == 12


def test_a_store_that_lists_its_files_has_an_index_beside_them(tmp_path, monkeypatch):
    """As S3 does; fsspec's store in memory has the same calls."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root, store = tar(tmp_path / "here/train-0.tar", four()), fsspec.filesystem("memory")
    store.put(str(root / "train-0.tar"), "/beside/train-0.tar")
    made = []
    monkeypatch.setattr(shards, "write_index", lambda *given: made.append(given) or write_index(*given))
    assert learned("memory://beside")[1] == [0, 20, 40, 60]
    assert len(made) == 1  # there is none yet
    assert learned("memory://beside")[1] == [0, 20, 40, 60]
    assert len(made) == 1
    write_index(str(root), root)
    for name in ("index.json", "index.bin", "index.names"):
        store.put(str(root / name), f"/beside/{name}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    assert learned("memory://beside/") == (
        ["train-0.tar/0.png", "train-0.tar/1.png", "train-0.tar/2.png", "train-0.tar/3.png"],
        [0, 20, 40, 60],
    )
    assert len(made) == 1
    store.pipe("/beside/index.json", store.cat("/beside/index.json").replace(b'"layout": 3', b'"layout": 2'))
    assert learned("memory://beside")[1] == [0, 20, 40, 60]
    assert len(made) == 2  # that of an earlier version is not used
    with pytest.raises(VitralError, match=r"memory://nothing/index\.json: is not there"):
        open_index("memory://nothing", 0)


def test_what_is_kept_stays_within_its_limit(server, tmp_path):
    members = [
        (name, data + bytes(40_000) if name.endswith("png") else data)
        for k in range(5)
        for name, data in four(f"{k}/", k)
    ]
    tar(server.folder / "train-0.tar", members)
    options = DataOptions(test_fraction=0, val_fraction=0, near_copies="apart", keep_gigabytes=2e-4)
    split = open_data(f"{server.url}/plain/train-0.tar", options).splits["train"]
    for _ in range(2):
        assert [int(split.read(i)[0, 0, 0]) for i in range(20)] == [k + 20 * i for k in range(5) for i in range(4)]
    kept = sum(path.stat().st_blocks * 512 for path in (tmp_path / "cache").rglob("shards/*/*"))
    assert 80_000 < kept <= 220_000
