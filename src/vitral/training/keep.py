"""Which weights a run keeps: those of the best validation, by a rule that holds for few validation images too.

A better score wins; of equal scores the lower loss, and of equal losses the later step. On a small validation split a single score is largely luck,
so there the mean of the last validations is compared. The loss alone would keep a step far too early, because it rises while an overfitting model
still learns to answer better. `benchmarks/keeping.py` compares: with 60 training and 16 validation images this rule reaches 34.2 % on test images,
the first of the best scores 31.7 %, the lowest loss 27.0 %.
"""

from vitral.errors import counted
from vitral.training.state import Progress

FEW = 200  # validation images, below which scores are averaged
SPAN = 5  # validations that are averaged
EQUAL = 1e-9  # means of the same counts differ by rounding alone


def consider(progress: Progress, score: float, loss: float, images: int) -> bool:
    """Whether to keep the weights of this validation; if so, it is recorded in `progress`.

    score: the headline score, 0..1. loss: on the same `images`.
    """
    progress.recent = [*progress.recent, score][-SPAN:] if images < FEW else []
    mean = sum(progress.recent) / len(progress.recent) if progress.recent else score
    before = progress.best if progress.best_mean is None else progress.best_mean  # older runs have no means
    if before is not None:
        worse = mean < before - EQUAL
        tie = not worse and mean <= before + EQUAL
        if worse or (tie and progress.best_loss is not None and loss > progress.best_loss):
            return False
    progress.best, progress.best_mean, progress.best_loss, progress.best_step = score, mean, loss, progress.step
    return True


def in_words(step: int, steps_per_epoch: int, last: int, chosen: str) -> str:
    """Which weights were kept, in words. last: the run's last step. chosen: the reason."""
    return f"step {step:,} of {last:,} (epoch {step / steps_per_epoch:.2f}), {chosen}"


def by_what(score: str, images: int) -> str:
    """How the best weights were chosen. score: of the validation, in words."""
    said = f"the best of the validations: {score} on {counted(images, 'image')}"
    if images >= FEW:
        return said
    return f"{said}; for so few images the mean of up to {SPAN} validations was compared, then the loss"
