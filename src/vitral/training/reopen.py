"""Data opened again for a trained model: read and divided as in its run, so that no test image was a training image."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitral.checkpoints.card import ModelCard
from vitral.data.dataset import DataSet, Split
from vitral.data.progress import OnProgress
from vitral.data.sources import open_data
from vitral.errors import VitralError
from vitral.evaluation.evaluate import merged
from vitral.evaluation.seen import contents_seen, held_of
from vitral.training.config import Recipe
from vitral.training.toml import read_recipe, stored_data_options

DIVIDING = ("val_fraction", "test_fraction", "near_copies")
"""Data options that change the splits."""


def open_as_in_training(
    data: str,
    model: Path,
    card: ModelCard,
    said: dict[str, Any],
    progress: OnProgress,
    *,
    training: bool = False,
    labelled: bool = True,
    strict: bool = True,
) -> DataSet:
    """Any data, with the data options of the model's run; the run's own data with the run's splits.

    model: a run folder, or a model file in one. said: fields of `DataOptions` that the user set; they override the run's. progress, training,
    labelled, strict, errors: as in `open_data`.
    """
    steps = card.preprocess
    options = replace(
        stored_data_options(card.recipe), channels=steps.channels, value_range=steps.value_range, page=steps.page,
        show_bands=steps.show_bands,
    )  # fmt: skip
    opened = open_data(
        data, replace(options, **said), training=training, labelled=labelled,
        least_side=lambda height, width: steps.min_size,
        progress=progress, strict=strict, held=None if set(said) & set(DIVIDING) else held_of(model),
    )  # fmt: skip
    if options.images_folder is not None and "images_folder" not in said and Path(data).is_file():
        opened.notes.append(
            f"images are looked for in {options.images_folder}, as in training; --images names another place"
        )
    return opened


def data_of_run(model: Path, progress: OnProgress | None = None) -> DataSet | None:
    """The data that a model (a run folder, or a file in one) was trained on, with the run's splits; None if the model is in no run.

    progress: as in `open_data`. Raises VitralError if the data are gone, or their images or labels are no longer the same.
    """
    found = source_of_run(model)
    if found is None:
        return None
    source, fingerprint, recipe = found
    data = open_data(source, recipe.data, labelled=recipe.objective.labelled, progress=progress, held=held_of(model))
    if data.fingerprint != fingerprint:
        raise VitralError(f"{source}: the images or labels changed since the run of {model}; restore them")
    return data


def training_images_left(
    model: Path, card: ModelCard, progress: OnProgress | None = None
) -> tuple[DataSet, Split, int] | None:
    """(the data of a model's run as they are now, its training images that still exist, how many are gone); None if the model is in no run.

    An image is recognised by its content, even if it was renamed or moved to another class. progress: as in `open_data`.

    Raises:
        VitralError: the data are gone, or none of the training images is left, or the run is too old to know them and its data have changed.
    """
    found = source_of_run(model)
    if found is None:
        return None
    source, fingerprint, recipe = found
    labelled, least = recipe.objective.labelled, card.preprocess.min_size
    data = open_data(
        source, replace(recipe.data, skip_unreadable=True), training=False, labelled=labelled, strict=False,
        least_side=lambda height, width: least, progress=progress, held=held_of(model),
    )  # fmt: skip
    seen = contents_seen(model if model.is_dir() else model.parent)
    if seen is None:
        if data.fingerprint != fingerprint:
            raise VitralError(f"{source}: the images or labels changed since the run of {model}; restore them")
        return data, data.splits["train"], 0
    order = [part for name in ("train", "val", "test") if (part := data.splits.get(name))]
    whole = merged(replace(data, splits={part.name: part for part in order}))
    kept = _counted_once_each(whole.contents, seen)
    if not len(kept):
        raise VitralError(f"{source}: holds none of the {len(seen):,} images any more that the model was trained on")
    return data, replace(whole.take(kept), name="train"), len(seen) - len(kept)


def _counted_once_each(contents: NDArray[np.uint64], seen: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Positions of the contents that are among those seen, each content no more often than it was seen."""
    left = Counter(seen.tolist())
    kept = []
    for position, content in enumerate(contents.tolist()):
        if left[content] > 0:
            left[content] -= 1
            kept.append(position)
    return np.array(kept, np.int64)


def source_of_run(model: Path) -> tuple[str, str, Recipe] | None:
    """(the data as the run named them, their fingerprint, the recipe) of the run that a model is in; None if it is in none."""
    run = model if model.is_dir() else model.parent
    try:
        described = json.loads((run / "run.json").read_text())
        source, fingerprint = described["data"], described["fingerprint"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VitralError(f"{run / 'run.json'}: cannot be read ({error}); restore it") from error
    return source, fingerprint, read_recipe(run / "recipe.toml", stored=True)
