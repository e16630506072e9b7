"""Faults that show when training and validation are compared, and faults of time."""

import math

from vitral.errors import portion
from vitral.evaluation.metrics import wilson
from vitral.guidance import weights
from vitral.guidance.coach.history import History, mean
from vitral.guidance.coach.symptoms import LINES, SIGMAS, Remark
from vitral.training.config import seconds

BEGUN = 0.3  # share of the budget before which most runs are far from their final accuracy
ABOVE = 0.1  # by which validation must be better than training, both without augmentation
ALIKE = 1.7  # `repeated`: 1 for random mistakes; on digits and Fashion-MNIST 2.3 and more at every stage of training
UNSURE = 0.75  # `separation`: 0.5 if labels are wrong at random, 0.85 and more if some images are harder than others
KINDS = 4  # classes: with fewer there are too few kinds of mistakes
MISTAKES = 50  # on validation: with fewer `repeated` is chance


def noise(run: History) -> Remark | None:
    """Wrong labels.

    A network learns the right labels before it memorises the wrong ones (early learning, https://arxiv.org/abs/2007.00151): with clean validation
    labels it is then better there than on training. With wrong labels in both, its mistakes are of all kinds, and it is as confident in them.
    """
    if not _judged(run):
        return None
    train, val, images = run.seen_score()
    doctor = f"vitral doctor {run.source()}"
    error = (run.noise(train, images) ** 2 + run.noise(val, run.size("val")) ** 2) ** 0.5
    if images and val - train > max(ABOVE, SIGMAS * error):
        seen = f"right are {_on(run, val)} and only {portion(train, images, 'training image')} in the same view"
        return Remark("noise", seen, "many training labels are wrong (or validation is easier)", doctor)
    # After memorising, clean labels give such mistakes too.
    if not _random_mistakes(run) or train - val > max(GAP, SIGMAS * error):
        return None
    top1 = mean(run.val[-LINES:], "top1")
    seen = f"{portion(1 - top1, run.size('val'), 'label')} of validation images disagree, by mistakes of all kinds, as surely as the others agree"
    return Remark("noise", seen, "a good part of the labels is wrong at random", doctor)


def _on(run: History, share: float) -> str:
    return portion(share, run.size("val"), "validation image")


def _random_mistakes(run: History) -> bool:
    """Whether the mistakes on validation look like labels that are wrong at random."""
    lines = [
        line for line in run.val[-LINES:] if line.get("repeated") is not None and line.get("separation") is not None
    ]
    if len(lines) < LINES or run.classes < KINDS:
        return False
    top1, chance = mean(lines, "top1"), run.chance("val")
    learned = top1 > chance + max(ABOVE, SIGMAS * run.noise(chance, run.size("val")))
    enough = (1 - top1) * run.size("val") >= MISTAKES
    return learned and enough and mean(lines, "repeated") <= ALIKE and mean(lines, "separation") <= UNSURE


APART = 0.3  # difference of the classes' shares beyond what a random split of so few images gives
LEAST = 5  # validation images


def unlike(run: History) -> Remark | None:
    """Validation images unlike the training images: of other classes, or answered worse than by guessing."""
    shares, here = run.split("train").get("shares"), run.split("val").get("shares")
    images, doctor = run.size("val"), f"vitral doctor {run.source()}"
    if not shares or not here or images < LEAST or not run.one_class_an_image:
        return None
    by_chance = 0.5 * sum(math.sqrt(2 / math.pi * p * (1 - p) / images) for p in shares)
    if 0.5 * sum(abs(p - q) for p, q in zip(shares, here, strict=True)) > by_chance + APART:
        k = max(range(len(here)), key=lambda k: here[k] - shares[k])
        label, own = run.described["labels"][k], portion(shares[k], run.size("train"), "training image")
        seen = f"{_on(run, here[k])} are {label}, and {own}"
        cause = "validation has other classes than training, and its scores say little; a validation split by chance is made where the data give none"
        return Remark("unlike", seen, cause, doctor)
    train, _, seen_images = run.seen_score()
    guess = sum(p * q for p, q in zip(shares, here, strict=True))
    last = [line["top1"] for line in run.val[-LINES:] if "top1" in line]
    if (
        not _judged(run)
        or not seen_images
        or len(last) < LINES
        or wilson(round(max(last) * images), images)[1] >= guess
    ):
        return None
    if train < run.chance("train") + max(BY_HEART, SIGMAS * run.noise(run.chance("train"), seen_images)):
        return None
    seen = f"right are {portion(train, seen_images, 'training image')} and {_on(run, last[-1])}, where guessing gives {guess:.0%}"
    cause = "validation images or their labels are unlike those of training (labels in another order, another camera, another scale)"
    return Remark("unlike", seen, cause, doctor)


BY_HEART = 0.1  # above chance on training images
SOME = 0.25  # of the way from chance to training's top-1, from which validation shows learning
FAR = 0.5  # of that way, which must lie above validation's Wilson interval
OFTEN = 2.5  # standard errors of that interval, as it is checked after every validation


def memorised(run: History) -> Remark | None:
    """Training images are learned, validation stays at chance: labels without a rule."""
    train, val, images = run.seen_score()
    if not _judged(run) or not images:
        return None
    chance, n = run.chance("val"), run.size("val")
    way = max(0.0, train - chance)
    if (
        val > chance + min(3 * run.noise(chance, n), SOME * way)
        or wilson(round(val * n), n, OFTEN)[1] > chance + FAR * way
    ):
        return None
    if train < run.chance("train") + max(BY_HEART, SIGMAS * run.noise(run.chance("train"), images)):
        return None
    seen = f"right are {portion(train, images, 'training image')} and {_on(run, val)}, where chance gives {portion(chance, n, 'image')}"
    cause = "the labels do not go with the images (shuffled, or a wrong column), or the images are far too few: they are learned by heart"
    return Remark("memorised", seen, cause, f"vitral doctor {run.source()}")


AROUND = 5  # validations whose mean loss is compared: on few images single ones fluctuate
RISEN = 1.25  # the mean validation loss over its lowest
GAP = 0.1  # in top-1, while the loss rises
WIDE = 0.2  # in top-1, whatever the loss does (label smoothing keeps it low)
MASTERED = 0.9  # top-1 on training images, in this case
PARTED = (
    2.0  # times the loss on training images that the loss on validation is: beside it a gap of few images is no chance
)
SURE = 2.0  # standard errors of the gap where the losses have parted; the same images are scored each time, so a rising loss is no chance


def overfitting(run: History) -> Remark | None:
    """Training images are learned better and better, validation images are not."""
    train, val, images = run.seen_score()
    if not _judged(run) or not images or len(run.val) < AROUND or "train_loss" not in run.val[-AROUND]:
        return None
    if val <= run.chance("val") and train < MASTERED:
        return None  # it may still turn out that the labels are random
    error = (run.noise(train, images) ** 2 + run.noise(val, run.size("val")) ** 2) ** 0.5
    losses, gap = [line["loss"] for line in run.val], train - val
    means = [sum(losses[i : i + AROUND]) / AROUND for i in range(len(losses) - AROUND + 1)]
    best = min(range(len(means)), key=means.__getitem__)
    rises = best < len(means) - LINES and means[-1] > RISEN * means[best]
    known = mean(run.val[-AROUND:], "train_loss")
    parted = means[-1] > PARTED * known
    wide = gap >= WIDE and train >= MASTERED and gap >= (SURE if parted else SIGMAS) * error
    if not wide and not (gap >= GAP and rises and (parted or gap >= SIGMAS * error)):
        return None
    seen = f"right are {portion(train, images, 'training image')} and {_on(run, val)} in the same view"
    if "own_top1" in run.val[-1]:
        seen += ", by the Transformer alone"  # progress shows it with the classifier beside it
    middle = run.val[best + AROUND // 2]
    if rises:
        seen += f"; the validation loss was about {means[best]:.2f} at step {middle['step']} and is {means[-1]:.2f}"
    elif parted:
        seen += f"; the loss is {known:.2f} there and {means[-1]:.2f} here"
    cause = "overfitting: few images are learned by heart. More images, more augmentation, trained weights or a shorter training help"
    if _random_mistakes(run):
        cause += "; or many labels are wrong, as the mistakes are of all kinds alike"
    first, *others = _against_overfitting(run, middle["epoch"] if rises and "epoch" in middle else None)
    return Remark("overfitting", seen, cause, first, tuple(others))


MODEL_FLAGS = ("model", "dim", "depth", "num_heads", "patch_size", "image_size")


def _against_overfitting(run: History, best: float | None) -> list[str]:
    """Commands to try, the most promising first. best: the epoch from which the validation loss rose, if it did."""
    augment, transfer = run.recipe.augment, run.recipe.transfer
    if augment.crop == "none":
        more = run.again(crop=None, hflip=None, policy="randaugment")
    elif augment.policy == "none":
        more = run.again(policy="randaugment")
    else:
        more = run.again(mixup=max(0.2, 2 * augment.mixup))
    if transfer.init is None:
        trained = run.again(**dict.fromkeys(MODEL_FLAGS), lr=None, init=weights.NAME)
    else:
        trained = run.again(lr=None, freeze="encoder") if transfer.freeze == "none" and not transfer.lora_rank else ""
    shorter = "" if best is None else run.again(epochs=max(1, round(best)), steps=None, time=None)
    return [command for command in (more, trained, shorter) if command]


def _judged(run: History) -> bool:
    """Whether there are enough validations, late enough, to compare with training."""
    late = bool(run.train) and run.train[-1]["share"] >= BEGUN
    return run.one_class_an_image and late and len(run.val) >= LINES and run.val[-1].get("train_top1") is not None


STARVED = 0.6  # share of the time spent waiting; a small model on small images waits for a fifth of it
FELT = 2.0  # seconds of waiting in all from which it is reported


def starved(run: History) -> Remark | None:
    """Training that waits for its images."""
    lines = [line for line in run.train[1:] if "wait_s" in line][-5:]  # loader processes start in the first
    if len(lines) < 2 or sum(line.get("wait_s", 0.0) for line in run.train) < FELT:
        return None
    waited, took = sum(line["wait_s"] for line in lines), sum(line["window_s"] for line in lines)
    if waited < STARVED * took:
        return None
    workers = run.recipe.train.workers or 0
    seen = f"{waited / took:.0%} of the time goes into waiting for images ({lines[-1]['images_per_s']:,.0f} images/s)"
    cause = f"decoding or the disk is too slow for {workers or 'no'} loader process{'' if workers == 1 else 'es'}"
    return Remark("starved", seen, cause, run.again(workers=max(2, 2 * workers)))


FEW_EPOCHS = 1.0  # from scratch: below it not every image is seen
FEW_FINE_TUNING = 0.3  # trained weights adapt within an epoch
TRIAL = 5.0  # seconds: a shorter budget is a mere try
GOOD_EPOCHS = 10  # to aim for
TIMED = 0.1  # share of the budget after which the speed is known
ENDLESS = 24 * 3600.0  # seconds: a longer run is probably not intended


def budget(run: History) -> Remark | None:
    """A budget that does not fit the measured speed."""
    share = run.train[-1]["share"] if run.train else 0.0
    if share < (TIMED if run.recipe.train.time else 1e-4) or (len(run.train) < LINES and share < 1):
        return None
    line = run.train[-1]
    epochs, total = line["epoch"] / line["share"], line["seconds"] / line["share"]
    speed = f"at {line['images_per_s']:,.0f} images/s"
    if run.recipe.train.time is not None:
        if seconds(run.recipe.train.time) <= TRIAL or epochs >= (
            FEW_EPOCHS if run.recipe.transfer.init is None else FEW_FINE_TUNING
        ):
            return None
        seen = f"{speed}, {run.recipe.train.time} will be {epochs:.1f} epochs"
        wanted = seconds(run.recipe.train.time) * GOOD_EPOCHS / epochs
        return Remark(
            "budget", seen, "too little time for so much work", run.again(time=f"{max(1, round(wanted / 60))}m")
        )
    if total < ENDLESS:
        return None
    seen = f"{speed}, this run will take {total / 3600:.0f} hours ({epochs:.0f} epochs)"
    return Remark("budget", seen, "too much work for this machine", run.again(time="8h", epochs=None))
