"""What the model could see: a few images whole, with what its view leaves out faded, beside the view."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitral.data.dataset import Split
from vitral.data.preprocess import Preprocess
from vitral.report.frame import picture
from vitral.report.parts import escape

SHOWN = 6
FADED = 0.25  # of the contrast that is left


@dataclass(frozen=True)
class Seen:
    """An image, uint8 [h, w, 3], with what the model does not see faded; and the view, uint8 [H, W, 3]."""

    name: str
    image: NDArray[np.uint8]
    view: NDArray[np.uint8]
    share: float
    """Of the image that is in the view."""


def seen_images(split: Split, steps: Preprocess, count: int = SHOWN) -> list[Seen]:
    """Images from all over the split."""
    found = []
    for i in np.linspace(0, len(split) - 1, min(count, len(split))).round().astype(np.int64).tolist():
        pixels = split.read(i, steps.channels)
        image, view = steps.shown(pixels), steps.shown(steps.view(pixels))
        h, w = image.shape[:2]
        top, left, height, width = steps.box(h, w)
        inside = np.zeros((h, w, 1), bool)
        inside[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)] = True
        faded = (255 - FADED * (255 - image.astype(np.float32))).round().astype(np.uint8)
        found.append(Seen(split.names[i], np.where(inside, image, faded), view, float(inside.mean())))
    return found


def seen_section(images: Sequence[Seen]) -> str:
    """HTML; nothing where there are no images."""
    if not images:
        return ""
    figures = "".join(
        f"<figure><div class=views>{picture(each.image, each.name)}{picture(each.view, 'what the model sees of it')}</div>"
        f"<figcaption>{'the whole image' if each.share == 1 else f'{each.share:.0%} of the image'}<small>{escape(each.name)}</small>"
        "</figcaption></figure>"
        for each in images
    )
    return (
        "<section><h2>What the model could see</h2><p class=soft>Images as they are, what the model is not shown of them faded, and beside each what "
        f"it gets. --resize crop, squash or pad chooses another view.</p><div class=gallery>{figures}</div></section>"
    )
