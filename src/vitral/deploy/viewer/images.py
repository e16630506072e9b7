"""The pictures of a session: decoded completely when they arrive, named by their content, kept in bounded memory.

They are decoded as for training and prediction (`data/decode.py`), so the same files are refused, with the same messages.
"""

import io
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock

from PIL import Image

from vitral.data.bands import to_rgb
from vitral.data.decode import decode
from vitral.data.preprocess import Preprocess
from vitral.data.values import PLAIN
from vitral.deploy.limits import check_picture, shown_name, told_senders
from vitral.deploy.refused import RefusedError
from vitral.deploy.viewer.kept import Kept
from vitral.drawing.figure import png

ROOM = 500_000_000
"""Bytes of all pictures together."""
SIDE, LARGEST_SIDE = 1280, 4096
"""Pixels of the longer side: as the page shows a picture, and at most."""
LOSSLESS = 256
"""Pictures up to this side are sent as PNG, for each of their pixels can be seen."""


@dataclass(frozen=True)
class Stored:
    """A picture's file, and its size with the orientation of EXIF applied."""

    id: str
    """The first 16 hex digits of the SHA-256 of the bytes."""
    name: str
    data: bytes
    width: int
    height: int

    def describe(self) -> dict[str, object]:
        return {"id": self.id, "name": self.name, "width": self.width, "height": self.height}


class Images:
    """Pictures by their id. When there is no more room the oldest are dropped, except those added with `stays`.

    steps: of the models; a picture smaller than a patch of one of them is refused.
    """

    def __init__(self, room: int = ROOM, steps: Sequence[Preprocess] = ()) -> None:
        self.room, self.steps = room, steps
        self._stored: OrderedDict[str, Stored] = OrderedDict()
        self._staying: set[str] = set()
        self._rendered: Kept[bytes] = Kept(100_000_000, len)
        self._lock = Lock()
        self._decoding = Lock()  # one at a time: a large picture takes hundreds of megabytes while it is decoded

    @property
    def total(self) -> int:
        """Bytes of all pictures."""
        with self._lock:
            return sum(len(stored.data) for stored in self._stored.values())

    def add(self, data: bytes, name: str, *, stays: bool = False) -> Stored:
        """Keep a picture. stays: never drop it.

        Raises:
            VitralError: it is not a complete still picture, cannot be read, or is too large or too small.
        """
        name = shown_name(name)
        key = sha256(data).hexdigest()[:16]
        with self._lock:
            known = self._stored.get(key)
        stored = known or self._checked(key, data, name)
        with self._lock:
            self._stored[key] = stored
            self._stored.move_to_end(key)
            if stays:
                self._staying.add(key)
            going = [k for k in self._stored if k not in self._staying and k != key]
            used = sum(len(each.data) for each in self._stored.values())
            for k in going:
                if used <= self.room:
                    break
                used -= len(self._stored.pop(k).data)
        return stored

    def get(self, key: str) -> Stored:
        """The picture with this id; RefusedError where there is none (any more)."""
        with self._lock:
            if key not in self._stored:
                raise RefusedError(404, "this picture is not kept here (any more); drop it again")
            self._stored.move_to_end(key)
            return self._stored[key]

    def picture(self, key: str, side: int) -> tuple[bytes, str]:
        """(an encoded picture, its media type), upright and with its longer side at most `side` pixels."""
        if not 1 <= side <= LARGEST_SIDE:
            raise RefusedError(400, f"side {side}: the longer side in pixels lies in 1..{LARGEST_SIDE}")
        stored = self.get(key)
        small = max(stored.width, stored.height) <= LOSSLESS
        rendered = self._rendered.get((key, side)) or self._rendered.put((key, side), self._render(stored, side, small))
        return rendered, "image/png" if small else "image/jpeg"

    def _checked(self, key: str, data: bytes, name: str) -> Stored:
        reading = self.steps[0].reading if self.steps else PLAIN
        check_picture(data, name, reading)
        with told_senders(), self._decoding:
            pixels = decode(data, name=name, reading=reading)
        height, width = pixels.shape[1:]
        for steps in self.steps:
            steps.check(height, width, name)
        return Stored(key, name, data, width, height)

    def _render(self, stored: Stored, side: int, lossless: bool) -> bytes:
        longer = max(stored.width, stored.height)
        scale = min(1.0, side / longer)
        shorter = max(1, round(scale * min(stored.width, stored.height)))
        with self._decoding:
            reading = self.steps[0].reading if self.steps else PLAIN
            pixels = decode(stored.data, name=stored.name, hint=shorter, reading=reading)
        drawn = self.steps[0].shown(pixels) if self.steps else to_rgb(pixels)
        size = (max(1, round(scale * stored.width)), max(1, round(scale * stored.height)))
        image = Image.fromarray(drawn)
        if image.size != size:
            image = image.resize(size, Image.Resampling.LANCZOS)
        if lossless:
            return png(image)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=92, subsampling=0)
        return buffer.getvalue()
