"""What all servers do with requests that cannot be answered: an error is a sentence with its remedy, and who has left is let go."""

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from vitral.deploy.refused import RefusedError
from vitral.errors import VitralError

LEFT = 499
"""The status of an answer to somebody who has left, which nobody reads."""


def tell_errors(app: FastAPI) -> None:
    """Has the application answer every error as JSON: {"error": a sentence}."""
    app.add_exception_handler(VitralError, _refused)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _refused)
    app.add_exception_handler(ClientDisconnect, lambda request, error: Response(status_code=LEFT))
    app.add_exception_handler(Exception, _failed)


async def gone(request: Request) -> None:
    """Ends when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refused(request: Request, error: Exception) -> Response:
    """An error that the user can mend, as its sentence."""
    if isinstance(error, RefusedError):
        status, said = error.status, str(error)
    elif isinstance(error, RequestValidationError):
        status, said = 400, "; ".join(f"{e['loc'][-1]} {e.get('input')!r:.40}: {e['msg']}" for e in error.errors())
    elif isinstance(error, HTTPException):
        status, said = error.status_code, f"{error.detail} ({request.method} {request.url.path[:80]})"
    else:
        status, said = 400, str(error)
    headers = error.headers if isinstance(error, RefusedError) else {"cache-control": "no-store"}
    return JSONResponse({"error": said}, status, headers=headers)


async def _failed(request: Request, error: Exception) -> Response:
    """An error of ours: the answer says so, and the server prints where."""
    said = f"vitral itself failed here ({type(error).__name__}); the terminal that runs it shows where"
    return JSONResponse({"error": said}, 500, headers={"cache-control": "no-store"})
