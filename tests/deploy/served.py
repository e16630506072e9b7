"""Models of every task as files, and a server of them: in the tests' process, or over real sockets."""

import contextlib
import threading
from dataclasses import replace

import torch
import uvicorn
from starlette.testclient import TestClient

from asking import predictor_of
from families import PLAIN, small
from processes import PATIENCE, eventually
from vitral.checkpoints.bundle import save_model
from vitral.deploy.listen import bind
from vitral.deploy.serve.app import server
from vitral.deploy.serve.serving import Limits, Serving
from vitral.models.heads.dense import build_model
from vitral.models.heads.options import LinearOptions, QueryOptions
from vitral.models.zoo import model_config

TASKS = ("classify", "multilabel", "semantic", "detect", "instance", "panoptic")
QUERY = {"query_dim": 16, "query_heads": 2, "pixel_dim": 6, "queries": 5}
HEADS = {
    "semantic": LinearOptions(head_upscale=1),
    "detect": QueryOptions(**QUERY, decoder_layers=0),
    "instance": QueryOptions(**QUERY),
    "panoptic": QueryOptions(**QUERY),
}
SIZE = (40, 56)


def predictor(task="classify", seed=0):
    """A small model of a task, whose answers hang on the seed."""
    torch.manual_seed(seed)
    if task not in HEADS:
        model = small("vit", image_size=SIZE)
    else:
        model = build_model(model_config("vit", image_size=SIZE, num_classes=4, **PLAIN), HEADS[task])
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.1 if task in HEADS else 0.3))
    made = predictor_of(model.eval(), size=SIZE, task=task)
    made.card = replace(made.card, architecture="vit", head=HEADS[task].to_json() if task in HEADS else None)
    return made


def saved(path, task="classify", seed=0):
    """The predictor, and its file written."""
    made = predictor(task, seed)
    save_model(path, made.model, made.card)
    return made


@contextlib.contextmanager
def served(*given, limits=None):
    """A server's inside that is warm."""
    serving = Serving([str(each) for each in given], limits or Limits(batch=4, deadline=PATIENCE))
    serving.begin()
    try:
        eventually(lambda: serving.ready)
        yield serving
    finally:
        serving.close()


def client(serving, token=None):
    """Asks without a socket; one request at a time."""
    return TestClient(server(serving, token), base_url="http://localhost", follow_redirects=False)


@contextlib.contextmanager
def listening(serving):
    """The port of a server that listens."""
    socket = bind("127.0.0.1", 0, 0)
    running = uvicorn.Server(uvicorn.Config(server(serving), log_level="critical", lifespan="off"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [socket]})
    thread.start()
    try:
        yield socket.getsockname()[1]
    finally:
        running.should_exit = True
        thread.join(PATIENCE)
        socket.close()
        assert not thread.is_alive()
