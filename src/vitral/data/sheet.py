"""A contact sheet of what training will show the model: images in the evaluation view, augmented, and mixed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from vitral.data.bands import to_rgb
from vitral.data.loader import TrainingBatches
from vitral.data.things import Boxes
from vitral.drawing.letters import wide, write

SIDE = 144  # pixels that the longer side of a picture should have on the sheet
GAP = 8
LINE, LETTERS = 18, 12  # heights of a line of text and of its letters
INK, FAINT, PAPER = (32, 32, 32), (120, 120, 120), (255, 255, 255)


def contact_sheet(batches: TrainingBatches, labels: Sequence[str], images: int = 6, views: int = 6) -> Image.Image:
    """A row for each of the run's first `images` training images: in the evaluation view, then augmented as in epochs 1 to `views` (for every kind of
    view, if there are several). If batches are mixed, two more rows with the first image of each of the first batches and the shares of its
    classes: a batch has one weight, mostly near 0 or 1, so that a single batch would show little.

    The pixels are those that the run with this seed sees, enlarged if tiny. labels: class names in order.
    """
    targets = batches.split.targets
    _, indices, _ = batches.indices(0)
    chosen = list(dict.fromkeys(indices.tolist()))[:images]
    kinds = len(batches.augmentations)

    bands = batches.preprocess.show_bands
    columns = 1 + views * kinds
    names = [f"epoch {v + 1}" + (f", view {k + 1}" if kinds > 1 else "") for k in range(kinds) for v in range(views)]
    rows = [Row(["as evaluated", *names], [], heading=True)]
    for index in chosen:
        original = batches.read(index)
        h, w = original.shape[1:]
        cells = [(batches.preprocess.view(original), batches.preprocess.where(h, w))]
        for augmentation in batches.augmentations:
            for epoch in range(views):
                draws = [d[0] for d in augmentation.draw(batches.seed, epoch, np.array([index * batches.repeats]))]
                cells.append((augmentation(original, draws), augmentation.where(h, w, draws)))
        drawn = [picture(pixels, bands, partial(targets.drawn, index, view)) for pixels, view in cells]
        rows.append(Row([f"{targets.describe(index, labels)}   {batches.split.names[index]}"], drawn))
    if batches.compose is not None:
        rows += joined(batches, chosen[:2], columns)
    if batches.mix is not None:
        for first in (0, columns):
            mixed = [batches.ends(step) for step in range(first, first + columns)]
            rows.append(
                Row([f"mixed, batch {first + 1}", *map(str, range(first + 2, first + columns + 1))], [], heading=True)
            )
            shown = [picture(batch.images[0], bands) for batch in mixed]
            rows.append(Row([shares(batch.targets[0], labels) for batch in mixed], shown))
    return draw(rows, columns)


def joined(batches: TrainingBatches, chosen: Sequence[int], columns: int) -> "list[Row]":
    """Rows of these images as they are joined with others in epochs 1, 2, ..., with their objects."""
    targets = batches.split.targets
    assert isinstance(targets, Boxes)
    rows = [Row(["joined with others", *(f"epoch {k + 1}" for k in range(1, columns))], [], heading=True)]
    for index in chosen:
        shown = []
        for epoch in range(columns):
            batch = batches.one(epoch, index)
            shown.append(
                picture(batch.images[0], batches.preprocess.show_bands, partial(targets.drawn_targets, batch.targets))
            )
        rows.append(Row([batches.split.names[index]], shown))
    return rows


@dataclass
class Row:
    """Pictures side by side with texts below (one for the whole row, or one for each), or texts alone."""

    texts: list[str]
    pictures: list[Image.Image]
    heading: bool = False

    @property
    def height(self) -> int:
        return max((p.height for p in self.pictures), default=0) + LINE + (GAP // 2 if self.heading else GAP)


def picture(
    pixels: Tensor,
    bands: tuple[int, int, int] | None = None,
    draw_on: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = lambda rgb: rgb,
) -> Image.Image:
    """[C, h, w] on the 0..255 scale, resized to about a sheet's cell: tiny images by whole factors, so that their pixels stay visible.

    bands: as in `to_rgb`. draw_on: draws on the picture, [h, w, 3].
    """
    image = Image.fromarray(draw_on(to_rgb(pixels, bands)))
    factor = SIDE / max(image.size)
    if factor >= 2:
        return image.resize((image.width * int(factor), image.height * int(factor)), Image.Resampling.NEAREST)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS)


def shares(target: Tensor, labels: Sequence[str]) -> str:
    """The two largest shares of an image's classes, in words."""
    values, classes = target.topk(min(2, len(target)))
    pairs = zip(values.tolist(), classes.tolist(), strict=True)
    return ", ".join(f"{v:.0%} {labels[k]}" for v, k in pairs if v >= 0.005)


def draw(rows: list[Row], columns: int) -> Image.Image:
    width = max(p.width for row in rows for p in row.pictures)
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, sum(row.height for row in rows) + 2 * GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    top = GAP
    for row in rows:
        below = top + max((p.height for p in row.pictures), default=0)
        for column, image in enumerate(row.pictures):
            sheet.paste(image, (GAP + column * (width + GAP), top))
        for column, text in enumerate(row.texts):
            room = width if len(row.texts) > 1 else sheet.width - 2 * GAP
            at = (GAP + column * (width + GAP), below + 2)
            write(pen, at, fitting(text, room), FAINT if row.heading else INK, LETTERS)
        top += row.height
    return sheet


def fitting(text: str, room: int) -> str:
    """The text, cut to a width in pixels."""
    if wide(text, LETTERS) <= room:
        return text
    while text and wide(text + "…", LETTERS) > room:
        text = text[:-1]
    return text + "…"
