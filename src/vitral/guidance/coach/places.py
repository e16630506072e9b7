"""Runs whose answers are places (maps, objects, segments): what goes wrong in their scores, and what a finished model is worth.

A score of places has no error that one could compute from a share of images, so only large differences are remarked upon.
"""

from typing import Any

from vitral.errors import counted
from vitral.guidance import weights
from vitral.guidance.coach.history import History, Line
from vitral.guidance.coach.symptoms import Remark

TITLES = {"miou": "mIoU", "ap": "AP", "pq": "PQ"}
"""Headline scores by their names in logs and in scores.json."""
KINDS = {
    "class": "the wrong class",
    "place": "boxes in the wrong place",
    "duplicate": "objects found twice",
    "background": "finding what is not there",
    "missed": "objects that are missed",
}
AROUND = 3  # validations that are averaged: one alone jumps
FALLEN = 0.2  # of the best score, lost again
APART = 0.15  # of the score on training images above that on validation images
ALL_BUT = 0.8  # score on training images from which they are nearly learned by heart,
HALF = 0.5  # and the share of it that validation images must have
LATE, NOTHING, LEARNED = 0.9, 0.01, 0.75  # of the budget; a score; what is left of the loss


def headline(run: History) -> str | None:
    """The name of the run's score, once it was validated; None where an answer is of a whole image."""
    return next((name for name in TITLES if run.val and run.val[-1].get(name) is not None), None)


def scored(run: History, name: str) -> list[Line]:
    return [line for line in run.val if line.get(name) is not None]


def pair(run: History) -> tuple[float, float] | None:
    """The score on training images and on validation images, means of the last validations; None where training images were not scored."""
    name = headline(run)
    if name is None:
        return None
    lines = [line for line in scored(run, name)[-AROUND:] if line.get(f"train_{name}") is not None]
    if not lines:
        return None
    return sum(line[f"train_{name}"] for line in lines) / len(lines), sum(line[name] for line in lines) / len(lines)


def overfitting(run: History) -> Remark | None:
    """Places in training images are learned, and those in validation images are lost again or far behind."""
    name, seen = headline(run), pair(run)
    lines = [] if name is None else scored(run, name)
    if name is None or seen is None or len(lines) < 2 * AROUND:
        return None
    values = [line[name] for line in lines]
    means = [sum(values[i : i + AROUND]) / AROUND for i in range(len(values) - AROUND + 1)]
    best = max(range(len(means)), key=means.__getitem__)
    train, val = seen
    fell = means[-1] < (1 - FALLEN) * means[best] and train - val >= APART
    if not fell and not (train >= ALL_BUT and val < HALF * train):
        return None
    title, middle = TITLES[name], lines[best + AROUND // 2]
    said = f"{title} is {train:.1%} on training images and {val:.1%} on {counted(run.size('val'), 'validation image')}"
    if fell:
        said += f", where it was {means[best]:.1%} about step {middle['step']}"
    cause = "overfitting: few images are learned by heart. More images, more augmentation or trained weights help"
    trained = run.again(init=weights.NAME, lr=None) if run.recipe.transfer.init is None else ""
    first = (
        run.again(crop=None, hflip=None) if run.recipe.augment.crop == "none" else trained or run.again(zoom="0.5 2")
    )
    return Remark("overfitting", said, cause, first, tuple(each for each in (trained,) if each and each != first))


def unfound(run: History) -> Remark | None:
    """The loss falls and the score stays at nothing: peers' most frequent complaint."""
    name = headline(run)
    if name not in ("ap", "pq") or not run.train or run.train[-1]["share"] < LATE:
        return None
    first, last = run.train[0]["loss"], run.train[-1]["loss"]
    if max(line[name] for line in scored(run, name)) >= NOTHING or last > LEARNED * first:
        return None
    said = (
        f"{TITLES[name]} is {run.val[-1][name]:.2%} near the end, though the loss fell from {first:.1f} to {last:.1f}"
    )
    cause = "places are learned before classes and exact boxes are: from scratch that takes thousands of steps, with trained weights hundreds"
    trained = run.again(init=weights.NAME, lr=None) if run.recipe.transfer.init is None else ""
    return Remark("unfound", said, cause, trained or run.again(steps=4 * run.train[-1]["step"]))


def in_words(run: History) -> list[str]:
    """The scores of the last validations, for a line."""
    name = headline(run)
    if name is None:
        return []
    values = [line[name] for line in scored(run, name)]
    said = [f"validation {TITLES[name]} {values[-1]:.1%} (best {max(values):.1%})"]
    if (seen := pair(run)) is not None:
        said.append(f"training images {seen[0]:.1%}")
    return said


def more(run: History, longer: dict[str, object]) -> tuple[str, str]:
    """What would help a finished run most, and its command. longer: flags of a longer training."""
    seen = pair(run)
    if seen is not None and seen[0] - seen[1] >= APART:
        return "more images, or trained weights (--init)", ""
    return "a longer training", run.again(**longer)


def what_is_right(scores: dict[str, Any]) -> str | None:
    """The score with its interval, beside what needs no training; None for scores of whole images."""
    name = next((name for name in TITLES if scores.get(name) is not None), None)
    if name is None:
        return None
    value, interval = scores[name], scores.get(f"{name}_interval")
    said = f"{TITLES[name]} {value:.1%}" + (
        f" (95 % interval {interval[0]:.1%} to {interval[1]:.1%})" if interval else ""
    )
    low, high = interval or (value, value)
    if name == "miou":
        rows = [row for row in scores["classes"] if row["iou"] is not None]
        common = max(rows, key=lambda row: row["share"])
        base, none = common["share"] / len(rows), f"{common['label']} everywhere"
        said = f"It answers the right class for {scores['accuracy']:.1%} of the pixels, with {said}"
    else:
        base, none = 0.0, "finding nothing"
        said = f"It finds {'segments' if name == 'pq' else 'objects'} with {said}"
    if high <= base:
        return f"{said}: no better than {none} ({base:.1%})."
    if low - base > NOTHING:
        return f"{said}: better than {none} ({base:.1%})."
    return f"{said}: more than {none} ({base:.1%}), but not by enough to be sure."


def weakest(scores: dict[str, Any]) -> str:
    """The lowest class, and the kind of mistake that costs most."""
    field, title = next(
        pair for pair in (("iou", "IoU"), ("ap", "AP"), ("pq", "PQ")) if pair[0] in scores["classes"][0]
    )
    rows = [row for row in scores["classes"] if row[field] is not None]
    if not rows:
        return "None of these images has anything to be found."
    row = min(rows, key=lambda row: row[field])
    said = (
        f"{'It cannot do' if row[field] < NOTHING else 'Its lowest class is'} {row['label']} ({title} {row[field]:.1%})"
    )
    costly = _costly(scores)
    return f"{said}; {costly}." if costly else f"{said}."


def _costly(scores: dict[str, Any]) -> str:
    if "costs" in scores and any(scores["costs"].values()):
        kind = max(scores["costs"], key=lambda kind: scores["costs"][kind])
        return f"what costs most is {KINDS[kind]} (AP50 would gain {100 * scores['costs'][kind]:.1f} points)"
    if "confusion" in scores:
        wrong = [
            (pixels, i, j)
            for i, row in enumerate(scores["confusion"])
            for j, pixels in enumerate(row)
            if i != j and pixels
        ]
        if wrong:
            pixels, i, j = max(wrong)
            names = [row["label"] for row in scores["classes"]]
            return f"what costs most is {names[i]} taken for {names[j]} ({pixels / sum(n for n, _, _ in wrong):.0%} of the wrong pixels)"
    return ""
