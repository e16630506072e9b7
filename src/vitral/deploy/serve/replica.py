"""The same server as replicas of Ray Serve, where one machine is outgrown: the same routes, limits and metrics in each, behind Ray's proxy.

    serve run vitral.deploy.serve.replica:application models=runs/photos replicas=2

Each replica has a queue of its own; Ray starts one anew that dies. https://docs.ray.io/en/latest/serve/
"""

import os
from dataclasses import fields
from typing import Any

from ray import serve
from starlette.types import ASGIApp

from vitral.deploy.serve.app import server
from vitral.deploy.serve.run import TOKEN
from vitral.deploy.serve.serving import Limits, Serving
from vitral.errors import VitralError

AHEAD = 8
"""Requests beyond its queue that a replica is sent, so that it is the replica that refuses, and says when to come again."""


def application(args: dict[str, str]) -> serve.Application:
    """models: as for `vitral serve`, separated by spaces. replicas: their number, 1 by default. batch, queue, deadline: as for `vitral serve`.

    The token is that of the environment's VITRAL_TOKEN here. Raises VitralError for other arguments.
    """
    known: dict[str, Any] = {field.name: type(field.default) for field in fields(Limits)}
    if unknown := set(args) - {"models", "replicas", *known}:
        raise VitralError(
            f"{', '.join(sorted(unknown))}: no such argument; there are models, replicas, {', '.join(known)}"
        )
    models = args.get("models", "").split()
    if not models:
        raise VitralError("models: which? Give runs, model files or exported files, as in models=runs/photos")
    limits = Limits(**{name: kind(args[name]) for name, kind in known.items() if name in args})
    return deployed(models, limits, int(args.get("replicas", "1")), os.environ.get(TOKEN) or None)


def deployed(models: list[str], limits: Limits, replicas: int, token: str | None) -> serve.Application:
    """The application, whose replicas load the models themselves, so that paths have to lead to them on every machine."""

    def build() -> ASGIApp:
        serving = Serving(models, limits)
        serving.begin()
        return server(serving, token)

    @serve.deployment(name="vitral", num_replicas=replicas, max_ongoing_requests=limits.queue + limits.batch + AHEAD)
    @serve.ingress(build)
    class Replica:
        """What answers is the application that `build` makes."""

    made: Any = Replica
    return made.bind()
