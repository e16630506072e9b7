"""The DATA argument, checked before anything is loaded or read."""

import difflib
import re
from pathlib import Path

from vitral.errors import VitralError

NAMES = ("digits", "fashion-mnist", "elpv")  # of the built-in data sets
RECIPE = ".toml"
SEVERAL = re.compile(r"\{\d+\.\.\d+\}")  # shards that are counted through


def look_at(data: str | Path) -> None:
    """Raise VitralError if there are no such data, or a recipe is given as data."""
    path = Path(data)
    if str(data) in NAMES or path.is_dir() or "://" in str(data) or SEVERAL.search(str(data)):
        return
    if path.suffix.lower() == RECIPE:
        raise VitralError(f"{data}: is a recipe, not data; to train by it: vitral train DATA --recipe {data}")
    if not path.exists():
        raise VitralError(
            f"{data}: there is no such folder or file, and it is no built-in data set ({', '.join(NAMES)}); "
            + (f"did you mean {near}?" if (near := _near(path)) else "check the path")
        )


def _near(path: Path) -> str | None:
    """The likeliest meaning: a built-in name, or a file or folder beside it."""
    try:
        beside = {each.name: str(each) for each in path.parent.iterdir()}
    except OSError:
        beside = {}
    known = ({name: name for name in NAMES} if len(path.parts) == 1 else {}) | beside
    found = difflib.get_close_matches(path.name, known, n=1)
    return known[found[0]] if found else None
