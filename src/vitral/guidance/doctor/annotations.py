"""What is wrong with boxes, masks and maps: all that reading them found, and what shows only in sum, such as classes, sizes and copies."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitral.data.annotated import Annotated, AnnotatedData, Object
from vitral.data.bands import to_rgb
from vitral.data.copies import OnProgress
from vitral.data.formats import FORMATS, read_annotated
from vitral.data.formats.convert import counts, plan_conversion, write_planned
from vitral.data.formats.faults import KINDS, by_kind
from vitral.data.formats.maps import values_of
from vitral.data.scan import in_threads
from vitral.data.shapes import area_and_box, mask_of
from vitral.drawing.figure import data_url
from vitral.drawing.objects import Mark, marked, sheet
from vitral.errors import VitralError, counted, portion, some
from vitral.guidance.doctor.findings import SEVERITIES, Finding, Item
from vitral.report.frame import tiles, write_page
from vitral.report.parts import escape, table
from vitral.training.options import ModelOptions
from vitral.training.sizes import SMALL, patch_for, row

SHOWN = 16  # images of the sheet
LISTED = 200  # cases of a finding that the page names
MOST = 100  # objects of an image that COCO's scores look at
CROWDED = 0.5  # share of a class's objects that are crowds, above which these are probably none
TINY_SHARE = 0.05  # share of objects below a patch that is worth a remark


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


def diagnose_annotations(data: str | Path, progress: OnProgress | None = None) -> AnnotationDiagnosis:
    """Look at annotated data in any format of `vitral.data.formats`. Raises VitralError where they cannot be read at all."""
    read = read_annotated(data, progress=progress)
    findings = [
        *(Finding("reading", "note", said, "nothing to do, if it is meant so") for said in read.understood),
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
            remedy += (
                f"; a copy by --fix has it {known.mended}"
                if len(found) == 1
                else f"; a copy by --fix has them {known.mended}"
            )
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
    for kind, severity, found, what, remedy in (
        ("copies_across_splits", "error", across, "in two splits", "remove one of each: scores are too good"),
        (
            "exact_copies",
            "note",
            [group for group in groups if group not in across],
            "more than once",
            "keep one of each",
        ),
    ):
        if found:
            items = [
                Item(
                    tuple(names[i] for i in group), ", ".join(splits[i] or "" for i in group).strip(", "), tuple(group)
                )
                for group in found
            ]
            yield Finding(
                kind, severity, f"{counted(len(found), 'image is', 'images are')} there {what}", remedy, items
            )


def _classes(data: AnnotatedData) -> Iterator[Finding]:
    classes = data.classes
    if not len(classes):
        yield Finding("no_classes", "error", "there is no class", "annotate something", stops=True)
        return
    ids = classes.ids
    if data.kind != "semantic" and ids != tuple(range(len(ids))):
        gaps = " with gaps" if ids[-1] - ids[0] >= len(ids) else ""
        named = some([f"{key} {name}" for key, name in zip(ids, classes.names, strict=True)], 4)
        text = f"class ids are {ids[0]} to {ids[-1]}{gaps}, and a model's outputs 0 to {len(ids) - 1}: {named}"
        yield Finding("class_ids", "note", text, "nothing to do: answers carry names; mind it with other tools")
    if data.kind == "semantic":
        return
    totals = _per_class(data)
    unused = [name for k, name in enumerate(classes.names) if not totals[None][k]]
    if unused:
        text = f"{counted(len(unused), 'class has', 'classes have')} no object: {some(unused, 5)}"
        yield Finding(
            "unused_classes",
            "note",
            text,
            "annotate some, or take the class out",
            [Item((name,)) for name in unused],
            named=True,
        )
    if "train" in totals and len(totals) > 2:
        only = [name for k, name in enumerate(classes.names) if not totals["train"][k] and totals[None][k]]
        if only:
            text = f"{counted(len(only), 'class has', 'classes have')} no object in the train split, and some in others: {some(only, 5)}"
            items = [Item((name,)) for name in only]
            yield Finding(
                "untrained_classes", "error", text, "move images, or take the class out", items, True, named=True
            )


def _per_class(data: AnnotatedData) -> dict[str | None, Counter[int]]:
    """Objects or segments of each class: in all, None, and by split."""
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
        unsure = [
            item for i, item in zip(turned, items, strict=True) if data.orientations[i] < 5 or square[i]
        ]  # whose size does not tell
        yield Finding(
            "exif",
            "warning" if unsure else "note",
            text,
            remedy,
            unsure + [item for item in items if item not in unsure],
        )


def _objects(data: AnnotatedData, progress: OnProgress | None) -> Iterator[Finding]:
    names = data.images.names
    places = [(i, each) for i, one in enumerate(data.annotated) for each in one.objects]
    shaped = [each.shape is not None for _, each in places]
    if any(shaped) and not all(shaped):
        n = len(shaped) - sum(shaped)
        text = f"{portion(n / len(shaped), len(shaped), 'object')} has a box and no outline" if n == 1 else (
            f"{portion(n / len(shaped), len(shaped), 'object')} have a box and no outline")  # fmt: skip
        items = [Item((names[i],), data.classes.names[each.index], (i,)) for i, each in places if each.shape is None]
        yield Finding("mixed", "note", text, "fine for boxes; for masks these teach nothing", items)
    twice = list(_twice(data))
    if twice:
        items = [Item((names[i],), f"{data.classes.names[each.index]} {_box(each)}", (i,)) for i, each in twice]
        text = counted(len(twice), "object is annotated twice", "objects are annotated twice")
        yield Finding("same_object", "warning", text, "remove one of each; a copy by --fix has it once", items)
    hidden = _without_pixels(data, progress)
    if hidden:
        items = [Item((names[i],), f"{data.classes.names[each.index]} {_box(each)}", (i,)) for i, each in hidden]
        text = counted(len(hidden), "outline covers no pixel", "outlines cover no pixel")
        yield Finding("empty_mask", "warning", text, "draw it again; a copy by --fix leaves it out", items)
    crowd, total = Counter(each.index for _, each in places if each.crowd), Counter(each.index for _, each in places)
    crowded = [k for k in total if crowd[k] > CROWDED * total[k]]
    if crowded:
        said = some([f"{data.classes.names[k]} ({crowd[k]} of {total[k]})" for k in sorted(crowded)], 4)
        text = f"most objects of {counted(len(crowded), 'class', 'classes')} are marked as crowds, which are never learned: {said}"
        items = [Item((data.classes.names[k],)) for k in sorted(crowded)]
        yield Finding(
            "crowded",
            "warning",
            text,
            "some tools set iscrowd for every mask of run lengths; set it to 0",
            items,
            named=True,
        )
    yield from _tiny(data, places)
    full = [i for i, one in enumerate(data.annotated) if len(one.objects) > MOST]
    if full:
        items = [Item((names[i],), counted(len(data.annotated[i].objects), "object"), (i,)) for i in full]
        text = f"{counted(len(full), 'image has', 'images have')} more than {MOST} objects"
        yield Finding(
            "many_objects", "note", text, f"COCO's scores look at {MOST} an image; a model needs as many queries", items
        )


def _box(each: Object) -> str:
    return "(" + ", ".join(f"{edge:.0f}" for edge in each.box) + ")"


def _key(each: Object) -> tuple[Any, ...]:
    return each.index, each.box, each.crowd


def _twice(data: AnnotatedData) -> Iterator[tuple[int, Object]]:
    """Objects of one class and box as another before them."""
    for i, one in enumerate(data.annotated):
        seen: set[Any] = set()
        for each in one.objects:
            if _key(each) in seen:
                yield i, each
            seen.add(_key(each))


def _without_pixels(data: AnnotatedData, progress: OnProgress | None) -> list[tuple[int, Object]]:
    def each(i: int) -> list[tuple[int, Object]]:
        one = data.annotated[i]
        return [
            (i, o) for o in one.objects if o.shape is not None and not area_and_box(o.shape, one.height, one.width)[0]
        ]

    return [pair for pairs in in_threads(each, len(data.annotated), progress) for pair in pairs]


def _tiny(data: AnnotatedData, places: Sequence[tuple[int, Object]]) -> Iterator[Finding]:
    """Objects that are smaller than a patch once the image is resized as training does by default."""
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
    items = [
        Item((data.images.names[i],), f"{data.classes.names[each.index]} {_box(each)}", (i,))
        for (i, each), is_small in zip(places, small.tolist(), strict=True)
        if is_small
    ]
    are = "is" if small.sum() == 1 else "are"
    text = f"{portion(float(small.mean()), len(small), 'object')} {are} smaller than a patch of {patch} pixels once the longer side has {size}"
    remedy = f"train on larger images: at {helps} pixels 95 % are larger" + (", or on tiles" if helps > 1024 else "")
    yield Finding("tiny_objects", "note", text, remedy, items)


def _bare(data: AnnotatedData) -> Iterator[Finding]:
    bare = [i for i, one in enumerate(data.annotated) if not one.objects and not one.segments and one.map is None]
    if bare:
        unlabelled = [i for i in bare if data.annotated[i].unlabelled]
        text = f"{portion(len(bare) / len(data.annotated), len(data.annotated), 'image')} without objects"
        if unlabelled:
            text += f", {len(unlabelled):,} of them without any annotation"
        items = [
            Item((data.images.names[i],), "not annotated" if data.annotated[i].unlabelled else "", (i,)) for i in bare
        ]
        yield Finding(
            "no_objects",
            "note",
            text,
            "nothing to do, if there is nothing in them: they teach what is no object",
            items,
        )


def mend(diagnosis: AnnotationDiagnosis, out: Path, progress: OnProgress | None = None) -> list[str]:
    """Write a copy of the data in their own format, mended; returns what was mended. Raises VitralError where a person must decide."""
    data = diagnosis.data
    left = [kind for kind in by_kind(data.faults) if KINDS[kind].severity == "error" and not KINDS[kind].mended]
    if left:
        said = "; ".join(
            f"{counted(len(by_kind(data.faults)[kind]), KINDS[kind].one, KINDS[kind].many)}: {KINDS[kind].remedy}"
            for kind in left
        )
        raise VitralError(f"{data.root}: a copy cannot be mended by itself: {said}")
    hidden = {id(each) for _, each in _without_pixels(data, progress)}
    rows, done = [], []
    for one in data.annotated:
        kept = {_key(each): each for each in reversed(one.objects) if id(each) not in hidden}
        rows.append(replace(one, objects=tuple(reversed(kept.values()))))
    dropped = sum(len(a.objects) - len(b.objects) for a, b in zip(data.annotated, rows, strict=True))
    for kind, found in by_kind(data.faults).items():
        if KINDS[kind].mended:
            done.append(f"{counted(len(found), KINDS[kind].one, KINDS[kind].many)}: {KINDS[kind].mended}")
    if dropped:
        done.append(f"{counted(dropped, 'object')} there twice or without a pixel: left out")
    planned = plan_conversion(replace(data, annotated=rows, faults=()), data.format, progress)
    write_planned(planned, out)
    again = diagnose_annotations(out)
    wrong = [kind for kind in again.stops_for if kind in KINDS]
    assert not wrong, f"a mended copy is still wrong: {wrong}"
    return [*done, *(f"{counted(count, what)}: {why}" for count, what, why in planned.left_out)]


def overlay(data: AnnotatedData, i: int, side: int = 320) -> Image.Image:
    """Image i with what it is annotated with."""
    one = data.annotated[i]
    pixels = to_rgb(data.images.read(i, None, None))
    return marked(pixels, list(_marks(data, one, i)), side)


def _marks(data: AnnotatedData, one: Annotated, i: int) -> Iterator[Mark]:
    names = data.classes.names
    for each in one.objects:
        mask = None if each.shape is None else mask_of(each.shape, one.height, one.width)
        yield Mark(names[each.index] + (" (crowd)" if each.crowd else ""), each.index, each.box, mask)
    if one.map is not None:
        values = values_of(data, i)
        parts = (
            [(s.id, s.index) for s in one.segments]
            if data.kind == "panoptic"
            else list(zip(data.classes.ids, range(len(names)), strict=True))
        )
        for value, index in parts:
            mask = values == value
            if mask.any():
                yield Mark(names[index], index, _around(mask), mask)


def _around(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def contact_sheet(data: AnnotatedData, findings: Sequence[Finding]) -> Image.Image:
    """Images with their annotations: first some of those that something was found in, then others from all over the data."""
    doubted = [
        i for finding in findings if finding.kind != "no_objects" for item in finding.items[:2] for i in item.images
    ]
    spread = np.linspace(0, len(data.annotated) - 1, min(SHOWN, len(data.annotated))).round().astype(int).tolist()
    chosen = list(dict.fromkeys([*doubted[: SHOWN // 2], *spread]))[:SHOWN]
    return sheet([(overlay(data, i, 280), data.images.names[i]) for i in chosen])


def write_annotation_page(path: Path, diagnosis: AnnotationDiagnosis, command: str) -> Path:
    """Write the findings as a page, with the sheet of overlays, whole or not at all; returns its path."""
    data = diagnosis.data
    numbers = [(f"{count:,}", what) for what, count in counts(data).items()]
    numbers += [(f"{diagnosis.count(severity):,}", f"{severity}s") for severity in SEVERITIES]
    per_class = _per_class(data)
    splits = [split for split in ("train", "val", "test") if split in per_class]
    cells = [
        [escape(f"{key} {name}"), f"{per_class[None][k]:,}", *(f"{per_class[split][k]:,}" for split in splits)]
        for k, (key, name) in enumerate(zip(data.classes.ids, data.classes.names, strict=True))
    ]
    classes = (
        f"<section><h2>Classes</h2>{table(['id and class', 'objects', *splits], cells)}</section>"
        if data.kind != "semantic"
        else ""
    )
    picture = data_url(contact_sheet(data, diagnosis.findings), exact=False)
    body = [
        f"<h1>{escape(data.name)}: what the doctor found</h1><p class=soft>Read as {escape(FORMATS[data.format].about)}.</p>",
        tiles(numbers, {}),
        *map(_section, diagnosis.findings),
        f'<section><h2>Images with their annotations</h2><img src="{picture}" alt="boxes, outlines and names" style="width:100%"></section>',
        classes,
        f"<section><h2>How it was made</h2><pre>{escape(command)}</pre></section>",
    ]
    return write_page(path.parent, f"{data.name}: doctor", body, path.name)


def _section(finding: Finding) -> str:
    kind = {"error": "no", "warning": "maybe", "note": "soft"}[finding.severity]
    rows = [f"{' = '.join(item.names)}{': ' if item.note else ''}{item.note}" for item in finding.items]
    more = f"\n... and {len(rows) - LISTED:,} more" if len(rows) > LISTED else ""
    listed = escape("\n".join(rows[:LISTED]) + more)
    return (
        f"<section><h2>{escape(finding.text[:1].upper() + finding.text[1:])}</h2><figcaption><span class={kind}>{finding.severity}</span>. "
        f"{escape(finding.remedy[:1].upper() + finding.remedy[1:])}.</figcaption>"
        + (
            f"<details><summary>All {len(rows):,}</summary><pre>{listed}</pre></details>"
            if rows and not finding.named
            else ""
        )
        + "</section>"
    )


def as_json(diagnosis: AnnotationDiagnosis) -> dict[str, Any]:
    """The diagnosis as plain values: data, format, kind, images, objects or segments, classes [{id, name, objects}], splits, findings as
    `vitral.guidance.doctor.diagnose.as_json` has them, and training {starts, stops_for}.
    """
    data = diagnosis.data
    totals, classes = _per_class(data)[None], data.classes
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
