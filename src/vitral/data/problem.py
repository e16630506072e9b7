"""What is wrong with data before an image is read, in words and for programs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """A mistake in how images lie or are labelled, for which training stops."""

    kind: str
    """loose_images, empty_classes, split_folders, nested_classes, closed_folders, no_image, no_label, wrong_split, clashing_rows,
    missing_images, ambiguous_images, unlisted_images, spellings, one_class, same_labels, no_train_split or untrained_classes.
    """
    text: str
    """What is wrong, and the remedy."""
    names: tuple[str, ...] = ()
    """All that it concerns: images, folders, rows or classes."""
