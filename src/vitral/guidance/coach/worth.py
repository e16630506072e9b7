"""Can I use it? What a finished run's model is worth, in two sentences: for the terminal, the report and the coach.

The first says what it gets right, how surely, and how that stands to what needs no training on the same images; the second which class it cannot do,
and the one thing that would help most. Everything is read from the run's folder.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitral.errors import portion, ratio
from vitral.evaluation.metrics import wilson
from vitral.guidance.coach import places
from vitral.guidance.coach.coach import advice, replay
from vitral.guidance.coach.history import History
from vitral.guidance.coach.symptoms import Remark

HELPS = {  # what helps against what the coach saw, as the subject of a sentence
    "inputs": "images in which there is something to see",
    "leak": "splits without copies, as its scores are too good",
    "dead": "a lower learning rate",
    "frozen": "weights that learn",
    "exploding": "a lower learning rate",
    "rate_high": "a lower learning rate",
    "rate_low": "a higher learning rate",
    "stuck": "a look at the labels",
    "collapsed": "a look at the labels and at how common the classes are",
    "unlike": "a validation split that is like training",
    "memorised": "a look at the labels, or more images",
    "noise": "correct labels",
    "overfitting": "more images, or stronger augmentation",
    "budget": "more time",
    "unfound": "trained weights, or far more steps",
}


@dataclass(frozen=True)
class Worth:
    """What a model is worth."""

    right: str
    """The first sentence."""
    helps: str
    """The second one."""
    command: str
    """What would help most, to be copied; "" where no command brings it."""

    @property
    def sentences(self) -> list[str]:
        """For a page: the sentences, then the command, which may be ""."""
        return [self.right, self.helps, self.command]

    def __str__(self) -> str:
        return f"{self.right} {self.helps}"


def worth(folder: Path) -> Worth | None:
    """Of a run's folder; None where there are no scores, or nothing to hold them against (an older run, or a task without right and wrong)."""
    path = folder / "scores.json"
    if not path.exists():
        return None
    scores = json.loads(path.read_text())
    in_places = places.what_is_right(scores)
    if in_places is None and not scores.get("beside"):
        return None
    seen, remarks = replay(folder)
    helps, command = _what_helps(remarks, seen.run)
    if in_places is not None:
        return Worth(in_places, f"{places.weakest(scores)} {helps}", command)
    return Worth(what_is_right(scores), f"{weakest(scores['classes'])} {helps}", command)


def what_is_right(scores: dict[str, Any]) -> str:
    """Right answers with their interval, and how they stand to what needs no training."""
    images: int = scores["images"]
    share: float = scores["top1"] if "top1" in scores else scores["exact_match"]
    what = "It is right for" if "top1" in scores else "It gets all labels right for"
    low, high = wilson(round(share * images), images)
    said = f"{what} {portion(share, images, 'test image' if scores['split'] == 'test' else 'validation image')}"
    told: dict[str, list[str]] = {}
    for each in scores["beside"]:
        told.setdefault(each["told"], []).append(f"{each['name']} ({ratio(each['right'], images)})")
    words = {
        "better": "better than {}",
        "unclear": "more than {}, but so few images cannot show that it is better",
        "no better": "no better than {}",
        "worse": "worse than {}",
    }
    stands = [words[kind].format(" and ".join(told[kind])) for kind in words if kind in told]
    return f"{said} (95 % interval {low:.0%} to {high:.0%}): {'; '.join(stands)}."


def weakest(rows: list[dict[str, Any]]) -> str:
    """The class it does worst, and whether that is more than chance."""
    rows = [row for row in rows if row["support"]]
    if not rows:
        return "None of these images has a label."
    row = min(rows, key=lambda row: row["recall_interval"][1])
    hits, support = round(row["recall"] * row["support"]), row["support"]
    found = f"{row['label']} ({hits:,} of {support:,} found)"
    if row["recall_interval"][1] < 0.5:
        return f"It cannot do {found}."
    others = [other for other in rows if other is not row]
    rest = sum(o["recall"] * o["support"] for o in others) / max(1, sum(o["support"] for o in others))
    if row["recall_interval"][1] < rest:
        return f"Its weakest class is {found}."
    return f"Its lowest class is {found}, on too few images to be sure."


def _what_helps(remarks: list[Remark], run: History) -> tuple[str, str]:
    """The one thing that would help most, as a sentence, and its command if there is one."""
    remark = next((remark for remark in remarks if remark.kind in HELPS), None)
    what, command = (HELPS[remark.kind], remark.next) if remark is not None else advice(run)
    return f"What would help most: {what}.", command
