"""The routes: what each gives, what each refuses, and that nothing of the disk is behind them."""

import asyncio
import base64
import re
import threading

import numpy as np
import pytest
from starlette.testclient import TestClient
from viewing import encoded, session_of

from families import small
from vitral.deploy.refused import RefusedError
from vitral.deploy.viewer.app import STATIC, viewer
from vitral.deploy.worker import Worker
from vitral.errors import VitralError
from vitral.explain.methods import METHODS


@pytest.fixture
def session():
    made = session_of(small("vit", image_size=(40, 56)), small("resnet", image_size=(40, 56)), given=2)
    yield made
    made.close()


@pytest.fixture
def client(session):
    return TestClient(viewer(session), base_url="http://localhost", raise_server_exceptions=False)


def path(session, model=0, image=0):
    return f"/api/models/{model}/images/{session.given[image]}"


def error(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    said = answer.json()["error"]
    assert "\n" not in said
    assert len(said) > 20
    return said


def test_about_says_what_there_is(client, session):
    about = client.get("/api/about").json()
    assert [m["name"] for m in about["models"]] == ["model 0", "model 1"]
    assert [m["id"] for m in about["models"]] == [0, 1]
    first, second = about["models"]
    assert first["labels"] == [f"kind {k}" for k in range(4)]
    assert first["view"] == [40, 56]
    assert first["parameters"] == sum(p.numel() for p in session.models[0].model.parameters())
    assert [m["name"] for m in first["methods"]] == list(METHODS)
    assert {m["name"]: m["takes"] for m in first["methods"]}["attention"] == ["head", "layer", "query"]
    assert all(m["why"] is None for m in first["methods"])
    whys = {m["name"]: m["why"] for m in second["methods"]}
    assert "has no attention" in whys["attention"]
    assert first["removals"] == {"mean": None, "blur": None, "drop": None}
    assert "ResNet needs all its patches" in second["removals"]["drop"]
    assert [p["id"] for p in about["given"]] == session.given
    assert about["given"][0] == {"id": session.given[0], "name": "picture 0.png", "width": 56, "height": 40}
    assert about["examples"] == []
    assert about["neighbours"] is None
    assert about["limits"] == {"bytes": 50_000_000, "pixels": 50_000_000}
    assert about["exported"] is False


def test_a_model_without_labels_can_be_looked_into():
    session = session_of(small("dino", image_size=(40, 56), num_classes=0))
    client = TestClient(viewer(session), base_url="http://localhost")
    model = client.get("/api/about").json()["models"][0]
    assert model["labels"] == []
    assert "fine-tune" in {m["name"]: m["why"] for m in model["methods"]}["relevance"]
    assert all("no head" in why for why in model["removals"].values())
    look = client.get(f"{path(session)}/look").json()
    assert look["answer"] == {"independent": False, "top": []}
    assert "no labels" in look["lens"]["why"]
    assert len(client.get(f"{path(session)}/attention?query=1,1").json()["layers"]) == 2
    assert client.get(f"{path(session)}/explain?method=pca").json()["colours"]
    session.close()


def test_a_picture_comes_in_and_goes_out(client):
    added = client.post("/api/images", files={"file": ("cat.png", encoded(30, 20))}).json()
    assert added == {"id": added["id"], "name": "cat.png", "width": 20, "height": 30}
    assert client.get(f"/api/images/{added['id']}").json() == added
    shown = client.get(f"/api/images/{added['id']}/picture?side=10")
    assert shown.headers["content-type"] == "image/png"
    assert shown.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert shown.headers["content-security-policy"].startswith("default-src 'none'")
    assert client.get(f"/api/models/0/images/{added['id']}/look").json()["picture"] == added


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"file": ("a.svg", b"<svg/>")}, "a.svg: is SVG"),
        ({"file": ("page.png", b"<!doctype html>")}, "page.png: is HTML"),
        ({"file": ("a\r\nb.png", b"")}, "is empty"),
        ({"other": ("a.png", b"x")}, "field 'file'"),
        ([("file", ("a.png", b"x")), ("file", ("b.png", b"x"))], "Too many files"),
    ],
)
def test_an_upload_that_is_no_picture_is_refused(client, files, says):
    assert says in error(client.post("/api/images", files=files), 400)


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"x", "text/plain"), (b"x", "multipart/form-data"), (b"x", "multipart/form-data; boundary=a"), (b"", "")],
)
def test_a_body_that_is_no_form_is_refused(client, body, kind):
    error(client.post("/api/images", content=body, headers={"content-type": kind}), 400)


def test_a_look_and_its_attention(client, session):
    look = client.get(f"{path(session)}/look").json()
    assert look["grid"] == [5, 7]
    assert look["own"] == "the class token"
    assert [layer["name"] for layer in look["layers"]] == ["block 0", "block 1"]
    assert look["prefix"] == [{"key": "cls", "name": "class token"}]
    assert len(look["answer"]["top"]) == 4
    assert len(look["lens"]["layers"]) == 2
    answer = client.get(f"{path(session)}/attention?query=2,3").json()
    assert answer["query"] == "2,3"
    first = answer["layers"][0]
    assert len(base64.b64decode(first["data"])) == 3 * 5 * 7
    truth = session.look(0, session.given[0]).layers[0].read((2, 3))[0]
    np.testing.assert_allclose(first["tops"], truth.max((1, 2)))


def test_a_model_without_attention_says_why(client, session):
    look = client.get(f"{path(session, 1)}/look").json()
    assert look["layers"] == []
    assert "no attention" in look["why"]
    assert client.get(f"{path(session, 1)}/attention").json() == {"query": "own", "layers": []}


@pytest.mark.parametrize(
    ("question", "keys"),
    [
        ("explain?method=relevance&target=1", {"method", "words", "target", "map", "floor", "colours", "seconds"}),
        ("score?method=relevance&target=1", {"target", "shares", "map", "random", "centre", "verdict"}),
        ("inspect", {"missing", "norms"}),
    ],
)
def test_answers_are_made_by_the_other_modules(client, session, question, keys):
    answer = client.get(f"{path(session)}/{question}")
    assert answer.status_code == 200, answer.text
    assert keys <= set(answer.json())
    assert answer.headers["cache-control"] == "no-store"


def test_patches_are_taken_away(client, session):
    answer = client.post(f"{path(session)}/mask", json={"removed": [0, 1], "removal": "blur"}).json()
    assert [c["index"] for c in answer["before"]] == [c["index"] for c in answer["after"]]
    for body in (b"", b"[1]", b'{"removed": ["a"]}', b'{"removed": [1], "more": 1}', b"{" * 100000, b"\xff"):
        said = error(client.post(f"{path(session)}/mask", content=body), 400)
        assert "a mask is" in said
    for removed in ([99], [-1]):
        assert "numbered 0 to 34" in error(client.post(f"{path(session)}/mask", json={"removed": removed}), 400)


@pytest.mark.parametrize(
    ("question", "status", "says"),
    [
        ("/api/models/2/images/IMAGE/look", 404, "this viewer has 2 models"),
        ("/api/models/-1/images/IMAGE/look", 404, "counted from 0"),
        ("/api/models/x/images/IMAGE/look", 400, "model 'x'"),
        ("/api/models/0/images/nonsense/look", 404, "drop it again"),
        ("/api/models/0/images/IMAGE/attention?query=9,9", 400, "choose a row in"),
        ("/api/models/0/images/IMAGE/attention?query=%00", 400, "choose own"),
        ("/api/models/0/images/IMAGE/explain", 400, "method"),
        ("/api/models/0/images/IMAGE/explain?method=magic", 400, "choose one of attention"),
        ("/api/models/0/images/IMAGE/explain?method=relevance&target=9", 400, "numbered 0 to 3"),
        ("/api/models/0/images/IMAGE/explain?method=relevance&target=x", 400, "target 'x'"),
        ("/api/models/0/images/IMAGE/explain?method=attention&layer=7", 400, "numbered 0 to 1"),
        ("/api/models/1/images/IMAGE/explain?method=attention", 400, "has no attention"),
        ("/api/models/0/images/IMAGE/score?method=relevance&removal=fire", 400, "choose one of mean"),
        ("/api/models/1/images/IMAGE/counterfactual?removal=drop", 400, "choose removal mean or blur"),
        ("/api/images/nonsense", 404, "drop it again"),
        ("/api/images/IMAGE/picture?side=0", 400, "1..4096"),
        ("/api/images/IMAGE/picture?side=99999999999999999999", 400, "1..4096"),
        ("/api/nothing", 404, "Not Found"),
        ("/openapi.json", 404, "Not Found"),
        ("/docs", 404, "Not Found"),
    ],
)
def test_every_error_is_a_sentence(client, session, question, status, says):
    assert says in error(client.get(question.replace("IMAGE", session.given[0])), status)


def test_a_mistake_of_ours_is_told_without_its_innards(client, session, monkeypatch):
    def broken(*_):
        raise KeyError("secret")

    monkeypatch.setattr(session, "look", broken)
    said = error(client.get(f"{path(session)}/look"), 500)
    assert "KeyError" in said
    assert "secret" not in said


@pytest.mark.parametrize(
    "name",
    [
        "..%2fapp.py",
        "%2e%2e%2fapp.py",
        ".",
        "",
        "%2fetc%2fpasswd",
        "....//app.py",
        "..%5capp.py",
        "main.js%00",
        "main.py",
    ],
)
def test_no_path_leads_elsewhere(client, name):
    assert client.get(f"/static/{name}").status_code == 404


def test_the_page_is_served_whole_and_only_by_itself(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["cache-control"] == "no-cache"
    needed = set(re.findall(r'"\./static/([^"]+)"', page.text))
    assert "main.js" in needed
    assert needed <= {each.name for each in STATIC.iterdir()}
    for name in needed:
        found = client.get(f"/static/{name}")
        assert found.status_code == 200
        assert found.headers["content-type"].split(";")[0] in ("text/javascript", "text/css")
        again = client.get(f"/static/{name}", headers={"if-none-match": found.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert client.get(f"/static/{name}", headers={"if-none-match": '"old"'}).content == found.content
    for outside in re.findall(r"(?:src|href)=[\"'](?!\./static/|data:|#)([^\"']+)", page.text):
        pytest.fail(f"{outside}: from elsewhere")
    policy = page.headers["content-security-policy"]
    assert policy.count("'sha256-") == len(re.findall(r"<script(?![^>]*src=)", page.text))


def stays():
    """Somebody who stays."""
    return asyncio.Future()


def test_the_line_is_in_order_and_has_an_end():
    worker, held, order = Worker(waiting=3), threading.Event(), []

    async def ask():
        first = asyncio.ensure_future(worker.answer(held.wait, stays()))
        await asyncio.sleep(0)
        others = [asyncio.ensure_future(worker.answer(lambda i=i: order.append(i) or i, stays())) for i in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(RefusedError, match="3 requests are waiting") as refused:
            await worker.answer(lambda: 1, stays())
        assert refused.value.status == 503
        held.set()
        assert await first
        assert await asyncio.gather(*others) == [0, 1, 2]
        assert await worker.answer(lambda: 9, stays()) == 9

    asyncio.run(ask())
    assert order == [0, 1, 2]
    assert worker.run(lambda: 5) == 5
    worker.close()


def test_who_has_left_the_line_is_not_computed_for():
    worker, held, done = Worker(waiting=2), threading.Event(), []

    async def leave():
        pass

    async def ask():
        first = asyncio.ensure_future(worker.answer(lambda: held.wait() and done.append("first"), stays()))
        await asyncio.sleep(0)
        for _ in range(10):  # more than may wait: each has left again
            with pytest.raises(ConnectionAbortedError):
                await worker.answer(lambda: done.append("left"), leave())
        last = asyncio.ensure_future(worker.answer(lambda: done.append("last"), stays()))
        await asyncio.sleep(0)
        held.set()
        await asyncio.gather(first, last)

    asyncio.run(ask())
    assert done == ["first", "last"]
    worker.close()


def test_who_leaves_while_computed_for_holds_up_nobody_for_ever():
    worker, begun, held = Worker(waiting=2), threading.Event(), threading.Event()

    async def ask():
        with pytest.raises(ConnectionAbortedError):
            await worker.answer(lambda: begun.set() or held.wait(), asyncio.to_thread(begun.wait))
        held.set()
        assert await worker.answer(lambda: "next", stays()) == "next"

    asyncio.run(ask())
    worker.close()


def test_what_is_computed_for_who_has_left_ends_at_its_next_step():
    worker, begun, held, done = Worker(), threading.Event(), threading.Event(), []

    def steps():
        for i in range(3):
            worker.step()
            done.append(i)
            begun.set()
            held.wait()

    async def ask():
        with pytest.raises(ConnectionAbortedError):
            await worker.answer(steps, asyncio.to_thread(begun.wait))
        held.set()
        assert await worker.answer(lambda: worker.step() or "next", stays()) == "next"

    asyncio.run(ask())
    assert done == [0]
    worker.close()


def test_errors_come_back_to_who_asked():
    worker = Worker()

    def fail():
        raise VitralError("no")

    async def ask():
        with pytest.raises(VitralError, match="no"):
            await worker.answer(fail, stays())
        assert await worker.answer(lambda: 1, stays()) == 1

    asyncio.run(ask())
    with pytest.raises(VitralError, match="no"):
        worker.run(fail)
    worker.close()
