"""Boxes, outlines and maps over a picture, with the names of their classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vitral.drawing.letters import wide, write

PAPER, INK = (255, 255, 255), (28, 30, 38)
KEYED = 240  # least width of a picture above the names of its classes
VEIL = 0.45  # share of the colour where a mask lies
COVERED = 0.6  # share of the colour where every pixel has a class
LETTERS = 11  # pixels of their height
NO_CLASS = (150, 150, 150)


def class_colours(classes: int) -> NDArray[np.uint8]:
    """uint8 [classes, 3]: Pascal VOC's colours, 0 black; neighbours differ much (VOCdevkit's VOClabelcolormap)."""
    values = np.arange(classes)
    colours = np.zeros((classes, 3), np.uint8)
    for place in range(8):  # three bits of the value at a time, to ever lower bits of red, green and blue
        for channel in range(3):
            bit = (values >> (3 * place + channel)) & 1
            colours[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    if classes > 255:
        colours[255] = (224, 224, 192)
    return colours


@dataclass(frozen=True)
class Mark:
    """One object to be drawn."""

    name: str
    colour: int
    """Number of its colour."""
    box: tuple[float, float, float, float]
    mask: NDArray[np.bool_] | None = None
    """[h, w] of the picture."""


def marked(picture: NDArray[np.uint8], marks: Sequence[Mark], side: int = 320) -> Image.Image:
    """A picture [h, w, 3] with its objects, its longer side of so many pixels: masks as a veil, boxes as lines, names in them."""
    colours = class_colours(256)
    veiled = picture.astype(np.float32)
    for mark in marks:
        if mark.mask is not None:
            veiled[mark.mask] = (1 - VEIL) * veiled[mark.mask] + VEIL * colours[1 + mark.colour % 254]
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS
    drawn = Image.fromarray(veiled.round().astype(np.uint8)).resize(size, how)
    pen = ImageDraw.Draw(drawn)
    for mark in marks:
        x0, y0, x1, y1 = (edge * scale for edge in mark.box)
        colour = tuple(colours[1 + mark.colour % 254].tolist())
        pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colour, width=2)
    for mark in marks:
        x, y = mark.box[0] * scale, mark.box[1] * scale
        colour = colours[1 + mark.colour % 254]
        width_of_name = wide(mark.name, LETTERS) + 4
        x, y = max(0.0, min(x, size[0] - width_of_name)), max(0.0, min(y, size[1] - 14))
        pen.rectangle((x, y, x + width_of_name, y + 13), fill=tuple(colour.tolist()))
        write(pen, (x + 2, y), mark.name, PAPER if colour @ (0.3, 0.59, 0.11) < 140 else INK, LETTERS)
    return drawn


def sheet(pictures: Sequence[tuple[Image.Image, str]], columns: int = 4, gap: int = 8) -> Image.Image:
    """Pictures with a line of text below each, in rows."""
    columns = min(columns, max(1, len(pictures)))
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    widest = max((picture.width for picture, _ in pictures), default=1)
    heights = [max(picture.height for picture, _ in row) + 16 + gap for row in rows]
    page = Image.new("RGB", (columns * (widest + gap) + gap, sum(heights) + gap), PAPER)
    pen, top = ImageDraw.Draw(page), gap
    for row, height in zip(rows, heights, strict=True):
        for k, (picture, text) in enumerate(row):
            left = gap + k * (widest + gap)
            page.paste(picture, (left, top))
            while text and wide(text, LETTERS) > widest:
                text = "…" + text[2:]
            write(pen, (left, top + picture.height + 2), text, INK, LETTERS)
        top += height
    return page


def veiled(
    picture: NDArray[np.uint8], classes: NDArray[np.integer], parts: NDArray[np.integer] | None = None
) -> NDArray[np.uint8]:
    """A picture [h, w, 3] under the colours of its classes [h, w], grey where there is none (below 0). parts: numbers [h, w] of segments, whose
    edges are drawn.
    """
    colours = np.concatenate([class_colours(256), np.array([NO_CLASS], np.uint8)]).astype(np.float32)  # -1 is the last
    own = colours[np.where(classes < 0, -1, classes % 256)]
    found: NDArray[np.uint8] = ((1 - COVERED) * picture + COVERED * own).round().astype(np.uint8)
    if parts is not None:
        found[:, 1:][parts[:, 1:] != parts[:, :-1]] = PAPER
        found[1:][parts[1:] != parts[:-1]] = PAPER
    return found


def keyed(picture: Image.Image, names: Sequence[tuple[str, int]]) -> Image.Image:
    """A picture above the names of its classes, each beside its colour, given by number."""
    colours, width = class_colours(256), max(picture.width, KEYED)
    places, x, y = [], 4, 4
    for name, number in names:
        step = round(wide(name, LETTERS)) + 22
        if x > 4 and x + step > width:
            x, y = 4, y + 16
        places.append((x, y, name, tuple(colours[number % 256].tolist())))
        x += step
    whole = Image.new("RGB", (width, picture.height + y + 18), PAPER)
    whole.paste(picture, (0, 0))
    pen = ImageDraw.Draw(whole)
    for x, y, name, colour in places:
        top = picture.height + y
        pen.rectangle((x, top, x + 11, top + 11), fill=colour, outline=INK)
        write(pen, (x + 15, top - 1), name, INK, LETTERS)
    return whole
