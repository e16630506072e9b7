"""Every field of a recipe that was left open, decided from the data and the machine, each with its reason in words."""

import dataclasses

from vitral.data.preprocess import Preprocess
from vitral.data.sources import DataSet
from vitral.errors import VitralError
from vitral.models.vit import ViTConfig
from vitral.models.zoo import model_config
from vitral.training.config import ModelOptions, Recipe

SMALL = 64  # pixels: up to here a data set's images are taken at their own size


def resolve(recipe: Recipe, data: DataSet, device: str) -> tuple[Recipe, list[str]]:
    """The recipe without open fields, and a line for each decision."""
    budgets = [name for name in ("epochs", "steps", "time") if getattr(recipe.train, name) is not None]
    if len(budgets) > 1:
        raise VitralError(f"{' and '.join(budgets)}: a run has one budget; give one of epochs, steps and time")
    reasons: list[str] = []
    small = max(data.height, data.width) <= SMALL
    model = _model(recipe.model, data, device, small, reasons)
    count = len(data.splits["train"])

    view = recipe.view
    if view.crop_fraction is None:
        view = dataclasses.replace(view, crop_fraction=1.0 if small else 0.875)

    augment = recipe.augment
    if augment.crop is None:
        augment = dataclasses.replace(augment, crop="padded" if small else "resized")
        reasons.append(
            "augmentation: shifts over a border, as small images are framed tightly"
            if small
            else f"augmentation: resized crops of at least {augment.scale[0]:.0%} of the image"
        )
    if augment.hflip is None:
        digits = data.name == "digits"
        augment = dataclasses.replace(augment, hflip=0.0 if digits else 0.5)
        reasons.append(
            "no left-right flips: a mirrored digit is another sign"
            if digits
            else "left-right flips: set hflip = 0 where left and right matter"
        )

    train, optim = recipe.train, recipe.optim
    if train.batch_size is None:
        size = 256 if count >= 20_000 else 128 if count >= 4_000 else 64
        size = max(1, min(size, -(-count // 8)))
        train = dataclasses.replace(train, batch_size=size)
        reasons.append(
            f"batch of {size}: {count:,} training images give {-(-count // (size * train.accumulation)):,} steps an epoch"
        )
    if not budgets:
        epochs = float(min(100, max(10, round(200_000 / count))))
        train = dataclasses.replace(train, epochs=epochs)
        reasons.append(
            f"{epochs:g} epochs: few images are seen more often (--epochs, --steps or --time set the budget)"
        )
    if optim.lr is None:
        width = model.dim or model_config(model.name).dim
        optim = dataclasses.replace(optim, lr=1e-3 if width <= 256 else 5e-4)
        reasons.append(f"learning rate {optim.lr:g}: width {width}")
    if train.workers is None:
        in_memory = data.splits["train"].path(0) is None
        train = dataclasses.replace(train, workers=0 if in_memory else 2)
        reasons.append(
            "no loader processes: the images are in memory" if in_memory else "2 loader processes decode ahead"
        )
    resolved = dataclasses.replace(recipe, model=model, view=view, augment=augment, optim=optim, train=train)
    return resolved, reasons


def _model(model: ModelOptions, data: DataSet, device: str, small: bool, reasons: list[str]) -> ModelOptions:
    """Size and patch by the images; a small encoder for small images."""
    changes: dict[str, object] = {}
    untouched = model == ModelOptions()
    if model.patch_size is None and small:
        side = min(data.height, data.width)
        changes["patch_size"] = 2 if side <= 16 else 4 if side <= 40 else 8
    if model.image_size is None:
        if small:
            changes["image_size"] = (data.height, data.width)
            reasons.append(
                f"{data.height}x{data.width} pixels: the images' own size, in patches of {changes.get('patch_size', model.patch_size)}"
            )
        else:
            side = 224 if device != "cpu" else 128
            changes["image_size"] = (side, side)
            reasons.append(
                f"{side}x{side} pixels"
                + ("" if device != "cpu" else ": a third of the work of 224x224, as there is no GPU")
            )
    if small and untouched:
        changes |= {"dim": 128, "depth": 6, "num_heads": 4}
        reasons.append("width 128, 6 layers, 4 heads: enough for images this small, and fast")
    return dataclasses.replace(model, **changes)  # type: ignore[arg-type]


def vit_config(recipe: Recipe, data: DataSet) -> ViTConfig:
    """The model's shape: the zoo's row with the recipe's changes, and what the data say about channels and classes."""
    chosen = {k: v for k, v in dataclasses.asdict(recipe.model).items() if v is not None and k != "name"}
    return model_config(recipe.model.name, **chosen, in_channels=data.channels, num_classes=len(data.labels))


def preprocess(recipe: Recipe, data: DataSet, config: ViTConfig) -> Preprocess:
    """The evaluation view; normalised by (x - 0.5) / 0.5 as in the ViT releases, which suits grey and colour alike."""
    assert recipe.view.crop_fraction is not None
    height, width = config.image_size
    half = (0.5,) * data.channels
    return Preprocess(
        height, width, data.channels, half, half, recipe.view.resize, recipe.view.crop_fraction, recipe.view.interpolation,
        data.bit_depth, min(config.patch_size, height, width),
    )  # fmt: skip
