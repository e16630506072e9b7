"""What is wrong with boxes, masks and maps: the faults that reading found, and those of the data as a whole, such as classes, sizes and copies."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitral.data.annotated import AnnotatedData, Object
from vitral.data.formats import read_annotated
from vitral.data.formats.convert import counts
from vitral.data.formats.faults import KINDS, by_kind
from vitral.data.progress import OnProgress
from vitral.data.ranges import ROOM
from vitral.data.scan import in_threads
from vitral.data.shapes import area_and_box
from vitral.errors import counted, portion, some
from vitral.guidance.doctor.findings import INTENDED, SEVERITIES, Finding, Item
from vitral.models.heads.options import QueryOptions
from vitral.training.options import ModelOptions
from vitral.training.sizes import SMALL, patch_for, row

MOST = QueryOptions().queries  # objects of an image that a model finds by itself
CROWDED = 0.5  # share of a class's objects that are crowds: above it they are probably marked so by mistake
TINY_SHARE = 0.05  # share of objects smaller than a patch that is worth a note


@dataclass
class AnnotationDiagnosis:
    """What was found in annotated data."""

    data: AnnotatedData
    findings: list[Finding]
    """The worst first."""

    @property
    def stops_for(self) -> list[str]:
        return [finding.kind for finding in self.findings if finding.stops]

    def count(self, severity: str) -> int:
        return sum(finding.severity == severity for finding in self.findings)


def diagnose_annotations(data: str | Path, progress: OnProgress | None = None, room: int = ROOM) -> AnnotationDiagnosis:
    """Look at annotated data, read as by `read_annotated`. Raises VitralError where they cannot be read at all."""
    read = read_annotated(data, progress=progress, room=room)
    findings = [
        *(Finding("reading", "note", said, INTENDED) for said in read.understood),
        *_faults(read),
        *_copies(read),
        *_classes(read),
        *_turned(read),
        *(_objects(read, progress) if read.kind == "objects" else []),
        *_bare(read),
    ]
    findings.sort(key=lambda finding: (SEVERITIES.index(finding.severity), not finding.stops))
    return AnnotationDiagnosis(read, findings)


def _faults(data: AnnotatedData) -> Iterator[Finding]:
    for kind, found in by_kind(data.faults).items():
        known = KINDS[kind]
        items = [Item((fault.where,), fault.text, () if fault.image is None else (fault.image,)) for fault in found]
        remedy = known.remedy
        if known.severity == "error" and known.mended:
            remedy += f"; a copy by --fix has {'it' if len(found) == 1 else 'them'} {known.mended}"
        yield Finding(
            kind, known.severity, counted(len(found), known.one, known.many), remedy, items, known.severity == "error"
        )


def _copies(data: AnnotatedData) -> Iterator[Finding]:
    same: dict[bytes, list[int]] = defaultdict(list)
    for i, digest in enumerate(data.digests):
        same[digest].append(i)
    names, splits = data.images.names, [one.split for one in data.annotated]
    groups = [group for group in same.values() if len(group) > 1]
    across = [group for group in groups if len({splits[i] for i in group} - {None}) > 1]
    within = [group for group in groups if group not in across]
    for kind, severity, found, what, remedy in (
        ("copies_across_splits", "error", across, "in two splits", "remove one of each: scores are too good"),
        ("exact_copies", "note", within, "more than once", "keep one of each"),
    ):
        items = [
            Item(tuple(names[i] for i in group), ", ".join(splits[i] or "" for i in group).strip(", "), tuple(group))
            for group in found
        ]
        if found:
            text = f"{counted(len(found), 'image is', 'images are')} there {what}"
            yield Finding(kind, severity, text, remedy, items)


def _classes(data: AnnotatedData) -> Iterator[Finding]:
    classes = data.classes
    if not len(classes):
        yield Finding("no_classes", "error", "there is no class", "annotate some images", stops=True)
        return
    ids = classes.ids
    if data.kind != "semantic" and ids != tuple(range(len(ids))):
        gaps = " with gaps" if ids[-1] - ids[0] >= len(ids) else ""
        named = some([f"{key} {name}" for key, name in zip(ids, classes.names, strict=True)], 4)
        text = f"class ids are {ids[0]} to {ids[-1]}{gaps}, and a model's outputs 0 to {len(ids) - 1}: {named}"
        yield Finding("class_ids", "note", text, "nothing to do: predictions carry names; remember it with other tools")
    if data.kind == "semantic":
        return
    totals, have = per_class(data), ("class has", "classes have")
    if unused := [name for k, name in enumerate(classes.names) if not totals[None][k]]:
        text, items = f"{counted(len(unused), *have)} no object: {some(unused, 5)}", [Item((name,)) for name in unused]
        yield Finding("unused_classes", "note", text, "annotate some, or remove the class", items, named=True)
    if "train" in totals and len(totals) > 2:
        only = [name for k, name in enumerate(classes.names) if not totals["train"][k] and totals[None][k]]
        if only:
            text = f"{counted(len(only), *have)} no object in the train split, but some in others: {some(only, 5)}"
            items, remedy = [Item((name,)) for name in only], "move images, or remove the class"
            yield Finding("untrained_classes", "error", text, remedy, items, True, named=True)


def per_class(data: AnnotatedData) -> dict[str | None, Counter[int]]:
    """Objects or segments of each class, by split; under None those of all images."""
    totals: dict[str | None, Counter[int]] = {None: Counter()}
    for one in data.annotated:
        indices = [each.index for each in (one.segments if data.kind == "panoptic" else one.objects)]
        totals[None].update(indices)
        if one.split:
            totals.setdefault(one.split, Counter()).update(indices)
    return totals


def _turned(data: AnnotatedData) -> Iterator[Finding]:
    turned = [i for i, orientation in enumerate(data.orientations) if orientation != 1]
    if turned:
        items = [Item((data.images.names[i],), f"EXIF orientation {data.orientations[i]}", (i,)) for i in turned]
        text = f"{counted(len(turned), 'image is', 'images are')} turned by EXIF; boxes are of the upright picture, unless its size says otherwise"
        remedy = "look at them on the sheet: tools that ignore EXIF annotate what they show"
        square = [one.height == one.width for one in data.annotated]
        # An image's size does not tell whether it was annotated upright.
        unsure = [item for i, item in zip(turned, items, strict=True) if data.orientations[i] < 5 or square[i]]
        rest = [item for item in items if item not in unsure]
        yield Finding("exif", "warning" if unsure else "note", text, remedy, unsure + rest)


def _objects(data: AnnotatedData, progress: OnProgress | None) -> Iterator[Finding]:
    places = [(i, each) for i, one in enumerate(data.annotated) for each in one.objects]
    bare = [(i, each) for i, each in places if each.shape is None]
    if bare and len(bare) < len(places):
        have = "has" if len(bare) == 1 else "have"
        text = f"{portion(len(bare) / len(places), len(places), 'object')} {have} a box and no outline"
        yield Finding("mixed", "note", text, "fine for boxes; masks learn nothing from these", _items(data, bare))
    if twice := list(_twice(data)):
        text = counted(len(twice), "object is annotated twice", "objects are annotated twice")
        remedy = "remove one of each; a copy by --fix has it once"
        yield Finding("same_object", "warning", text, remedy, _items(data, twice))
    if hidden := without_pixels(data, progress):
        text = counted(len(hidden), "outline covers no pixel", "outlines cover no pixel")
        remedy = "draw it again; a copy by --fix leaves it out"
        yield Finding("empty_mask", "warning", text, remedy, _items(data, hidden))
    crowd, total = Counter(each.index for _, each in places if each.crowd), Counter(each.index for _, each in places)
    if crowded := sorted(k for k in total if crowd[k] > CROWDED * total[k]):
        listed = some([f"{data.classes.names[k]} ({crowd[k]} of {total[k]})" for k in crowded], 4)
        text = f"most objects of {counted(len(crowded), 'class', 'classes')} are marked as crowds, which are never learned: {listed}"
        remedy = "some tools set iscrowd for every mask of run lengths; set it to 0"
        items = [Item((data.classes.names[k],)) for k in crowded]
        yield Finding("crowded", "warning", text, remedy, items, named=True)
    yield from _tiny(data, places)
    if full := [i for i, one in enumerate(data.annotated) if len(one.objects) > MOST]:
        items = [Item((data.images.names[i],), counted(len(data.annotated[i].objects), "object"), (i,)) for i in full]
        text = f"{counted(len(full), 'image has', 'images have')} more than {MOST} objects"
        remedy = f"train with --head query --queries {max(len(one.objects) for one in data.annotated)}; by itself a model finds {MOST} an image"
        yield Finding("many_objects", "note", text, remedy, items)


def _items(data: AnnotatedData, places: Sequence[tuple[int, Object]]) -> list[Item]:
    """Cases of objects, each in image i."""
    return [
        Item(
            (data.images.names[i],),
            f"{data.classes.names[each.index]} ({', '.join(f'{edge:.0f}' for edge in each.box)})",
            (i,),
        )
        for i, each in places
    ]


def once(objects: Iterable[Object]) -> tuple[Object, ...]:
    """The objects without those of one class and box as another before them."""
    kept: dict[Any, Object] = {}
    for each in objects:
        kept.setdefault((each.index, each.box, each.crowd), each)
    return tuple(kept.values())


def _twice(data: AnnotatedData) -> Iterator[tuple[int, Object]]:
    """(image, object) of those that `once` leaves out."""
    for i, one in enumerate(data.annotated):
        kept = {id(each) for each in once(one.objects)}
        yield from ((i, each) for each in one.objects if id(each) not in kept)


def without_pixels(data: AnnotatedData, progress: OnProgress | None) -> list[tuple[int, Object]]:
    """(image, object) of those whose outline covers no pixel."""

    def each(i: int) -> list[tuple[int, Object]]:
        one = data.annotated[i]
        return [
            (i, o) for o in one.objects if o.shape is not None and not area_and_box(o.shape, one.height, one.width)[0]
        ]

    return [pair for pairs in in_threads(each, len(data.annotated), progress) for pair in pairs]


def _tiny(data: AnnotatedData, places: Sequence[tuple[int, Object]]) -> Iterator[Finding]:
    """Objects that are smaller than a patch at the size to which training resizes by default."""
    if not places:
        return
    longer = np.array([max(data.annotated[i].height, data.annotated[i].width) for i, _ in places])
    sides = np.array([((each.box[2] - each.box[0]) * (each.box[3] - each.box[1])) ** 0.5 for _, each in places])
    typical = int(np.median([max(one.height, one.width) for one in data.annotated]))
    size = typical if typical <= SMALL else max(row(ModelOptions()).image_size)
    patch = patch_for(ModelOptions(), size, size)
    small = sides * size / longer < patch
    if small.mean() < TINY_SHARE:
        return
    helps = int(np.ceil(patch / np.quantile(sides / longer, TINY_SHARE) / 32) * 32)
    items = _items(data, [place for place, is_small in zip(places, small.tolist(), strict=True) if is_small])
    are = "is" if small.sum() == 1 else "are"
    text = f"{portion(float(small.mean()), len(small), 'object')} {are} smaller than a patch of {patch} pixels once the longer side has {size}"
    remedy = f"train on larger images: at {helps} pixels 95 % are larger" + (", or on tiles" if helps > 1024 else "")
    yield Finding("tiny_objects", "note", text, remedy, items)


def _bare(data: AnnotatedData) -> Iterator[Finding]:
    bare = [i for i, one in enumerate(data.annotated) if not one.objects and not one.segments and one.map is None]
    if not bare:
        return
    unlabelled = [i for i in bare if data.annotated[i].unlabelled]
    text = f"{portion(len(bare) / len(data.annotated), len(data.annotated), 'image')} without objects"
    text += f", {len(unlabelled):,} of them without any annotation" if unlabelled else ""
    items = [Item((data.images.names[i],), "not annotated" if i in unlabelled else "", (i,)) for i in bare]
    remedy = "nothing to do if there is nothing in them: they teach what is no object"
    yield Finding("no_objects", "note", text, remedy, items)


def as_json(diagnosis: AnnotationDiagnosis) -> dict[str, Any]:
    """The diagnosis as plain values: data, format, kind, images, objects or segments, classes [{id, name, objects}], splits, findings as
    `vitral.guidance.doctor.diagnose.as_json` has them, and training {starts, stops_for}.
    """
    data = diagnosis.data
    totals, classes = per_class(data)[None], data.classes
    splits = Counter(one.split for one in data.annotated if one.split)
    rows = enumerate(zip(classes.ids, classes.names, strict=True))
    return {
        "data": str(data.root), "name": data.name, "format": data.format, "kind": data.kind, **counts(data), "splits": dict(splits),
        "classes": [{"id": key, "name": name, "objects": totals[k]} for k, (key, name) in rows],
        "findings": [
            {"kind": each.kind, "severity": each.severity, "count": len(each.items), "text": each.text, "remedy": each.remedy, "stops": each.stops,
             "items": [{"names": list(item.names), "note": item.note} for item in each.items]}
            for each in diagnosis.findings
        ],
        "training": {"starts": not diagnosis.stops_for, "stops_for": diagnosis.stops_for},
    }  # fmt: skip
