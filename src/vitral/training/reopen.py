"""Data opened again for a model that is trained: read and divided as its run did it, so that no test image was a training image then."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitral.checkpoints.bundle import ModelCard
from vitral.data.scan import Progress
from vitral.data.sources import DataSet, open_data
from vitral.errors import VitralError
from vitral.training.config import Recipe
from vitral.training.toml import read_recipe, stored_data_options


def open_as_in_training(
    data: str,
    card: ModelCard,
    said: dict[str, Any],
    progress: Progress,
    *,
    training: bool = False,
    labelled: bool = True,
) -> DataSet:
    """Any data, with the data options of the run that made the model.

    said: fields of `DataOptions` that a person set; they go before the run's own. progress, training, labelled: as in `open_data`.
    Raises VitralError as `open_data` does.
    """
    steps = card.preprocess
    options = replace(stored_data_options(card.recipe), channels=steps.channels)
    return open_data(
        data, replace(options, **said), training=training, labelled=labelled,
        least_side=lambda height, width: steps.min_size,
        progress=progress,
    )  # fmt: skip


def data_of_run(model: Path, progress: Progress | None = None) -> DataSet | None:
    """The data that a model (a run folder, or a file in one) was trained on, divided as they were then; None if no run lies beside it.

    progress: as in `open_data`. Raises VitralError if the data are gone, or their images or labels are no longer the same.
    """
    found = source_of_run(model)
    if found is None:
        return None
    source, fingerprint, recipe = found
    data = open_data(source, recipe.data, labelled=recipe.objective.name == "classify", progress=progress)
    if data.fingerprint != fingerprint:
        raise VitralError(f"{source}: the images or labels changed since the run of {model}; restore them")
    return data


def source_of_run(model: Path) -> tuple[str, str, Recipe] | None:
    """(the data as the run named them, their fingerprint, the recipe) of the run that a model lies in; None if it lies in none."""
    run = model if model.is_dir() else model.parent
    try:
        described = json.loads((run / "run.json").read_text())
        source, fingerprint = described["data"], described["fingerprint"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VitralError(f"{run / 'run.json'}: cannot be read ({error}); restore it") from error
    return source, fingerprint, read_recipe(run / "recipe.toml")
