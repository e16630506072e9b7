"""Every field of a recipe that was left open, decided from the data and the machine, each with its reason in words."""

from dataclasses import replace

import torch

from vitral.data.bands import COLOURS, in_words
from vitral.data.dataset import DataSet
from vitral.data.loader import REMEMBERED
from vitral.data.options import AugmentOptions, augreg
from vitral.data.preprocess import Preprocess
from vitral.errors import VitralError
from vitral.layers.patch import FINEST
from vitral.models.heads.options import HeadOptions
from vitral.models.shapes import shapes_only
from vitral.models.zoo import build, is_pyramid
from vitral.objectives.options import PretextOptions
from vitral.training.config import BUDGETS, Recipe
from vitral.training.options import (
    ModelOptions,
    OptimOptions,
    TrainOptions,
    TransferOptions,
    ViewOptions,
)
from vitral.training.shape import open_config, open_shape, width
from vitral.training.sizes import SIZES, SMALL, model_for, patch_for, row, side_of_photographs, sizes_for
from vitral.training.tasks import learning_of, objective_for, refuse_for_places

KEPT = 0.9  # of an image: where the largest crop of the model's shape is less, what it leaves out can be what counts
SAME = 0.99  # of an image: where the model's shape keeps that much, images are stretched to it
BETWEEN = 1000  # training images from one validation to the next: of few images a validation takes as long as an epoch
VALIDATIONS = 50  # of a run whose length is known, at least
BETWEEN_PLACES, VALIDATIONS_OF_PLACES = 8000, 12  # the same where places are answered, whose scores take longer
NARROW = 1 / 6  # of the deviation that the weights know: 12 bits in a file of 16 have a sixteenth
PRETRAINED = SIZES[1]  # what learns without labels if no size was said
FINE_TUNING = 0.5  # the learning rate from trained weights over that from scratch
Reasons = list[str]


def check(recipe: Recipe) -> None:
    """Validate a recipe before reading images, as far as that is possible without them."""
    _budgets(recipe)
    given = {}
    if (model := recipe.model).name is None:  # as for photographs
        side = side_of_photographs("cuda")
        recipe = replace(recipe, model=model_for(model, sizes_for(model, 0)[-1], side, side, side, recipe.pretext))
    config = open_config(recipe)
    if config.any_patch and recipe.model.get("patch_size") is None:  # small images have smaller patches than the zoo's
        given["patch_size"] = min(getattr(config, "patch_size", 1), *config.image_size)
    with shapes_only():
        build(open_shape(recipe, **given))
    view = recipe.view
    known = [("channels", recipe.data.channels)] if recipe.data.channels else []
    known += [(name, len(values)) for name, values in (("mean", view.mean), ("std", view.std)) if values is not None]
    if len({count for _, count in known}) > 1 or any(count < 1 for _, count in known):
        values = {"channels": (recipe.data.channels,), "mean": view.mean, "std": view.std}
        said = ", ".join(f"{name} {' '.join(map(str, values[name] or ()))}" for name, _ in known)
        raise VitralError(f"{said}: give one number for each channel: 1 (grey), 3 (RGB) or as many as there are bands")
    channels = known[0][1] if known else 1
    Preprocess(
        *config.image_size, channels, view.mean or (0.5,) * channels, view.std or (0.5,) * channels,
        resize=view.resize or "crop", crop_fraction=1.0 if view.crop_fraction is None else view.crop_fraction,
        interpolation=view.interpolation,
    )  # fmt: skip


def _budgets(recipe: Recipe) -> list[str]:
    """How the budget was given, if it was."""
    budgets = [name for name in BUDGETS if getattr(recipe.train, name) is not None]
    if len(budgets) > 1:
        raise VitralError(f"{' and '.join(budgets)}: a run has one budget; give one of epochs, steps and time")
    return budgets


def resolve(recipe: Recipe, data: DataSet, device: str, own: Preprocess | None = None) -> tuple[Recipe, Reasons]:
    """The recipe without open fields, and a line for each decision. own: how the weights that training starts from were shown images."""
    budgets = _budgets(recipe)
    learning = learning_of(data.task) if recipe.objective.labelled else None
    asked = recipe.objective if learning is None else objective_for(recipe, data.task)
    reasons: Reasons = [] if learning is None else learning.settle(asked)
    places = learning is not None and learning.dense
    if places:
        refuse_for_places(recipe, data.task)
    small = max(data.height, data.width) <= SMALL
    pretext = recipe.pretext
    model = _model(recipe.model, pretext, data, device, reasons, places=places)
    objective = asked.settled(width(model))
    head = settle_head(recipe.head, model, data.task if learning is not None else None, reasons)
    if learning is not None:
        head = learning.fitted(head, data)
    view = recipe.view
    if view.resize is None or view.crop_fraction is None:
        view = _framing(view, data, model, small, reasons, places=places)
    if view.mean is None and view.std is None and own is not None and own.channels == data.channels:
        view = _as_the_weights(view, own, data, reasons)
    elif view.mean is None or view.std is None:
        view = _normalisation(view, data, reasons)
    augment = _augment(recipe.augment, view, pretext, data, small, reasons, places=places)
    train = _train(recipe.train, data, bool(budgets), asked.labelled, reasons, places=places)
    assert train.batch_size is not None
    optim = settle_optim(recipe.optim, recipe.transfer, width(model), train.batch_size * train.accumulation, reasons)
    options = replace(recipe.data, task=data.task)
    return replace(
        recipe,
        data=options,
        model=model,
        view=view,
        augment=augment,
        objective=objective,
        head=head,
        optim=optim,
        train=train,
    ), reasons


def settle_head(head: HeadOptions, model: ModelOptions, task: str | None, reasons: Reasons) -> HeadOptions:
    """The head of a dense task, by the family where none was named. task: None for an objective without labels."""
    make = None if task is None else learning_of(task).head
    if make is None:
        if head.name:
            raise VitralError(f"head {head.name}: is for tasks that answer places in an image; leave it out")
        if task is not None and row(model).answers != "classify":
            raise VitralError(
                f"model {model.name}: its head finds objects, and the task is {task}; choose another model"
            )
        return head
    if head.name:
        return head
    finer = bool(model.get("stem")) and (model.get("patch_size") or 0) > FINEST
    head = make(is_pyramid(row(model)), finer)
    reasons.append(f"{head.name} head on the backbone's maps: --head chooses another")
    return head


def _model(
    said: ModelOptions,
    pretext: PretextOptions | None,
    data: DataSet,
    device: str,
    reasons: Reasons,
    *,
    places: bool = False,
) -> ModelOptions:
    """What was said of the model, and the rest by the table of sizes."""
    # Without labels images are seen far more often, and no trial says how long that takes.
    size = PRETRAINED if pretext is not None else sizes_for(said, len(data.splits["train"]))[-1]
    side = side_of_photographs(device)
    model = model_for(said, size, data.height, data.width, side, pretext, places=places)
    height, width = model.get("image_size")
    patch = patch_for(model, height, width, pretext)
    if said.get("image_size") is None and (height, width) == (data.height, data.width):
        patches = f", in patches of {patch}" if patch > 1 else ""
        reasons.append(f"{height}x{width} pixels, the images' own size{patches}")
    elif said.get("image_size") is None:
        why = (
            "a third of the work of 224x224, as there is no GPU" if device == "cpu" else "the usual size of photographs"
        )
        reasons.append(
            f"{height}x{width} pixels: {why}"
            if not places
            else f"{height}x{width} pixels, as places need twice the usual"
        )
    padded = [-(-length // patch) * patch for length in (height, width)]
    if padded != [height, width]:
        reasons.append(
            f"{height}x{width} pixels are padded with zeros to {padded[0]}x{padded[1]}: patches of {patch} do not tile them"
        )
    if (stem := model.get("stem")) and said.get("stem") is None:
        reasons.append(
            f"patches by {len(stem)} convolutions, whose maps the head reads too: from scratch they learn shapes several times as fast"
            if places
            else "patches by convolutions, which learned more than linear ones in equal time"
        )
    if said.name is None and said.get("dim") is None and model.get("dim") is not None:
        reasons.append(
            f"width {size.dim}, {model.get('depth')} layers: for {len(data.splits['train']):,} training images"
        )
    return model


def _framing(
    view: ViewOptions, data: DataSet, model: ModelOptions, small: bool, reasons: Reasons, *, places: bool = False
) -> ViewOptions:
    """The whole image, padded, where a crop of the model's shape would leave much of it out; else the middle."""
    height, width = model.get("image_size")
    shape = width / height
    kept = sum(min(own / shape, shape / own) for own in data.aspects) / len(data.aspects)
    if places:
        how = view.resize or ("squash" if kept > SAME else "pad")
        if view.resize is None and how == "pad":
            reasons.append(
                "whole images in their proportions, the mean colour around them: every place is to be answered"
            )
        return replace(view, resize=how, crop_fraction=1.0)
    how = view.resize or ("pad" if view.crop_fraction is None and kept < KEPT else "crop")
    fraction = view.crop_fraction or (1.0 if small or how != "crop" else 0.875)
    if view.resize is None and how == "pad":
        reasons.append(
            f"whole images, padded to the model's shape: a crop of it would leave out {1 - kept:.0%} of them; "
            "--resize squash fills the frame"
        )
    elif how == "crop" and (seen := kept * fraction**2) < 0.995:
        reasons.append(f"the middle {seen:.0%} of an image is judged; --resize squash or pad shows all of it")
    return replace(view, resize=how, crop_fraction=fraction)


def _as_the_weights(view: ViewOptions, own: Preprocess, data: DataSet, reasons: Reasons) -> ViewOptions:
    """The weights' mean and deviation; but for files of more than 8 bits that use a small part of the scale their own, or all would look black."""
    theirs = replace(view, mean=own.mean, std=own.std)
    if data.bit_depth > 8:
        found: Reasons = []
        measured = _normalisation(view, data, found)
        assert measured.std is not None
        if max(measured.std) < NARROW * max(own.std):
            reasons.append(
                f"{found[0]}, as they use a small part of the scale; by those of the weights that training starts from ({_statistics(theirs)}) they "
                "would look plain; --value-range LOW HIGH states what is black and white in them"
            )
            return measured
        if max(abs(a - b) / s for a, b, s in zip(measured.mean or (), own.mean, own.std, strict=True)) > 1:
            reasons.append(
                f"these images have {_statistics(measured)}, far from the weights': --value-range states what is black and white in them"
            )
    reasons.append(f"normalised by {_statistics(theirs)}: as the weights that training starts from were trained")
    return theirs


def _normalisation(view: ViewOptions, data: DataSet, reasons: Reasons) -> ViewOptions:
    """Mean and deviation of the training images' pixels, from up to 1,000 of them."""
    mean, std, count = data.moments
    view = replace(view, mean=view.mean or _rounded(mean), std=view.std or _rounded(std))
    reasons.append(f"normalised by {_statistics(view)}: of {count:,} training images")
    return view


def _statistics(view: ViewOptions) -> str:
    mean, std = (" ".join(f"{v:g}" for v in values or ()) for values in (view.mean, view.std))
    return f"mean {mean} and deviation {std}"


def _rounded(values: torch.Tensor) -> tuple[float, ...]:
    return tuple(round(v, 4) if v >= 0.01 else float(f"{v:.4g}") for v in values.tolist())


def _augment(
    augment: AugmentOptions,
    view: ViewOptions,
    pretext: PretextOptions | None,
    data: DataSet,
    small: bool,
    reasons: Reasons,
    *,
    places: bool = False,
) -> AugmentOptions:
    """Shifts for small images, crops for photographs and pre-training, wider ones where there are many."""
    count = len(data.splits["train"])
    if augment.augreg is not None:
        reasons.append(f"RandAugment and Mixup at AugReg's level {augment.augreg}")
        augment = replace(augment, augreg=None, **augreg(augment.augreg))  # type: ignore[arg-type]
    if augment.crop is None and places:
        augment = replace(augment, crop="jittered")
        low, high = augment.zoom
        reasons.append(f"augmentation by scale, {low:g} to {high:g} times, then cut or padded: --zoom says otherwise")
    if augment.crop is None:
        shifted = small and pretext is None
        augment = replace(augment, crop="padded" if shifted else "resized" if view.resize == "crop" else "framed")
        if shifted:
            reasons.append("augmentation by small shifts, as small images are framed tightly")
    if augment.scale is None:
        own = None if pretext is None else pretext.scale
        scale = own or ((0.08, 1.0) if count >= 10_000 else (0.35, 1.0))
        augment = replace(augment, scale=scale)
        if augment.crop in ("resized", "framed"):
            reasons.append(f"augmentation by crops of at least {scale[0]:.0%} of the image: {count:,} training images")
    if data.channels not in COLOURS and (augment.policy != "none" or augment.jitter):
        what = "greying" if augment.policy == "3augment" else "changes of saturation"
        reasons.append(
            f"augmentation without {what}, which mean{'s' if augment.policy == '3augment' else ''} nothing in {in_words(data.channels)}"
        )
    if augment.hflip is None:
        digits = data.name == "digits"
        augment = replace(augment, hflip=0.0 if digits else 0.5)
        no, yes = (
            "no left-right flips: a mirrored digit is another sign",
            "left-right flips: --hflip 0 where sides matter",
        )
        reasons.append(no if digits else yes)
    return augment


def _train(
    train: TrainOptions, data: DataSet, budgeted: bool, labelled: bool, reasons: Reasons, *, places: bool = False
) -> TrainOptions:
    """Batch, budget and loader by the number of images."""
    count = len(data.splits["train"])
    if train.batch_size is None:
        size = min(64, max(1, count // 2)) if count < 4_000 else 128
        if places:  # each pixel is an example
            size = max(1, min(16, -(-count // 8)))
        steps = -(-count // (size * train.accumulation))
        train = replace(train, batch_size=size)
        reasons.append(f"batch of {size}: {count:,} training images give {steps:,} steps an epoch")
    if not budgeted:
        few, many, seen = (10, 100, 200_000) if labelled else (20, 400, 800_000)  # epochs, epochs, images
        train = replace(train, epochs=float(min(many, max(few, round(seen / count)))))
        reasons.append(
            f"{train.epochs:g} epochs: few images are seen more often; --epochs, --steps or --time say otherwise"
        )
    if train.validate_every is None and (epochs := _validated_epochs(train, count, places)) > 1:
        assert train.batch_size is not None
        every = epochs * -(-count // (train.batch_size * train.accumulation))
        train = replace(train, validate_every=every)
        why = "as scores of places take long" if places else f"as one of {count:,} images is short"
        reasons.append(f"validation every {epochs} epochs, {why}: --validate-every says otherwise")
    if train.workers is None:
        fit = count * data.height * data.width * data.channels <= REMEMBERED
        train = replace(train, workers=0 if fit else 2)
        reasons.append("images stay decoded in memory" if fit else "2 loader processes decode ahead")
    return train


def _validated_epochs(train: TrainOptions, count: int, places: bool) -> int:
    """Epochs between validations: as many as see so many images, but so many validations in a run whose length is known."""
    between, least = (BETWEEN_PLACES, VALIDATIONS_OF_PLACES) if places else (BETWEEN, VALIDATIONS)
    epochs = train.epochs
    if train.steps is not None:
        assert train.batch_size is not None
        epochs = train.steps * train.batch_size * train.accumulation / count
    most = float("inf") if epochs is None else epochs / least
    return max(1, int(min(between / count, most)))


def settle_optim(
    optim: OptimOptions, transfer: TransferOptions, width: int, batch: int, reasons: Reasons
) -> OptimOptions:
    """Muon where whole matrices learn, and a learning rate by the model's width or for the batch; lower for weights that know something."""
    whole = transfer.freeze != "encoder" and not transfer.lora_rank
    if optim.optimizer is None and not whole:
        optim = replace(optim, optimizer="adamw")
        reasons.append("AdamW: Muon is for whole matrices inside the encoder, and these do not learn")
    elif optim.optimizer is None:
        optim = replace(optim, optimizer="muon")
        reasons.append("Muon for the encoder's matrices: learned more than AdamW in equal time")
    assert optim.optimizer is not None
    if optim.lr is None and optim.lr_per is not None:
        raise VitralError(f"lr_per {optim.lr_per}: says for how many images --lr is meant; give --lr too")
    if optim.lr is None:
        muon, adamw = (5e-3, 1e-3) if width <= 128 else (3e-3, 1e-3) if width <= 256 else (1.5e-3, 5e-4)
        # The ViT's fine-tuning (its paper's table 4), DeiT III (https://arxiv.org/abs/2204.07118), MAE's linear probe (its table 10).
        rates = {"muon": muon, "adamw": adamw, "sgd": 0.03, "lamb": 3e-3, "lars": 0.1 * batch / 256}
        why = f"width {width}" if optim.optimizer in ("muon", "adamw") else "as in its papers"
        if whole and transfer.init is not None and optim.optimizer in ("muon", "adamw"):
            rates, why = {name: rate * FINE_TUNING for name, rate in rates.items()}, f"{why}, from trained weights"
        optim = replace(optim, lr=rates[optim.optimizer])
        reasons.append(f"learning rate {optim.lr:g}: {optim.optimizer}, {why}")
    elif optim.lr_per is not None:
        said = f"{optim.lr:g} for {optim.lr_per} images"
        optim = replace(optim, lr=optim.lr * batch / optim.lr_per, lr_per=None)
        reasons.append(f"learning rate {optim.lr:g}: {said}, and a step has {batch}")
    return optim
