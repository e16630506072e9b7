"""One image's truth and prediction, as text."""

from typing import NamedTuple


class Verdict(NamedTuple):
    """One image's truth and prediction, as text."""

    label: str
    predicted: str
    probability: float | None
    """Of `predicted`; where an image can have several labels, of `furthest`."""
    furthest: str | None = None
    """Of several answers (a label, or "no" and a label) the one furthest from the truth."""
