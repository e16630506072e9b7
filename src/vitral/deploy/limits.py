"""What a picture from outside may be, told before it is decoded."""

from pathlib import PurePath

from vitral.data.decode import probe
from vitral.data.files import ImageError
from vitral.data.values import Reading
from vitral.deploy.refused import RefusedError

MAX_BYTES = 50_000_000
"""Of one picture's file."""
MAX_PIXELS = 50_000_000
"""Of one picture; telephones make up to 48 megapixels."""


def check_picture(data: bytes, name: str, reading: Reading) -> None:
    """Raises RefusedError for a file that is empty or too large, by its size or its header, and VitralError for one that is no picture."""
    if not data:
        raise RefusedError(400, f"{name}: is empty (0 bytes); choose a picture")
    if len(data) > MAX_BYTES:
        raise RefusedError(413, f"{name}: has {len(data):,} bytes, over the limit of {MAX_BYTES:,}; shrink it")
    too_large = RefusedError(413, f"{name}: has more pixels than the limit of {MAX_PIXELS:,}; shrink it")
    try:
        header = probe(data, name, reading)
    except ImageError as error:
        if error.kind != "too_large":
            raise
        raise too_large from error
    if header.width * header.height > MAX_PIXELS:
        raise too_large


def shown_name(name: str) -> str:
    """The last part of a file's path, printable and at most 100 characters long."""
    last = PurePath(name.replace("\\", "/")).name
    plain = " ".join("".join(c if c.isprintable() else " " for c in last).split())
    return (plain if len(plain) <= 100 else f"{plain[:60]}…{plain[-39:]}") or "picture"
