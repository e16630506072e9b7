"""Maps as pictures: one overlay, or the whole grid of layers x heads. Drawn with Pillow alone."""

import base64
import io
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vitral.drawing.colours import colourise, is_even, normalise, overlay, upsample
from vitral.drawing.letters import wide, write
from vitral.errors import VitralError

INK, FAINT, PAPER = (28, 30, 38), (118, 122, 134), (255, 255, 255)
MARK = (0, 229, 255)
MARGIN, GAP = 24, 6
SMALL, TEXT = 13, 15  # height of letters, pixels
LINE_HEIGHT, LINE_WIDTH = 19, 400  # of a caption
CELL = 112  # the longer side of a panel, pixels, before it is made a whole number of pixels a patch
PANEL_ALPHA = 0.75


def veiled(
    image: NDArray[np.uint8], colours: NDArray[np.floating], where: NDArray[np.floating], alpha: float
) -> Image.Image:
    """Colours [H, W, 3] in [0, 1] over a picture [H, W, 3], as strong as `alpha` where `where` [H, W] is 1."""
    share = (alpha * where)[..., None]
    return Image.fromarray(np.rint(image * (1 - share) + 255 * colours * share).astype(np.uint8))


def captioned(picture: Image.Image, caption: str) -> Image.Image:
    """A picture above its caption on white, which is wrapped to the picture's width (or to `LINE_WIDTH`, if that is more)."""
    width, lines = max(picture.width, LINE_WIDTH), [""]
    for word in caption.split(" "):
        longer = f"{lines[-1]} {word}".lstrip()
        if wide(longer, SMALL) <= width - 2 * GAP or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    whole = Image.new("RGB", (width, picture.height + LINE_HEIGHT * len(lines) + 2 * GAP), PAPER)
    whole.paste(picture, (0, 0))
    draw = ImageDraw.Draw(whole)
    for i, line in enumerate(lines):
        write(draw, (GAP, picture.height + GAP + LINE_HEIGHT * i), line, INK, SMALL)
    return whole


def save_picture(picture: Image.Image, path: str | Path) -> Path:
    """Writes a picture in the format that the file's ending names.

    Raises:
        VitralError: the ending is not a picture's, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise VitralError(f"{path}: pictures are written as .png, .jpg or .webp; choose one of these endings")
    try:
        picture.save(path)
    except OSError as error:
        raise VitralError(f"{path}: cannot be written ({error.strerror}); choose another place") from error
    return path


def grid_figure(
    image: NDArray[np.uint8], maps: NDArray[np.floating], title: str = "", asking: tuple[int, int] | None = None
) -> Image.Image:
    """The picture above a grid of maps, a row a layer and a column a head.

    Each panel is the picture, coloured from 0 to the map's own largest value. A map without contrast gives no colour, and a line below the
    title says so. Patches are not smoothed, as the model has nothing finer.

    Args:
        image: uint8 [H, W, 3], the picture that the model saw.
        maps: [layers, heads, h, w], values of 0 and more.
        title: one or more lines, beside the picture.
        asking: (row, column) of the patch whose attention this is, outlined in each panel.

    Returns:
        A picture on white, as large as the grid needs.
    """
    assert maps.ndim == 4, f"maps {maps.shape} are not [layers, heads, h, w]"
    layers, heads = maps.shape[:2]
    rows, columns = ([f"{what} {i}" for i in range(n)] for what, n in (("layer", layers), ("head", heads)))

    title = "\n".join(filter(None, (title, colourless(maps))))
    cell_h, cell_w = _cell(image.shape[0] / image.shape[1], maps.shape[2:])
    left = MARGIN + math.ceil(max(wide(row, SMALL) for row in rows)) + 10
    step_x = max(cell_w, math.ceil(max(wide(column, SMALL) for column in columns)) + 4) + GAP
    step_y = max(cell_h, 16) + GAP

    header = _header(image, title)
    small_image = np.asarray(Image.fromarray(image).resize((cell_w, cell_h), Image.Resampling.BOX))
    top = MARGIN + header.height + MARGIN + 20
    width = max(left + heads * step_x - GAP, MARGIN + header.width) + MARGIN
    figure = Image.new("RGB", (width, top + layers * step_y - GAP + MARGIN), PAPER)
    figure.paste(header, (MARGIN, MARGIN))
    draw = ImageDraw.Draw(figure)
    for j, column in enumerate(columns):
        write(draw, (left + j * step_x + cell_w / 2, top - 8), column, INK, SMALL, "ms")
    for i, row in enumerate(rows):
        y = top + i * step_y
        write(draw, (left - 10, y + cell_h / 2), row, INK, SMALL, "rm")
        for j in range(heads):
            share = normalise(maps[i, j], floor=0.0)  # from 0, so that low attention is dark
            panel = overlay(small_image, upsample(share, (cell_h, cell_w), smooth=False), PANEL_ALPHA)
            if asking is not None:
                patch_h, patch_w = cell_h // maps.shape[2], cell_w // maps.shape[3]
                y0, x0 = asking[0] * patch_h, asking[1] * patch_w
                outlined(panel, (x0, y0, x0 + patch_w, y0 + patch_h))
            figure.paste(panel, (left + j * step_x, y))
    return figure


def colourless(maps: NDArray[np.floating]) -> str:
    """How many of the maps [layers, heads, h, w] have no contrast, and so no colour in `grid_figure`, in words; "" where all have some."""
    even = sum(is_even(each) for row in maps for each in row)
    return f"without colour: {even} of {maps.shape[0] * maps.shape[1]}, with uniform attention" if even else ""


def outlined(picture: Image.Image, edges: tuple[int, ...]) -> None:
    """Outline the box (left, top, right, bottom), right and bottom excluded, in cyan on black, which no colour map has."""
    left, top, right, bottom = edges
    draw = ImageDraw.Draw(picture)
    draw.rectangle((left - 1, top - 1, right, bottom), outline=(0, 0, 0))
    draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=MARK)


def _cell(aspect: float, grid: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) of a panel in the picture's shape, in whole pixels a patch."""
    h, w = grid
    height, width = (CELL, CELL / aspect) if aspect >= 1 else (CELL * aspect, CELL)
    patch_h, patch_w = max(1, round(height / h)), max(1, round(width / w))
    return h * patch_h, w * patch_w


def _header(image: NDArray[np.uint8], title: str) -> Image.Image:
    """The picture, and beside it the title and the colour bar."""
    scale = 176 / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    how = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS
    picture = Image.fromarray(image).resize((width, height), how)

    lines = title.split("\n") if title else []
    bar_w, bar_h, line_h = 180, 12, 22
    words_w = math.ceil(max([wide(line, TEXT) for line in lines] + [bar_w + 4.0]))
    words_h = len(lines) * line_h + 8 + bar_h + 24
    band = Image.new("RGB", (width + MARGIN + words_w, max(height, words_h)), PAPER)
    band.paste(picture, (0, 0))
    draw = ImageDraw.Draw(band)
    x = width + MARGIN
    for i, line in enumerate(lines):
        write(draw, (x, i * line_h), line, INK if i == 0 else FAINT, TEXT)
    y = band.height - bar_h - 24
    ramp = np.broadcast_to(np.linspace(0, 1, bar_w), (bar_h, bar_w))
    band.paste(Image.fromarray(colourise(ramp, "inferno")), (x, y))
    write(draw, (x, y + bar_h + 5), "0", FAINT, SMALL)
    write(draw, (x + bar_w, y + bar_h + 5), "largest in its panel", FAINT, SMALL, "ra")
    return band


def png(picture: Image.Image, optimize: bool = False) -> bytes:
    """A picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=optimize)
    return buffer.getvalue()


def data_url(picture: Image.Image | NDArray[np.uint8], exact: bool = True) -> str:
    """A picture, or its pixels [h, w, 3 or 4], as a data URL: exactly (PNG), or smaller (JPEG)."""
    picture, buffer = picture if isinstance(picture, Image.Image) else Image.fromarray(picture), io.BytesIO()
    if exact:
        return f"data:image/png;base64,{base64.b64encode(png(picture, optimize=True)).decode()}"
    picture.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
