"""The viewer over HTTP: its routes. Answers are computed elsewhere and become JSON here; an error is a sentence with its remedy."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from threading import Event
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends, FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from vitral.deploy.answering import LEFT, gone, tell_errors
from vitral.deploy.guard import Guard, policy
from vitral.deploy.limits import MAX_BYTES
from vitral.deploy.refused import RefusedError
from vitral.deploy.viewer.explaining import Asked, compare, counterfactual, explanation, mask, score
from vitral.deploy.viewer.images import SIDE
from vitral.deploy.viewer.inspecting import inspection
from vitral.deploy.viewer.neighbours import NEAREST
from vitral.deploy.viewer.page import exported
from vitral.deploy.viewer.session import Session
from vitral.errors import VitralError

STATIC = Path(__file__).parent / "static"
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
FOR_EVER = "private, max-age=31536000, immutable"  # what is named by its content
READING = 2
"""Uploads in memory at once; others wait on the disk."""
Answer = dict[str, Any]
Computed = Callable[[Callable[[], Answer]], Awaitable[Response]]


async def in_turn(request: Request) -> Computed:
    """Has an answer computed by the session's worker, in turn, for a request that may be given up."""
    session: Session = request.app.state.session

    async def computed(function: Callable[[], Answer]) -> Response:
        try:
            return _json(await session.worker.answer(function, gone(request)))
        except ConnectionAbortedError:
            return Response(status_code=LEFT)

    return computed


InTurn = Annotated[Computed, Depends(in_turn)]
Asking = Annotated[Asked, Depends()]


class Mask(BaseModel):
    """The body of a request to remove patches."""

    model_config = ConfigDict(extra="forbid")
    removed: list[int]
    removal: str = "mean"


def viewer(session: Session, token: str | None = None) -> ASGIApp:
    """The application. token: what every visitor must show; None for a server that only this computer reaches."""
    app = FastAPI(openapi_url=None)
    app.state.session = session
    tell_errors(app)
    for routes in (pages, pictures, answers, files):
        routes(app, session)
    return Guard(app, token=token, most=MAX_BYTES)


def pages(app: FastAPI, session: Session) -> None:
    """The page and its files."""

    @app.get("/")
    def page(request: Request) -> Response:
        found = _file(request, "index.html")
        found.headers["content-security-policy"] = policy((STATIC / "index.html").read_text(encoding="utf-8"))
        return found

    @app.get("/static/{name}")
    def static(request: Request, name: str) -> Response:
        return _file(request, name)


def pictures(app: FastAPI, session: Session) -> None:
    """Uploading pictures, and showing them."""

    reading = asyncio.Semaphore(READING)

    @app.post("/api/images")
    async def add(request: Request) -> Answer:
        async with request.form(max_files=1, max_fields=0) as form, reading:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise VitralError("no picture came; send one as the form's field 'file'")
            stored = await run_in_threadpool(session.images.add, await file.read(), file.filename or "")
        return stored.describe()

    @app.get("/api/images/{image}")
    def describe(image: str) -> Answer:
        return session.images.get(image).describe()

    @app.get("/api/images/{image}/picture")
    def picture(image: str, side: int = SIDE) -> Response:
        data, kind = session.images.picture(image, side)
        return Response(data, media_type=kind, headers={"cache-control": FOR_EVER})


def answers(app: FastAPI, session: Session) -> None:
    """What models make of pictures."""
    of = "/api/models/{model}/images/{image}"

    @app.get("/api/about")
    def about() -> Response:
        return _json(session.about())

    @app.get(f"{of}/look")
    async def look(computed: InTurn, model: int, image: str) -> Response:
        session.images.get(image)  # a picture that is gone is refused at once, not after waiting
        return await computed(lambda: session.look(model, image).describe())

    @app.get(f"{of}/attention")
    async def attention(computed: InTurn, model: int, image: str, query: str = "own") -> Response:
        if kept := session.kept(model, image):  # at once: moving through the layers waits for this
            return _json(await run_in_threadpool(kept.attention, query))
        return await computed(lambda: session.look(model, image).attention(query))

    @app.get(f"{of}/explain")
    async def explain(computed: InTurn, asked: Asking) -> Response:
        return await computed(lambda: explanation(session, asked))

    @app.get(f"{of}/score")
    async def scored(computed: InTurn, asked: Asking, removal: str = "mean") -> Response:
        return await computed(lambda: score(session, asked, removal))

    @app.get("/api/images/{image}/compare")
    async def compared(
        computed: InTurn, image: str, left: str, right: str, left_target: int | None = None, right_target: int | None = None,
        removal: str = "mean",
    ) -> Response:  # fmt: skip
        sides = Asked.side(image, left, left_target), Asked.side(image, right, right_target)
        return await computed(lambda: compare(session, *sides, removal))

    @app.post(f"{of}/mask")
    async def masked(computed: InTurn, request: Request, model: int, image: str) -> Response:
        try:
            asked = Mask.model_validate_json(await request.body())
        except ValidationError as error:
            raise VitralError("a mask is {removed: [numbers of patches], removal: mean, blur or drop}") from error
        return await computed(lambda: mask(session, model, image, asked.removed, asked.removal))

    @app.get(f"{of}/counterfactual")
    async def fewest(
        computed: InTurn, model: int, image: str, method: str | None = None, removal: str = "mean"
    ) -> Response:
        return await computed(lambda: counterfactual(session, model, image, method, removal))

    @app.get(f"{of}/inspect")
    async def inside(computed: InTurn, model: int, image: str) -> Response:
        return await computed(lambda: inspection(session, model, image))

    @app.get(f"{of}/neighbours")
    async def neighbours(computed: InTurn, model: int, image: str, count: int = NEAREST) -> Response:
        return await computed(lambda: session.neighbours_of(model, image, count))


def files(app: FastAPI, session: Session) -> None:
    """What is saved: the page of a picture."""

    @app.get("/api/models/{model}/images/{image}/page")
    async def page(request: Request, model: int, image: str) -> Response:
        name = f"{Path(session.images.get(image).name).stem}-{Path(session.name(model)).stem}.html"
        ended = Event()
        making = asyncio.ensure_future(run_in_threadpool(exported, session, model, image, ended=ended))
        left = asyncio.ensure_future(gone(request))
        await asyncio.wait({making, left}, return_when=asyncio.FIRST_COMPLETED)
        left.cancel()
        if making.done():
            return Response(making.result().html, media_type="text/html", headers=download(name))
        ended.set()
        making.add_done_callback(lambda given_up: given_up.exception())
        return Response(status_code=LEFT)


def _json(answer: Answer) -> Response:
    return JSONResponse(answer, headers={"cache-control": "no-store"})


def _file(request: Request, name: str) -> Response:
    """One of the page's own files, and no other file of the disk."""
    path = STATIC / name
    if path.suffix not in KINDS or path.name not in {each.name for each in STATIC.iterdir()} or path.parent != STATIC:
        raise RefusedError(404, f"{name[:80]}: is no file of the viewer's page")
    data = path.read_bytes()
    headers = {"etag": f'"{hashlib.sha256(data).hexdigest()[:32]}"', "cache-control": "no-cache"}
    if headers["etag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=KINDS[path.suffix], headers=headers)


def download(name: str) -> dict[str, str]:
    """The header that makes a browser save the answer as a file."""
    return {"content-disposition": f"attachment; filename*=UTF-8''{quote(name)}"}
