"""Every field of a recipe that was left open, decided from the data and the machine, each with its reason in words."""

from dataclasses import asdict, replace

import torch

from vitral.data.loader import REMEMBERED
from vitral.data.options import AugmentOptions
from vitral.data.preprocess import Preprocess
from vitral.data.sources import DataSet
from vitral.errors import VitralError
from vitral.models.common import ModelConfig
from vitral.models.hybrid import HybridConfig
from vitral.models.mae import MAEConfig
from vitral.models.pvt import PvtConfig
from vitral.models.swin import SwinConfig
from vitral.models.zoo import build, model_config
from vitral.training.config import ModelOptions, OptimOptions, Recipe, TrainOptions, ViewOptions

SMALL = 64  # pixels: up to here a data set's images are taken at their own size
NORMALISED_BY = 1000  # images
Reasons = list[str]


def check(recipe: Recipe) -> None:
    """Refuse what cannot be meant so, as far as that is known without the data: no image is read in vain."""
    _budgets(recipe)
    given = {}
    config = _config(recipe)
    if _plain(config) and recipe.model.patch_size is None:  # small images will have smaller patches than the zoo's
        given["patch_size"] = min(getattr(config, "patch_size", 1), *config.image_size)
    with torch.device("meta"):  # shapes only
        build(_config(recipe, **given))
    view = recipe.view
    known = [("channels", recipe.data.channels)] if recipe.data.channels else []
    known += [(name, len(values)) for name, values in (("mean", view.mean), ("std", view.std)) if values is not None]
    if len({count for _, count in known}) > 1 or any(count not in (1, 3) for _, count in known):
        values = {"channels": (recipe.data.channels,), "mean": view.mean, "std": view.std}
        said = ", ".join(f"{name} {' '.join(map(str, values[name] or ()))}" for name, _ in known)
        raise VitralError(f"{said}: give one number for each channel, 1 (grey) or 3 (RGB)")
    channels = known[0][1] if known else 1
    Preprocess(
        *config.image_size, channels, view.mean or (0.5,) * channels, view.std or (0.5,) * channels,
        resize=view.resize, crop_fraction=1.0 if view.crop_fraction is None else view.crop_fraction,
        interpolation=view.interpolation,
    )  # fmt: skip


def _budgets(recipe: Recipe) -> list[str]:
    """How the budget was given, if it was."""
    budgets = [name for name in ("epochs", "steps", "time") if getattr(recipe.train, name) is not None]
    if len(budgets) > 1:
        raise VitralError(f"{' and '.join(budgets)}: a run has one budget; give one of epochs, steps and time")
    return budgets


def resolve(recipe: Recipe, data: DataSet, device: str) -> tuple[Recipe, Reasons]:
    """The recipe without open fields, and a line for each decision."""
    budgets = _budgets(recipe)
    reasons: Reasons = []
    small = max(data.height, data.width) <= SMALL
    model = _model(recipe.model, data, device, small, reasons)
    view = recipe.view
    if view.crop_fraction is None:
        view = replace(view, crop_fraction=1.0 if small else 0.875)
    if view.mean is None or view.std is None:
        view = _normalisation(view, data, reasons)
    augment = _augment(recipe.augment, data, small, reasons)
    train = _train(recipe.train, data, bool(budgets), reasons)
    optim = _optim(recipe.optim, _width(model), reasons)
    return replace(recipe, model=model, view=view, augment=augment, optim=optim, train=train), reasons


def _model(model: ModelOptions, data: DataSet, device: str, small: bool, reasons: Reasons) -> ModelOptions:
    """Size and patch by the images; a small encoder for small images unless a model was chosen."""
    changes: dict[str, object] = {}
    patch = patch_for(model, data.height, data.width)
    if model.patch_size is None and small and _plain(model_config(model.name)):
        changes["patch_size"] = patch
    if model.image_size is None and small:
        changes["image_size"] = (data.height, data.width)
        patches = f", in patches of {patch}" if patch > 1 else ""
        reasons.append(f"{data.height}x{data.width} pixels, the images' own size{patches}")
    elif model.image_size is None:
        side = 128 if device == "cpu" else 224
        changes["image_size"] = (side, side)
        why = (
            "a third of the work of 224x224, as there is no GPU" if device == "cpu" else "the usual size of photographs"
        )
        reasons.append(f"{side}x{side} pixels: {why}")
    size = changes.get("image_size", model.image_size)
    assert isinstance(size, tuple)
    padded = [-(-side // patch) * patch for side in size]
    if padded != list(size):
        reasons.append(
            f"{size[0]}x{size[1]} pixels are padded with zeros to {padded[0]}x{padded[1]}: patches of {patch} do not tile them"
        )
    if small and model == ModelOptions():
        changes |= {"dim": 96, "depth": 5, "num_heads": 3, "mlp_ratio": 2.0}
        changes |= {"position": "sincos2d", "pooling": "mean", "class_token": False}
        reasons.append("width 96, 5 layers, patches averaged instead of a class token: learns fast on small images")
    return replace(model, **changes)  # type: ignore[arg-type]


def _plain(config: ModelConfig) -> bool:
    """Whether the patches may be of any size."""
    return hasattr(config, "patch_size") and not isinstance(config, SwinConfig | HybridConfig)


def patch_for(model: ModelOptions, height: int, width: int) -> int:
    """Side of the patches for images of this size: as said, small for small images, else the zoo's; 1 if there are none."""
    config = model_config(model.name)
    if model.patch_size is not None:
        return model.patch_size
    if max(height, width) <= SMALL and _plain(config):
        side = min(height, width)
        return 2 if side <= 16 else 4 if side <= 40 else 8
    return getattr(config, "patch_size", 1)


def _width(model: ModelOptions) -> int:
    """Width of the tokens, in a pyramid that of the last stage."""
    if model.dim is not None:
        return model.dim
    config = model_config(model.name)
    if isinstance(config, PvtConfig):
        return config.dims[-1]
    if isinstance(config, SwinConfig):
        return config.dim * 2 ** (len(config.depths) - 1)
    return getattr(config, "dim", 512)


def _normalisation(view: ViewOptions, data: DataSet, reasons: Reasons) -> ViewOptions:
    """Mean and deviation of the training images' pixels, from up to 1,000 of them."""
    train = data.splits["train"]
    rows = range(0, len(train), -(-len(train) // NORMALISED_BY))
    sums = torch.zeros(3, data.channels, dtype=torch.float64)  # count, sum, sum of squares
    for i in rows:
        pixels = train.read(i, data.channels, SMALL).flatten(1).double() / 255
        sums += torch.stack([torch.full((data.channels,), pixels.shape[1]), pixels.sum(1), pixels.square().sum(1)])
    mean = sums[1] / sums[0]
    std = (sums[2] / sums[0] - mean.square()).clamp(min=1e-6).sqrt()
    view = replace(view, mean=view.mean or _rounded(mean), std=view.std or _rounded(std))
    mean_text, std_text = (" ".join(f"{v:g}" for v in values or ()) for values in (view.mean, view.std))
    reasons.append(f"normalised by mean {mean_text} and deviation {std_text}: of {len(rows):,} training images")
    return view


def _rounded(values: torch.Tensor) -> tuple[float, ...]:
    return tuple(round(v, 4) for v in values.tolist())


def _augment(augment: AugmentOptions, data: DataSet, small: bool, reasons: Reasons) -> AugmentOptions:
    """Shifts for small images, crops for photographs, wider ones where there are many."""
    count = len(data.splits["train"])
    if augment.crop is None:
        augment = replace(augment, crop="padded" if small else "resized")
        if small:
            reasons.append("augmentation by small shifts, as small images are framed tightly")
    if augment.scale is None:
        scale = (0.08, 1.0) if count >= 10_000 else (0.35, 1.0)
        augment = replace(augment, scale=scale)
        if augment.crop == "resized":
            reasons.append(f"augmentation by crops of at least {scale[0]:.0%} of the image: {count:,} training images")
    if augment.hflip is None:
        digits = data.name == "digits"
        augment = replace(augment, hflip=0.0 if digits else 0.5)
        no, yes = (
            "no left-right flips: a mirrored digit is another sign",
            "left-right flips: --hflip 0 where sides matter",
        )
        reasons.append(no if digits else yes)
    return augment


def _train(train: TrainOptions, data: DataSet, budgeted: bool, reasons: Reasons) -> TrainOptions:
    """Batch, budget and loader by the number of images."""
    count = len(data.splits["train"])
    if train.batch_size is None:
        size = 128 if count >= 4_000 else 64
        size = max(1, min(size, -(-count // 8)))
        steps = -(-count // (size * train.accumulation))
        train = replace(train, batch_size=size)
        reasons.append(f"batch of {size}: {count:,} training images give {steps:,} steps an epoch")
    if not budgeted:
        train = replace(train, epochs=float(min(100, max(10, round(200_000 / count)))))
        reasons.append(
            f"{train.epochs:g} epochs: few images are seen more often; --epochs, --steps or --time say otherwise"
        )
    if train.workers is None:
        fit = count * data.height * data.width * data.channels <= REMEMBERED
        train = replace(train, workers=0 if fit else 2)
        reasons.append("images stay decoded in memory" if fit else "2 loader processes decode ahead")
    return train


def _optim(optim: OptimOptions, width: int, reasons: Reasons) -> OptimOptions:
    """Muon, and a learning rate by the model's width."""
    if optim.optimizer is None:
        optim = replace(optim, optimizer="muon")
        reasons.append("Muon for the encoder's matrices: learned more than AdamW in equal time (benchmarks/LOG.md)")
    if optim.lr is None:
        muon, adamw = (5e-3, 1e-3) if width <= 128 else (3e-3, 1e-3) if width <= 256 else (1.5e-3, 5e-4)
        optim = replace(optim, lr=muon if optim.optimizer == "muon" else adamw)
        reasons.append(f"learning rate {optim.lr:g}: {optim.optimizer}, width {width}")
    return optim


def shape(recipe: Recipe, data: DataSet) -> ModelConfig:
    """The model's shape: the zoo's row with the recipe's changes, and what the data say about channels and classes."""
    return _config(recipe, in_channels=data.channels, num_classes=len(data.labels))


def _config(recipe: Recipe, **more: object) -> ModelConfig:
    chosen = {k: v for k, v in asdict(recipe.model).items() if v is not None and k != "name"}
    if isinstance(model_config(recipe.model.name), MAEConfig):
        raise VitralError(
            f"{recipe.model.name}: learns from hidden patches, not from labels; choose a model with a head"
        )
    return model_config(recipe.model.name, **(chosen | more))


def preprocess(recipe: Recipe, data: DataSet, config: ModelConfig) -> Preprocess:
    """The evaluation view of a resolved recipe."""
    view = recipe.view
    assert view.crop_fraction is not None
    assert view.mean is not None
    assert view.std is not None
    height, width = config.image_size
    return Preprocess(
        height,
        width,
        data.channels,
        view.mean,
        view.std,
        resize=view.resize,
        crop_fraction=view.crop_fraction,
        interpolation=view.interpolation,
        bit_depth=data.bit_depth,
        min_size=getattr(config, "patch_size", 1),
    )
