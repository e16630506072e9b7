"""Scores in words that claim no more than the number of images can show: against always predicting the commonest class, and calibration."""

from typing import Literal

from vitral.errors import FEW, counted
from vitral.evaluation.calibration import ReliabilityBin, error_by_chance, expected_calibration_error
from vitral.evaluation.metrics import wilson

Told = Literal["worse", "no better", "unclear", "better"]
SURE = 2.0  # times the error by chance, above which a calibration error counts
SIDED = 0.25  # share of the error that must come from each side for it to be called two-sided


def against(share: float, chance: float, images: int) -> Told:
    """How an accuracy compares with the share of the commonest class, by Wilson's 95 % interval.

    unclear: it is higher, but so few images cannot show that this is more than chance.
    """
    right, commonest = round(share * images), round(chance * images)
    low, high = wilson(right, images)
    if low > chance:
        return "better"
    if high < chance:
        return "worse"
    return "unclear" if right > commonest else "no better"


def beside_commonest(share: float, chance: float, images: int, what: str, *, score: str = "top-1 ") -> str:
    """`against` as a sentence. what: one of the images, as in "test image"; score: the name of the share."""
    right, commonest = round(share * images), round(chance * images)
    of = counted(images, what)
    if min(right, commonest) < FEW:
        said, by_it = f"{right:,} right of {of}", f"{commonest:,} of {images:,}"
    else:
        said, by_it = f"{score}{share:.1%} on {of}", f"{chance:.1%}"
    always = f"always saying the commonest class ({by_it})"
    told = against(share, chance, images)
    if told == "unclear":
        return f"{said} is more than {always}, but so few images cannot show that it is better"
    return f"{said} is {told} than {always}"


OF_ANSWERS = ("more sure than it should be", "less sure than it could be", "image")
OF_YES = ("too high on average", "too low on average", "answer")


def calibration_words(bins: list[ReliabilityBin], kind: tuple[str, str, str] = OF_ANSWERS) -> str:
    """Whether probabilities are too high or too low on average, and the calibration error beside that by chance.

    kind: words for probabilities that are too high, for those that are too low, and for what is in the bins.
    """
    high_words, low_words, of_what = kind
    images = sum(b.images for b in bins)
    said, right, over, under = 0.0, 0, 0.0, 0.0
    for b in bins:
        if b.confidence is not None and b.accuracy is not None:
            said += b.images * b.confidence / images
            right += round(b.images * b.accuracy)
            over += b.images * max(0.0, b.confidence - b.accuracy) / images
            under += b.images * max(0.0, b.accuracy - b.confidence) / images
    low, high = wilson(right, images)
    error, chance = expected_calibration_error(bins), error_by_chance(bins)
    of = counted(images, of_what)
    if said > high:
        lean = high_words
    elif said < low:
        lean = low_words
    else:
        lean = f"no difference that {of} can show"
    groups = f"over {len(bins)} groups the expected calibration error is {error:.1%}"
    if error <= chance:
        groups += f", no more than chance alone makes on {of} (about {chance:.1%})"
    elif error <= SURE * chance:
        groups += f", where chance alone makes about {chance:.1%} on {of}: too little to tell"
    elif min(over, under) >= SIDED * error:
        groups += f" (by chance about {chance:.1%}): too sure of some answers, and not sure enough of others"
    else:
        groups += f" (by chance about {chance:.1%})"
    return f"{lean}; {groups}"
