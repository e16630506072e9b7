"""What a source found before any image was opened, and the mistakes in it that can be seen by then."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitral.data.images import Images

Labels = Sequence[str] | Sequence[frozenset[str]]
"""Each image's label, or the set of its labels."""
_SPLIT_WORDS = {
    "training": "train", "train": "train", "trn": "train", "validation": "val", "valid": "val", "val": "val", "dev": "val",
    "testing": "test", "test": "test", "tst": "test",
}  # fmt: skip
_BESIDE = "datasets?|data|sets?|splits?|parts?|subset|images?|imgs?|pictures?|pics?|photos?|files?|samples?|folder|dir|seg|cls|crops?|raw"
_SPLIT_NAME = re.compile(f"(?:{_BESIDE})*({'|'.join(_SPLIT_WORDS)})(?:{_BESIDE})*")


def split_of(name: str) -> str | None:
    """The split that a folder or a cell of a table means, train, val or test: Training, seg_train, TEST_SET, validationImages; else None."""
    found = _SPLIT_NAME.fullmatch(re.sub(r"[\W\d_]+", "", unicodedata.normalize("NFKC", name).casefold()))
    return _SPLIT_WORDS[found[1]] if found else None


@dataclass(frozen=True)
class Problem:
    """A mistake in how images lie or are labelled, for which training stops."""

    kind: str
    """loose_images, empty_classes, split_folders, nested_classes, closed_folders, no_image, no_label, wrong_split, folds, clashing_rows,
    missing_images, ambiguous_images, unlisted_images, spellings, one_class, same_labels, no_train_split or untrained_classes.
    """
    text: str
    """What is wrong, and the remedy."""
    names: tuple[str, ...] = ()
    """All that it concerns: images, folders, rows or classes."""


@dataclass
class Listing:
    """n images, their labels and, where the source says so, their splits."""

    name: str
    """What to call the data set."""
    images: Images
    labels: list[str]
    """Class names in order."""
    targets: np.ndarray
    """int64 [n], positions in `labels`; or float32 [n, K] of zeros and ones where an image can have several labels."""
    given: list[str] | None = None
    """The split of each image, train, val or test; None if all splits are to be made."""
    strata: Sequence[str] | None = None
    """What to balance made splits by; None for the class."""
    test_count: int | None = None
    """The exact size of a test split to make, instead of a share."""
    problems: Sequence[Problem] = ()
    """What training stops for, once the images have been read and it is known what else is wrong."""
    ignored: Sequence[str] = ()
    """Files and folders that were come across and do not count: no images, or a run of ours."""
    understood: Sequence[str] = ()
    """How the data were understood, and what was left out, for a person."""

    @property
    def multi_label(self) -> bool:
        return self.targets.ndim == 2

    def of(self, i: int) -> list[str]:
        """The labels of image i, in order."""
        return named(self.targets[i], self.labels)

    def said(self, i: int) -> str:
        """The labels of image i, for a person."""
        return in_words(self.of(i))


def build_listing(
    name: str,
    images: Images,
    labels: Labels,
    given: list[str] | None = None,
    *,
    training: bool = True,
    problems: Sequence[Problem] = (),
) -> Listing:
    """A listing from each image's label, or set of labels (and split), with everything that cannot be meant so among its problems.

    training: whether there must be two classes (or labels that some images have and others do not) and images of each to train on. problems: what
    was found to be wrong before.
    """
    sets = [label if isinstance(label, frozenset) else frozenset([label]) for label in labels]
    names = order_labels({label for each in sets for label in each})
    multi_label = isinstance(next(iter(labels), ""), frozenset)
    problems = [*problems, *_double_spellings(names)]
    if training:
        problems += [*(_unlearnable(sets) if multi_label else _alone(names)), *_untrained(sets, names, given)]
    position = {label: i for i, label in enumerate(names)}
    if multi_label:
        targets = np.zeros((len(sets), len(names)), np.float32)
        for row, each in zip(targets, sets, strict=True):
            row[[position[label] for label in each]] = 1
    else:
        targets = np.array([position[label] for each in sets for label in each], dtype=np.int64)
    return Listing(name, images, names, targets, given, problems=problems)


def named(target: np.ndarray, labels: Sequence[str]) -> list[str]:
    """An image's labels from its row of the targets: one position, or [K] of which those above a half count."""
    return [labels[k] for k in np.flatnonzero(target > 0.5).tolist()] if target.ndim else [labels[int(target)]]


def in_words(labels: Sequence[str]) -> str:
    """A label, several, or none, for a person."""
    return ", ".join(labels) or "no label"


def order_labels(labels: set[str]) -> list[str]:
    """Class names in a stable order: by number if all are whole numbers, else by character."""
    if all(re.fullmatch(r"[+-]?\d+", label) for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def _alone(names: Sequence[str]) -> list[Problem]:
    if len(names) != 1:
        return []
    text = (
        f"there is one class only ({names[0]}); a classifier needs two or more, each with a folder or label of its own"
    )
    return [Problem("one_class", text, tuple(names))]


def _unlearnable(sets: Sequence[frozenset[str]]) -> list[Problem]:
    if len(set(sets)) > 1:
        return []
    same = sorted(sets[0])
    text = (
        f"all images have the same labels ({in_words(same)}), so there is nothing to tell apart; add images with others"
    )
    return [Problem("same_labels", text, tuple(same))]


def _untrained(sets: Sequence[frozenset[str]], names: Sequence[str], given: list[str] | None) -> list[Problem]:
    """Why these classes cannot be trained with the splits as they are given, if they cannot."""
    if not given:
        return []
    if "train" not in given:
        there = sorted(set(given))
        return [Problem("no_train_split", f"there is no train split, only {', '.join(there)}; add it", tuple(there))]
    trained = {label for each, split in zip(sets, given, strict=True) if split == "train" for label in each}
    only = [label for label in names if label not in trained]
    if not only:
        return []
    text = f"these classes have no image in the train split: {', '.join(only)}; add some, correct the label, or remove the class"
    return [Problem("untrained_classes", text, tuple(only))]


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
