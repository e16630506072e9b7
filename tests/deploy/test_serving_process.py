"""`vitral serve` as a process: signals, streams, tokens, kills, and many requests at once."""

import contextlib
import http.client
import itertools
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from served import saved
from viewing import encoded

from processes import PATIENCE, eventually, ready, request, serving, start
from vitral.cli import main
from vitral.deploy.export.formats import export

# `vitral` with two words before it, which name files: the first is made when something is computed, which ends when the second is there.
HOLDING = """
import sys, time
from pathlib import Path
from vitral.cli import main
from vitral.deploy.serve import models
begun, gate = Path(sys.argv.pop(1)), Path(sys.argv.pop(1))
real, warm = models.run, [0]
def run(*given):
    warm[0] += 1
    if warm[0] > 2:
        begun.touch()
        while not gate.exists():
            time.sleep(0.01)
    return real(*given)
models.run = run
main()
"""
WITHOUT_TORCH = """
import sys
class Absent:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("torch", "scipy", "sklearn", "safetensors"):
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
from vitral.cli import main
main()
"""


@pytest.fixture
def model(tmp_path):
    saved(tmp_path / "photos.safetensors", seed=1)
    return tmp_path / "photos.safetensors"


def test_the_end_waits_for_what_was_taken(model, tmp_path):
    """SIGTERM while one image is computed and another waits: both are answered, nobody else is let in, and the process ends well."""
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    with (
        serving(begun, gate, "serve", model, "--port", "0", "--batch-size", "1", code=HOLDING) as (started, port, _),
        ThreadPoolExecutor() as pool,
    ):
        first = pool.submit(request, port, "POST", "/predict", encoded(seed=1))
        eventually(begun.exists, started)
        second = pool.submit(request, port, "POST", "/predict", encoded(seed=2))
        eventually(lambda: b'pending_request_count{model="photos"} 2.0' in request(port, "GET", "/metrics")[1], started)
        started.send_signal(signal.SIGTERM)

        def refused():
            with contextlib.suppress(ConnectionError):
                request(port, "GET", "/v2/health/ready")
                return False
            return True

        eventually(refused, started)
        gate.touch()
        assert first.result(PATIENCE)[0] == second.result(PATIENCE)[0] == 200
        out, err = started.communicate(timeout=PATIENCE)
        assert (started.returncode, out) == (0, "")
        assert err.endswith("vitral serve: answered everything, ended\n")
        assert "Traceback" not in err


def test_ctrl_c_ends_it_quietly(model):
    with serving("serve", model, "--port", "0") as (started, _, line):
        assert re.match(r"vitral serve: http://127\.0\.0\.1:\d+/  \(1 model; Ctrl-C ends it\)\n", line)
        started.send_signal(signal.SIGINT)
        out, err = started.communicate(timeout=PATIENCE)
        assert (started.returncode, out, err) == (0, "", "vitral serve: answered everything, ended\n")


def test_an_exported_model_is_served_without_pytorch(model, tmp_path):
    from vitral.predict import load

    export(load(model), tmp_path / "photos.onnx")
    with serving("serve", tmp_path / "photos.onnx", "--port", "0", code=WITHOUT_TORCH) as (_, port, _line):
        status, answer = request(port, "POST", "/predict", encoded())
        assert status == 200
        assert answer["probability"] == pytest.approx(load(model).predict(encoded()).probability, abs=1e-5)


def test_weights_that_are_written_over_in_their_place_change_no_answer(model, tmp_path):
    """As `cp` and `scp` do it: a server that had them mapped would end, or answer with a mixture."""
    from vitral.predict import load

    export(load(model), tmp_path / "photos.xml")
    with serving("serve", tmp_path / "photos.xml", "--port", "0") as (_, port, _line):
        before = request(port, "POST", "/predict", encoded())
        (tmp_path / "photos.bin").write_bytes(b"")
        assert request(port, "POST", "/predict", encoded()) == before
        assert before[0] == 200


def test_elsewhere_a_token_is_needed(model):
    with serving("serve", model, "--port", "0", "--host", "0.0.0.0", environment={"VITRAL_TOKEN": "of-my-own"}) as (
        _,
        port,
        _line,
    ):
        assert request(port, "POST", "/predict", encoded())[0] == 401
        assert request(port, "POST", "/predict", encoded(), {"authorization": "Bearer of-my-own"})[0] == 200
    with serving("serve", model, "--port", "0", "--host", "0.0.0.0", environment={"VITRAL_TOKEN": ""}) as (
        started,
        port,
        _line,
    ):
        said = next(line for line in started.stderr if "token:" in line)
        token = re.search(r"token: ([\w-]{40,})  \(set your own in VITRAL_TOKEN\)", said)[1]
        assert request(port, "GET", "/models", headers={"authorization": f"Bearer {token}"})[0] == 200
        assert request(port, "GET", "/models")[0] == 401


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nothing"], "nothing"),
        (["MODEL", "MODEL"], "two models have this name; give them others"),
        (["MODEL", "--port", "99999"], "--port 99999"),
        (["MODEL", "--queue", "0"], "--queue"),
        (["MODEL", "--deadline", "0"], "--deadline"),
        (["MODEL", "--host", "192.0.2.1"], "--host 192.0.2.1"),
        (["MODEL", "--token", "a b"], "--token"),
    ],
)
def test_mistakes_on_the_command_line_are_told(capsys, model, words, says):
    with pytest.raises(SystemExit) as stop:
        main(["serve", *[str(model) if word == "MODEL" else word for word in words]])
    err = capsys.readouterr().err
    assert stop.value.code == 2
    assert says in err


def test_help_needs_no_server():
    code = (
        "import sys; from vitral.cli import main\n"
        "try: main(['serve', '--help'])\n"
        "except SystemExit: sys.exit('torch' in sys.modules or 'fastapi' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def free_port():
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as found:
        return found.getsockname()[1]


@pytest.mark.slow
def test_many_requests_lose_nothing_and_none_is_answered_wrongly(tmp_path):
    """Two thousand requests of eight clients, a fifth malformed, while the model's file changes and the process is killed and started again."""
    file = tmp_path / "photos.safetensors"
    states = [saved(file, seed=1)]
    pictures = [encoded(seed=seed) for seed in range(20)]
    bad = [b"", b"no picture", encoded()[:50], b'{"inputs": "x"}']
    port = free_port()
    words = ["serve", file, "--port", port, "--deadline", "600"]
    servers = [start(*words, stderr=subprocess.DEVNULL)]
    answers, versions, lock = [], set(), threading.Lock()

    def ask(number):
        picture = number % len(pictures)
        malformed = number % 5 == 0
        body = bad[number // 5 % len(bad)] if malformed else pictures[picture]
        while True:  # as clients do where there is no connection, or no room
            try:
                status, answer = request(port, "POST", "/predict", body)
            except (OSError, http.client.HTTPException):
                continue
            if status != 503:
                break
        with lock:
            answers.append((picture, malformed, status, answer))
            versions.update([answer["version"]] if status == 200 else [])

    try:
        eventually(lambda: ready(port), servers[0])
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(ask, number) for number in range(1000)]
            eventually(lambda: len(answers) > 300)
            states.append(saved(file, seed=2))
            eventually(lambda: len(versions) == 2)
            asked += [pool.submit(ask, number) for number in range(1000, 2000)]
            eventually(lambda: len(answers) > 1300)
            servers[0].kill()
            servers.append(start(*words, stderr=subprocess.DEVNULL))
            for each in asked:
                each.result(PATIENCE)
        servers[1].send_signal(signal.SIGTERM)
        assert servers[1].wait(PATIENCE) == 0
    finally:
        for server in servers:
            server.kill()
            server.communicate()
    truth = [[state.predict(picture).probability for picture in pictures] for state in states]
    assert len(answers) == 2000
    assert sum(malformed for _, malformed, _, _ in answers) == 400
    by_version = {}
    for picture, malformed, status, answer in answers:
        if malformed:
            assert status == 400
            continue
        assert status == 200
        by_version.setdefault(answer["version"], []).append((picture, answer["probability"]))
    assert len(by_version) == 2
    for found, wanted in zip(by_version.values(), truth, strict=True):
        assert all(value == pytest.approx(wanted[picture], abs=1e-5) for picture, value in found)
    assert all(abs(a - b) > 1e-4 for a, b in itertools.islice(zip(*truth, strict=True), 5))
