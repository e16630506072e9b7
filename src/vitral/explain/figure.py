"""Explanations as pictures: one overlay, or the whole grid of layers x heads. Drawn with Pillow alone."""

import base64
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vitral.errors import VitralError
from vitral.explain.maps import colourise, evenness, is_even, normalise, overlay, place, upsample

INK, FAINT, PAPER = (28, 30, 38), (118, 122, 134), (255, 255, 255)
MARK = (0, 229, 255)
MARGIN, GAP = 24, 6
CELL = 112  # the longer side of a panel, pixels, before it is made a whole number of pixels a patch
PANEL_ALPHA = 0.75
READABLE = 256  # smaller pictures are enlarged to at least this many pixels on their longer side


@dataclass(frozen=True, repr=False)
class Explanation:
    """What a model looked at in one picture.

    image: uint8 [H, W, 3], the picture.
    grid: [h, w], the raw values, usually one a patch.
    method: how they were found, for instance "rollout".
    label, probability: the predicted class and its probability in [0, 1].
    box: (top, left, height, width) of the part that the model saw, which `grid` covers; None for all of it. It is
        framed in the overlay.
    asking: (row, column) of the patch whose reading this is, outlined in the overlay; None if it is no patch's.
    target: the class that the map is about; "" if it is about none, as attention is.
    floor: the value that counts for nothing, 0 where negative values speak against the class; None for the smallest.
    extent: height and width of the grid over those of `box`: above 1 where the last patches reach beyond the picture.
    colours: [h, w, 3] in [0, 1], drawn in place of the grid.
    """

    image: NDArray[np.uint8]
    grid: NDArray[np.floating]
    method: str
    label: str
    probability: float
    box: tuple[int, int, int, int] | None = None
    asking: tuple[int, int] | None = None
    target: str = ""
    floor: float | None = None
    extent: tuple[float, float] = (1.0, 1.0)
    colours: NDArray[np.floating] | None = None

    def __post_init__(self) -> None:
        assert self.image.ndim == 3, f"image {self.image.shape} is not [H, W, 3]"
        assert self.grid.ndim == 2, f"grid {self.grid.shape} is not [h, w]"

    @property
    def even(self) -> str:
        """That the map has no contrast, with its values; "" where it has some. It is then drawn without."""
        words = evenness(self.grid)
        return words.partition(":")[0] if self.colours is not None else words

    @property
    def words(self) -> str:
        """`method`, and that the map has no contrast where it has none."""
        return f"{self.method}; {self.even}" if self.even else self.method

    def __repr__(self) -> str:
        (height, width), (h, w) = self.image.shape[:2], self.grid.shape
        return f"<Explanation of {self.label!r} {self.probability:.1%}: {self.words}; {h}x{w} values over {height}x{width} pixels>"

    @property
    def framed(self) -> bool:
        """Whether the model saw only a part of the picture."""
        return self.box is not None and self.box != (0, 0, *self.image.shape[:2])

    @property
    def map(self) -> NDArray[np.float64]:
        """[H, W] in [0, 1]: the grid from its smallest value, or `floor`, to its largest, at the resolution of `image`.

        What the model did not see, outside `box`, is 0, and a map without contrast (see `even`) is 0 everywhere.
        """
        return self._heat(1)

    def overlay(self, alpha: float = 0.6, scale: int = 1) -> Image.Image:
        """The map over the picture, [H, W] enlarged `scale` times, with a frame around what the model saw of it."""
        larger = self.image.repeat(scale, axis=0).repeat(scale, axis=1)  # [H, W, 3] -> [scale*H, scale*W, 3]
        if self.colours is None:
            drawn = overlay(larger, self._heat(scale), alpha)
        else:
            channels = [self._placed(channel, scale) for channel in np.moveaxis(self.colours, -1, 0)]
            drawn = veiled(larger, np.stack(channels, axis=-1), self._placed(np.ones(self.grid.shape), scale), alpha)
        top, left, height, width = (scale * side for side in self.box or (0, 0, *self.image.shape[:2]))
        if self.framed:
            ImageDraw.Draw(drawn).rectangle((left, top, left + width - 1, top + height - 1), outline=PAPER)
        if self.asking is not None:
            row, column = self.asking
            patch_h, patch_w = (
                side * e / n for side, e, n in zip((height, width), self.extent, self.grid.shape, strict=True)
            )
            edges = (
                left + column * patch_w,
                top + row * patch_h,
                left + (column + 1) * patch_w,
                top + (row + 1) * patch_h,
            )
            right, bottom = min(edges[2], left + width), min(edges[3], top + height)
            _outline(drawn, tuple(round(edge) for edge in (*edges[:2], right, bottom)))
        return drawn

    def save(self, path: str | Path, alpha: float = 0.6) -> Path:
        """Writes the overlay; a picture under 256 pixels is enlarged a whole number of times, to be seen.

        Raises:
            VitralError: the file's ending is not a picture's, or it cannot be written.
        """
        return save_picture(self.overlay(alpha, self._readable_scale()), path)

    def _heat(self, scale: int) -> NDArray[np.float64]:
        """`map`, [scale*H, scale*W]."""
        return self._placed(normalise(self.grid, self.floor), scale)

    def _placed(self, values: NDArray[np.floating], scale: int) -> NDArray[np.float64]:
        """[h, w] over the part that the model saw, 0 elsewhere: [scale*H, scale*W]."""
        height, width = self.image.shape[:2]
        top, left, box_h, box_w = (scale * side for side in self.box or (0, 0, height, width))
        covered = upsample(values, (round(box_h * self.extent[0]), round(box_w * self.extent[1])))
        return place(covered[:box_h, :box_w], (top, left, box_h, box_w), (scale * height, scale * width))

    def _readable_scale(self) -> int:
        return max(1, math.ceil(READABLE / max(self.image.shape[:2])))

    def _repr_png_(self) -> bytes:
        return png(self.overlay(scale=self._readable_scale()))

    def _repr_html_(self) -> str:
        scale = self._readable_scale()
        height, width = self.image.shape[:2]
        pictures = [Image.fromarray(self.image), self.overlay(scale=scale)]
        images = "".join(
            f'<img alt="{name}" width="{width * scale}" height="{height * scale}" '
            'style="max-width:48%;height:auto;margin:0 8px 4px 0;border-radius:4px;image-rendering:auto" '
            f'src="data:image/png;base64,{base64.b64encode(png(picture)).decode()}">'
            for name, picture in zip(("the picture", "what counted"), pictures, strict=True)
        )
        answer = f"<b>{html.escape(self.label)}</b> {self.probability:.1%} · " if self.label else ""
        words = answer + html.escape(self.words)
        return f'<figure style="margin:0">{images}<figcaption>{words}</figcaption></figure>'


def veiled(
    image: NDArray[np.uint8], colours: NDArray[np.floating], where: NDArray[np.floating], alpha: float
) -> Image.Image:
    """Colours [H, W, 3] in [0, 1] over a picture [H, W, 3], as strong as `alpha` where `where` [H, W] is 1."""
    share = (alpha * where)[..., None]
    return Image.fromarray(np.rint(image * (1 - share) + 255 * colours * share).astype(np.uint8))


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
    image: NDArray[np.uint8],
    maps: NDArray[np.floating],
    title: str = "",
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    colours: str = "inferno",
    asking: tuple[int, int] | None = None,
) -> Image.Image:
    """The picture above a grid of maps, a row a layer and a column a head.

    Each panel is the picture, coloured from 0 to the map's own largest value; a map without contrast gives no colour, and the title then has
    a line that says so. Patches are drawn as they are, not smoothed: the model knows no finer.

    Args:
        image: uint8 [H, W, 3], the picture that the model saw.
        maps: [layers, heads, h, w], values of 0 and more.
        title: a line or several, drawn beside the picture.
        rows: a label a layer; "layer 0" and on when not given.
        columns: a label a head; "head 0" and on when not given.
        asking: (row, column) of the patch whose reading this is, outlined in each panel.

    Returns:
        A picture on white, as large as the grid needs.
    """
    assert maps.ndim == 4, f"maps {maps.shape} are not [layers, heads, h, w]"
    layers, heads = maps.shape[:2]
    rows = [f"layer {i}" for i in range(layers)] if rows is None else rows
    columns = [f"head {i}" for i in range(heads)] if columns is None else columns
    assert (len(rows), len(columns)) == (layers, heads), "a label a layer and a label a head"
    small, text = ImageFont.load_default(13), ImageFont.load_default(15)

    title = "\n".join(filter(None, (title, colourless(maps))))
    cell_h, cell_w = _cell(image.shape[0] / image.shape[1], maps.shape[2:])
    left = MARGIN + math.ceil(max(small.getlength(row) for row in rows)) + 10
    step_x = max(cell_w, math.ceil(max(small.getlength(column) for column in columns)) + 4) + GAP
    step_y = max(cell_h, 16) + GAP

    header = _header(image, title, colours, text, small)
    small_image = np.asarray(Image.fromarray(image).resize((cell_w, cell_h), Image.Resampling.BOX))
    top = MARGIN + header.height + MARGIN + 20
    width = max(left + heads * step_x - GAP, MARGIN + header.width) + MARGIN
    figure = Image.new("RGB", (width, top + layers * step_y - GAP + MARGIN), PAPER)
    figure.paste(header, (MARGIN, MARGIN))
    draw = ImageDraw.Draw(figure)
    for j, column in enumerate(columns):
        draw.text((left + j * step_x + cell_w / 2, top - 8), column, INK, small, anchor="ms")
    for i, row in enumerate(rows):
        y = top + i * step_y
        draw.text((left - 10, y + cell_h / 2), row, INK, small, anchor="rm")
        for j in range(heads):
            # from 0, so that what draws little is dark; of a map without contrast nothing stands out
            share = normalise(maps[i, j], floor=0.0)
            panel = overlay(small_image, upsample(share, (cell_h, cell_w), smooth=False), PANEL_ALPHA, colours)
            if asking is not None:
                patch_h, patch_w = cell_h // maps.shape[2], cell_w // maps.shape[3]
                y0, x0 = asking[0] * patch_h, asking[1] * patch_w
                _outline(panel, (x0, y0, x0 + patch_w, y0 + patch_h))
            figure.paste(panel, (left + j * step_x, y))
    return figure


def colourless(maps: NDArray[np.floating]) -> str:
    """What to say of the maps [layers, heads, h, w] that have no contrast, and so no colour in `grid_figure`; "" where all have some."""
    even = sum(is_even(each) for row in maps for each in row)
    return f"without colour: {even} of {maps.shape[0] * maps.shape[1]} that read all patches alike" if even else ""


def _outline(picture: Image.Image, edges: tuple[int, ...]) -> None:
    """Mark the box (left, top, right, bottom), which ends before right and bottom: cyan on black is in no colour map."""
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


def _header(
    image: NDArray[np.uint8],
    title: str,
    colours: str,
    text: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    small: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> Image.Image:
    """The picture, and beside it the title and the colour bar."""
    scale = 176 / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    how = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS
    picture = Image.fromarray(image).resize((width, height), how)

    lines = title.split("\n") if title else []
    bar_w, bar_h, line_h = 180, 12, 22
    words_w = math.ceil(max([text.getlength(line) for line in lines] + [bar_w + 4.0]))
    words_h = len(lines) * line_h + 8 + bar_h + 24
    band = Image.new("RGB", (width + MARGIN + words_w, max(height, words_h)), PAPER)
    band.paste(picture, (0, 0))
    draw = ImageDraw.Draw(band)
    x = width + MARGIN
    for i, line in enumerate(lines):
        draw.text((x, i * line_h), line, INK if i == 0 else FAINT, text, anchor="la")
    y = band.height - bar_h - 24
    ramp = np.broadcast_to(np.linspace(0, 1, bar_w), (bar_h, bar_w))
    band.paste(Image.fromarray(colourise(ramp, colours)), (x, y))
    draw.text((x, y + bar_h + 5), "0", FAINT, small, anchor="la")
    draw.text((x + bar_w, y + bar_h + 5), "largest in its panel", FAINT, small, anchor="ra")
    return band


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
