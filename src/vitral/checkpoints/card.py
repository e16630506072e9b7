"""What a model file says about itself: read without PyTorch, which only building the model needs."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import vitral
from vitral.data.preprocess import Preprocess
from vitral.errors import VitralError

if TYPE_CHECKING:
    from vitral.models.common import ImageModel

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
    """What its outputs answer, a key of `vitral.answers.ANSWERS`."""
    head: dict[str, object] | None = None
    """Name and options of a dense task's head; None where the architecture's own head answers."""
    ids: list[int] = field(default_factory=list)
    """Of each label the number that the training data have for it (a COCO id, a map's value); empty where classes have names alone."""
    version: str = vitral.__version__

    @property
    def model(self) -> str:
        """What the model is, in words; in a process that has not imported PyTorch, which would have to tell them, its name."""
        words = self.architecture
        if "torch" in sys.modules:
            from vitral.models.words import model_in_words
            from vitral.models.zoo import model_config

            words = model_in_words(model_config(self.architecture, **self.arguments), self.architecture)
        return words if self.head is None else f"{words}, {self.head['name']} head"

    @property
    def threshold(self) -> float | None:
        """Score from which something counts as found, as the validation images have it; None: the task's own."""
        validated = self.scores.get("val")
        return validated.get("threshold") if isinstance(validated, dict) else None

    def build(self) -> "ImageModel":
        """A model of this shape, freshly initialised. Raises VitralError, or TypeError for options of a later version."""
        from vitral.models.heads.dense import build_model
        from vitral.models.heads.options import head_options
        from vitral.models.zoo import model_config

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
            card = cls(**{**stored, "preprocess": Preprocess.from_json(stored["preprocess"])})
            if not isinstance(card.labels, list) or not all(isinstance(label, str) for label in card.labels):
                raise TypeError("labels are to be a list of texts")
            return card
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, VitralError):
                raise
            raise VitralError(f"{path}: its description is damaged ({error!r}); save the model again") from error


def read_card(path: Path, metadata: dict[str, str]) -> ModelCard:
    """The card among a file's metadata. Raises VitralError where there is none, or it is damaged or newer than this version."""
    if "vitral" not in metadata:
        raise VitralError(
            f"{path}: holds weights but not vitral's description (architecture, labels, preprocessing), so nothing can be predicted with "
            "it; create the model by name and use vitral.load_weights"
        )
    return ModelCard.from_json(metadata["vitral"], path)
