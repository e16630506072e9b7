"""Where a server listens, the address to open, and how it ends."""

import logging
import socket
from contextlib import suppress
from ipaddress import ip_address
from types import FrameType

import uvicorn

from vitral.errors import VitralError

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
ANY = {"0.0.0.0": (socket.AF_INET, "192.0.2.1"), "::": (socket.AF_INET6, "2001:db8::1")}
"""The names of all addresses of this computer: the family, and an address that nobody has (RFC 5737, RFC 3849)."""


def bind(host: str, port: int | None, usual: int) -> socket.socket:
    """A listening socket: at the given port, else at the usual one, else, if that is taken, at any free one."""
    if port is not None and not 0 <= port < 2**16:
        raise VitralError(f"--port {port}: give a number from 0 to 65535; 0 takes any free port")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, usual if port is None else port), family=family)
    except OSError as error:
        if isinstance(error, socket.gaierror):
            raise VitralError(
                f"--host {host}: is no address of this computer ({error.strerror}); try 127.0.0.1"
            ) from error
        if port is not None:
            raise VitralError(
                f"{host}:{port} cannot be listened at ({error}); choose another --port, or leave it out"
            ) from error
    try:
        return socket.create_server((host, 0), family=family)
    except OSError as error:
        raise VitralError(f"--host {host}: cannot be listened at ({error.strerror}); try 127.0.0.1") from error


class Server(uvicorn.Server):
    """uvicorn's server, without its complaints on answers that Ctrl-C cuts off."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        super().handle_exit(sig, frame)


def address(host: str, port: int, token: str | None) -> str:
    """What to open in a browser."""
    name = socket.gethostname() if host in ANY else host
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


def everywhere(host: str) -> list[str]:
    """This computer's addresses, where `host` means all of them: other computers may not know its name."""
    if host not in ANY:
        return []
    family, outside = ANY[host]
    found = []
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as route:
        route.connect((outside, 9))  # sends nothing, but chooses the local address
        found.append(route.getsockname()[0])
    with suppress(OSError):
        found += [str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None, family)]
    return [name for name in dict.fromkeys(found) if not ip_address(name.partition("%")[0]).is_loopback]
