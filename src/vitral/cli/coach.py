"""The command that reads a run's log and says what seems to go wrong: coach."""

import json as json_module
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vitral.cli.options import argument

if TYPE_CHECKING:
    from vitral.training.run import Run


@dataclass
class CoachRun:
    """What seems to go wrong in a run, with the number that shows it, the likely cause and the command to try next.

    The run may be finished, stopped or still training; training prints the same advice by itself.

    Example: vitral coach runs/photos
    """

    run: Path = argument()
    """Folder of the run."""
    json: bool = False
    """Print JSON on stdout."""


def coach(given: CoachRun, words: list[str]) -> int:
    from vitral.guidance.coach.coach import replay, silence, summary
    from vitral.guidance.coach.worth import worth

    seen, remarks = replay(given.run)
    stands, following = summary(seen.run)
    found = worth(given.run)
    if given.json:
        told = {"stands": stands, "next": following, "remarks": [asdict(r) for r in remarks]}
        print(json_module.dumps(told | {"worth": None if found is None else asdict(found)}))
        return 0
    for remark in remarks:
        print(remark, file=sys.stderr)
    if remarks:
        print(f"coach: {stands}", file=sys.stderr)
    else:
        print(f"coach: {silence(seen.run)}{stands}.{f' Next: {following}' if following else ''}", file=sys.stderr)
    if found is not None:
        print(f"coach: {found}", file=sys.stderr)
    return 0


def attend(run: "Run") -> None:
    """Let the coach watch a run; of a resumed one it knows what was logged and what it has said."""
    from vitral.guidance.coach.coach import replay

    run.watch = replay(run.folder)[0].watch
