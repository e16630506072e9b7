"""An explanation of one picture: as values, as an overlay, in a file or in a notebook."""

import html
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vitral.drawing.colours import evenness, normalise, overlay, place, upsample
from vitral.drawing.figure import PAPER, captioned, data_url, outlined, png, save_picture, veiled

READABLE = 256  # smaller pictures are enlarged to at least this many pixels on their longer side


@dataclass(frozen=True, repr=False)
class Explanation:
    """A map over one picture.

    image: uint8 [H, W, 3], the picture.
    grid: [h, w], the raw values, usually one a patch.
    method: what the map shows, in words.
    label, probability: the predicted class and its probability in [0, 1].
    box: (top, left, height, width) of the part that the model saw, which `grid` covers; None for all of it. It is framed in the overlay.
    asking: (row, column) of the patch whose attention this is, outlined in the overlay; None for other maps.
    target: the class that the map is about; "" if it is about none, as attention is.
    floor: the value drawn as 0: 0 where negative values speak against the class; None for the smallest.
    extent: height and width of the grid over those of `box`: above 1 where the last patches reach beyond the picture.
    colours: [h, w, 3] in [0, 1], drawn instead of the grid.
    place: what the map is about, x0, y0, x1, y1 in pixels of the picture, outlined in the overlay; None for the whole picture.
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
    place: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        assert self.image.ndim == 3, f"image {self.image.shape} is not [H, W, 3]"
        assert self.grid.ndim == 2, f"grid {self.grid.shape} is not [h, w]"

    @property
    def even(self) -> str:
        """That the map has no contrast, with its values; "" where it has some. Without contrast it is drawn without colour."""
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
            patch_h, patch_w = height * self.extent[0] / self.grid.shape[0], width * self.extent[1] / self.grid.shape[1]
            right = min(left + (column + 1) * patch_w, left + width)
            bottom = min(top + (row + 1) * patch_h, top + height)
            edges = (left + column * patch_w, top + row * patch_h, right, bottom)
            outlined(drawn, tuple(round(edge) for edge in edges))
        if self.place is not None:
            outlined(drawn, tuple(round(scale * edge) for edge in self.place))
        return drawn

    def save(self, path: str | Path, alpha: float = 0.6, caption: str = "") -> Path:
        """Writes the overlay, above its caption if one is given; a picture under 256 pixels is enlarged by a whole factor.

        Raises:
            VitralError: the file's ending is not a picture's, or it cannot be written.
        """
        drawn = self.overlay(alpha, self._readable_scale())
        return save_picture(captioned(drawn, caption) if caption else drawn, path)

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
            f'src="{data_url(picture)}">'
            for name, picture in zip(("the picture", "what counted"), pictures, strict=True)
        )
        answer = f"<b>{html.escape(self.label)}</b> {self.probability:.1%} · " if self.label else ""
        words = answer + html.escape(self.words)
        return f'<figure style="margin:0">{images}<figcaption>{words}</figcaption></figure>'
