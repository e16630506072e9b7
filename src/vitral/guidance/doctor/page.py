"""The doctor's findings as one page with their images."""

from collections.abc import Sequence
from pathlib import Path

from vitral.data.bands import to_rgb
from vitral.errors import VitralError, counted
from vitral.guidance.doctor.diagnose import Diagnosis, class_rows, split_rows, spread
from vitral.guidance.doctor.findings import Finding, Item
from vitral.report.frame import LARGE, picture, tiles, write_page
from vitral.report.parts import escape, percent, table

SHOWN = 8  # cases of a finding with their pictures
LISTED = 200  # names of a finding; --json has them all


def write_doctor_page(path: Path, diagnosis: Diagnosis, command: str) -> Path:
    """Write the page, whole or not at all; returns its path."""
    listing, looks = diagnosis.listing, diagnosis.looks
    counts = [
        (f"{diagnosis.count(severity):,}", _of(diagnosis.count(severity), severity))
        for severity in ("error", "warning", "note")
    ]
    numbers = [(f"{len(looks):,}", _of(len(looks), "image")), *counts]
    if diagnosis.unusable:
        n = len(diagnosis.unusable)
        numbers.insert(1, (f"{n:,}", _of(n, "file") + " that cannot be used"))
    if diagnosis.agreement is not None:
        words = "of the labels are what a simple classifier says that has not seen their images"
        numbers.append((percent(diagnosis.agreement), words))
    what = listing.targets.nouns
    numbers.append((f"{len(listing.labels):,}", _of(len(listing.labels), *what)))
    verdict = "Training would start on these data." if not diagnosis.stops_for else (
        f"Training would refuse these data: {counted(len(diagnosis.stops_for), 'finding')} below must be mended first."
    )  # fmt: skip
    body = [
        f"<h1>{escape(listing.name)}: what the doctor found</h1><p class=soft>{escape(verdict)}</p>",
        tiles(numbers, {}),
        *(_finding(diagnosis, finding) for finding in diagnosis.findings),
        _classes(diagnosis),
        _spread(diagnosis),
        f"<section><h2>How it was made</h2><pre>{escape(command)}</pre></section>",
    ]
    return write_page(path.parent, f"{listing.name}: doctor", body, path.name)


def _of(n: int, one: str, many: str | None = None) -> str:
    """The noun for a number, without it."""
    return counted(n, one, many).partition(" ")[2]


def _finding(diagnosis: Diagnosis, finding: Finding) -> str:
    kind = {"error": "no", "warning": "maybe", "note": "soft"}[finding.severity]
    head = (
        f"<section><h2>{escape(finding.text[:1].upper() + finding.text[1:])}</h2><figcaption><span class={kind}>{finding.severity}</span>"
        f"{', training stops for it' if finding.stops else ''}. {escape(finding.remedy[:1].upper() + finding.remedy[1:])}.</figcaption>"
    )
    shown = [item for item in finding.items if item.images][:SHOWN]
    rest = [f"{' = '.join(item.names)}{': ' if item.note else ''}{item.note}" for item in finding.items]
    listed = escape("\n".join(rest[:LISTED])) + (f"\n... and {len(rest) - LISTED:,} more" if len(rest) > LISTED else "")
    names = (
        f"<details><summary>All {len(rest):,}</summary><pre>{listed}</pre></details>" if len(rest) > len(shown) else ""
    )
    if not shown and rest:
        names = ("" if finding.named else f"<pre>{listed}</pre>") if len(rest) <= SHOWN else names
    return head + _gallery(diagnosis, shown) + names + "</section>"


def _gallery(diagnosis: Diagnosis, items: Sequence[Item]) -> str:
    figures = []
    for item in items:
        pictures = "".join(_picture(diagnosis, row) for row in item.images)
        names = " = ".join(item.names)
        columns = f"grid-template-columns: repeat({len(item.images)}, 1fr)"
        figures.append(
            f'<figure><div class=views style="{columns}">{pictures}</div>'
            f"<figcaption>{escape(item.note)}<small>{escape(names)}</small></figcaption></figure>"
        )
    return f'<div class="gallery">{"".join(figures)}</div>' if figures else ""


def _picture(diagnosis: Diagnosis, row: int) -> str:
    images = diagnosis.listing.images
    try:
        pixels = images.read(row, None, LARGE)
    except VitralError:  # it has gone since it was read
        return ""
    return picture(to_rgb(pixels, diagnosis.show_bands), images.names[row])


def _classes(diagnosis: Diagnosis) -> str:
    rows = class_rows(diagnosis.listing, diagnosis.looks)
    splits = list(split_rows(diagnosis.listing, diagnosis.looks))
    most = max((row["images"] for row in rows), default=0)
    cells = [
        [
            escape(row["name"]),
            f'{row["images"]:,}<span class=meter><i style="--v:{row["images"] / max(1, most):.3f}"></i></span>',
            *(f"{row['splits'][split]:,}" for split in splits),
        ]
        for row in rows
    ]
    made = "" if splits else " The data give no splits; training makes them."
    return (
        f"<section><h2>Classes</h2><p class=soft>In the order of the model's answers.{made}</p>"
        f"{table(['class', 'images', *splits], cells)}</section>"
    )


def _spread(diagnosis: Diagnosis) -> str:
    values = spread(diagnosis.looks)
    if not values:
        return ""
    rows = [
        [escape(f"{what}, pixels" if what != "brightness" else what)]
        + [f"{each[end]:.0%}" if what == "brightness" else f"{each[end]:,.0f}" for end in ("least", "median", "most")]
        for what, each in values.items()
    ]
    examples = "".join(
        f"<h3>{what.capitalize()}</h3>{_gallery(diagnosis, items)}" for what, items in diagnosis.extremes.items()
    )
    return f"<section><h2>How far they differ</h2>{table(['', 'least', 'median', 'most'], rows)}{examples}</section>"
