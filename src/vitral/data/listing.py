"""What a source lists before any image is opened, and the mistakes that can be seen in it."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from vitral.data.images import Images
from vitral.data.problem import Problem
from vitral.data.targets import TARGETS, Labels, Targets
from vitral.errors import VitralError


@dataclass
class Listing:
    """n images, their labels and, where the source names them, their splits."""

    name: str
    """Of the data set."""
    images: Images
    labels: list[str]
    """Class names in order."""
    targets: Targets
    given: list[str] | None = None
    """The split of each image: train, val or test; None if the source names none."""
    strata: Sequence[str] | None = None
    """Groups over which made splits are balanced; None for the classes."""
    test_count: int | None = None
    """The exact size of a test split to make, instead of a share."""
    problems: Sequence[Problem] = ()
    """What training stops for; raised together with what is wrong with the images."""
    skipped: Sequence[tuple[str, str]] = ()
    """(name, reason) of unreadable images that are not among them, as the source knows them already."""
    ignored: Sequence[str] = ()
    """Files and folders that were skipped: no images, or a vitral run."""
    understood: Sequence[str] = ()
    """How the data were understood and what was left out, as messages."""

    def of(self, i: int) -> list[str]:
        """The labels of image i, in order."""
        return self.targets.named(i, self.labels)

    def key(self, i: int) -> str:
        """The target of image i as text, as in `Targets.key`."""
        return self.targets.key(i, self.labels)

    def describe(self, i: int) -> str:
        """The target of image i in a message."""
        return self.targets.describe(i, self.labels)


def build_listing(
    name: str,
    images: Images,
    labels: Labels,
    given: list[str] | None = None,
    *,
    task: str | None = None,
    training: bool = True,
    problems: Sequence[Problem] = (),
) -> Listing:
    """A listing from each image's label or set of labels, and its split if given; what is wrong with them is added to its problems.

    task: a key of `TARGETS`; by default sets of labels are multilabel, others classify. training: whether there must be two classes or more, each
    with training images. problems: those found before. Raises VitralError if the labels do not suit the task.
    """
    kind = task or ("multilabel" if isinstance(next(iter(labels), ""), frozenset) else "classify")
    if kind not in TARGETS:
        raise VitralError(f"task {kind!r}: choose one of {', '.join(TARGETS)}")
    names, targets = TARGETS[kind].read(labels, name)
    problems = [*problems, *_double_spellings(names)]
    if training:
        problems += targets.problems(names, given)
    return Listing(name, images, names, targets, given, problems=problems)


def _double_spellings(labels: Sequence[str]) -> list[Problem]:
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        plain = unicodedata.normalize("NFKC", label).casefold().strip()
        spellings[re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", plain)].append(label)
    double = [" = ".join(map(repr, same)) for same in spellings.values() if len(same) > 1]
    if not double:
        return []
    text = f"one class is spelled in several ways: {'; '.join(double)}; rename them to one spelling"
    return [Problem("spellings", text, tuple(double))]
