"""The images that a command is to look at: files, folders, and what comes on stdin."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from vitral.data.decode import PageOf, count_pages
from vitral.data.files import read_file
from vitral.data.walk import Walk, is_text, starts_like_an_image
from vitral.errors import VitralError

OF_SHARDS = {".tar", ".bin", ".names", ".beside", ".values"}
"""How the files of a folder of shards end."""


def find_images(sources: Sequence[str]) -> Iterator[tuple[str, str | bytes]]:
    """(name, image) for each source: a file, the images of a folder in name order, or for "-" those of stdin.

    A folder's images are the files that training would read, whatever their suffix; others are named on stderr. Stdin holds paths, one a line or
    separated by zero bytes, or the bytes of one image.
    """
    for source in sources:
        if source == "-":
            yield from _from_stdin()
        elif Path(source).is_dir():
            walk = Walk(Path(source))
            inside = walk.under(walk.root)
            for note in [*walk.left_out(), *(f"{source}/{name} cannot be read" for name in walk.closed)]:
                print(f"vitral: {source}: {note}", file=sys.stderr)
            if not inside:
                raise VitralError(f"{source}: a folder without images; name the files or another folder")
            if all(p.suffix in OF_SHARDS for p in inside):
                raise VitralError(
                    f"{source}: holds tar shards, which vitral train, evaluate and doctor read; give image files, or a folder of them"
                )
            yield from ((str(p), str(p)) for p in inside)
        else:
            yield source, source


def by_page(images: Iterable[tuple[str, str | bytes]], page: str | None) -> Iterator[tuple[str, str | bytes | PageOf]]:
    """(name, image) as `find_images` gives them; if `page` is "all", one for every page of a file."""
    for name, image in images:
        try:
            data = image if isinstance(image, bytes) or page != "all" else read_file(Path(image), name)[0]
            total = count_pages(data, name) if page == "all" and isinstance(data, bytes) else 1
        except VitralError:
            total = 1  # reading it raises the error
        if total == 1:
            yield name, image
        else:
            yield from ((f"{name} page {k}", PageOf(image, k)) for k in range(total))


def _from_stdin() -> Iterator[tuple[str, str | bytes]]:
    first = sys.stdin.buffer.readline()
    if not first:
        raise VitralError("-: nothing came on stdin; pipe a list of paths or one image into it")
    if first.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in first or _is_image(first):
        data = first + sys.stdin.buffer.read()
        paths = _whole_list(data)
        yield from [("-", data)] if paths is None else [(path, path) for path in paths]
        return
    line = first.removeprefix(b"\xef\xbb\xbf")
    while line:
        if path := line.decode(errors="surrogateescape").rstrip("\r\n"):
            yield path, path
        line = sys.stdin.buffer.readline()


def _is_image(line: bytes) -> bool:
    """Whether a first line starts an image rather than being a path, which may begin like some images (BM, GIF89a, P5)."""
    if not starts_like_an_image(line):
        return not is_text(line) and any(byte < 32 for byte in line.rstrip(b"\r\n").replace(b"\t", b""))
    return not is_text(line) or not Path(line.decode().rstrip("\r\n")).exists()


def _whole_list(data: bytes) -> list[str] | None:
    """The paths of a list in UTF-16, as PowerShell writes it, or separated by zero bytes; None if `data` is no such list."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return list(filter(None, data.decode("utf-16").splitlines()))
        except UnicodeDecodeError:
            return None
    parts = [part for part in data.split(b"\0") if part]
    if starts_like_an_image(data) or not all(is_text(part) for part in parts):
        return None
    return [part.decode(errors="surrogateescape") for part in parts]
