"""What a picture from outside may be, told before it is decoded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath

from vitral.data.decode import probe
from vitral.data.files import ImageError
from vitral.data.values import Reading
from vitral.deploy.refused import RefusedError

MAX_BYTES = 50_000_000
"""Of one picture's file."""
MAX_PIXELS = 50_000_000
"""Of one picture; telephones make up to 48 megapixels."""
REMEDIES = {
    "animated": "send the one picture that is meant as a file of its own",
    "no_range": "send 8 or 16 bits without sign, or values within the range that the model was trained with",
}
"""What whoever sends a picture can do, by `ImageError.kind`, where others would give an option to a command."""


@contextmanager
def told_senders() -> Iterator[None]:
    """Errors of pictures inside say what their senders can do."""
    try:
        yield
    except ImageError as error:
        if error.kind not in REMEDIES:
            raise
        raise ImageError(f"{str(error).rpartition(';')[0]}; {REMEDIES[error.kind]}", error.kind) from error


@told_senders()
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
