"""The command that opens a model and shows what is in it: inspect."""

import json
import shlex
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vitral.cli.options import argument, names_said
from vitral.cli.parse import at_least, values_said
from vitral.data.options import DataOptions
from vitral.errors import VitralError, counted

if TYPE_CHECKING:
    from vitral.explain.inspection.inspect import Inspection


@dataclass
class Inspect:
    """What is inside a model: its filters and positions, and with DATA how far and how evenly its heads read, which heads matter, how its tokens
    change, and which layers are alike. Writes a page.

    Images are those of DATA's test split (else the validation split, else all). Labels are needed only for the importance of heads.

    Example: vitral inspect runs/photos photos/

    Example: vitral inspect runs/photos photos/ --json > inside.json
    """

    model: Path = argument()
    """Run folder or model file, with or without a head."""
    data: str | None = argument(None)
    """Folder, table or built-in name; without it only the weights are shown."""
    out: Path | None = argument(None, flags=("-o",))
    """Page to write; default: the model's name with -inspection.html, in the current folder."""
    images: int = 128
    """Most images to use, evenly spaced in the split."""
    head_images: int = 64
    """Most images to score the model without each head, with a pass over them for every head; 0 leaves it out."""
    json: bool = False
    """Print all numbers as JSON on stdout."""
    batch_size: int = 32
    """Images in one forward pass."""
    options: DataOptions = field(default_factory=DataOptions)
    said: frozenset[str] = names_said()


def inspect(given: Inspect, words: list[str]) -> int:
    at_least(1, images=given.images, batch_size=given.batch_size)
    at_least(0, head_images=given.head_images)
    out = given.out or Path(f"{given.model.resolve().stem}-inspection.html")
    if out.suffix != ".html":
        raise VitralError(f"{out}: the page is written as .html; choose that ending")
    from vitral.explain.inspection.as_json import as_json
    from vitral.explain.inspection.inspect import inspect as open_up
    from vitral.predict import load
    from vitral.report.inspection import write_inspection_page
    from vitral.training.display import Display
    from vitral.training.machine import choose_device
    from vitral.training.reopen import open_as_in_training

    predictor, data = load(given.model), None
    predictor.model.to(choose_device("auto"))
    with Display() as display:
        if given.data is not None:
            data = open_as_in_training(
                given.data,
                given.model,
                predictor.card,
                values_said(given.options, given.said),
                partial(display.count, "checking images"),
                labelled=False,
            )
            for note in data.notes:
                display.say(f"- {note}")
        found = open_up(
            predictor, data, images=given.images, head_images=given.head_images, batch_size=given.batch_size,
            progress=display.count,
        )  # fmt: skip
    write_inspection_page(out, found, given.model.resolve().stem, shlex.join(["vitral", "inspect", *words]))
    if given.json:
        print(json.dumps({"data": given.data, **as_json(found), "page": str(out)}))
    print("\n".join([*_in_words(found), f"the page: {out}"]), file=sys.stderr)
    return 0


def _in_words(found: "Inspection") -> list[str]:
    """The model, and what could not be shown of it."""
    looked = f", {counted(found.images, 'image')} ({found.split})" if found.images else ""
    missing = [f"- no {name.replace('_', ' ')}: {why}" for name, why in found.missing().items()]
    return [f"{found.model}: {found.parameters:,} parameters{looked}", *missing]
