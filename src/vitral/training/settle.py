"""What a run starts from, decided once: the data, a recipe without open fields, the model's configuration, preprocessing and initial weights."""

import hashlib
import shlex
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from vitral.data.bands import in_words
from vitral.data.dataset import DataSet
from vitral.data.divide import Held
from vitral.data.preprocess import Preprocess
from vitral.data.sources import open_data
from vitral.data.targets import TARGETS
from vitral.errors import VitralError, counted
from vitral.models.common import ModelConfig
from vitral.training import shape
from vitral.training.config import Recipe
from vitral.training.defaults import check, resolve
from vitral.training.display import Display
from vitral.training.machine import choose_device, choose_precision, precision_cost
from vitral.training.sizes import patch_for
from vitral.training.transfer import Initial, open_initial


@dataclass(frozen=True)
class Settled:
    source: str
    """The data as the user named them, as an absolute path."""
    data: DataSet
    recipe: Recipe
    """Without open fields."""
    initial: Initial | None
    """The weights that training starts from."""
    reasons: tuple[str, ...]
    """A line for each decision."""

    @cached_property
    def config(self) -> ModelConfig:
        return shape.shape(self.recipe, self.data)

    @cached_property
    def preprocess(self) -> Preprocess:
        return shape.preprocess(self.recipe, self.data, self.config)


def settle(source: str, recipe: Recipe, display: Display, opened: DataSet | None = None) -> Settled:
    """All that a run of this recipe starts from. A recipe that contradicts itself or the machine raises VitralError before any image is read.

    opened: the data, if already opened for this recipe, which was checked then.
    """
    recipe = placed(recipe)
    model_files(recipe)
    recipe, initial = open_initial(recipe)
    if opened is None:
        check(recipe)
    if (first := recipe.objective.missing) is not None:
        raise VitralError(
            f"objective {recipe.objective.name} needs --{first}: the folder of a run of vitral pretrain --objective {first}"
        )
    device = choose_device(recipe.train.device)
    choose_precision(recipe.train.precision, device)
    source = rooted(source)
    data = open_for(source, recipe, display) if opened is None else opened
    recipe, reasons = resolve(recipe, data, device.type, None if initial is None else initial.preprocess)
    return Settled(source, data, recipe, initial, tuple(reasons))


def open_for(source: str, recipe: Recipe, display: Display, held: Held | None = None) -> DataSet:
    """The data as a run with this recipe opens them. held: as in `open_data`."""
    if (warning := precision_cost(recipe.train.precision, choose_device(recipe.train.device))) is not None:
        display.say(warning)
    try:
        data = open_data(
            source,
            recipe.data,
            labelled=recipe.objective.labelled,
            least_side=lambda height, width: patch_for(recipe.model, height, width, recipe.pretext),
            progress=lambda done, total: display.count("checking images", done, total),
            held=held,
        )
    except VitralError as error:
        if Path(source).exists():
            error.args = (f"{error}\nmore about these data, with the images: vitral doctor {shlex.quote(source)}",)
        raise
    counts = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
    kinds = counted(len(data.labels), *TARGETS[data.task].nouns)
    display.say(f"{data.name}: {kinds}, {counts} images, {data.height}x{data.width} {in_words(data.channels)}")
    return data


def rooted(source: str) -> str:
    """The data as an absolute path; a built-in name as it is."""
    return str(Path(source).resolve()) if Path(source).exists() else source


def placed(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths, so that a run can be resumed from any folder."""

    def from_root(path: str | None) -> str | None:
        return path if path is None else rooted(path)

    objective = recipe.objective
    located = replace(objective, **{name: from_root(getattr(objective, name)) for name in objective.models})
    data = replace(recipe.data, images_folder=from_root(recipe.data.images_folder))
    return replace(recipe, objective=located, data=data)


def inputs(recipe: Recipe) -> dict[str, str]:
    """The sha256 of each model file that a run learns from, which resuming needs unchanged."""
    digests = {}
    for path, file in model_files(recipe).items():
        with open(file, "rb") as opened:
            digests[path] = hashlib.file_digest(opened, "sha256").hexdigest()
    return digests


def model_files(recipe: Recipe) -> dict[str, Path]:
    """The models that the objective learns from, as the recipe names them, and their files. Raises VitralError if one is missing."""
    files = {}
    for path in filter(None, (getattr(recipe.objective, name) for name in recipe.objective.models)):
        if path.startswith("hf:"):
            continue
        files[path] = Path(path) / "model.safetensors" if Path(path).is_dir() else Path(path)
        if not files[path].is_file():
            raise VitralError(f"{path}: there is no model; give a finished run or a model file")
    return files
