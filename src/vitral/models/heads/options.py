"""The table of heads for dense tasks: the options of each, free of torch so that help pages stay fast. A new head is a class, a file and a row here.

A recipe's section [head] holds a name of `HEADS` and fields of that class; the command line has a flag for each field.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from vitral.errors import VitralError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class HeadOptions(ABC):
    """What turns a backbone's maps into answers for places or objects."""

    name: ClassVar[str]
    pyramids: ClassVar[bool] = True
    """Whether it reads the maps of a pyramid, too."""

    @abstractmethod
    def build(self, widths: Sequence[int], strides: Sequence[int], classes: int) -> "nn.Module":
        """head(maps, (H, W)) -> Maps or Found, for maps [B, h, w, D] of these widths and pixel strides, finest first."""

    def to_json(self) -> dict[str, object]:
        """Its name and fields, as a model file keeps them."""
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True)
class NoHead(HeadOptions):
    """None was named: the task and the family decide."""

    name = ""

    def build(self, widths: Sequence[int], strides: Sequence[int], classes: int) -> "nn.Module":
        raise AssertionError("a head was decided before")


@dataclass(frozen=True)
class LinearOptions(HeadOptions):
    name = "linear"

    head_upscale: int = 4
    """How many times finer than the finest map the linear and the segformer head answer: from a place's vector they tell so many by so many parts of
    its cell apart; 1 in DINOv2, DINOv3 and SegFormer, whose cells are small beside their images."""
    head_dropout: float = 0.1
    """Share of the maps that the linear and the segformer head do not see in training, whole channels at a time."""

    def __post_init__(self) -> None:
        _check_dropout(self.head_dropout)
        if self.head_upscale < 1:
            raise VitralError(f"head.head_upscale {self.head_upscale}: must be at least 1")

    def build(self, widths: Sequence[int], strides: Sequence[int], classes: int) -> "nn.Module":
        from vitral.models.heads.linear import LinearHead

        return LinearHead(widths, strides, classes, self)


@dataclass(frozen=True)
class SegformerOptions(HeadOptions):
    name = "segformer"

    head_dim: int = 256
    """Width of the segformer head: 256 in the paper's B0 and B1, 768 in the larger ones."""
    head_upscale: int = 1
    """How many times finer than the finest map the linear and the segformer head answer: from a place's vector they tell so many by so many parts of
    its cell apart; 1 in DINOv2, DINOv3 and SegFormer, whose cells are small beside their images."""
    head_dropout: float = 0.1
    """Share of the maps that the linear and the segformer head do not see in training, whole channels at a time."""
    batch_norm: bool = False
    """A batch norm in the segformer head, as in the paper's weights, instead of a layer norm, which sees one place at a time."""

    def __post_init__(self) -> None:
        _check_dropout(self.head_dropout)
        for name in ("head_dim", "head_upscale"):
            if getattr(self, name) < 1:
                raise VitralError(f"head.{name} {getattr(self, name)}: must be at least 1")

    def build(self, widths: Sequence[int], strides: Sequence[int], classes: int) -> "nn.Module":
        from vitral.models.heads.segformer import SegformerHead

        return SegformerHead(widths, strides, classes, self)


@dataclass(frozen=True)
class QueryOptions(HeadOptions):
    name = "query"

    decoder_layers: int = 0
    """Decoder layers of the query head; with 0 it is a dense detector, of whose answers to the same object only the best counts: what learns most
    from scratch in equal time."""
    queries: int = 100
    """Most objects that the query head finds in an image."""
    query_dim: int = 128
    """Width of the query head."""
    query_heads: int = 4
    """Attention heads of the query head's decoder."""
    pixel_dim: int = 32
    """Width of the vectors of pixels that the query head's masks are made of."""
    stuff: tuple[int, ...] = field(default=(), metadata={"flag": ""})
    """Classes that cannot be counted, by number, as the data say."""
    masks: bool = field(default=True, metadata={"flag": ""})
    """Whether objects get masks, as the task says."""

    def __post_init__(self) -> None:
        for name, least in (
            ("decoder_layers", 0),
            ("queries", 1),
            ("query_dim", 1),
            ("query_heads", 1),
            ("pixel_dim", 1),
        ):
            if getattr(self, name) < least:
                raise VitralError(f"head.{name} {getattr(self, name)}: must be at least {least}")
        if self.query_dim % self.query_heads:
            raise VitralError(
                f"head.query_dim {self.query_dim}: does not divide into {self.query_heads} heads (head.query_heads)"
            )

    def build(self, widths: Sequence[int], strides: Sequence[int], classes: int) -> "nn.Module":
        from vitral.models.heads.query import QueryHead

        return QueryHead(widths, strides, classes, self)


HEADS: dict[str, type[HeadOptions]] = {kind.name: kind for kind in (LinearOptions, SegformerOptions, QueryOptions)}


def head_options(stored: dict[str, Any]) -> HeadOptions:
    """The options that `to_json` wrote. Raises VitralError for a head that is not known here."""
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()}
    name = str(values.pop("name"))
    if name not in HEADS:
        raise VitralError(f"head {name!r} is not known here; upgrade with pip install -U vitral")
    return HEADS[name](**values)


def _check_dropout(rate: float) -> None:
    if not 0 <= rate < 1:
        raise VitralError(f"head.head_dropout {rate}: a share lies from 0 up to, not including, 1")
