"""How a command that uses a model reads image files, where they do not say it themselves: one group of options for all of them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vitral.errors import VitralError

if TYPE_CHECKING:
    from vitral.predict import Predictor


@dataclass
class ReadingOptions:
    """How files are read; default: as in training."""

    page: str | None = None
    """Of files with several pages or frames the one that is read, from 0. predict can read all of them; default: as in training."""
    value_range: tuple[float, float] | None = None
    """What is black and what is white in files of more than 8 bits. What lies beyond is clipped; default: as in training."""

    def read_by(self, predictor: "Predictor", *, every: bool = False) -> "Predictor":
        """The predictor, reading files so. every: whether all pages of a file can be meant."""
        if self.page == "all" and not every:
            raise VitralError("--page all: this shows one page at a time; give its number, from 0")
        return predictor.reading_as(self.value_range, self.page)
