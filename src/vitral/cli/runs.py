"""From the words of `vitral train` or `vitral pretrain` to a trained run with its page: a new run, one that goes on, or one in several processes.

given: a `Train` or a `Pretrain`, whose words are `words`; command: its name.
"""

import json
import os
import shlex
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitral.cli.coach import attend
from vitral.cli.parse import as_flags, at_least, program, unused, without
from vitral.errors import VitralError, some
from vitral.objectives.options import OBJECTIVES

if TYPE_CHECKING:
    from vitral.training.display import Display
    from vitral.training.run import Run
    from vitral.training.world import World

ABOUT_PROCESSES = frozenset({"go_on", "processes", "workers", "out"})  # words that a run goes on without


def train_run(given: Any, words: list[str], command: str) -> int:
    """Start or resume the run, train it, and write its page; in the processes that torchrun started, or in those asked for. Returns the exit code."""
    if given.resume is None:
        check_data(given, command)
    processes = 1 if given.processes is None else given.processes
    at_least(1, processes=processes)
    if processes > 1:
        return _launched(given, words, command)
    from vitral.training.display import Display, Silent

    display = Display()
    if os.environ.get("RANK", "0") == "0":  # as torchrun counts the processes that it starts
        display.doing("loading torch")
    from vitral.training.world import NotBegunError, PartedError, joined

    try:
        with joined() as world:
            if not world.main:
                display.close()
                display = Silent()
            return _trained(given, words, command, display, world)
    except NotBegunError:
        return 2
    except PartedError as parted:
        print(f"vitral: a process stops, as another of its run is gone ({parted})", file=sys.stderr)
        return 1
    finally:
        display.close()


def _launched(given: Any, words: list[str], command: str) -> int:
    """The command in several processes."""
    from vitral.checkpoints.claim import going_on, taken
    from vitral.cli.launch import launch
    from vitral.training.start import written_down

    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise VitralError(f"processes {given.processes}: torchrun has started them already; leave out --processes")
    own = without(words, type(given), {"processes"})
    if given.resume is not None:  # refused at once, and not when all have started
        refuse_changes(given)
        written_down(given.resume)
        if going_on(given.resume):
            raise taken(given.resume)
        return launch(given.processes, command, own, [])
    out, fresh = placed(given, command)
    if (given.go_on or not fresh) and going_on(out):
        raise taken(out)
    if fresh:
        own += ["--out", str(out if given.go_on else unused(out))]
    return launch(given.processes, command, own, [] if given.go_on else ["--continue"])


def _trained(given: Any, words: list[str], command: str, display: "Display", world: "World") -> int:
    from vitral.guidance.coach.worth import worth
    from vitral.report.run import report_run
    from vitral.training.start import follow

    (done,) = world.begun(lambda: (_done(given, words, command),), lambda found: found, lambda found: found)
    if done is not None:
        display.say(f"{done}: is trained and scored, nothing is left to do; report: {done / 'report.html'}")
        return 0
    run = world.begun(
        lambda: _begun(given, words, command, display, world),
        lambda folder: follow(folder, display, world, given.settings.train.workers),
        lambda made: made.folder,
    )
    attend(run)
    finished = run.train()
    if not finished:
        display.say(
            f"stopped and saved at step {run.loop.progress.step}; go on with: "
            f"{program()} {command} --resume {shlex.quote(str(run.folder))}"
        )
        return 130
    if not world.main or (command == "train" and run.purpose.scored_split is None):
        return 0
    found = worth(run.folder)
    display.say("writing the report")
    page = report_run(run.folder, run.data, found.sentences if found else ())
    display.close()
    lines = _after_training(run) if command == "train" else _after_pretraining(run, type(given))
    if found is not None:
        print("\n  ".join(filter(None, (f"\nCan I use it? {found}", found.command))), file=sys.stderr)
    print("\nNext:\n" + "\n".join(f"  {line}" for line in lines) + f"\nReport: {page}", file=sys.stderr)
    return 0


def refuse_changes(given: Any) -> None:
    """--resume goes on as the run began."""
    if changed := given.said - {"resume", "workers", "moved", "processes"}:
        raise VitralError(
            f"--resume keeps the run's data and recipe; leave out {as_flags(changed)}, or start a new run"
        )
    if given.data is not None:
        raise VitralError(
            f"--resume keeps the run's data and recipe; leave out {given.data}, or write --data {given.data} if they moved there"
        )


def _done(given: Any, words: list[str], command: str) -> Path | None:
    """The folder that --continue names, if its run has ended with a model and a report; refused if other words began it."""
    if not given.go_on:
        return None
    out, _ = placed(given, command)
    if not all((out / name).exists() for name in ("model.safetensors", "report.html")):
        return None
    _same_words(out, given, words)
    return out


def _same_words(out: Path, given: Any, words: list[str]) -> None:
    """Refuse to go on with a run that other words began."""
    from vitral.training.start import written_down

    described = written_down(out)
    said = described["command"]
    before, now = (without(each, type(given), ABOUT_PROCESSES) for each in (shlex.split(said)[2:], words))
    if before != now:
        raise VitralError(
            f"{out}: holds a run that was begun by {said}; say the same words, go on with --resume {out}, or choose another --out"
        )
    asked, stored = _asked(given), described.get("asked", {})  # not kept before 2026-12
    changed = [key for key in sorted({*asked, *stored}) if asked.get(key) != stored.get(key)]
    if changed and "asked" in described:
        raise VitralError(
            f"{out}: holds a run that was begun with another {given.recipe}, as {some(changed)} shows; write there what it said, go on with "
            f"--resume {out}, or choose another --out"
        )


def _asked(given: Any) -> dict[str, Any]:
    """What the recipe's file says, but for the loader processes, by section.field."""
    if given.recipe is None:
        return {}
    sections = tomllib.loads(given.recipe.read_text())
    fields = {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
    return {key: value for key, value in fields.items() if key != "train.workers"}


def _begun(given: Any, words: list[str], command: str, display: "Display", world: "World") -> "Run":
    """The run as the first process has it: a new one, or one that was begun before."""
    from vitral.training.start import can_go_on, resume

    workers = given.settings.train.workers
    if given.resume is not None:
        refuse_changes(given)
        return resume(given.resume, display, workers, given.moved, world)
    if not (given.go_on or world.restarted):
        return _started(given, words, command, display, world)
    out, fresh = placed(given, command)
    if fresh and not given.go_on:
        raise VitralError("a process died, and no --out says which run to go on with; start again with --out RUN")
    if not can_go_on(out):
        return _started(replace(given, out=out), words, command, display, world)
    _same_words(out, given, words)
    return resume(out, display, workers, None, world)


def _started(given: Any, words: list[str], command: str, display: "Display", world: "World") -> "Run":
    from vitral.training.settle import settle
    from vitral.training.start import begin, check_place

    out, fresh = placed(given, command)
    spoken = shlex.join(["vitral", command, *words])
    check_place(unused(out) if fresh else out)
    if command == "pretrain":  # the rules of a plan were found by scores on labels
        settled = settle(given.data, given.settings, display)
        return begin(settled, out, display, spoken, asked=_asked(given), fresh=fresh, world=world)
    from vitral.guidance.plan.plan import make_plan
    from vitral.training.machine import choose_device

    choose_device(given.settings.train.device)  # a plan could be for another machine, a run cannot
    made = make_plan(given.data, given.settings, display, brief=True)
    settled = replace(made.settled, reasons=(*made.brief(), *made.settled.reasons))
    return begin(settled, out, display, spoken, made.foreseen, asked=_asked(given), fresh=fresh, world=world)


def check_data(given: Any, command: str) -> None:
    """A new run has its data from one place."""
    if given.moved is not None:
        raise VitralError(
            "--data: says with --resume where a run's data moved to; a new run's DATA is given without a flag"
        )
    if given.data is None:
        raise VitralError(f"{command}: which data? Give a folder, a table or a built-in name such as digits")


def placed(given: Any, command: str) -> tuple[Path, bool]:
    """The run folder; and whether nobody named it, so that the next free name will do."""
    name = Path(given.data).resolve().stem or "run"
    out = given.out or Path("runs") / (name if command == "train" else f"{name}-pretrained")
    return out, given.out is None


def _after_training(run: "Run") -> list[str]:
    """Commands to try on a finished run."""
    from vitral.answers import ANSWERS
    from vitral.explain.methods import undefined

    assert run.purpose.scored_split is not None
    image = run.data.splits[run.purpose.scored_split].path(0) or run.folder / "example.png"
    vitral, folder, data, picture = program(), *(shlex.quote(str(x)) for x in (run.folder, run.source, image))
    again = f"{vitral} evaluate {folder} {data} --split {run.purpose.scored_split}"
    if not ANSWERS[run.data.task](run.data.labels).of_whole:
        return [f"{vitral} predict {folder} {picture} --out {folder}/predicted", again]
    no_attention = undefined(run.loop.image_model, "attention") is not None
    return [
        f"{vitral} predict {folder} {picture}",
        f"{vitral} explain {folder} {picture}{' --method grad_cam' if no_attention else ''} -o {folder}/explained.png",
        again,
        f"{vitral} view {folder} {picture}",
    ]


def _after_pretraining(run: "Run", kind: type) -> list[str]:
    vitral, folder, data = program(), *(shlex.quote(str(x)) for x in (run.folder, run.source))
    own = run.recipe.objective
    after = next((name for name, kind in OBJECTIVES.items() if own.name in kind.models), None)
    if after is not None:
        said = shlex.split(json.loads((run.folder / "run.json").read_text())["command"])[2:]
        shared = shlex.join(without(said, kind, {"objective", "out", *vars(own)}))
        return [f"{vitral} pretrain {shared} --objective {after} --{own.name} {folder}"]
    if len(run.data.labels) < 2:
        return [f"{vitral} train YOUR_LABELLED_IMAGES --init {folder}", f"{vitral} probe {folder} YOUR_LABELLED_IMAGES"]
    skip = " --skip-unreadable" if run.recipe.data.skip_unreadable else ""
    tuned = f"{vitral} train {data} --init {folder}{skip} --out {folder}-finetuned"
    return [tuned, f"{vitral} probe {folder} {data}"]
