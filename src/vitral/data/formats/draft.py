"""From the statements of a format's files to annotated images: sizes looked up, everything upright, every object checked."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vitral.data.annotated import (
    Annotated,
    AnnotatedData,
    Box,
    ClassTable,
    Fault,
    Kind,
    Object,
    Polygons,
    Runs,
    Segment,
    Shape,
)
from vitral.data.files import Stored
from vitral.data.formats.files import Tree, split_in
from vitral.data.formats.maps import Counted
from vitral.data.images import FileImages, Header, Images, SomeImages
from vitral.data.progress import OnProgress
from vitral.data.scan import in_threads
from vitral.data.shapes import area_and_box, bounds, runs_of, turned_box, turned_shape
from vitral.errors import VitralError, counted, some

OUT_BY = 0.01  # share of the longer side, or a pixel, by which objects may reach beyond their image; they are clipped
_NO_MORE = 1e-6  # pixels: rounding of decimals and of shares of the width


class Patch(NamedTuple):
    """A mask of a part of the image; its first pixel is in this column and row."""

    x: int
    y: int
    mask: NDArray[np.bool_]


@dataclass
class Found:
    """An object as stated by its file."""

    index: int
    where: str
    box: Sequence[float] | None = None
    """x0, y0, x1, y1; None to take the shape's."""
    shape: Shape | Patch | None = None
    relative: bool = False
    """Whether coordinates are shares of the image's width and height."""
    crowd: bool = False
    hard: bool = False
    id: int | None = None
    area: float | None = None


@dataclass
class Draft:
    """An image as stated by the files."""

    name: str
    where: str
    """The file of its annotations, or its own."""
    split: str | None = None
    size: tuple[int, int] | None = None
    """Height and width, if they are stated."""
    found: list[Found] = field(default_factory=list)
    map: Stored | None = None
    counted: Counted | None = None
    """What the map holds, where that is known without reading it."""
    segments: list[Segment] = field(default_factory=list)
    values: tuple[int, ...] | None = None
    """Of its semantic map."""
    unlabelled: bool = False


@dataclass
class Drafted:
    """The statements of a format's files."""

    root: Path | str
    """A folder or a URL."""
    kind: Kind
    classes: ClassTable
    drafts: list[Draft]
    faults: list[Fault]
    understood: list[str] = field(default_factory=list)
    images: Images | None = None
    """Default: the files that the drafts name."""

    def keep(self, rows: list[int]) -> None:
        """Let go of the other images."""
        if self.images is not None:
            self.images = _some_of(self.images, rows)
        self.drafts = [self.drafts[i] for i in rows]


def add_bare(tree: Tree, labelled: set[str], drafted: Drafted) -> None:
    """The images without annotations in the folders of those that have some; images elsewhere are something else, and said."""
    bare = tree.beside(labelled)
    drafted.drafts += [Draft(name, name, split_in(*reversed(name.split("/")[:-1])), unlabelled=True) for name in bare]
    others = [name for name in tree.images if name not in labelled and name not in set(bare)]
    if others:
        drafted.understood.append(
            f"{counted(len(others), 'image')} in folders without annotations not read: {some(others, 2)}"
        )


def assemble(drafted: Drafted, name: str, format: str, progress: OnProgress | None) -> AnnotatedData:
    """Read every image's header and check its statements. Images that cannot be read, or have another size, are left out as faults."""
    drafts = drafted.drafts
    images = drafted.images or FileImages(Path(drafted.root), [draft.name for draft in drafts])

    def look(i: int) -> Header | VitralError:
        try:
            return images.header(i)
        except VitralError as error:
            return error

    faults = list(drafted.faults)
    kept: list[int] = []
    annotated: list[Annotated] = []
    seen: list[Header] = []
    for i, one in enumerate(in_threads(look, len(drafts), progress)):
        draft = drafts[i]
        if isinstance(one, VitralError):
            text = str(one).removeprefix(f"{images.names[i]}: ")
            faults.append(Fault("unreadable_image", images.names[i], text))
            continue
        turn = _turn(draft, one, len(kept), faults)
        if turn is None:
            continue
        checked = _Checked(draft, one, turn, len(kept), faults)
        objects = tuple(each for found in draft.found if (each := checked(found)) is not None)
        kept.append(i)
        seen.append(one)
        annotated.append(
            Annotated(
                one.height, one.width, draft.split, objects, draft.map, tuple(draft.segments), turn, draft.values,
                draft.unlabelled,
            )
        )  # fmt: skip
    return AnnotatedData(
        name, drafted.root, format, drafted.kind, drafted.classes, _some_of(images, kept), annotated,
        [one.digest for one in seen], [one.orientation for one in seen], faults, drafted.understood,
    )  # fmt: skip


def _some_of(images: Images, kept: list[int]) -> Images:
    if len(kept) == len(images.names):
        return images
    if isinstance(images, FileImages):
        return FileImages(images.root, [images.names[i] for i in kept])
    return SomeImages(images, kept)


def _turn(draft: Draft, seen: Header, image: int, faults: list[Fault]) -> int | None:
    """The EXIF orientation that turns annotations upright, 1 if they are upright; None if they are for another size."""
    size = (seen.height, seen.width)
    if draft.size in (None, size):
        return 1
    if draft.size == size[::-1] and seen.orientation >= 5:
        faults.append(Fault("turned", draft.name, f"EXIF orientation {seen.orientation}", image))
        return seen.orientation
    h, w = draft.size or size
    faults.append(Fault("size", draft.where, f"{draft.name} has {seen.width} x {seen.height} pixels, not {w} x {h}"))
    return None


class _Checked:
    """From stated objects to usable ones, upright and inside the image; None for unusable ones, which are noted."""

    def __init__(self, draft: Draft, seen: Header, turn: int, image: int, faults: list[Fault]) -> None:
        self.turn, self.image, self.faults = turn, image, faults
        self.height, self.width = seen.height, seen.width
        self.raw = (seen.width, seen.height) if turn >= 5 else (seen.height, seen.width)

    def __call__(self, found: Found) -> Object | None:
        shape = self._shape(found)
        box: Box | None = None
        if found.box is not None:
            box = self._box(found)
        elif shape is not None:
            box = self._around(shape)
        if box is None:
            return None
        if min(box[2] - box[0], box[3] - box[1]) < 1 - 1e-6:
            self._fault("empty", found, f"{box[2] - box[0]:.2g} x {box[3] - box[1]:.2g} pixels")
            return None
        if shape is not None and found.box is not None:
            around = self._around(shape)
            if around[2] <= around[0]:
                self._fault("empty", found, "an empty mask")
                return None
            if _overlap(box, around) < 0.5:
                self._fault("box_differs", found, f"{_said(box)} and {_said(around)}")
        return Object(found.index, box, shape, found.crowd, found.hard, found.id, found.area)

    def _fault(self, kind: str, found: Found, text: str = "") -> None:
        before = self.faults[-1] if self.faults else None
        if before is None or (before.kind, before.where) != (kind, found.where):  # of box and outline, once
            self.faults.append(Fault(kind, found.where, text, self.image))

    def _around(self, shape: Shape) -> Box:
        if isinstance(shape, Polygons):
            x0, y0, x1, y1 = bounds(shape)
            return max(x0, 0.0), max(y0, 0.0), min(x1, self.width), min(y1, self.height)
        return area_and_box(shape, self.height, self.width)[1]

    def _box(self, found: Found) -> Box | None:
        assert found.box is not None
        x0, y0, x1, y1 = found.box
        if found.relative:
            x0, y0, x1, y1 = x0 * self.width, y0 * self.height, x1 * self.width, y1 * self.height
        if x1 < x0 or y1 < y0:
            self._fault("swapped", found, _said((x0, y0, x1, y1)))
            x0, x1, y0, y1 = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
        box = (x0, y0, x1, y1)
        if self.turn != 1:
            box = turned_box(box, *self.raw, self.turn)
        return self._cut(box, found)

    def _cut(self, box: Box, found: Found) -> Box:
        x0, y0, x1, y1 = box
        cut = (
            min(max(x0, 0.0), self.width),
            min(max(y0, 0.0), self.height),
            max(min(x1, self.width), 0.0),
            max(min(y1, self.height), 0.0),
        )
        if max(abs(a - b) for a, b in zip(cut, box, strict=True)) < _NO_MORE:
            return cut
        self._fault("outside" if self._far(box) else "clipped", found, f"{_said(box)} in {self.width} x {self.height}")
        return cut

    def _far(self, box: Box) -> bool:
        by = max(-box[0], -box[1], box[2] - self.width, box[3] - self.height)
        return by > max(1.0, OUT_BY * max(self.width, self.height))

    def _shape(self, found: Found) -> Shape | None:
        """The shape upright; None if there is no usable one."""
        shape = found.shape
        if shape is None:
            return None
        if isinstance(shape, Patch):
            return self._placed(shape, found)
        if isinstance(shape, Polygons):
            parts = [part * (self.width, self.height) if found.relative else part for part in shape.parts]
            shape = Polygons(tuple(parts))
        try:
            if self.turn != 1:
                shape = turned_shape(shape, *self.raw, self.turn)
            if isinstance(shape, Runs):
                if (shape.height, shape.width) != (self.height, self.width):
                    raise ValueError(f"is of {shape.width} x {shape.height} pixels")
                area_and_box(shape, self.height, self.width)
                return shape
        except ValueError as error:
            self._fault("outline", found, str(error))
            return None
        box = bounds(shape)
        if self._far(box):
            self._fault("outside", found, f"{_said(box)} in {self.width} x {self.height}")
            return Polygons(tuple(part.clip((0, 0), (self.width, self.height)) for part in shape.parts))
        return shape

    def _placed(self, patch: Patch, found: Found) -> Shape | None:
        h, w = self.raw
        rows, columns = patch.mask.shape
        if patch.x < 0 or patch.y < 0 or patch.x + columns > w or patch.y + rows > h:
            self._fault("outline", found, f"a mask of {columns} x {rows} at {patch.x}, {patch.y} in {w} x {h}")
            return None
        mask = np.zeros((h, w), bool)
        mask[patch.y : patch.y + rows, patch.x : patch.x + columns] = patch.mask
        runs = runs_of(mask)
        return runs if self.turn == 1 else turned_shape(runs, h, w, self.turn)


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    inner = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner
    return inner / union if union > 0 else 0.0


def _said(box: Sequence[float]) -> str:
    return "(" + ", ".join(f"{edge:.6g}" for edge in box) + ")"
