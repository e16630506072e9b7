"""A server that runs: over real sockets, with people who leave, send too much, or come two at a time; and its command line."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvicorn
from viewing import encoded, session_of

from asking import predictor_of
from families import small
from processes import PATIENCE, eventually, start
from vitral.checkpoints.bundle import save_model
from vitral.cli import main
from vitral.cli.view import names
from vitral.data.preprocess import Preprocess
from vitral.deploy.listen import address, bind, everywhere
from vitral.deploy.viewer import serve as module
from vitral.deploy.viewer.app import viewer
from vitral.deploy.viewer.images import Images
from vitral.deploy.viewer.serve import PORT, Loaded, load_images
from vitral.deploy.viewer.session import Session
from vitral.errors import VitralError


@contextlib.contextmanager
def running(session, token=None):
    """The port of a viewer that listens."""
    listening = bind("127.0.0.1", 0, PORT)
    server = uvicorn.Server(uvicorn.Config(viewer(session, token), log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listening.close()
        session.close()
        assert not thread.is_alive()


def get(port, path, headers=None):
    """(status, the JSON answer)."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def opened(port, text):
    """A connection on which a request has been sent."""
    connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
    connection.sendall(text.replace("\n", "\r\n").encode())
    return connection


@pytest.fixture
def held(monkeypatch):
    """(may go on, pictures looked at): looks wait until the event is set."""
    gate, seen = threading.Event(), []
    original = Session.look

    def look(self, model, image):
        seen.append((model, image))
        gate.wait(PATIENCE)
        return original(self, model, image)

    monkeypatch.setattr(Session, "look", look)
    return gate, seen


def test_requests_whose_client_has_gone_are_not_computed(held):
    gate, seen = held
    session = session_of(given=3)
    first, left, stays = session.given
    with running(session) as port, ThreadPoolExecutor() as pool:
        blocking = pool.submit(get, port, f"/api/models/0/images/{first}/look")
        eventually(lambda: seen)
        killed = [
            opened(port, f"GET /api/models/0/images/{left}/look HTTP/1.1\nHost: localhost\n\n") for _ in range(16)
        ]
        eventually(lambda: session.worker.asked == 17)
        status, answer = get(port, f"/api/models/0/images/{stays}/look")
        assert (status, answer) == (503, {"error": "16 requests are waiting already; try again in a moment"})
        for connection in killed:
            connection.close()
        eventually(lambda: session.worker.asked == 1)
        waiting = pool.submit(get, port, f"/api/models/0/images/{stays}/look")
        eventually(lambda: session.worker.asked == 2)
        gate.set()
        assert blocking.result(PATIENCE)[0] == 200
        assert waiting.result(PATIENCE)[1]["picture"]["id"] == stays
    assert seen == [(0, first), (0, stays)]


def test_a_request_killed_while_it_is_computed_blocks_nobody(held):
    gate, seen = held
    session = session_of(given=2)
    with running(session) as port:
        asking = opened(port, f"GET /api/models/0/images/{session.given[0]}/look HTTP/1.1\nHost: localhost\n\n")
        eventually(lambda: seen)
        asking.close()
        gate.set()
        assert get(port, f"/api/models/0/images/{session.given[1]}/look")[0] == 200


def test_what_is_computed_already_waits_for_nobody(held):
    """Moving to another query is answered while the worker computes for somebody else."""
    gate, seen = held
    session = session_of(given=2)
    gate.set()
    with running(session) as port, ThreadPoolExecutor() as pool:
        known, other = (f"/api/models/0/images/{image}" for image in session.given)
        assert get(port, f"{known}/look")[0] == 200
        gate.clear()
        blocking = pool.submit(get, port, f"{other}/look")
        eventually(lambda: len(seen) == 2)
        assert get(port, f"{known}/attention?query=1,1")[0] == 200
        assert not blocking.done()
        gate.set()
        assert blocking.result(PATIENCE)[0] == 200


def test_two_people_get_their_own_answers():
    session = session_of(small("vit", image_size=(40, 56)), small("swin", image_size=(40, 56)), given=4)
    truth = {
        (model, image): session.look(model, image).describe()["answer"] for model in (0, 1) for image in session.given
    }
    fresh = session_of(*(predictor.model for predictor in session.models), given=4)
    with running(fresh) as port, ThreadPoolExecutor(8) as pool:
        keys = list(truth)
        answers = list(pool.map(lambda key: get(port, f"/api/models/{key[0]}/images/{key[1]}/look"), keys))
    for key, (status, answer) in zip(keys, answers, strict=True):
        assert status == 200
        assert answer["picture"]["id"] == key[1]
        assert answer["answer"] == truth[key]
    session.close()


def sent(port, length, chunked=False):
    """The answer to an upload of so many megabytes, and how many were sent before it came."""
    head = "POST /api/images HTTP/1.1\nHost: localhost\nContent-Type: multipart/form-data; boundary=b\n"
    how = "Transfer-Encoding: chunked\n\n" if chunked else f"Content-Length: {length}\n\n"
    connection, megabyte, count = opened(port, head + how), bytes(1_000_000), 0
    start = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'

    def pack(data):
        return b"%x\r\n%s\r\n" % (len(data), data) if chunked else data

    with connection:
        with contextlib.suppress(ConnectionError, TimeoutError):
            connection.sendall(pack(start))
            while count < 100:
                connection.sendall(pack(megabyte))
                count += 1
        connection.settimeout(PATIENCE)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(65536):
                answer += data
    return answer, count


@pytest.mark.parametrize("chunked", [False, True], ids=["says its length", "says nothing"])
def test_a_hundred_megabytes_are_refused_while_they_come(chunked):
    session = session_of()
    with running(session) as port:
        answer, count = sent(port, 100_000_200, chunked)
        if answer:  # a server that closes while a client still sends may lose its last words on the way
            assert b" 413 " in answer.splitlines()[0]
            assert b"50 MB" in answer
        assert count < 100
        status, about = get(port, "/api/about")
        assert status == 200
        assert len(about["given"]) == 1


def test_an_upload_that_says_too_much_is_told_so_at_once():
    session = session_of()
    with running(session) as port:
        head = "POST /api/images HTTP/1.1\nHost: localhost\nContent-Type: multipart/form-data; boundary=b\n"
        with opened(port, head + "Content-Length: 100000000\n\n") as connection:
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413 ")


def test_uploads_that_never_end_hold_nothing(held):
    gate, _ = held
    gate.set()
    session = session_of()
    head = "POST /api/images HTTP/1.1\nHost: localhost\nContent-Type: multipart/form-data; boundary=b\n"
    with running(session) as port:
        slow = [
            opened(port, head + 'Content-Length: 9000\n\n--b\nContent-Disposition: form-data; name="file"')
            for _ in range(20)
        ]
        assert get(port, f"/api/models/0/images/{session.given[0]}/look")[0] == 200
        for connection in slow:
            connection.close()
        assert get(port, "/api/about")[0] == 200


def test_the_usual_port_if_it_is_free_else_another():
    with bind("127.0.0.1", 0, PORT) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(VitralError, match=rf"127\.0\.0\.1:{port} cannot be listened at .*choose another --port"):
            bind("127.0.0.1", port, port)
        with bind("127.0.0.1", None, port) as other:
            assert other.getsockname()[1] != port
    with bind("127.0.0.1", None, port) as usual:
        assert usual.getsockname()[1] == port
    with pytest.raises(VitralError, match="--port"):
        bind("127.0.0.1", 70000, PORT)
    for host in ("192.0.2.1", "no such host"):
        with pytest.raises(VitralError, match="--host"):
            bind(host, None, PORT)


def test_the_address_is_one_that_can_be_opened():
    assert address("127.0.0.1", 8765, None) == "http://127.0.0.1:8765/"
    assert address("::1", 1, None) == "http://[::1]:1/"
    assert address("192.0.2.1", 1, "abc") == "http://192.0.2.1:1/?token=abc"
    assert address("0.0.0.0", 1, "abc") == f"http://{socket.gethostname()}:1/?token=abc"
    assert address("::", 1, "abc") == f"http://{socket.gethostname()}:1/?token=abc"


def test_all_addresses_are_told_by_number():
    assert everywhere("127.0.0.1") == everywhere("192.0.2.7") == []
    with bind("0.0.0.0", 0, PORT) as listening:
        for name in everywhere("0.0.0.0"):
            assert not name.startswith("127.")
            socket.create_connection((name, listening.getsockname()[1]), PATIENCE).close()


def test_this_computers_own_addresses_are_found_by_route_and_by_name(monkeypatch):
    listed = [(socket.AF_INET, 0, 0, "", (name, 0)) for name in ("127.0.1.1", "192.168.7.8", "10.0.0.9")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: listed)
    found = everywhere("0.0.0.0")
    assert [name for name in found if name in ("192.168.7.8", "10.0.0.9")] == ["192.168.7.8", "10.0.0.9"]
    assert "127.0.1.1" not in found


@pytest.fixture
def pictures(tmp_path):
    for i in range(5):
        (tmp_path / "inside").mkdir(exist_ok=True)
        (tmp_path / "inside" / f"{i}.png").write_bytes(encoded(seed=i))
    return tmp_path


def test_pictures_come_from_files_folders_and_patterns(pictures, monkeypatch):
    images = Images()
    ids = load_images([str(pictures)], images).ids
    assert [images.get(key).name for key in ids] == [f"{i}.png" for i in range(5)]
    twice = [str(pictures / "inside" / "[13].png"), str(pictures / "inside" / "1.png")]
    assert load_images(twice, images) == Loaded([ids[1], ids[3]])
    monkeypatch.setattr(module, "AT_MOST", 2)
    assert load_images([str(pictures)], Images()) == Loaded(ids[:2], more=3)
    with pytest.raises(VitralError, match="matches no file"):
        load_images([str(pictures / "*.jpg")], images)
    with pytest.raises(VitralError, match="there is no such file"):
        load_images([str(pictures / "cat.png")], images)
    broken = pictures / "broken.png"
    broken.write_bytes(encoded()[:-50])
    with pytest.raises(VitralError, match=rf"^{re.escape(str(broken))}: is damaged"):
        load_images([str(broken)], images)


def test_a_folder_may_hold_what_cannot_be_read_and_a_name_may_not(pictures, capsys):
    inside, steps = pictures / "inside", Preprocess(32, 32, 3, (0.5,) * 3, (0.5,) * 3, min_size=16)
    (inside / "0.png").write_bytes(encoded()[:-50])
    (inside / "3.png").write_bytes(encoded(10, 3000))
    (inside / "4.png").write_bytes(b"")
    bad = [
        f"{inside / '0.png'}: is damaged or cut short",
        f"{inside / '3.png'}: 10x3000 pixels are fewer than one 16x16 patch",
        f"{inside / '4.png'}: is empty",
    ]
    for sources in ([str(pictures)], [str(inside / "*.png")]):
        images = Images(steps=[steps])
        loaded = load_images(sources, images)
        assert [images.get(key).name for key in loaded.ids] == ["1.png", "2.png"]
        loaded.say()
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 3
        for line, why in zip(said, bad, strict=True):
            assert line.startswith(f"left out: {why}")
    with pytest.raises(VitralError, match=re.escape(bad[1])) as refused:
        load_images([str(inside / "1.png"), str(inside / "3.png")], Images(steps=[steps]))
    assert "\n" not in str(refused.value)
    for name in ("1.png", "2.png"):
        (inside / name).unlink()
    with pytest.raises(VitralError, match="3 things to fix") as refused:
        load_images([str(pictures)], Images(steps=[steps]))
    for why in bad:
        assert why in str(refused.value)


def test_pictures_of_the_command_line_stay(pictures, monkeypatch):
    images = Images(room=1000)
    ids = load_images([str(pictures)], images).ids
    images.add(encoded(seed=9), "dropped")
    assert [images.get(key).id for key in ids] == ids


def test_models_are_called_by_their_runs():
    assert names(["runs/a", "runs/b/model.safetensors"]) == ["a", "b"]
    assert names(["x/a.safetensors"]) == ["a.safetensors"]
    assert names(["runs/a", "old/a"]) == ["runs/a", "old/a"]


def command(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main(["view", *map(str, words)])
    return stop.value.code, capsys.readouterr().err


@pytest.fixture
def model(tmp_path):
    predictor = predictor_of(small("vit", image_size=(40, 56)))
    save_model(tmp_path / "model.safetensors", predictor.model, predictor.card)
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nothing"], "nothing"),
        (["MODEL", "nothing.png"], "nothing.png: there is no such file"),
        (["MODEL", "--against", "nothing"], "nothing"),
        (["MODEL", "--export", "a.html"], "name one after the model"),
        (["MODEL", "a.png", "--export", "a.pdf"], "choose that ending"),
        (["MODEL", "a.png", "--against", "other", "--export", "a.html"], "--against other: --export holds one model"),
        (["MODEL", "--host", "192.0.2.1"], "--host 192.0.2.1"),
        (["MODEL", "--port", "99999"], "--port"),
        (["MODEL", "--neighbours", "no-such-data"], "no-such-data: there is no such folder or file"),
        (["MODEL", "--neighbours", "MODEL"], "is neither a folder nor a table"),
    ],
)
def test_mistakes_on_the_command_line_are_told(capsys, model, words, says):
    code, err = command(capsys, *[model if word == "MODEL" else word for word in words])
    assert code == 2
    assert says in err
    assert "Traceback" not in err


def test_help_is_there_at_once():
    code = (
        "import sys; from vitral.cli import main\n"
        "try: main(['view', '--help'])\n"
        "except SystemExit: sys.exit('torch' in sys.modules or 'fastapi' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.returncode == 0
    assert "Example: vitral view runs/photos cat.jpg" in told.stdout


def test_what_is_not_installed_is_named(capsys, model, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "uvicorn" else found(name, *more)
    )
    code, err = command(capsys, model)
    assert code == 2
    assert "the viewer needs uvicorn; run pip install 'vitral[view]'" in err


# `vitral` with the words after the first, which names a file: it is made when a map is going to be computed.
TELLING = """
import sys
from pathlib import Path
from vitral.cli import main
from vitral.deploy.viewer import explaining
real = explaining.explain
def explain(*given, **named):
    Path(begun).touch()
    return real(*given, **named)
explaining.explain = explain
begun = sys.argv.pop(1)
main()
"""


@contextlib.contextmanager
def process(*words, begun=None):
    """(a running `vitral view`, its address). begun: a file that is made when a map is going to be computed."""
    words = ["view", *words, "--no-browser"]
    started = start(begun, *words, code=TELLING) if begun else start(*words)
    try:
        line = started.stderr.readline()
        yield started, re.search(r"http://\S+", line)[0]
    finally:
        started.kill()
        started.communicate()


def test_the_command_listens_and_ends_quietly_whatever_it_computes(tmp_path):
    """Ctrl-C in the middle of an answer that takes minutes: gradients through 1,600 patches at up to 256 points."""
    predictor = predictor_of(small("hybrid", image_size=(640, 640), dim=64, depth=8))
    save_model(tmp_path / "model.safetensors", predictor.model, predictor.card)
    picture = tmp_path / "a.png"
    picture.write_bytes(encoded(640, 640))
    begun = tmp_path / "begun"
    with process(tmp_path / "model.safetensors", picture, "--port", "0", begun=begun) as (started, url):
        port = int(re.search(r":(\d+)/$", url)[1])
        given = get(port, "/api/about")[1]["given"][0]
        assert given["name"] == "a.png"
        assert get(port, "/api/about", {"Host": "evil.example"})[0] == 403
        question = f"/api/models/0/images/{given['id']}/explain?method=integrated_gradients"
        with opened(port, f"GET {question} HTTP/1.1\nHost: localhost\n\n") as asking:
            eventually(begun.exists, started)
            started.send_signal(signal.SIGINT)
            out, err = started.communicate(timeout=PATIENCE)
            assert b"200 OK" not in asking.recv(1000)
        assert (started.returncode, out, err) == (0, "", "")


def test_elsewhere_a_token_is_asked_for(model):
    with process(model, "--host", "0.0.0.0", "--port", "0") as (_, url):
        port, token = re.search(r":(\d+)/\?token=([\w-]{40,})$", url).groups()
        status, answer = get(port, "/api/about")
        assert status == 401
        assert "token" in answer["error"]
        assert get(port, "/api/about", {"Authorization": f"Bearer {token}"})[0] == 200
        jar = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with jar.open(f"http://localhost:{port}/?token={token}", timeout=PATIENCE) as page:
            assert page.url == f"http://localhost:{port}/"
            assert b"<!doctype html>" in page.read()
        with jar.open(f"http://localhost:{port}/api/about", timeout=PATIENCE) as about:
            assert about.status == 200
