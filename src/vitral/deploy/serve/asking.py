"""What comes in a request's body: pictures as they are, in a form, or in Hugging Face's JSON. Addresses of pictures are never followed."""

import asyncio
import json
import re
from base64 import b64decode
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile

from vitral.data.filetypes import recognise
from vitral.deploy.limits import shown_name
from vitral.deploy.refused import RefusedError
from vitral.deploy.serve.serving import Picture
from vitral.errors import VitralError

ARRIVING = 60.0
"""Seconds in which a body has to arrive."""
FILES = 100
"""Files of a form at most."""
CURLS = "application/x-www-form-urlencoded"
"""What `curl --data-binary` says of every body, unless it is told."""
FIELDS = re.compile(rb"[\w.%+-]+=\S*$")
"""A body that is what CURLS says."""


class Options(BaseModel):
    """Parameters of a request in Hugging Face's JSON."""

    model_config = ConfigDict(extra="forbid")
    top_k: Annotated[int, Field(ge=1)] | None = None
    function_to_apply: Literal["sigmoid", "softmax", "none"] | None = None


class Hub(BaseModel):
    """A request in Hugging Face's JSON."""

    model_config = ConfigDict(extra="forbid")
    inputs: str
    """The file in base64, alone or as a data URL."""
    parameters: Options | None = None


@asynccontextmanager
async def arriving() -> Any:
    """Around what reads a body; RefusedError where it takes too long."""
    try:
        async with asyncio.timeout(ARRIVING):
            yield
    except TimeoutError:
        raise RefusedError(408, f"the body did not arrive within {ARRIVING:.0f} s; send it again") from None


def check_encoding(request: Request) -> None:
    """Bodies are counted as they come, so packed ones are refused."""
    packed = request.headers.get("content-encoding", "identity")
    if packed != "identity":
        raise RefusedError(415, f"content-encoding {packed[:40]}: packed bodies are not read; send it as it is")


async def pictures_of(request: Request) -> list[Picture]:
    """Of a body that is a picture, or a form with several files. Raises VitralError for any other."""
    check_encoding(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    async with arriving():
        if kind != "multipart/form-data":
            body = await request.body()
            if kind == "application/json" or (kind == CURLS and FIELDS.match(body) and recognise(body) is None):
                raise RefusedError(
                    415,
                    f"{kind}: send a picture's bytes as the body, or files in a form; addresses of pictures are not followed",
                )
            return [Picture("image", body)]
        async with request.form(max_files=FILES, max_fields=FILES) as form:
            found = []
            for field, file in form.multi_items():
                if not isinstance(file, UploadFile):
                    raise VitralError(
                        f"form field {field[:40]!r}: is text; send pictures as files, as in curl -F 'file=@cat.jpg'"
                    )
                found.append(Picture(shown_name(file.filename or field), await file.read()))
    if not found:
        raise VitralError("no picture came; send files in a form, as in curl -F 'file=@cat.jpg'")
    return found


async def hub_request(request: Request) -> tuple[Picture, Options]:
    """Of a body that is a picture, or Hugging Face's JSON."""
    check_encoding(request)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        raise RefusedError(415, f"{kind}: send a picture's bytes or JSON here, and forms to /predict")
    async with arriving():
        body = await request.body()
    if kind != "application/json" and body.lstrip()[:1] != b"{":
        return Picture("image", body), Options()
    try:
        asked = Hub.model_validate(json.loads(body))
    except ValidationError as error:
        first = error.errors()[0]
        raise VitralError(f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise VitralError(
            'the body is no JSON; send {"inputs": a picture in base64, "parameters": {"top_k": 5}}'
        ) from error
    text = asked.inputs
    if text.startswith(("http:", "https:")):
        raise VitralError("inputs: addresses of pictures are not followed; send the picture itself in base64")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return Picture("image", b64decode("".join(text.split()), validate=True)), asked.parameters or Options()
    except ValueError as error:
        raise VitralError("inputs: is no base64; send the picture's file in base64") from error
