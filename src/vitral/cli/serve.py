"""The command that serves models over HTTP: serve."""

import importlib.util
from dataclasses import dataclass

from vitral.cli.options import argument
from vitral.cli.parse import at_least
from vitral.errors import VitralError

NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


@dataclass
class Serve:
    """Answer over HTTP: pictures in, JSON out (POST /predict), Hugging Face's JSON, and the Open Inference Protocol v2. /docs says what can be asked.

    Requests that wait are answered together; what cannot be answered in time is refused at once (503). A model whose file changes is loaded anew.

    Example: vitral serve runs/photos

    Example: vitral serve cats=runs/cats/model.onnx dogs=runs/dogs --port 8080

    Example: VITRAL_TOKEN=secret vitral serve runs/photos --host 0.0.0.0
    """

    models: list[str] = argument()
    """Run folders, model files, exported files; NAME=MODEL gives one a name. The first answers where no model is named."""
    host: str = "127.0.0.1"
    """Address to listen at. Any but this computer's own requires a token."""
    port: int | None = None
    """Port to listen at; default: 8000, or if that is taken any that is free."""
    token: str | None = None
    """What requests must show (Authorization: Bearer TOKEN); default: that of VITRAL_TOKEN, or none on this computer alone."""
    batch_size: int = 8
    """Images in one forward pass, at most: those that wait already."""
    queue: int = 128
    """Images that may wait; more are refused."""
    deadline: float = 10.0
    """Seconds in which an image is answered; where that cannot be, it is refused."""


def serve(given: Serve, words: list[str]) -> int:
    at_least(1, batch_size=given.batch_size, queue=given.queue)
    if not given.deadline > 0:
        raise VitralError(f"--deadline {given.deadline}: give seconds above 0")
    if not given.models:
        raise VitralError("serve: which model? Give a run, a model file or an exported file")
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise VitralError(f"serving needs {', '.join(missing)}; run pip install 'vitral[serve]'")
    from vitral.deploy.serve.run import serve
    from vitral.deploy.serve.serving import Limits

    serve(given.models, Limits(given.batch_size, given.queue, given.deadline), given.host, given.port, given.token)
    return 0
