"""Who is let in, and how much at once."""

import asyncio
import re

import pytest
from starlette.testclient import TestClient

from vitral.deploy.guard import AROUND, Guard, policy

TOKEN = "a-token-that-nobody-guesses"


async def echo(scope, receive, send):
    """Answers how many bytes came."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-size", str(size).encode())]})
    await send({"type": "http.response.body", "body": b"secret"})


def client(token=None, host="localhost", most=1000):
    return TestClient(Guard(echo, token=token, most=most), base_url=f"http://{host}", follow_redirects=False)


@pytest.mark.parametrize("host", ["localhost", "localhost:8765", "127.0.0.1:99", "[::1]:8765", "LOCALHOST"])
def test_this_computer_is_let_in(host):
    assert client(host=host).get("/api/about").text == "secret"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "localhost.evil.example", "127.0.0.1.nip.io", ""]
)
def test_a_name_that_only_points_here_is_not(host):
    """DNS rebinding: the browser believes that the page and this server are one site."""
    answer = client().get("/api/about", headers={"host": host})
    assert answer.status_code == 403
    assert "this computer only" in answer.json()["error"]


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:1", "http://localhost.evil.example", "http://[", ""]
)
@pytest.mark.parametrize("token", [None, TOKEN])
def test_pages_of_other_sites_send_nothing(origin, token):
    headers = {"origin": origin, "authorization": f"Bearer {TOKEN}"}
    answer = client(token).post("/api/images", headers=headers, content=b"x")
    assert answer.status_code == 403
    assert "another site" in answer.json()["error"]


@pytest.mark.parametrize("origin", ["http://localhost", "https://localhost", None])
def test_our_own_page_does(origin):
    assert client().post("/api/images", headers={"origin": origin} if origin else {}, content=b"x").status_code == 200


@pytest.mark.parametrize("path", ["%0D%0AX-Mine%3A%201", "%C3%A4", "/evil.example", "a%20b"])
def test_where_the_token_leads_is_ours_and_one_header(path):
    shown = client(TOKEN).get(f"http://localhost/{path}?token={TOKEN}&a=b")
    assert shown.status_code == 303
    assert "x-mine" not in shown.headers
    assert shown.headers["location"] == f"/{path.lstrip('/')}?a=b"


def test_the_token_is_shown_once_and_then_a_cookie():
    visitor = client(TOKEN, host="vitral.example:8765")
    refused = visitor.get("/")
    assert refused.status_code == 401
    assert "open the whole address" in refused.json()["error"]
    shown = visitor.get(f"/static/main.js?a=1&token={TOKEN}&b=x%26y")
    assert shown.status_code == 303
    assert shown.headers["location"] == "/static/main.js?a=1&b=x%26y"
    cookie = shown.headers["set-cookie"]
    for part in ("HttpOnly", "SameSite=Strict", "Path=/"):
        assert part in cookie
    assert visitor.get("/").text == "secret"
    assert client(TOKEN).get("/").status_code == 401


def test_the_token_works_as_a_header():
    visitor = client(TOKEN)
    assert visitor.get("/", headers={"authorization": f"Bearer {TOKEN}"}).text == "secret"
    for wrong in (f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer", "Bearer é".encode("latin-1"), TOKEN):
        assert visitor.get("/", headers={"authorization": wrong}).status_code == 401


@pytest.mark.parametrize(
    "query", ["token=", "token=wrong", f"token=wrong&token={TOKEN}", f"Token={TOKEN}", "token=%ff"]
)
def test_a_wrong_token_is_none(query):
    assert client(TOKEN).get(f"/?{query}").status_code == 401


@pytest.mark.parametrize("cookie", ["vitral=wrong", "vitral", "=;;;", f"other={TOKEN}", "vitral=\x01"])
def test_a_wrong_cookie_is_none(cookie):
    assert client(TOKEN).get("/", headers={"cookie": cookie}).status_code == 401


def test_the_way_on_stays_on_this_server():
    answer = client(TOKEN).get(f"//evil.example/?token={TOKEN}")
    assert answer.headers["location"].startswith("/")
    assert not answer.headers["location"].startswith("//")
    assert client(TOKEN).get(f"/a%0d%0ax: b?token={TOKEN}").headers["location"] == "/a%0D%0Ax%3A%20b"


def test_every_answer_has_the_headers_that_keep_it_closed():
    for answer in (client().get("/"), client().get("/", headers={"host": "x"}), client(TOKEN).get(f"/?token={TOKEN}")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"


def asked(guard, chunks, headers=()):
    """(status, chunks taken) of a body that comes in chunks."""
    taken, sent = 0, []

    async def receive():
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": chunks[taken - 1], "more_body": taken < len(chunks)}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": [(b"host", b"localhost"), *headers],
    }  # fmt: skip
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], taken


def test_a_body_is_counted_as_it_comes():
    guard = Guard(echo, token=None, most=1000)
    limit = 1000 + AROUND
    assert asked(guard, [bytes(limit)]) == (200, 1)
    assert asked(guard, [bytes(limit), b"x"]) == (413, 2)
    many = [bytes(100)] * (limit // 100 + 1000)
    status, taken = asked(guard, many)
    assert status == 413
    assert taken == limit // 100 + 1
    lies = [(b"content-length", b"10")]
    assert asked(guard, [bytes(limit), b"x"], lies) == (413, 2)
    tells = [(b"content-length", str(limit + 1).encode())]
    assert asked(guard, [b"x"], tells) == (413, 0), "what says that it is too large is not read at all"
    assert asked(guard, [b"x"], [(b"content-length", b"much")]) == (200, 1)


def test_the_policy_names_inline_scripts_by_their_hash():
    page = '<script type="importmap">{"a": 1}</script><script type="module" src="./static/main.js"></script>'
    said = dict(part.split(" ", 1) for part in policy(page).split("; "))
    # echo -n '{"a": 1}' | openssl dgst -sha256 -binary | base64
    assert said["script-src"] == "'self' 'sha256-+dhgKMbg1k4iUYb5astpM4ssWXZN95FiEH9cS7NNExA='"
    assert said["default-src"] == "'self'"
    assert said["frame-ancestors"] == said["base-uri"] == "'none'"
    assert not re.search("unsafe", policy(page))
