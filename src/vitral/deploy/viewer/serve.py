"""Start the viewer: load what it shows, then listen until Ctrl-C."""

import glob
import os
import secrets
import sys
import webbrowser
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer
from typing import NoReturn

import uvicorn

from vitral.data.asked import find_images
from vitral.data.files import read_file
from vitral.deploy.limits import shown_name
from vitral.deploy.listen import LOOPBACK, Server, address, bind, everywhere
from vitral.deploy.viewer.app import viewer
from vitral.deploy.viewer.images import ROOM, Images
from vitral.deploy.viewer.session import Session
from vitral.errors import VitralError, all_of, counted

PORT = 8765
AT_MOST = 200
"""Pictures of the command line that are shown."""


@dataclass
class Loaded:
    """The pictures of the command line."""

    ids: list[str] = field(default_factory=list)
    more: int = 0
    """The number of pictures beyond the limit."""
    left_out: list[str] = field(default_factory=list)
    """The path of each unreadable picture, and why."""

    def say(self) -> None:
        """Print which pictures are not shown."""
        for why in self.left_out:
            print(f"left out: {why}", file=sys.stderr)
        if self.more:
            print(
                f"showing the first {AT_MOST}; there {'is' if self.more == 1 else 'are'} {counted(self.more, 'more image')}",
                file=sys.stderr,
            )


def load_images(sources: Sequence[str], images: Images) -> Loaded:
    """The pictures of files, folders, patterns and - (stdin); in folders, patterns and - unreadable ones are left out.

    Raises:
        VitralError: a file that is named itself cannot be read, or no picture can.
    """
    loaded = Loaded()
    wrong: list[str] = []
    for source in sources:
        paths = _expanded(source)
        several = paths != [source] or source == "-" or Path(source).is_dir()
        for name, image in find_images(paths):
            if len(loaded.ids) >= AT_MOST or images.total > ROOM:
                loaded.more += 1
                continue
            try:
                key = _added(name, image, images)
            except VitralError as error:
                (loaded.left_out if several else wrong).append(str(error))
            else:
                loaded.ids += [key] if key not in loaded.ids else []
    if not loaded.ids:
        wrong = loaded.left_out + wrong
    if wrong:
        raise VitralError(wrong[0] if len(wrong) == 1 else all_of("pictures that cannot be read", wrong))
    return loaded


def _added(name: str, image: str | bytes, images: Images) -> str:
    """The id of a picture that stays; VitralError with the whole path where it cannot be read."""
    data = image if isinstance(image, bytes) else read_file(Path(image), name)[0]
    try:
        return images.add(data, name, stays=True).id
    except VitralError as error:
        raise VitralError(f"{name}: {str(error).removeprefix(f'{shown_name(name)}: ')}") from error


def _expanded(source: str) -> list[str]:
    """The files that match a pattern, for shells that do not expand patterns; any other source itself."""
    if not glob.has_magic(source) or Path(source).exists():
        return [source]
    found = sorted(glob.glob(source, recursive=True))
    if not found:
        raise VitralError(f"{source}: matches no file; check the pattern")
    return found


def serve(session: Session, host: str, port: int | None, *, browser: bool) -> NoReturn:
    """Listen until Ctrl-C, which ends the process. Prints the address on stderr, with a token where other computers can reach it."""
    token = None if host in LOOPBACK else secrets.token_urlsafe()
    with bind(host, port, PORT) as listening:
        url = address(host, listening.getsockname()[1], token)
        print(f"vitral view: {url}  (Ctrl-C ends it)", file=sys.stderr, flush=True)
        for other in everywhere(host):
            print(f"         or: {address(other, listening.getsockname()[1], token)}", file=sys.stderr, flush=True)
        config = uvicorn.Config(
            viewer(session, token), access_log=False, server_header=False, lifespan="off", timeout_graceful_shutdown=1,
            log_level="error",  # its warnings are of what visitors send
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
    os._exit(0)  # without waiting for threads that may still compute
