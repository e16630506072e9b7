"""A model by name, or built and loaded from a folder or file that describes itself."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitral.checkpoints.bundle import LoadReport
from vitral.checkpoints.convert import place
from vitral.checkpoints.describe import describe
from vitral.checkpoints.recognise import Source, is_source, read_source
from vitral.data.preprocess import Preprocess
from vitral.models.common import ImageModel
from vitral.models.heads.dense import build_model
from vitral.models.heads.options import HeadOptions
from vitral.models.zoo import build, model_config, replaced


@dataclass
class Opened:
    """A model from a source, with its labels, preprocessing and how it was loaded."""

    model: ImageModel
    report: LoadReport
    architecture: str
    """Name in the zoo, or of the family."""
    labels: list[str] | None
    """Class names in order, where the source has them and the head was kept."""
    preprocess: Preprocess | None
    source: Source
    task: str
    """What its outputs answer, as in `ModelCard`."""
    head: HeadOptions | None = None
    """Of a model for a dense task."""
    unprepared: str = ""
    """Why `preprocess` is None, where the source has preprocessing that is not supported here."""


def create_model(
    name: str | Path,
    weights: str | Path | Mapping[str, Any] | None = None,
    *,
    new_head: bool = False,
    resize: str = "timm",
    allow_pickle: bool = False,
    **arguments: Any,
) -> ImageModel:
    """A model of the zoo, freshly initialised or filled from `weights`, or one built from a source that describes itself.

        create_model("vit_small_patch16_224", num_classes=10)
        create_model("vit_base_patch16_224", weights="ViT-B_16.npz")
        create_model("a-hugging-face-folder"), create_model("hf:org/name"), create_model("runs/photos/model.safetensors")

    Any field of the family's dataclass (image_size, patch_size, in_channels, num_classes, dim, depth, ...) can be given. Positions and bias
    tables of the weights are then resized by the rule of `resize`, the first layer adapted to the channels, and with `new_head` the head left
    fresh; each such change is a warning. Weights that do not fit otherwise are an error with both sides of what differs.
    """
    if is_source(str(name)):
        opened = open_model(name, new_head=new_head, resize=resize, allow_pickle=allow_pickle, **arguments)
        model, report = opened.model, opened.report
    else:
        model = build(model_config(str(name), **arguments))
        if weights is None:
            return model
        report = place(model, read_source(weights, allow_pickle), new_head=new_head, resize=resize)
    for note in report.notes:
        if not note.startswith("left out"):
            warnings.warn(f"{name if weights is None else weights}: {note}", stacklevel=2)
    return model


def open_model(
    name: str | Path,
    *,
    architecture: str | None = None,
    new_head: bool = False,
    resize: str = "timm",
    allow_pickle: bool = False,
    strict: bool = True,
    **arguments: Any,
) -> Opened:
    """The model that a source holds, by its own description (our file, a config.json of Hugging Face or timm, an .npz) or by `architecture`."""
    source = read_source(name, allow_pickle)
    found = describe(source, architecture)
    config = replaced(found.config, str(name), arguments)
    model = build_model(config, found.head)
    report = place(model, source, resize=resize, strict=strict, new_head=new_head)
    labels, preprocess = (None if new_head else found.labels), found.preprocess
    if preprocess is not None and config.in_channels != preprocess.channels:
        preprocess = None  # its means and deviations are those of other channels
    elif preprocess is not None and config.image_size != found.config.image_size:
        preprocess = preprocess.sized(*config.image_size)
    return Opened(
        model, report, found.architecture, labels, preprocess, source, found.task, found.head, found.unprepared
    )
