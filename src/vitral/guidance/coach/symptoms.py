"""What can go wrong in a run: one function a fault, from the run's history to a remark with the number that shows it, or None.

A wrong remark costs more trust than a missing one: shares are compared by their standard errors, and what is normal at the start of a run is no
fault. Each threshold is a named constant with its reason.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from vitral.errors import portion
from vitral.guidance.coach.history import History, Line, mean

LINES = 3  # log lines in a row: a single one may be chance
SIGMAS = 4.0  # standard errors of a difference of shares: checked after every validation, 3 would occur by chance


@dataclass(frozen=True)
class Remark:
    """A likely fault: what was seen with its number, the likely cause, and the command to try."""

    kind: str
    seen: str
    cause: str
    next: str
    others: tuple[str, ...] = ()
    """More commands to try."""

    def __str__(self) -> str:
        return "\n  or: ".join([f"coach: {self.seen}.\n  Likely {self.cause}. Try: {self.next}", *self.others])


Symptom = Callable[[History], Remark | None]

FLAT = (
    0.1  # share of training images of a single colour: a few blank ones are normal in microscopy and satellite images
)
FLAT_STD = (
    0.01  # deviation of normalised pixels, about 1 where the images have contrast and are normalised by their own
)
WIDE_STD = 30.0  # normalised by a deviation far below the images' own


def inputs(run: History) -> Remark | None:
    """Images that show nothing, or are normalised out of range."""
    doctor = f"vitral doctor {run.source()}"
    flat = run.data.get("flat", 0.0)
    if flat >= FLAT:
        seen = f"{portion(flat, run.data['looked_at'], 'training image')} are of a single colour"
        return Remark(
            "inputs", seen, "the files are empty or were read wrongly: there is nothing to see in them", doctor
        )
    lines = [line for line in run.train[-LINES:] if "input_std" in line]
    if len(lines) < LINES:
        return None
    low, high = min(line["input_std"] for line in lines), max(line["input_std"] for line in lines)
    if high < FLAT_STD or low > WIDE_STD:
        seen = f"the pixels that the model gets have a deviation of {high:.3g}, where 1 is usual"
        cause = "the images have no contrast, or --mean and --std do not fit them"
        return Remark("inputs", seen, cause, doctor)
    return None


LEAK = 0.01  # share of a split that is in training too: a handful of copies does not change scores
NEAR = 0.05  # share of a split with a near copy in training,
NEAR_IMAGES = 2  # and so many images: a single one can be a lookalike
NEAR_OVER = 3.0  # and so many times the share among training images, or the images are simply similar


def leak(run: History) -> Remark | None:
    """Validation or test images that are in training too."""
    for name in ("val", "test"):
        facts = run.split(name)
        shared, images = facts.get("shared", 0), max(1, facts.get("images", 0))
        near, inside = facts.get("near", 0.0), facts.get("near_inside", 0.0)
        if shared / images >= LEAK:
            seen = f"{_of_split(shared / images, images, name)} are in training too"
        elif near >= NEAR and round(near * images) >= NEAR_IMAGES and near >= NEAR_OVER * inside:
            seen = f"{_of_split(near, images, name)} have an almost equal one in training"
        else:
            continue
        cause = f"copies lie in both parts of the data: scores on {name} are too good"
        return Remark("leak", seen, cause, f"vitral doctor {run.source()}")
    return None


def _of_split(share: float, images: int, name: str) -> str:
    return portion(share, images, "validation image" if name == "val" else f"{name} image")


STILL = 0.1  # share of the parameters: in a healthy run every one changes in each window
LATE = 0.1  # of the peak learning rate: below it steps may vanish in float32's rounding


def frozen(run: History) -> Remark | None:
    """Weights that do not change though no option asked for it."""
    lines = [line for line in run.train[-LINES:] if "still" in line]
    peak = max((line["lr"] for line in run.train), default=0.0)
    if len(lines) < LINES or min(line["lr"] for line in lines) < LATE * peak or _far_too_low(run):
        return None
    still, all_ = min(line["still"] for line in lines), lines[-1]["tensors"]
    asked = run.recipe.transfer.freeze != "none" or run.recipe.transfer.lora_rank > 0
    partly_meant = asked or not run.recipe.objective.labelled  # decoders and teachers have frozen parts
    if still < (all_ if partly_meant else max(2, STILL * all_)):
        return None
    what = "nothing learns" if still == all_ else f"only {all_ - still} learn"
    seen = f"{still} of the model's {all_} weight tensors have not changed in {_steps(run, LINES)} steps: {what}"
    cause = "they are frozen (requires_grad is False) or not in the optimiser, though --freeze does not ask for it"
    return Remark("frozen", seen, cause, run.again(freeze="none"))


DEAD = 0.1  # share of the trainable parameters: single ones may be unused
VANISHED = (
    1e-7  # gradient norm, with a loss that is still high; a model that has learned all there is has a small loss too
)


def dead(run: History) -> Remark | None:
    """Gradients of zero."""
    lines = [line for line in run.train[-LINES:] if "dead" in line]
    if (
        len(lines) < LINES or lines[-1].get("still") == lines[-1]["tensors"]
    ):  # behind a head that stays 0 there is no gradient
        return None
    least, chance = min(line["dead"] for line in lines), run.chance_loss() if run.one_class_an_image else None
    if least >= max(2, DEAD * lines[-1]["tensors"]):
        seen = f"{least} of the model's {lines[-1]['tensors']} weight tensors get a gradient of exactly 0"
    elif (
        chance is not None
        and max(line["grad_norm_mean"] for line in lines) < VANISHED
        and lines[-1]["loss"] > chance / 2
    ):
        seen = (
            f"the gradients have a norm of {lines[-1]['grad_norm_mean']:.0e} while the loss is {lines[-1]['loss']:.2f}"
        )
    else:
        return None
    cause = "activations that are stuck (a learning rate that was too high, or weights that start at 0)"
    return Remark("dead", seen, cause, run.again(lr=f"{run.usual_lr() / 3:.1g}"))


EXPLODED = 100.0  # times the norm at the start; healthy runs reach up to 10 when they begin to learn
HUGE = 1e4  # a norm beyond any usual model and loss


def exploding(run: History) -> Remark | None:
    """Gradients that grow while nothing is learned."""
    chance = run.chance_loss() if run.one_class_an_image else None
    lines = run.train[-LINES:]
    if (
        chance is None
        or len(run.train) < 2 * LINES
        or "grad_norm_mean" not in run.train[0]
        or mean(lines, "loss") < 0.9 * chance
    ):
        return None
    start, norm = mean(run.train[:LINES], "grad_norm_mean"), mean(lines, "grad_norm_mean")
    if norm < min(HUGE, EXPLODED * start) and norm < HUGE:
        return None
    seen = f"the gradients' norm is {norm:.3g}, after {start:.3g} at the start, and the loss {lines[-1]['loss']:.2f}"
    return Remark("exploding", seen, f"the learning rate ({_rate(run)})", run.again(lr=f"{_lower(run):.1g}"))


OFF = 3.0  # times the usual learning rate, or one part in so many; in between other things matter more
TRIED = 100  # steps at the full rate after which a run should have learned something
SHARE = 0.25  # of the budget
LITTLE = 0.25  # of the way from chance to all right, and
LITTLE_LOSS = 0.9  # times the loss of chance
DIVERGED = 1.15  # times the loss of chance: worse than guessing
LOST = 0.5  # share of the loss's fall that was lost again


def rate_high(run: History) -> Remark | None:
    """A learning rate so high that the loss rises, or does not fall."""
    chance = run.chance_loss() if run.one_class_an_image else None
    warm = run.past_warmup()
    if chance is None or len(warm) < 2 * LINES:
        return None
    now, best, lr = mean(warm[-LINES:], "loss"), math.inf, run.recipe.optim.lr or 0.0
    for i in range(len(warm) - LINES + 1):
        best = min(best, mean(warm[i : i + LINES], "loss"))
    lowest = min(line["loss"] for line in warm[-LINES:])
    if lowest > DIVERGED * chance:
        seen = f"the loss is {now:.2f}, where answering by chance gives {chance:.2f}: it grows instead of falling"
    elif best < LITTLE_LOSS * chance and lowest > best + LOST * (chance - best) and not _changing(run):
        seen = (
            f"the loss was {best:.2f} and has been {now:.2f} for {_steps(run, LINES)} steps: what was learned is lost"
        )
    elif lr >= OFF * run.usual_lr() and _learned_little(run, chance):
        seen = f"the loss is {now:.2f}, by chance it would be {chance:.2f}: little is learned{_one_answer(run)}"
    else:
        return None
    return Remark(
        "rate_high", seen, f"the learning rate is too high ({_rate(run)})", run.again(lr=f"{_lower(run):.1g}")
    )


def rate_low(run: History) -> Remark | None:
    """A learning rate so low that nothing moves."""
    chance = run.chance_loss() if run.one_class_an_image else None
    if chance is None or (run.recipe.optim.lr or 0.0) > run.usual_lr() / OFF or not _learned_little(run, chance):
        return None
    line = run.train[-1]
    moves = f", a step changes the weights by {line['update']:.1e} of their size" if "update" in line else ""
    seen = f"the loss is {line['loss']:.2f}, by chance it would be {chance:.2f}{moves}"
    cause = f"the learning rate is too low ({_rate(run)})"
    return Remark("rate_low", seen, cause, run.again(lr=f"{run.usual_lr():.1g}"))


STUCK_LOSS = 0.98  # times the loss of chance
FALLING = (
    0.003  # times the loss of chance: a fall from the first half of the steps to the second that shows a beginning
)
LONG = 500  # steps of less than two epochs
SLOW = 2  # times as many steps for what starts slowly: mixed images, a yes or no for each class, optimisers without a rate for each weight


def stuck(run: History) -> Remark | None:
    """Nothing is learned, at a usual learning rate."""
    chance, warm = run.chance_loss() if run.one_class_an_image else None, run.past_warmup()
    if chance is None:
        return None
    steps = TRIED * (SLOW if _starts_slowly(run) else 1)
    if not _tried(run, steps) or (run.train[-1]["epoch"] < 2 and run.train[-1]["step"] < LONG):
        return None
    lines = [line for line in warm if line["step"] > run.train[-1]["step"] - steps]
    half, loss, top1 = len(lines) // 2, mean(lines, "loss"), mean(lines, "top1")
    falls = mean(lines[:half], "loss") - mean(lines[half:], "loss") > FALLING * chance
    if loss < STUCK_LOSS * chance or falls or _above_chance(run, lines) or _above_chance(run, lines[-LINES:]):
        return None
    even = abs(chance - math.log(run.classes)) < 0.005 and run.learned.loss != "bce"
    name = f"ln {run.classes}" if even else "what the classes' shares give"
    seen = f"the loss has stayed at {loss:.2f} (by chance {chance:.2f} = {name}) for {steps} steps, top-1 at {top1:.0%}"
    seen += f": nothing is learned{_one_answer(run)}"
    cause = "the labels do not go with the images (shuffled, or a wrong column), or the model cannot see what differs"
    if run.recipe.optim.optimizer not in ("adamw", "muon") and run.recipe.transfer.init is None:
        return Remark(
            "stuck", seen, "an optimiser that starts slowly from scratch", run.again(optimizer="muon", lr=None)
        )
    return Remark("stuck", seen, cause, f"vitral doctor {run.source()}")


def _starts_slowly(run: History) -> bool:
    augment = run.recipe.augment
    mixed = bool(augment.mixup or augment.cutmix) or run.learned.loss == "bce"
    return mixed or run.recipe.optim.optimizer not in ("adamw", "muon")


def _above_chance(run: History, lines: list[Line]) -> bool:
    """Whether top-1 in these lines, each of 10 steps, is higher than the commonest class would reach by luck."""
    level = max(run.shares())
    steps = lines[-1]["step"] - lines[0]["step"] + 10
    return mean(lines, "top1") > level + 3 * run.noise(level, steps * run.images_a_step())


def _one_answer(run: History) -> str:
    """Words if the model gives every image the same answer; else empty."""
    largest = run.val[-1].get("largest", 0.0) if run.val else 0.0
    if largest < COLLAPSED:
        return ""
    return f", {portion(largest, run.size('val'), 'answer')} on validation images are one class"


COLLAPSED = 0.95  # share of the answers that are one class
CLEAR = 0.1  # by which the commonest class must be rarer


def collapsed(run: History) -> Remark | None:
    """Every image gets the same answer."""
    lines = [line for line in run.val[-LINES:] if "largest" in line]
    if len(lines) < 2 or not _tried(run) or not run.one_class_an_image:
        return None
    largest, majority = min(line["largest"] for line in lines), run.chance("val")
    images = run.size("val")
    if largest < COLLAPSED or largest < majority + max(CLEAR, SIGMAS * run.noise(majority, images)):
        return None
    majority_words = portion(majority, images, "image")
    seen = (
        f"{portion(largest, images, 'answer')} on validation images are one class, which at most {majority_words} are"
    )
    uneven = majority > 1.5 / run.classes and run.learned.class_weights == "none"
    if uneven:
        return Remark("collapsed", seen, "the commonest class drowns the others", run.again(class_weights="balanced"))
    if (run.recipe.optim.lr or 0.0) >= OFF * run.usual_lr():
        return Remark("collapsed", seen, f"the learning rate ({_rate(run)})", run.again(lr=f"{_lower(run):.1g}"))
    cause = "nothing that tells the classes apart is learned: the labels, or what is done to the images"
    return Remark("collapsed", seen, cause, f"vitral doctor {run.source()}")


def _tried(run: History, steps: int = TRIED) -> bool:
    """Whether the run has made `TRIED` steps at the full rate, and enough of its budget."""
    warm = run.past_warmup()
    return bool(warm) and warm[-1]["step"] - warm[0]["step"] >= steps and run.train[-1]["share"] >= SHARE


def _learned_little(run: History, chance: float) -> bool:
    if not _tried(run):
        return False
    level, lines = max(run.shares()), run.train[-LINES:]
    top1 = max([mean(lines, "top1"), *(line["top1"] for line in run.val[-1:] if line.get("top1") is not None)])
    return mean(lines, "loss") > LITTLE_LOSS * chance and top1 < level + LITTLE * (1 - level)


def _far_too_low(run: History) -> bool:
    """Whether the rate is so low that a step may vanish in float32's rounding."""
    return run.one_class_an_image and (run.recipe.optim.lr or 0.0) < run.usual_lr() / 100


def _changing(run: History) -> bool:
    """Whether the loss may rise because images grow during training."""
    return run.recipe.train.progressive < 1


def _steps(run: History, lines: int) -> int:
    before = run.train[-lines - 1]["step"] if len(run.train) > lines else 0
    return int(run.train[-1]["step"] - before)


def _rate(run: History) -> str:
    optim = run.recipe.optim
    return f"{optim.lr:g} with {optim.optimizer}; usual is {run.usual_lr():g}"


def _lower(run: History) -> float:
    """The usual rate, or a third of the run's if that is lower."""
    return min(run.usual_lr(), (run.recipe.optim.lr or math.inf) / OFF)
