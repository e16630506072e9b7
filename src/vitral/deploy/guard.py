"""Access control and size limits before every route.

On this computer alone a server has no password, so it must refuse pages of other sites: their scripts can send it requests (another Origin), or
let their own name point to it (DNS rebinding, another Host). Elsewhere a token is required, first in the URL and then in a cookie. Bodies are
counted as they arrive, whatever their header says, and not collected here.
"""

import hashlib
import hmac
import json
import math
import re
from base64 import b64encode
from collections.abc import MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitral.deploy.refused import RefusedError

LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})
COOKIE = "vitral"
CLOSED = "default-src 'none'; frame-ancestors 'none'"  # of all answers but the page
AROUND = 10_000
"""Bytes of a body beside the file in it: a form's boundaries and names."""


class Guard:
    """An ASGI application before another one.

    token: None for a server that only this computer reaches. most: bytes of a file. name: of the server, in errors. entrance: how its token is shown.
    room: bytes of all bodies together. open_to_all: paths that are answered without a token, whatever name the server is called by.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str | None,
        most: int,
        name: str = "viewer",
        entrance: str = "open the whole address that vitral view printed",
        room: float = math.inf,
        open_to_all: frozenset[str] = frozenset(),
    ) -> None:
        self.app, self.token, self.most = app, token, most + AROUND
        self.name, self.entrance = name, entrance
        self.room, self.open_to_all = room, open_to_all
        self.held = 0  # bytes of the bodies that are being read or answered
        self.headers = {
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cross-origin-resource-policy": "same-origin",
            "cross-origin-opener-policy": "same-origin",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False
        held = [0]

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*_encoded(self.headers), *message.get("headers", [])]
                if message["status"] == 413:  # without reading the rest
                    message["headers"] += _encoded({"connection": "close"})
                if not any(name == b"content-security-policy" for name, _ in message["headers"]):
                    message["headers"] += _encoded({"content-security-policy": CLOSED})
            await send(message)

        try:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            if redirect := self._admit(scope, headers):
                await _reply(answer, 303, {"location": redirect[0], "set-cookie": redirect[1]})
                return
            await self.app(scope, self._counted(headers, receive, held), answer)
        except RefusedError as error:
            if begun:
                raise
            headers = {"content-type": "application/json", **error.headers}
            await _reply(answer, error.status, headers, json.dumps({"error": str(error)}).encode())
        finally:
            self.held -= held[0]

    def _admit(self, scope: Scope, headers: MutableMapping[str, str]) -> tuple[str, str] | None:
        """A redirect and its cookie, for a request with the token in the URL; RefusedError for one without access."""
        if scope["method"] == "GET" and scope["path"] in self.open_to_all:
            return None
        host = headers.get("host", "")
        name = re.sub(r":\d*$", "", host.lower())
        if self.token is None and name not in LOCAL:
            raise RefusedError(
                403, f"this {self.name} answers on this computer only, as localhost, not as {host[:80]!r}"
            )
        origin = headers.get("origin")
        ours = (f"http://{host}", f"https://{host}")
        if scope["method"] not in ("GET", "HEAD") and origin is not None and origin not in ours:
            raise RefusedError(403, f"{origin[:80]} is another site; open the {self.name}'s own page")
        if self.token is None:
            return None
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if "token" in query and self._right(query.pop("token")[0]):
            where = quote(scope["path"]) + ("?" + urlencode(query, doseq=True) if query else "")
            cookie = f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"
            return "/" + where.lstrip("/"), cookie
        if not self._right(_bearer(headers)) and not self._right(_cookie(headers)):
            raise RefusedError(401, f"this {self.name} needs its token: {self.entrance}")
        return None

    def _right(self, given: str) -> bool:
        assert self.token is not None
        return hmac.compare_digest(given.encode(), self.token.encode())

    def _counted(self, headers: MutableMapping[str, str], receive: Receive, held: list[int]) -> Receive:
        """The body, up to the size limit, and while there is room for it; RefusedError beyond. held: its bytes so far."""
        size = headers.get("content-length", "")
        if size.isdecimal() and int(size) > self.most:
            raise self._too_large()

        async def counted() -> Message:
            message = await receive()
            came = len(message.get("body", b""))
            held[0] += came
            self.held += came
            if held[0] > self.most:
                raise self._too_large()
            if self.held > self.room:
                raise RefusedError(503, f"this {self.name} holds too much at once; try again in a moment", wait=1)
            return message

        return counted

    def _too_large(self) -> RefusedError:
        return RefusedError(413, f"more than {(self.most - AROUND) // 1_000_000} MB at once; shrink the picture")


def policy(page: str) -> str:
    """The Content-Security-Policy of a page: files of this server alone, and its inline scripts by their hashes."""
    inline = re.findall(r"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", page, re.DOTALL)
    hashes = [f"'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in inline]
    return "; ".join(
        [
            "default-src 'self'",
            " ".join(["script-src 'self'", *hashes]),
            "style-src 'self'",
            "img-src 'self' data: blob:",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


def _bearer(headers: MutableMapping[str, str]) -> str:
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _cookie(headers: MutableMapping[str, str]) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


async def _reply(send: Any, status: int, headers: dict[str, str], body: bytes = b"") -> None:
    headers = {**headers, "content-length": str(len(body)), "cache-control": "no-store"}
    await send({"type": "http.response.start", "status": status, "headers": _encoded(headers)})
    await send({"type": "http.response.body", "body": body})
