"""A mended copy of annotated data."""

from dataclasses import replace
from pathlib import Path

from vitral.data.formats.convert import plan_conversion, write_planned
from vitral.data.formats.faults import KINDS, by_kind
from vitral.data.progress import OnProgress
from vitral.errors import VitralError, counted
from vitral.guidance.doctor.annotations import AnnotationDiagnosis, diagnose_annotations, once, without_pixels


def mend(diagnosis: AnnotationDiagnosis, out: Path, progress: OnProgress | None = None) -> list[str]:
    """Write a mended copy of the data in their own format; returns what was mended. Raises VitralError for errors that only a person can correct."""
    data = diagnosis.data
    left = [kind for kind in by_kind(data.faults) if KINDS[kind].severity == "error" and not KINDS[kind].mended]
    if left:
        said = "; ".join(
            f"{counted(len(by_kind(data.faults)[kind]), KINDS[kind].one, KINDS[kind].many)}: {KINDS[kind].remedy}"
            for kind in left
        )
        raise VitralError(f"{data.root}: some errors must be corrected by hand: {said}")
    hidden = {id(each) for _, each in without_pixels(data, progress)}
    rows = [
        replace(one, objects=once(each for each in one.objects if id(each) not in hidden)) for one in data.annotated
    ]
    dropped = sum(len(a.objects) - len(b.objects) for a, b in zip(data.annotated, rows, strict=True))
    done = [
        f"{counted(len(found), KINDS[kind].one, KINDS[kind].many)}: {KINDS[kind].mended}"
        for kind, found in by_kind(data.faults).items()
        if KINDS[kind].mended
    ]
    if dropped:
        done.append(f"{counted(dropped, 'object')} annotated twice or without a pixel: left out")
    planned = plan_conversion(replace(data, annotated=rows, faults=()), data.format, progress)
    write_planned(planned, out)
    again = diagnose_annotations(out)
    wrong = [kind for kind in again.stops_for if kind in KINDS]
    assert not wrong, f"a mended copy is still wrong: {wrong}"
    return [*done, *(f"{counted(count, what)}: {why}" for count, what, why in planned.left_out)]
