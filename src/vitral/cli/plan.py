"""The command that says what to train, and why, before anything is trained: plan."""

import json
import shlex
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vitral.cli.options import argument
from vitral.cli.parse import program, unused
from vitral.errors import VitralError
from vitral.training.config import Recipe

if TYPE_CHECKING:
    from vitral.guidance.plan.choices import Plan

WIDTH = 80


@dataclass
class PlanData:
    """What to train on these images in the time there is, and why; writes the recipe.

    Reads the data, tries models out on this machine for some seconds (or takes --device t4, l4, a10g, v100, a100, h100, h200, rtx3090 or
    rtx4090 from a table), and prints each choice with its reason, the score to beat, memory and hours. What you say with the flags of vitral
    train stays as you said it.

    Example: vitral plan photos/ --hours 2 --out photos.toml

    Example: vitral plan photos/ --hours 8 --device t4
    """

    data: str = argument()
    """Folder, table or built-in name, as for vitral train."""
    hours: float | None = None
    """How long to train at most, such as 0.5; default: as long as it is worth it, up to half an hour."""
    out: Path | None = None
    """Where to write the recipe; default: the data's name with .toml, numbered if that is there."""
    json: bool = False
    """Print the plan as JSON on stdout."""
    recipe: Path | None = None
    """TOML file of settings that the plan keeps to."""
    settings: Recipe = field(default_factory=Recipe)


def plan(given: PlanData, words: list[str]) -> int:
    from vitral.checkpoints.atomic import write_atomically
    from vitral.guidance.plan.plan import make_plan
    from vitral.training.display import Display

    out = given.out or unused(Path(f"{Path(given.data).stem or 'plan'}.toml"))
    if not out.absolute().parent.is_dir():
        raise VitralError(f"{out}: there is no folder {out.parent}; make it, or name another file with --out")
    display = Display()
    try:
        made = make_plan(given.data, given.settings, display, given.hours)
    finally:
        display.close()
    write_atomically(out, as_toml(made, given.data, out).encode())
    print("\n".join(("", *in_words(made))), file=sys.stderr)
    print(f"\nNext:\n  {program()} train {shlex.quote(given.data)} --recipe {shlex.quote(str(out))}", file=sys.stderr)
    if given.json:
        print(json.dumps(as_json(made, out)))
    return 0


def in_words(made: "Plan") -> list[str]:
    """The plan, line by line."""
    return [
        *(line for choice in made.choices for line in wrapped(choice.what, f"{choice.value}: {choice.why}")),
        *(line for i, reason in enumerate(made.settled.reasons) for line in wrapped("" if i else "also", reason)),
        *(line for what, value in costs(made).items() for line in wrapped(what, value)),
    ]


def costs(made: "Plan") -> dict[str, str]:
    """What the plan costs, what to beat, and what more time would give."""
    from vitral.training.display import clock

    cost, train, spent = made.estimate, made.recipe.train, made.training_seconds
    assert cost is not None
    assert spent is not None
    how = "measured here" if cost.measured else "by the table: an estimate"
    beaten = ", ".join(f"{top1:.1%} {what}" for what, top1 in made.baselines.items())
    return {
        "costs": f"{clock(spent)} of training, {cost.peak_bytes / 1e9:.1f} GB of memory, {cost.parameters:,} parameters, "
        f"{cost.precision}, batch {train.batch_size} x {train.accumulation} ({how})",
        "to beat": beaten or "nothing to compare with: no validation images of one class each",
        "longer": f"with twice the time: {made.longer}",
    }


def wrapped(what: str, text: str) -> list[str]:
    """A row of two columns, in 80."""
    return textwrap.wrap(text, WIDTH, initial_indent=f"  {what:9}", subsequent_indent=" " * 11)


def as_toml(made: "Plan", data: str, out: Path) -> str:
    """The recipe under its reasons."""
    from vitral.training.toml import to_toml

    head = [f"vitral train {shlex.quote(data)} --recipe {shlex.quote(str(out))}", "", *in_words(made)]
    return "".join(f"# {line}".rstrip() + "\n" for line in head) + "\n" + to_toml(made.recipe)


def as_json(made: "Plan", out: Path) -> dict[str, object]:
    """choices: what, value, why; reasons: of what else was decided; cost; passes; baselines (top-1 on validation images); longer; recipe."""
    from dataclasses import asdict

    from vitral.training.toml import to_table

    assert made.estimate is not None
    cost = asdict(made.estimate) | {"training_seconds": round(made.training_seconds or 0.0, 1)}
    return {
        "choices": [asdict(choice) for choice in made.choices],
        "reasons": made.settled.reasons,
        "cost": cost,
        "passes": round(made.passes, 2),
        "baselines": made.baselines,
        "longer": made.longer,
        "recipe": to_table(made.recipe),
        "file": str(out),
    }
