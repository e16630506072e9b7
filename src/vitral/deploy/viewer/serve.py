"""From the command line to a page in the browser: what is to be shown is loaded first, then the viewer listens until it is told to stop."""

import glob
import logging
import os
import secrets
import socket
import sys
import webbrowser
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Timer
from types import FrameType
from typing import NoReturn

import uvicorn

from vitral.data.files import read_file
from vitral.deploy.viewer.app import viewer
from vitral.deploy.viewer.images import ROOM, Images, shown_name
from vitral.deploy.viewer.session import Session
from vitral.errors import VitralError, counted
from vitral.predict import find_images

PORT = 8765
AT_MOST = 200
"""Pictures of the command line that are shown."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def load_images(sources: Sequence[str], images: Images) -> tuple[list[str], int]:
    """(ids of the pictures that files, folders, patterns and - name, how many more there are). VitralError for one that cannot be read."""
    named = [path for source in sources for path in _expanded(source)]
    ids: list[str] = []
    more = 0
    for name, image in find_images(named):
        if len(ids) >= AT_MOST or images.total > ROOM:
            more += 1
            continue
        data = image if isinstance(image, bytes) else read_file(Path(image), name)[0]
        try:
            ids.append(images.add(data, name, stays=True).id)
        except VitralError as error:
            raise VitralError(f"{name}: {str(error).removeprefix(f'{shown_name(name)}: ')}") from error
    return list(dict.fromkeys(ids)), more


def _expanded(source: str) -> list[str]:
    """What a pattern matches, for shells that leave patterns alone; anything else as it is."""
    if not glob.has_magic(source) or Path(source).exists():
        return [source]
    found = sorted(glob.glob(source, recursive=True))
    if not found:
        raise VitralError(f"{source}: matches no file; check the pattern")
    return found


def bind(host: str, port: int | None) -> socket.socket:
    """A listening socket: at the port that is asked for, else at the usual one, else, if that is taken, at any."""
    if port is not None and not 0 <= port < 2**16:
        raise VitralError(f"--port {port}: ports are numbered 0 to 65535, and 0 stands for any that is free")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, PORT if port is None else port), family=family)
    except OSError as error:
        if isinstance(error, socket.gaierror):
            raise VitralError(f"--host {host}: is no address of this computer ({error.strerror})") from error
        if port is not None:
            raise VitralError(
                f"{host}:{port} cannot be listened at ({error}); choose another --port, or leave it out"
            ) from error
    try:
        return socket.create_server((host, 0), family=family)
    except OSError as error:
        raise VitralError(f"--host {host}: cannot be listened at ({error.strerror}); try 127.0.0.1") from error


class Server(uvicorn.Server):
    """uvicorn's, that does not complain of the answers it breaks off when a person ends it."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        super().handle_exit(sig, frame)


def serve(session: Session, host: str, port: int | None, *, browser: bool) -> NoReturn:
    """Listen until Ctrl-C, which ends the process; the address goes to stderr. Anywhere but on this computer alone, a token goes with it."""
    token = None if host in LOOPBACK else secrets.token_urlsafe()
    with bind(host, port) as listening:
        url = address(host, listening.getsockname()[1], token)
        print(f"vitral view: {url}  (Ctrl-C ends it)", file=sys.stderr, flush=True)
        config = uvicorn.Config(
            viewer(session, token), log_level="warning", access_log=False, server_header=False, lifespan="off",
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        if browser:
            opening = Timer(0.3, webbrowser.open, (url,))  # by then the socket answers; it listens already
            opening.daemon = True
            opening.start()
        with suppress(KeyboardInterrupt):  # uvicorn has ended in order, and says it again
            Server(config).run(sockets=[listening])
    session.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads may compute still, and Python's own end would wait for them, or break them off with an abort


def address(host: str, port: int, token: str | None) -> str:
    """What to open in a browser."""
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


def say_more(more: int) -> None:
    """Tell a person of pictures that are not shown."""
    if more:
        print(
            f"showing the first {AT_MOST}; there {'is' if more == 1 else 'are'} {counted(more, 'more image')}",
            file=sys.stderr,
        )
