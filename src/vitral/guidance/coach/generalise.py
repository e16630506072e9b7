"""Faults that show only when training and validation are compared, and those of time."""

from vitral.errors import portion
from vitral.guidance.coach.history import History, mean
from vitral.guidance.coach.symptoms import LINES, SIGMAS, Remark
from vitral.training.config import seconds

BEGUN = 0.3  # share of the budget: before it most runs are far from what they will know
ABOVE = 0.1  # by which validation must be better than training, both without augmentation
ALIKE = 1.7  # `repeated`: 1 where mistakes come at random; on digits and Fashion-MNIST 2.3 and more at every stage of training
UNSURE = 0.75  # `separation`: 0.5 where chance decided which labels are wrong, 0.85 and more where some images are harder than others
KINDS = 4  # classes: with fewer, there are too few kinds of mistakes to tell
MISTAKES = 50  # on validation, or `repeated` is chance


def noise(run: History) -> Remark | None:
    """Wrong labels.

    A network learns what is right before it learns wrong labels by heart (early learning, https://arxiv.org/abs/2007.00151): with clean validation
    labels it is then better there than on training. With wrong labels in both its mistakes are of all kinds, and it is as sure of them.
    """
    if not _judged(run):
        return None
    train, val, images = run.seen_score()
    doctor = f"vitral doctor {run.source()}"
    error = (run.noise(train, images) ** 2 + run.noise(val, run.size("val")) ** 2) ** 0.5
    if images and val - train > max(ABOVE, SIGMAS * error):
        seen = f"right are {_on(run, val)} and only {portion(train, images, 'training image')} in the same view"
        return Remark("noise", seen, "many training labels are wrong (or validation is easier)", doctor)
    # What was learned by heart says nothing: there clean labels give such mistakes too.
    if not _random_mistakes(run) or train - val > max(GAP, SIGMAS * error):
        return None
    top1 = mean(run.val[-LINES:], "top1")
    seen = f"{portion(1 - top1, run.size('val'), 'label')} of validation images disagree, by mistakes of all kinds, as surely as the others agree"
    return Remark("noise", seen, "a good part of the labels is wrong at random", doctor)


def _on(run: History, share: float) -> str:
    return portion(share, run.size("val"), "validation image")


def _random_mistakes(run: History) -> bool:
    """Whether the mistakes on validation look like labels that are wrong by chance."""
    lines = [
        line for line in run.val[-LINES:] if line.get("repeated") is not None and line.get("separation") is not None
    ]
    if len(lines) < LINES or run.classes < KINDS:
        return False
    top1, chance = mean(lines, "top1"), run.chance("val")
    learned = top1 > chance + max(ABOVE, SIGMAS * run.noise(chance, run.size("val")))
    enough = (1 - top1) * run.size("val") >= MISTAKES
    return learned and enough and mean(lines, "repeated") <= ALIKE and mean(lines, "separation") <= UNSURE


BY_HEART = 0.1  # above chance on training images
SOME = 0.25  # of the way from chance to training's top-1: validation that is as far has learned something, however few images it has


def memorised(run: History) -> Remark | None:
    """Training is learned, validation stays at chance: labels without a rule."""
    train, val, images = run.seen_score()
    if not _judged(run) or not images:
        return None
    chance = run.chance("val")
    if val > chance + min(3 * run.noise(chance, run.size("val")), SOME * max(0.0, train - chance)):
        return None
    if train < run.chance("train") + max(BY_HEART, SIGMAS * run.noise(run.chance("train"), images)):
        return None
    seen = f"right are {portion(train, images, 'training image')} and {_on(run, val)}, where chance gives {portion(chance, run.size('val'), 'image')}"
    cause = "the labels do not go with the images (shuffled, or a wrong column): they are learned by heart"
    return Remark("memorised", seen, cause, f"vitral doctor {run.source()}")


RISEN = 1.25  # the validation loss over its lowest
GAP = 0.1  # in top-1, while the loss rises
WIDE = 0.2  # in top-1, whatever the loss does (smoothing holds it down)
MASTERED = 0.9  # top-1 on training images, in the wide case


def overfitting(run: History) -> Remark | None:
    """Training goes on getting better where validation does not."""
    train, val, images = run.seen_score()
    if not _judged(run) or not images:
        return None
    error = (run.noise(train, images) ** 2 + run.noise(val, run.size("val")) ** 2) ** 0.5
    losses, gap = [line["loss"] for line in run.val], train - val
    best = min(range(len(losses)), key=losses.__getitem__)
    rises = best < len(losses) - LINES and min(losses[-LINES:]) > RISEN * losses[best]
    if gap < SIGMAS * error or not ((gap >= GAP and rises) or (gap >= WIDE and train >= MASTERED)):
        return None
    seen = f"right are {portion(train, images, 'training image')} and {_on(run, val)} in the same view"
    if rises:
        seen += f"; the validation loss was {losses[best]:.2f} at step {run.val[best]['step']} and is {losses[-1]:.2f}"
    augment = run.recipe.augment
    flags = {"policy": "randaugment"} if augment.policy == "none" else {"mixup": max(0.2, 2 * augment.mixup)}
    cause = "overfitting: too few images for so long a training; more images, or more augmentation, help"
    if _random_mistakes(run):
        cause += "; or many labels are wrong, as the mistakes are of all kinds alike"
    return Remark("overfitting", seen, cause, run.again(**flags))


def _judged(run: History) -> bool:
    """Whether there are validations enough to say how well the run generalises."""
    late = bool(run.train) and run.train[-1]["share"] >= BEGUN
    return run.one_class_an_image and late and len(run.val) >= LINES and run.val[-1].get("train_top1") is not None


STARVED = 0.6  # share of the time that is spent waiting; a small model on small images waits for a fifth of it
FELT = 2.0  # seconds waited in all: less is not worth a word


def starved(run: History) -> Remark | None:
    """A trainer that waits for its images."""
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


FEW_EPOCHS = 1.0  # from scratch: not even every image is seen
FEW_FINE_TUNING = 0.3  # trained weights adapt within an epoch
TRIAL = 5.0  # seconds: whoever gives no more tries something out
GOOD_EPOCHS = 10  # to aim for
TIMED = 0.1  # share of the budget after which the speed is known
ENDLESS = 24 * 3600.0  # seconds: what nobody waits for unawares


def budget(run: History) -> Remark | None:
    """A budget that does not fit the speed that was measured."""
    if len(run.train) < LINES or run.train[-1]["share"] < (TIMED if run.recipe.train.time else 1e-4):
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
