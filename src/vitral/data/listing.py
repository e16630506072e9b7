"""What a source found before any image was opened, and the mistakes in it that can be seen by then."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitral.data.images import Images
from vitral.errors import VitralError

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
    name: str, where: str, images: Images, labels: Sequence[str], given: list[str] | None = None
) -> Listing:
    """A listing from each image's label (and split), or VitralError for classes that cannot be meant so.

    where: the folder or file to name in an error.
    """
    names = order_labels(set(labels))
    _check_spellings(where, names)
    if len(names) < 2:
        raise VitralError(
            f"{where}: there is one class only ({', '.join(names)}); a classifier needs two or more, "
            "each with a folder or label of its own"
        )
    if given is not None:
        trained = {label for label, split in zip(labels, given, strict=True) if split == "train"}
        if not trained:
            raise VitralError(f"{where}: there is no train split, only {', '.join(sorted(set(given)))}; add it")
        only = [label for label in names if label not in trained]
        if only:
            raise VitralError(
                f"{where}: these classes have no image in the train split: {', '.join(only)}; "
                "add some, correct the label, or remove the class"
            )
    position = {label: i for i, label in enumerate(names)}
    targets = np.array([position[label] for label in labels], dtype=np.int64)
    return Listing(name, images, names, targets, given)


def order_labels(labels: set[str]) -> list[str]:
    """Class names in a stable order: by number if all are whole numbers, else by character."""
    if all(re.fullmatch(r"[+-]?\d+", label) for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def _check_spellings(where: str, labels: Sequence[str]) -> None:
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        plain = unicodedata.normalize("NFKC", label).casefold().strip()
        spellings[re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", plain)].append(label)
    double = [" = ".join(map(repr, same)) for same in spellings.values() if len(same) > 1]
    if double:
        raise VitralError(
            f"{where}: one class is spelled in several ways: {'; '.join(double)}; rename them to one spelling"
        )
