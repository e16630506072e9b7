"""The command that finds what is wrong with data before anything is trained on them: doctor."""

import json
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vitral.cli.options import argument, names_said
from vitral.cli.parse import program, unused
from vitral.data.options import DataOptions
from vitral.errors import VitralError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vitral.guidance.doctor.diagnose import Diagnosis
    from vitral.guidance.doctor.findings import Finding

NAMED = 3  # examples of a finding
MARKS = {"error": "ERROR", "warning": "warning", "note": "note"}


@dataclass
class Doctor:
    """What is wrong with data: unreadable and odd files, copies (resized, cropped or mirrored too), classes, and labels that look wrong.

    Writes a page with the images, and changes nothing. Exit code 0 without errors, 1 with errors (training would stop, or copies lie in two
    of the data's own splits; with --strict also with warnings), 2 if the data cannot be opened.

    Example: vitral doctor photos/

    Data with boxes or masks (COCO, YOLO, VOC, ...) are recognised: see docs/annotations.md.

    Example: vitral doctor photos/ --json > doctor.json
    """

    data: str = argument()
    """Folder, table or built-in name, as for vitral train."""
    model: Path | None = None
    """Run folder or model file by whose features labels are judged; default: by the pixels."""
    out: Path | None = None
    """Page to write; default: the data's name with -doctor.html, in the current folder."""
    strict: bool = False
    """Exit with 1 also for warnings."""
    json: bool = False
    """Print JSON on stdout, with every name."""
    fix: Path | None = None
    """Of boxes and masks: a new folder for a mended copy, in the data's format."""
    options: DataOptions = field(default_factory=DataOptions)
    said: frozenset[str] = names_said()


def doctor(given: Doctor, words: list[str]) -> int:
    from vitral.data.formats import recognise
    from vitral.data.targets import TARGETS
    from vitral.guidance.doctor.diagnose import as_json, check_page_place, diagnose
    from vitral.guidance.doctor.page import write_doctor_page
    from vitral.predict import load
    from vitral.training.display import Display
    from vitral.training.machine import choose_device

    out = given.out or Path(f"{Path(given.data).resolve().stem}-doctor.html")
    check_page_place(out, given.data)
    task = given.options.task
    if (task is None or (task in TARGETS and TARGETS[task].in_place)) and recognise(given.data) is not None:
        return _annotations(given, out, words)
    if given.fix is not None:
        raise VitralError(
            f"{given.data}: --fix mends boxes and masks, and there are none; mend what doctor names by hand"
        )
    predictor = None
    if given.model is not None:
        predictor = load(given.model)
        predictor.model.to(choose_device("auto"))
    with Display() as display:
        diagnosis = diagnose(
            given.data, given.options, predictor=predictor,
            reading=lambda n, total: display.count("reading images", n, total),
            comparing=lambda n, total: display.count("comparing images", n, total),
        )  # fmt: skip
    write_doctor_page(out, diagnosis, shlex.join(["vitral", "doctor", *words]))
    said = []
    for name, value in vars(given.options).items():
        if name in given.said:
            flag = name.replace("_", "-")
            plain = f"--{flag} {shlex.quote(str(value))}"
            said.append(plain if not isinstance(value, bool) else f"--{flag}" if value else f"--no-{flag}")
    _tell(diagnosis, out, " ".join([shlex.quote(given.data), *said]))
    if given.json:
        print(json.dumps({**as_json(diagnosis), "page": str(out)}))
    wrong = diagnosis.count("error") + (diagnosis.count("warning") if given.strict else 0)
    return 1 if wrong else 0


def _annotations(given: Doctor, page: Path, words: list[str]) -> int:
    """The same for data with boxes or masks."""
    from vitral.data.formats import FORMATS
    from vitral.data.formats.convert import counts
    from vitral.guidance.doctor.annotations import as_json, diagnose_annotations
    from vitral.guidance.doctor.mend import mend
    from vitral.guidance.doctor.overlays import write_annotation_page
    from vitral.training.display import Display

    with Display() as display:
        diagnosis = diagnose_annotations(
            given.data, lambda n, total: display.count("reading images", n, total), given.options.room
        )
        write_annotation_page(page, diagnosis, shlex.join(["vitral", "doctor", *words]))
    data = diagnosis.data
    there = ", ".join(f"{count:,} {what}" for what, count in counts(data).items())
    lines = [
        f"{data.name}: {FORMATS[data.format].about}, {there}",
        *_said(diagnosis.findings),
        f"the page with the images: {page}",
    ]
    if diagnosis.stops_for and given.fix is None:
        copy = shlex.quote(unused(Path(f"{data.name}-mended")).name)
        lines += ["next:", f"  {program()} doctor {shlex.quote(given.data)} --fix {copy}"]
    print("\n".join(lines), file=sys.stderr)
    if given.fix is not None:
        done = mend(diagnosis, given.fix)
        print(
            "\n".join([f"wrote {given.fix}, mended:", *(f"  {each}" for each in done or ["nothing had to be"])]),
            file=sys.stderr,
        )
    if given.json:
        print(json.dumps({**as_json(diagnosis), "page": str(page)}))
    wrong = diagnosis.count("error") + (diagnosis.count("warning") if given.strict else 0)
    return 1 if wrong else 0


def _said(findings: "Sequence[Finding]") -> list[str]:
    """Findings, each with the first of its cases and its remedy."""
    from vitral.errors import some

    lines = []
    for finding in findings:
        names = [] if finding.named else [" = ".join(item.names) for item in finding.items]
        examples = f": {some(names, NAMED)}" if names else ""
        lines += [f"{MARKS[finding.severity]:>7}  {finding.text}{examples}", f"{'':9}-> {finding.remedy}"]
    return lines


def _tell(diagnosis: "Diagnosis", page: Path, words: str) -> None:
    """Print the findings on stderr, the worst first."""
    from vitral.errors import counted
    from vitral.guidance.doctor.diagnose import next_commands

    listing = diagnosis.listing
    what = counted(len(listing.labels), *listing.targets.nouns)
    lost = len(diagnosis.unusable)
    unusable = f", {counted(lost, 'file')} that cannot be used" if lost else ""
    lines = [f"{listing.name}: {counted(len(diagnosis.looks), 'image')}{unusable}, {what}"]
    lines += _said(diagnosis.findings)
    if not diagnosis.findings:
        lines.append("no problem was found")
    if diagnosis.agreement is None and not any(finding.kind == "unjudged_labels" for finding in diagnosis.findings):
        lines.append("the labels were not judged: there are too few images, or only one class")
    starts = "would start" if not diagnosis.stops_for else "would refuse these data"
    lines += [f"training {starts}; the page with the images: {page}"]
    commands = next_commands(diagnosis, words, program())
    again = commands[0].startswith(f"{program()} doctor ")
    lead = "next, once the errors are mended:" if again else "next:"
    print("\n".join([*lines, lead, *(f"  {command}" for command in commands)]), file=sys.stderr)
