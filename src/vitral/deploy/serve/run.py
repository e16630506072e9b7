"""The server as a process: it listens, warms up, and when it is told to end answers what it has taken."""

import math
import os
import secrets
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

import uvicorn

from vitral.deploy.listen import LOOPBACK, address, bind, everywhere
from vitral.deploy.serve.app import server
from vitral.deploy.serve.serving import Limits, Serving
from vitral.engines.cores import cores
from vitral.errors import VitralError, counted

PORT = 8000
TOKEN = "VITRAL_TOKEN"
"""The environment's name for the token: other users of a computer can read command lines."""


class Server(uvicorn.Server):
    """uvicorn's server, which is not ready from the moment that it is told to end."""

    def __init__(self, config: uvicorn.Config, serving: Serving) -> None:
        super().__init__(config)
        self.serving = serving

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.serving.ending()
        super().handle_exit(sig, frame)


def serve(models: Sequence[str], limits: Limits, host: str, port: int | None, token: str | None) -> None:
    """Listen until SIGTERM or Ctrl-C; then answer what was taken, and return. Prints the address on stderr once it listens.

    token: what requests must show; where there is none and other computers can reach this one, one is made and printed.
    """
    told = token or os.environ.get(TOKEN) or None
    token = told or (None if host in LOOPBACK else secrets.token_urlsafe())
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise VitralError("--token: is sent in a header, so take letters, digits and signs of ASCII without spaces")
    with bind(host, port, PORT) as listening:
        serving = Serving(models, limits)
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(
                cores()
            )  # of its own it takes one for each core of the machine, whatever the container allows
        url = address(host, listening.getsockname()[1], None)
        print(
            f"vitral serve: {url}  ({counted(len(serving.models), 'model')}; Ctrl-C ends it)",
            file=sys.stderr,
            flush=True,
        )
        for other in everywhere(host):
            print(f"          or: {address(other, listening.getsockname()[1], None)}", file=sys.stderr, flush=True)
        if token is not None and told is None:
            print(f"       token: {token}  (set your own in {TOKEN})", file=sys.stderr, flush=True)
        config = uvicorn.Config(
            server(serving, token), access_log=False, server_header=False, lifespan="off", log_level="error",
            timeout_graceful_shutdown=math.ceil(limits.deadline) + 5,
        )  # fmt: skip
        serving.begin()
        signal.signal(signal.SIGTERM, lambda *_: None)  # which uvicorn raises again when it has ended in order
        with suppress(KeyboardInterrupt):
            Server(config, serving).run(sockets=[listening])
        serving.close()
        print("vitral serve: answered everything, ended", file=sys.stderr, flush=True)
