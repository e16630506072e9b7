"""The command that finds what is wrong with data before anything is trained on them: doctor."""

import json
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vitral.cli.options import argument, names_said
from vitral.cli.parse import program
from vitral.data.options import DataOptions

if TYPE_CHECKING:
    from vitral.guidance.doctor.diagnose import Diagnosis

NAMED = 3  # examples of a finding
MARKS = {"error": "ERROR", "warning": "warning", "note": "note"}


@dataclass
class Doctor:
    """What is wrong with data: unreadable and odd files, copies (resized, cropped or mirrored too), classes, and labels that look wrong.

    Changes nothing. Exit code 0 if nothing is wrong, 1 if there are errors (training stops for them, or copies lie in two of the splits that
    the data give; with --strict warnings count too), 2 if there are no such data. Writes a page with the images.

    Example: vitral doctor photos/

    Example: vitral doctor photos/ --json > doctor.json
    """

    data: str = argument()
    """Folder, table or built-in name, as for vitral train."""
    model: Path | None = None
    """Run folder or model file whose features judge the labels; default: the pixels judge them."""
    out: Path | None = None
    """Page to write; default: the data's name with -doctor.html, in the current folder."""
    strict: bool = False
    """Exit with 1 for warnings too."""
    json: bool = False
    """Print JSON on stdout, with every name."""
    options: DataOptions = field(default_factory=DataOptions)
    said: frozenset[str] = names_said()


def doctor(given: Doctor, words: list[str]) -> int:
    from vitral.guidance.doctor.diagnose import as_json, check_page_place, diagnose
    from vitral.guidance.doctor.page import write_doctor_page
    from vitral.predict import load
    from vitral.training.display import Display
    from vitral.training.machine import choose_device

    out = given.out or Path(f"{Path(given.data).resolve().stem}-doctor.html")
    check_page_place(out, given.data)
    predictor = None
    if given.model is not None:
        predictor = load(given.model)
        predictor.model.to(choose_device("auto"))
    display = Display()
    try:
        diagnosis = diagnose(
            given.data, given.options, predictor=predictor,
            reading=lambda n, total: display.count("reading images", n, total),
            comparing=lambda n, total: display.count("comparing images", n, total),
        )  # fmt: skip
    finally:
        display.close()
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


def _tell(diagnosis: "Diagnosis", page: Path, words: str) -> None:
    """The findings for a person, on stderr, the worst first."""
    from vitral.errors import counted, some
    from vitral.guidance.doctor.diagnose import next_commands

    listing = diagnosis.listing
    what = counted(len(listing.labels), *listing.targets.nouns)
    lost = len(diagnosis.unusable)
    unusable = f", {counted(lost, 'file')} that cannot be used" if lost else ""
    lines = [f"{listing.name}: {counted(len(diagnosis.looks), 'image')}{unusable}, {what}"]
    for finding in diagnosis.findings:
        names = [] if finding.named else [" = ".join(item.names) for item in finding.items]
        examples = f": {some(names, NAMED)}" if names else ""
        lines += [f"{MARKS[finding.severity]:>7}  {finding.text}{examples}", f"{'':9}-> {finding.remedy}"]
    if not diagnosis.findings:
        lines.append("nothing is wrong with them")
    if diagnosis.agreement is None and not any(finding.kind == "unjudged_labels" for finding in diagnosis.findings):
        lines.append("labels were not judged: there are too few images, or there is one class only")
    starts = "would start on them" if not diagnosis.stops_for else "would refuse them as they are"
    lines += [f"training {starts}; the page with the images: {page}"]
    commands = next_commands(diagnosis, words, program())
    again = commands[0].startswith(f"{program()} doctor ")
    lead = "next, when the errors are mended:" if again else "next:"
    print("\n".join([*lines, lead, *(f"  {command}" for command in commands)]), file=sys.stderr)
