"""Several maps of one picture side by side, each under its name."""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from vitral.drawing.figure import FAINT, GAP, INK, MARGIN, PAPER, SMALL, TEXT
from vitral.drawing.letters import wide, write
from vitral.explain.figure import Explanation
from vitral.explain.methods import titled

SIDE = 240  # the longer side of a panel, pixels
LINE = 20
ACROSS = 6
"""Panels in a line; more go below."""


def row_figure(maps: Mapping[str, Explanation], title: str) -> Image.Image:
    """The picture, then each map over it under its name, the class that it is about and whether it has no contrast, in lines of six.

    maps: by the names of their methods, or other names. title: above all.
    """
    first = next(iter(maps.values()))
    scale = SIDE / max(first.image.shape[:2])
    size = tuple(max(1, round(side * scale)) for side in first.image.shape[1::-1])  # width, height
    picture = Image.fromarray(first.image)
    panels = [("picture", "", picture)]
    panels += [(titled(name), _about(e), e.overlay(scale=max(1, round(scale)))) for name, e in maps.items()]
    words = max(wide(word, SMALL) for name, about, _ in panels for word in (name, about))
    step = max(size[0], int(np.ceil(words))) + 2 * GAP
    first_line, down = MARGIN + LINE + GAP, 2 * LINE + size[1] + 2 * GAP
    lines = -(-len(panels) // ACROSS)
    width = max(min(len(panels), ACROSS) * step - 2 * GAP, int(np.ceil(wide(title, TEXT))))
    figure = Image.new("RGB", (width + 2 * MARGIN, first_line + lines * down - 2 * GAP + MARGIN), PAPER)
    draw = ImageDraw.Draw(figure)
    write(draw, (MARGIN, MARGIN), title, INK, TEXT)
    for i, (name, about, drawn) in enumerate(panels):
        x, y = MARGIN + i % ACROSS * step, first_line + i // ACROSS * down
        write(draw, (x, y), name, INK, SMALL)
        write(draw, (x, y + LINE), about, FAINT, SMALL)
        how = Image.Resampling.NEAREST if drawn.width < size[0] else Image.Resampling.LANCZOS
        figure.paste(drawn.resize((size[0], size[1]), how), (x, y + 2 * LINE))
    return figure


def _about(explanation: Explanation) -> str:
    target = f"for {explanation.target}" if explanation.target else ""
    return ", ".join(filter(None, (target, explanation.even.partition(":")[0])))
