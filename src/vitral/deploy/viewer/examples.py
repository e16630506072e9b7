"""Three example pictures for a page without any: from the model's own data where those are at hand, else two photographs and a digit."""

import importlib.util
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import numpy as np
from PIL import Image

from vitral.data.bands import to_rgb
from vitral.data.builtin import BUILTIN, at_hand
from vitral.data.listers import list_data
from vitral.data.listing import Listing
from vitral.data.options import DataOptions
from vitral.deploy.viewer.images import Images, Stored
from vitral.drawing.figure import png
from vitral.errors import VitralError
from vitral.training.reopen import source_of_run

COUNT = 3
PATIENCE = 2.0
"""Seconds that a page waits for the examples."""
PHOTOGRAPHS = {"china.jpg": "temple", "flower.jpg": "flower"}


class Examples:
    """Example pictures, found in a thread of their own, for listing a large folder takes long."""

    def __init__(self, model: str, images: Images) -> None:
        self._model, self._images = Path(model), images
        self._found: list[Stored] = []
        self._thread = Thread(target=self._look, daemon=True)
        self._thread.start()

    def stored(self) -> list[Stored]:
        """The pictures; none if they are not found in time."""
        self._thread.join(PATIENCE)
        return list(self._found)

    def _look(self) -> None:
        found = []
        for label, data in pictures(self._model):
            with suppress(VitralError):  # perhaps smaller than a patch
                found.append(self._images.add(data, label, stays=True))
        self._found = found


def pictures(model: Path) -> Iterator[tuple[str, bytes]]:
    """Three times (its label, an encoded picture)."""
    try:
        yield from own_pictures(model)
    except VitralError:  # gone, moved or unreadable
        yield from common_pictures()


def own_pictures(model: Path) -> list[tuple[str, bytes]]:
    """One picture each of three classes of a run's data, test images where the data have a test split.

    Raises:
        VitralError: the data are unknown, or cannot be read without a download.
    """
    source = source_of_run(model)
    if source is None:
        raise VitralError(f"{model}: no run lies beside it")
    data, _, recipe = source
    if data in BUILTIN and not at_hand(data, recipe.data):
        raise VitralError(f"{data}: would have to be fetched")
    listing = list_data(data, recipe.data, training=False, labelled=recipe.objective.labelled)
    return [(listing.describe(i), _encoded(listing, i)) for i in chosen(listing)]


def chosen(listing: Listing) -> list[int]:
    """Images of classes that are spread over the list of classes."""
    test = [i for i, split in enumerate(listing.given or ()) if split == "test"]
    first: dict[str, int] = {}
    for i in test or range(len(listing.targets)):
        first.setdefault(listing.describe(i), i)
    every = list(first.values())
    return [every[k] for k in dict.fromkeys(np.linspace(0, len(every) - 1, COUNT).round().astype(int).tolist())]


def common_pictures() -> Iterator[tuple[str, bytes]]:
    """scikit-learn's two photographs and one of its digits."""
    spec = importlib.util.find_spec("sklearn")
    assert spec is not None, "scikit-learn is a dependency"
    assert spec.submodule_search_locations, "scikit-learn is a package"
    folder = Path(spec.submodule_search_locations[0]) / "datasets" / "images"
    for name, label in PHOTOGRAPHS.items():
        yield label, (folder / name).read_bytes()
    digits = BUILTIN["digits"](DataOptions())
    yield f"digit {digits.describe(0)}", _encoded(digits, 0)


def _encoded(listing: Listing, i: int) -> bytes:
    seen = listing.images.inspect(i, None)
    if seen.encoded is not None:
        return seen.encoded
    return png(Image.fromarray(to_rgb(seen.pixels)))
