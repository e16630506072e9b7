"""Annotated data drawn: images with their boxes, outlines and names, and the doctor's page with them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitral.data.annotated import Annotated, AnnotatedData
from vitral.data.bands import to_rgb
from vitral.data.formats import FORMATS
from vitral.data.formats.convert import counts
from vitral.data.formats.maps import values_of
from vitral.data.shapes import mask_of
from vitral.drawing.figure import data_url
from vitral.drawing.objects import Mark, marked, sheet
from vitral.guidance.doctor.annotations import AnnotationDiagnosis, per_class
from vitral.guidance.doctor.findings import SEVERITIES, Finding
from vitral.report.frame import tiles, write_page
from vitral.report.parts import escape, table

SHOWN = 16  # images on the contact sheet
LISTED = 200  # cases of a finding that the page names


def overlay(data: AnnotatedData, i: int, side: int = 320) -> Image.Image:
    """Image i with its annotations."""
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
    """Images with their annotations: first some with findings, then others from all over the data."""
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
    totals = per_class(data)
    splits = [split for split in ("train", "val", "test") if split in totals]
    cells = [
        [escape(f"{key} {name}"), f"{totals[None][k]:,}", *(f"{totals[split][k]:,}" for split in splits)]
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
