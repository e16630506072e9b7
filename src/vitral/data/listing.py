"""What a source found before any image was opened, and the mistakes in it that can be seen by then."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitral.data.images import Images
from vitral.errors import VitralError, all_of

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass
class Listing:
    """n images, their labels and, where the source says so, their splits."""

    name: str
    """What to call the data set."""
    images: Images
    labels: list[str]
    """Class names in order."""
    targets: np.ndarray
    """int64 [n], positions in `labels`."""
    given: list[str] | None = None
    """The split of each image, train, val or test; None if all splits are to be made."""
    strata: Sequence[str] | None = None
    """What to balance made splits by; None for the class."""
    test_count: int | None = None
    """The exact size of a test split to make, instead of a share."""


def build_listing(
    name: str,
    where: str,
    images: Images,
    labels: Sequence[str],
    given: list[str] | None = None,
    *,
    training: bool = True,
    problems: Sequence[str] = (),
) -> Listing:
    """A listing from each image's label (and split), or one VitralError with everything that cannot be meant so.

    where: the folder or file to name in an error. training: whether there must be two classes and images of each
    to train on. problems: what was found to be wrong before.
    """
    names = order_labels(set(labels))
    problems = [*problems, *_double_spellings(names)]
    if training:
        problems += _untrainable(labels, names, given)
    if problems:
        raise VitralError(all_of(where, problems))
    position = {label: i for i, label in enumerate(names)}
    targets = np.array([position[label] for label in labels], dtype=np.int64)
    return Listing(name, images, names, targets, given)


def order_labels(labels: set[str]) -> list[str]:
    """Class names in a stable order: by number if all are whole numbers, else by character."""
    if all(re.fullmatch(r"[+-]?\d+", label) for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def _untrainable(labels: Sequence[str], names: Sequence[str], given: list[str] | None) -> list[str]:
    """Why a classifier cannot be trained on these classes and splits, if it cannot."""
    problems = []
    if len(names) == 1:
        problems.append(
            f"there is one class only ({names[0]}); a classifier needs two or more, each with a folder or label of its own"
        )
    if given:
        trained = {label for label, split in zip(labels, given, strict=True) if split == "train"}
        only = [label for label in names if label not in trained]
        if not trained:
            problems.append(f"there is no train split, only {', '.join(sorted(set(given)))}; add it")
        elif only:
            problems.append(
                f"these classes have no image in the train split: {', '.join(only)}; "
                "add some, correct the label, or remove the class"
            )
    return problems


def _double_spellings(labels: Sequence[str]) -> list[str]:
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        plain = unicodedata.normalize("NFKC", label).casefold().strip()
        spellings[re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", plain)].append(label)
    double = [" = ".join(map(repr, same)) for same in spellings.values() if len(same) > 1]
    return [f"one class is spelled in several ways: {'; '.join(double)}; rename them to one spelling"] if double else []
