"""The model file: one safetensors file with the weights and, in its metadata, all that is needed to use them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

import vitral
from vitral.checkpoints.atomic import read_safetensors, write_safetensors
from vitral.data.preprocess import Preprocess
from vitral.errors import VitralError, some
from vitral.models.common import ImageModel
from vitral.models.heads.dense import build_model
from vitral.models.heads.options import head_options
from vitral.models.words import model_in_words
from vitral.models.zoo import model_config

FORMAT = "2"
READABLE = ("1", "2")  # the first had no steps in its preprocessing


@dataclass
class ModelCard:
    """What a model file says about itself beside its weights."""

    architecture: str
    """Name in the zoo that the model started from."""
    arguments: dict[str, object]
    """Every field of the family's dataclass."""
    labels: list[str]
    """Class names; the position is the model's output index."""
    preprocess: Preprocess
    recipe: dict[str, object] = field(default_factory=dict)
    scores: dict[str, object] = field(default_factory=dict)
    data: dict[str, object] = field(default_factory=dict)
    """Name and fingerprint of the training data."""
    task: str = "classify"
    """classify (one class an image) or multilabel (several labels or none: each output is a yes or no of its own)."""
    head: dict[str, object] | None = None
    """Name and options of a dense task's head; None where the architecture's own head answers."""
    version: str = vitral.__version__

    @property
    def model(self) -> str:
        """What the model is, in words."""
        words = model_in_words(model_config(self.architecture, **self.arguments), self.architecture)
        return words if self.head is None else f"{words}, {self.head['name']} head"

    def build(self) -> ImageModel:
        """A model of this shape, freshly initialised. Raises VitralError, or TypeError for options of a later version."""
        config = model_config(self.architecture, **self.arguments)
        return build_model(config, None if self.head is None else head_options(self.head))

    def to_json(self) -> str:
        return json.dumps({**self.__dict__, "preprocess": self.preprocess.to_json(), "format": FORMAT})

    @classmethod
    def from_json(cls, text: str, path: Path) -> "ModelCard":
        try:
            stored = json.loads(text)
            if stored.pop("format") not in READABLE:
                raise VitralError(f"{path}: written by a newer vitral; upgrade with pip install -U vitral")
            if stored.pop("multi_label", False):  # of a file from before there were tasks
                stored["task"] = "multilabel"
            return cls(**{**stored, "preprocess": Preprocess.from_json(stored["preprocess"])})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, VitralError):
                raise
            raise VitralError(f"{path}: its description is damaged ({error!r}); save the model again") from error


def save_model(path: Path, model: nn.Module, card: ModelCard) -> None:
    """Weights and card in one file, atomically."""
    write_safetensors(path, model.state_dict(), {"vitral": card.to_json(), "format": "pt"})


def read_card(path: Path, metadata: dict[str, str]) -> ModelCard:
    if "vitral" not in metadata:
        raise VitralError(
            f"{path}: holds weights but not vitral's description (architecture, labels, preprocessing), so nothing can be predicted with "
            "it; create the model by name and use vitral.load_weights"
        )
    return ModelCard.from_json(metadata["vitral"], path)


def load_model(path: Path) -> tuple[ImageModel, ModelCard]:
    """The model in evaluation mode, and its card."""
    tensors, metadata = read_safetensors(path)
    card = read_card(path, metadata)
    try:
        model = card.build()
    except (TypeError, VitralError) as error:
        raise VitralError(f"{path}: needs a model that this version cannot build ({error}); upgrade vitral") from error
    fill(model, tensors, str(path))
    return model.eval(), card


@dataclass
class LoadReport:
    """What `load_weights` did: `loaded` of `total` tensors of the model, and what differed."""

    loaded: int
    total: int
    missing: list[str]
    """In the model, not in the source."""
    unexpected: list[str]
    """In the source, not in the model."""
    mismatched: list[str]
    """In both with other shapes: "name: source shape, model shape"."""
    notes: list[str] = field(default_factory=list)
    """What was resized, adapted or left out on the way."""
    layout: str = "vitral"
    """Whose names the source had: vitral, timm, hf, hf5, google or paper."""
    base: str = ""
    """The prefix that its encoder's tensors had."""
    left_out: dict[str, Tensor] = field(default_factory=dict)
    """Tensors of the source that are no part of the model."""

    @property
    def complete(self) -> bool:
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        lines = [f"{self.loaded} of {self.total} tensors"]
        for title, names in (
            ("only in the model", self.missing),
            ("only in the file", self.unexpected),
            ("of another shape (file, model)", self.mismatched),
        ):
            if names:
                lines.append(f"  {len(names)} {title}: {some(names, 8)}")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def fill(
    model: nn.Module, tensors: dict[str, Tensor], source: str, *, strict: bool = True, optional: Sequence[str] = ()
) -> LoadReport:
    """Copy `tensors` into the model by name; with `strict`, anything left over on either side is a VitralError that lists both.

    optional: tensors of the model that may be missing.
    """
    own = model.state_dict()
    mismatched = {k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape}
    report = LoadReport(
        loaded=len(own.keys() & tensors.keys()) - len(mismatched),
        total=len(own),
        missing=sorted(own.keys() - tensors.keys() - set(optional)),
        unexpected=sorted(tensors.keys() - own.keys()),
        mismatched=[f"{k}: {tuple(tensors[k].shape)}, {tuple(own[k].shape)}" for k in sorted(mismatched)],
    )
    if strict and not report.complete:
        only_head = all(k.startswith("head.") for k in (*report.missing, *mismatched)) and not report.unexpected
        new = "for a new head, pass new_head=True" if only_head else "create the model that these weights belong to"
        raise VitralError(f"{source}: does not fit the model: {report}\n{new}, or pass strict=False to load what fits")
    model.load_state_dict({k: v for k, v in tensors.items() if k in own and k not in mismatched}, strict=False)
    return report
