"""What a model says of an image, and what makes that of its outputs: the contract of every task's answers."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitral.data.tiles import Tile
from vitral.data.values import Range
from vitral.data.view import Placed
from vitral.errors import VitralError


@dataclass(frozen=True)
class Answer(ABC):
    """A model's answer for one image."""

    name: str
    """Of the image."""
    clipped: Range | None = field(default=None, kw_only=True)
    """The file's smallest and largest value, if they were clipped to the value range."""

    @abstractmethod
    def line(self, top_k: int) -> str:
        """For a person, without the image's name."""

    @abstractmethod
    def cells(self, top_k: int, separator: str) -> list[str]:
        """A row of CSV under `Answers.columns`; separator: between several labels in one cell."""

    @property
    def empty(self) -> bool:
        """Whether nothing was found, where something can be."""
        return False

    def pictures(self, image: NDArray[np.uint8]) -> Iterator[tuple[str, Image.Image]]:
        """(file ending, picture) of each, over the image [h, w, 3] or beside it; none of an answer to a whole image."""
        return iter(())

    def rows(self, top_k: int, separator: str) -> list[list[str]]:
        """Rows of CSV, each as `cells`: one, but one for each object where there can be several."""
        return [self.cells(top_k, separator)]

    def texts(self) -> dict[str, str]:
        """File ending -> text, for those who read the answer from a file of the image's own; none for most."""
        return {}

    def record(self) -> dict[str, Any]:
        """What of it is written down together with the answers to other images; small, as it is kept until the last of them."""
        return {}

    @abstractmethod
    def to_json(self) -> dict[str, object]:
        """For `json.dumps`, without the image's name."""


class Record(NamedTuple):
    """What is kept of one image's answer until all are written down together."""

    name: str
    """Of the image."""
    stem: str
    """That the names of its files begin with."""
    found: dict[str, Any]
    """`Answer.record`."""


class Answers(ABC):
    """From the outputs of one task's models to answers."""

    squash: ClassVar[str] = "softmax"
    """What makes probabilities of outputs: softmax, or sigmoid."""
    independent: ClassVar[bool] = False
    """Whether each output is a yes or no of its own, and not one choice among all."""
    of_whole: ClassVar[bool] = True
    """Whether an image has one answer, which its pixels can be asked about; of places there are many."""

    kind: ClassVar[str] = ""
    """Of the outputs, a key of `vitral.engines.exported.KINDS`; empty where they are a number for each class."""

    glances: ClassVar[bool] = False
    """Whether beside tiles the image as a whole is looked at, for what is larger than a tile."""

    threshold: float | None = None
    """Score from which something counts as found; None where nothing is found or left out."""
    once: bool | None = None
    """Whether of objects of a class that overlap only the best is answered, whatever the model; None where nothing can be answered twice."""

    def __init__(self, labels: list[str]) -> None:
        self.labels = labels
        self.ids = list(range(len(labels)))
        """Of each label the number that answers are written with: the training data's own where they have one."""

    def gathered(self, records: Sequence[Record]) -> dict[str, str]:
        """File name -> text, for a folder with the answers to images: which number is which class."""
        classes = {str(k): label for k, label in sorted(zip(self.ids, self.labels, strict=True))}
        return {"classes.json": json.dumps({"classes": classes}, ensure_ascii=False)}

    @abstractmethod
    def __call__(self, outputs: Any, names: Sequence[str], top_k: int, placed: Sequence[Placed]) -> Sequence[Answer]:
        """The answer for each image; outputs: of the model, such as float32 [B, K], names: of the images, placed: where the model saw them."""

    def joined(self, tiles: Iterable[Tile], name: str, size: tuple[int, int], top_k: int) -> Answer:
        """The answer for an image of `size` (height, width) from tiles of it. Raises VitralError for answers to whole images."""
        raise VitralError(
            "tiles are for models that answer places, and this one says one thing of an image; leave out --tile"
        )

    @abstractmethod
    def probabilities(self, outputs: Any) -> Any:
        """Outputs [..., K] to probabilities [..., K]."""

    @abstractmethod
    def columns(self, top_k: int, separator: str) -> list[str]:
        """The header of a CSV, without the image's name; VitralError if a label contains the separator between labels."""
