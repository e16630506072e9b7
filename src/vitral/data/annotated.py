"""Annotated images: objects with boxes and outlines, semantic maps, panoptic segments, and the one table of their classes.

Coordinates are pixels of the upright image, x to the right and y down, 0 at the outer edge of the first pixel: the box of the first pixel alone is
(0, 0, 1, 1), in the order x0, y0, x1, y1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from vitral.data.files import Stored

if TYPE_CHECKING:
    from vitral.data.images import Images

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1)"""
Kind = Literal["objects", "semantic", "panoptic"]


@dataclass(frozen=True)
class ClassTable:
    """The classes of a data set in the order of their ids: by the data's own id (or a map's value), by name, and by index 0 to K - 1."""

    ids: tuple[int, ...]
    names: tuple[str, ...]
    stuff: frozenset[int] = frozenset()
    """Indices of the classes without countable objects, such as sky."""
    void: frozenset[int] = frozenset()
    """Map values without a class: neither learned nor scored."""
    groups: tuple[str, ...] = ()
    """Each class's supercategory (COCO); empty if there are none."""
    colours: tuple[tuple[int, int], ...] = ()
    """Of maps in colours of their own each colour, R + 256 G + 65536 B, and the value that it stands for."""

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.names) == len(set(self.names)) == len(set(self.ids)), "each class once"
        assert list(self.ids) == sorted(self.ids), "in the order of the ids"
        assert not self.void & set(self.ids), "void is no class"

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def by_id(self) -> dict[int, int]:
        """Id -> index."""
        return {each: index for index, each in enumerate(self.ids)}

    @cached_property
    def by_name(self) -> dict[str, int]:
        """Name -> index."""
        return {each: index for index, each in enumerate(self.names)}


@dataclass(frozen=True, eq=False)
class Polygons:
    """The union of one or more outlines, float64 [n, 2] of x and y, three points or more each."""

    parts: tuple[NDArray[np.float64], ...]


@dataclass(frozen=True)
class Runs:
    """A mask as COCO's run lengths, column by column, background first, packed as COCO packs them."""

    height: int
    width: int
    counts: bytes


Shape = Polygons | Runs


@dataclass(frozen=True, eq=False)
class Object:
    """One thing in an image, or a crowd of them."""

    index: int
    """Of its class."""
    box: Box
    shape: Shape | None = None
    """Its outline or mask, if known."""
    crowd: bool = False
    """Whether it marks a crowd: not a target, and predictions inside it are not counted as mistakes."""
    hard: bool = False
    """Whether the data mark it as too hard (VOC's difficult, COCO's ignore): not a target, and not scored."""
    id: int | None = None
    """The data's own."""
    area: float | None = None
    """Its area in pixels as the data state it."""


@dataclass(frozen=True)
class Segment:
    """One segment of a panoptic map."""

    id: int
    """The value of its pixels, R + 256 G + 65536 B: unique in an image; 0 is void."""
    index: int
    """Of its class."""
    crowd: bool = False


@dataclass(frozen=True)
class Annotated:
    """The annotations of one image."""

    height: int
    """Of the upright image, pixels."""
    width: int
    split: str | None = None
    """train, val or test, if the data name it."""
    objects: tuple[Object, ...] = ()
    map: Stored | None = None
    """Its semantic or panoptic map, as a picture file."""
    segments: tuple[Segment, ...] = ()
    """Of a panoptic map."""
    turn: int = 1
    """EXIF orientation that turns the map upright; 1 if it is upright."""
    values: tuple[int, ...] | None = None
    """That occur in its semantic map, where its reading has shown them."""
    unlabelled: bool = False
    """Whether the image was never annotated, rather than annotated as empty."""


@dataclass(frozen=True)
class Fault:
    """An error in an annotation, or one that was corrected in reading."""

    kind: str
    """Of `vitral.data.formats.faults.KINDS`."""
    where: str
    """File, with the line, id or pixel."""
    text: str = ""
    """The value found, if the kind does not tell it."""
    image: int | None = None
    """The image's number, if it belongs to one."""


@dataclass(frozen=True)
class AnnotatedData:
    """n images and their annotations, as one of the formats holds them."""

    name: str
    root: Path | str
    """A folder or a URL."""
    format: str
    kind: Kind
    classes: ClassTable
    images: "Images"
    annotated: Sequence[Annotated]
    """Of each image."""
    digests: Sequence[bytes]
    """Each image's content hash."""
    orientations: Sequence[int]
    """Each image's EXIF orientation."""
    faults: Sequence[Fault] = ()
    understood: Sequence[str] = ()
    """How the data were understood, as messages."""
    render: Callable[[int], NDArray[np.int32]] | None = None
    """Draws the map [h, w] of image i if it is in no file."""
