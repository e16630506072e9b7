"""Text in pictures. Latin, Greek and Cyrillic letters have a font of ours, so that they look alike everywhere; what it lacks is looked for in this
computer's fonts, and a character that none of them has is written as its number, [U+732B]."""

import shutil
import subprocess
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from importlib import resources
from io import BytesIO

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont
OTHERS = (  # fonts with many letters, by the file names that Pillow finds in the folders of Linux, macOS and Windows
    "NotoSansCJK-Regular.ttc", "unifont.ttf", "Arial Unicode.ttf", "PingFang.ttc", "msyh.ttc", "malgun.ttf", "msgothic.ttc", "Nirmala.ttc",
    "segoeui.ttf",
)  # fmt: skip
NOWHERE = "\U0010fffe"  # no character, so a font shows its sign for what it lacks


def wide(text: str, size: int) -> float:
    """The width in pixels of a line as `write` draws it."""
    words, font = _lettering(text, size)
    return font.getlength(words)


def write(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    colour: tuple[int, int, int],
    size: int,
    anchor: str = "la",
) -> None:
    """Draw a line. size: of the letters, in pixels. anchor: Pillow's, what of the line lies at `at`."""
    words, font = _lettering(text, size)
    draw.text(at, words, colour, font, anchor)


@lru_cache(1024)
def _lettering(text: str, size: int) -> tuple[str, Font]:
    """What can be written of a text, and the font that has all of it."""
    text = unicodedata.normalize("NFC", text)  # as macOS names files, ö is an o and two dots
    own = _own(size)
    lacking = [c for c in text if not _has(own, c)]
    for file, index in _fonts_with(lacking[0]) if lacking else ():
        try:
            font = ImageFont.truetype(file, size, index)
        except OSError:
            continue
        if all(_has(font, c) for c in text):
            return text, font
    return "".join(f"[U+{ord(c):04X}]" if c in lacking else c for c in text), own


@cache
def _own(size: int) -> Font:
    data = resources.files("vitral.drawing").joinpath("fonts/DejaVuSans.ttf").read_bytes()
    return ImageFont.truetype(BytesIO(data), size)


def _has(font: Font, character: str) -> bool:
    """Whether a font draws a character as itself; joiners and the like are not drawn."""
    if unicodedata.category(character) in ("Cf", "Mn"):
        return True
    drawn, lacking = (font.getmask(c) for c in (character, NOWHERE))
    return (drawn.size, bytes(drawn)) != (lacking.size, bytes(lacking))


def _fonts_with(character: str) -> Iterator[tuple[str, int]]:
    """(file, number in the file) of fonts that may have a character: what fontconfig knows, then the usual ones."""
    if command := shutil.which("fc-match"):
        asked = [command, "-f", "%{file}\n%{index}", f":charset={ord(character):x}"]
        found = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split("\n")
        if len(found) == 2 and found[1].isdecimal():
            yield found[0], int(found[1])
    yield from ((name, 0) for name in OTHERS)
