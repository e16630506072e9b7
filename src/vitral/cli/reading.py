"""Options of all commands that use a model: how image files are read, where a file itself does not say it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vitral.errors import VitralError

if TYPE_CHECKING:
    from vitral.predict import Predictor


@dataclass
class ReadingOptions:
    """How image files are read."""

    page: str | None = None
    """Page to read of files with several pages or frames, from 0, or for predict all; default: as in training."""
    value_range: tuple[float, float] | None = None
    """Values of black and white in files of more than 8 bits. Others are clipped; default: as in training."""

    def read_by(self, predictor: "Predictor", *, every: bool = False) -> "Predictor":
        """The predictor, reading files as these options say. every: whether --page all is allowed."""
        if self.page == "all" and not every:
            raise VitralError("--page all: this shows one page at a time; give its number, from 0")
        return predictor.reading_as(self.value_range, self.page)
