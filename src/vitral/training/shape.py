"""The configuration of the model that a recipe asks for, and its preprocessing."""

from vitral.data.dataset import DataSet
from vitral.data.preprocess import Preprocess
from vitral.errors import VitralError
from vitral.models.common import ModelConfig
from vitral.models.zoo import model_config
from vitral.training.config import Recipe
from vitral.training.options import ModelOptions
from vitral.training.sizes import MODEL, row


def width(model: ModelOptions) -> int:
    """Width of the tokens; in a pyramid, of the last stage."""
    return model.get("dim") or row(model).token_width


def shape(recipe: Recipe, data: DataSet) -> ModelConfig:
    """The model's configuration: the zoo's row with the recipe's changes, and the data's channels and classes."""
    classes = len(data.labels) if recipe.objective.labelled else 0
    return open_shape(recipe, in_channels=data.channels, num_classes=classes)


def open_shape(recipe: Recipe, **more: object) -> ModelConfig:
    """The configuration of the module that is trained, which the objective makes of the model's."""
    return recipe.objective.shape(open_config(recipe, **more))


def open_config(recipe: Recipe, **more: object) -> ModelConfig:
    """The zoo's row with the recipe's changes."""
    chosen = dict(recipe.model.arguments)
    if chosen.get("layer_scale") == 0:
        chosen["layer_scale"] = None
    config = row(recipe.model)
    pretext = config.backbone is not config
    if pretext and recipe.objective.labelled:
        raise VitralError(
            f"{recipe.model.name}: learns from hidden patches, not from labels; choose a model with a head, or vitral pretrain"
        )
    if pretext:
        more.pop("num_classes", None)
    return model_config(recipe.model.name or MODEL, **(chosen | more))


def preprocess(recipe: Recipe, data: DataSet, config: ModelConfig) -> Preprocess:
    """The evaluation view of a resolved recipe."""
    view = recipe.view
    assert view.resize is not None
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
        value_range=recipe.data.value_range,
        page=recipe.data.page,
        show_bands=recipe.data.show_bands,
    )
