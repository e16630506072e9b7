"""The server over HTTP: vitral's own routes, Hugging Face's, the Open Inference Protocol's, health and metrics."""

import base64
import hashlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Header, Query, Request, Response
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp

import vitral
from vitral.answers import Answer
from vitral.deploy.answering import LEFT, gone, tell_errors
from vitral.deploy.guard import Guard
from vitral.deploy.limits import MAX_BYTES
from vitral.deploy.refused import RefusedError
from vitral.deploy.serve import protocol
from vitral.deploy.serve.about import STYLE, described, documented, tensors_of
from vitral.deploy.serve.asking import Hub, arriving, check_encoding, hub_request, pictures_of
from vitral.deploy.serve.forms import FORMS, as_tensors
from vitral.deploy.serve.serving import Loaded, Picture, Served, Serving, explained
from vitral.drawing.figure import png
from vitral.errors import VitralError

ROOM = 500_000_000
"""Bytes of all bodies together that are being read or answered."""
OPEN = frozenset({"/v2/health/live", "/v2/health/ready"})
"""Paths that need no token: what watches over a server asks them."""
TOP = 5
"""Classes of an answer, unless another number is asked for."""
Named = Annotated[str | None, Query(alias="model", description="Name of the model; the first if there are several")]
PICTURE = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
        },
    }
}


def server(serving: Serving, token: str | None = None) -> ASGIApp:
    """The application. token: what every request must show; None for a server that only this computer reaches."""
    app = FastAPI(title="vitral serve", version=vitral.__version__, docs_url=None, redoc_url=None)
    tell_errors(app)
    app.add_exception_handler(ConnectionAbortedError, lambda request, error: Response(status_code=LEFT))
    for routes in (own, hub, health, open_inference, pages):
        routes(app, serving)
    return Guard(
        app, token=token, most=MAX_BYTES, name="server", entrance="send the header Authorization: Bearer TOKEN", room=ROOM, open_to_all=OPEN
    )  # fmt: skip


ASKED = ("model", "top_k", "explain", "pictures")
"""What a request to /predict may say of itself."""


def own(app: FastAPI, serving: Serving) -> None:
    """vitral's own routes."""

    @app.post("/predict", openapi_extra=PICTURE, tags=["vitral"])
    async def predict(
        request: Request,
        name: Named = None,
        top_k: Annotated[int, Query(ge=1, description="Classes to name")] = TOP,
        explain: Annotated[str | None, Query(description="Also a map of what counted: relevance, attention, rollout, ...")] = None,
        pictures: Annotated[bool, Query(description="Also the answer's pictures, of models that answer places")] = False,
    ) -> Response:  # fmt: skip
        """What the model says of a picture, as `vitral predict --format jsonl` has it; of several files in a form a list.

        A picture that cannot be read has an error in place of its answer, and the others their answers.
        """
        if unknown := sorted(set(request.query_params) - set(ASKED)):
            raise VitralError(f"?{unknown[0][:40]}: is asked for by no name here; there are {', '.join(ASKED)}")
        model, given = serving.model(name), await pictures_of(request)
        loaded = model.loaded
        answers = await serving.predict(model, loaded, given, top_k, gone(request))
        rows = []
        for picture, answer in zip(given, answers, strict=True):
            row: dict[str, Any] = {"image": picture.name, "model": model.name, "version": loaded.version}
            if isinstance(answer, VitralError):
                if len(given) == 1:
                    raise answer
                rows.append({**row, "error": str(answer)})
                continue
            row |= answer.to_json()
            if explain is not None:
                row["explanation"] = await explanation(loaded, picture, explain, request)
            if pictures:
                row["pictures"] = await serving.compute(partial(drawn, loaded, picture, answer), gone(request))
            rows.append(row)
        return JSONResponse(rows if len(given) > 1 else rows[0], headers={"cache-control": "no-store"})

    async def explanation(loaded: Loaded, picture: Picture, method: str, request: Request) -> dict[str, str]:
        assert isinstance(picture.data, bytes)
        made = await serving.compute(partial(explained, loaded.predictor, picture.data, method), gone(request))
        return {"method": method, "overlay": base64.b64encode(made).decode()}

    @app.get("/models", tags=["vitral"])
    async def models() -> Response:
        """The models that are served: names, tasks, labels, versions."""
        return JSONResponse([described(model) for model in serving.models.values()])


def hub(app: FastAPI, serving: Serving) -> None:
    """Hugging Face's inference API."""
    body = {"requestBody": {"content": {
        "image/*": {"schema": {"type": "string", "format": "binary"}}, "application/json": {"schema": Hub.model_json_schema()},
    }}}  # fmt: skip

    async def answered(request: Request, name: str | None) -> Response:
        model = serving.model(name)
        picture, options = await hub_request(request)
        loaded = model.loaded
        form = FORMS[loaded.predictor.card.task]
        if options.function_to_apply not in (None, form.applied):
            raise VitralError(f"function_to_apply: this model's scores are {form.applied or 'its own'}; leave it out")
        (answer,) = await serving.predict(model, loaded, [picture], options.top_k or TOP, gone(request))
        if isinstance(answer, VitralError):
            raise answer
        return JSONResponse(form.hub(answer), headers=versioned(model, loaded))

    @app.post("/", openapi_extra=body, tags=["Hugging Face"])
    async def first(request: Request) -> Response:
        """The first model's answer in Hugging Face's JSON: [{"label", "score"}], with "box" or "mask" of models that answer places."""
        return await answered(request, None)

    @app.post("/models/{name}", openapi_extra=body, tags=["Hugging Face"])
    async def named(request: Request, name: str) -> Response:
        """A model's answer in Hugging Face's JSON."""
        return await answered(request, name)


def health(app: FastAPI, serving: Serving) -> None:
    """What watches over a server asks."""

    @app.get("/v2/health/live", tags=["health"])
    async def live() -> dict[str, bool]:
        """The process answers."""
        return {"live": True}

    @app.get("/v2/health/ready", tags=["health"])
    async def ready() -> Response:
        """All models are warm, and the server does not end."""
        return JSONResponse({"ready": serving.ready}, 200 if serving.ready else 503)

    @app.get("/metrics", tags=["health"])
    async def metrics() -> Response:
        """Counters and times for Prometheus."""
        return Response(serving.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def open_inference(app: FastAPI, serving: Serving) -> None:
    """The Open Inference Protocol, version 2."""
    both = ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")

    def at(name: str, version: str | None) -> tuple[Served, Loaded]:
        model = serving.model(name)
        loaded = model.loaded
        if version not in (None, loaded.version):
            raise RefusedError(404, f"version {version!r:.40}: is not there; {name} is {loaded.version} now")
        return model, loaded

    def routed(method: Callable[..., Any], path: str) -> Callable[[Callable[..., Awaitable[Any]]], None]:
        def add(function: Callable[..., Awaitable[Any]]) -> None:
            for prefix in both:
                method(prefix + path, tags=["Open Inference Protocol"])(function)

        return add

    @app.get("/v2", tags=["Open Inference Protocol"])
    async def about() -> dict[str, Any]:
        """The server's name, version and extensions."""
        return {"name": "vitral", "version": vitral.__version__, "extensions": ["binary_tensor_data"]}

    @routed(app.get, "")
    async def metadata(name: str, version: str | None = None) -> dict[str, Any]:
        """A model's inputs and outputs."""
        return tensors_of(*at(name, version))

    @routed(app.get, "/ready")
    async def ready(name: str, version: str | None = None) -> Response:
        """Whether a model is warm."""
        model, _ = at(name, version)
        return JSONResponse({"name": name, "ready": model.ready}, 200 if model.ready else 503)

    @routed(app.post, "/infer")
    async def infer(
        request: Request, name: str, version: str | None = None,
        inference_header_content_length: Annotated[str | None, Header()] = None,
    ) -> Response:  # fmt: skip
        """Answers as tensors: `answer` (JSON as text) for every model, and what else its description lists."""
        model, loaded = at(name, version)
        check_encoding(request)
        async with arriving():
            body = await request.body()
        asked = protocol.parse(body, inference_header_content_length)
        labels = loaded.predictor.labels
        answers = await serving.predict(model, loaded, asked.pictures, len(labels), gone(request))
        for answer in answers:
            if isinstance(answer, VitralError):
                raise answer
        tensors = as_tensors(loaded.predictor.card.task, answers, labels, TOP)
        said, headers = protocol.answer(asked, tensors, model.name, loaded.version)
        return Response(said, headers=headers)


def pages(app: FastAPI, serving: Serving) -> None:
    """A page that says what can be asked, of the application's own description."""

    @app.get("/", include_in_schema=False)
    async def home() -> Response:
        return RedirectResponse("/docs")

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        style = hashlib.sha256(STYLE.encode()).digest()
        allowed = f"default-src 'none'; style-src 'sha256-{base64.b64encode(style).decode()}'; frame-ancestors 'none'"
        page = documented(app.openapi(), list(serving.models.values()), f"http://{request.headers.get('host', '')}")
        return Response(page, media_type="text/html", headers={"content-security-policy": allowed})


def versioned(model: Served, loaded: Loaded) -> dict[str, str]:
    """Headers that say which state of which model answered."""
    return {"vitral-model": model.name, "vitral-version": loaded.version, "cache-control": "no-store"}


def drawn(loaded: Loaded, picture: Picture, answer: Answer) -> dict[str, str]:
    """An answer's pictures by their ending, in base64: PNG."""
    predictor = loaded.predictor
    pixels: np.ndarray = predictor.card.preprocess.shown(predictor.read(picture.data))
    return {ending: base64.b64encode(png(each)).decode() for ending, each in dict(answer.pictures(pixels)).items()}
