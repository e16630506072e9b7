"""Help pages: one screen with the common options, and one with all, grouped by topic.

Both are drawn from a command's dataclass (`options_of`), sentences and defaults from its docstrings; `COMMON` says what is on the screen.
"""

import difflib
import itertools
import shutil
import textwrap
from collections.abc import Iterable, Sequence

from vitral.cli.options import Option, options_of
from vitral.cli.parse import spellings
from vitral.errors import VitralError

ASKED = ("-h", "--help")
LEFT = 26  # columns of a flag and its value; longer ones have a line to themselves
WIDEST = 100

# What a command's screen shows, in this order; of a command that is not here, all its own.
COMMON = {
    "train": (
        "recipe", "model", "image_size", "init", "epochs", "time", "batch_size", "lr", "mixup", "val_fraction", "skip_unreadable",
        "device", "seed", "out", "resume",
    ),
    "plan": ("hours", "recipe", "model", "image_size", "init", "epochs", "batch_size", "lr", "device", "seed", "out", "json"),
    "pretrain": (
        "objective", "recipe", "model", "image_size", "patch_size", "mask_ratio", "epochs", "time", "batch_size", "lr", "device", "seed", "out",
        "resume",
    ),
    "memory": (
        "recipe", "model", "image_size", "batch_size", "accumulation", "precision", "device", "objective", "budget", "json",
    ),
    "lr-find": (
        "recipe", "model", "image_size", "init", "batch_size", "optimizer", "device", "lowest", "highest", "range_steps", "plot", "json",
    ),
    "sweep": (
        "models", "recipes", "fractions", "seeds", "set", "epochs", "time", "image_size", "search", "jobs", "dry_run", "out", "resume", "json",
    ),
    "doctor": ("model", "image_column", "label_column", "label_separator", "strict", "fix", "out", "json"),
    "evaluate": (
        "split", "explanations", "images", "label_separator", "skip_unreadable", "batch_size", "workers", "precision", "json",
    ),
    "predict": ("format", "top_k", "batch_size", "page", "value_range"),
    "explain": (
        "out", "method", "compare", "target", "layer", "head", "query", "all", "score", "counterfactual", "page", "value_range",
    ),
    "view": ("against", "neighbours", "page", "value_range", "host", "port", "browser", "export"),
    "probe": ("shots", "seeds", "baseline", "train_fraction", "skip_unreadable", "batch_size", "workers", "json"),
}  # fmt: skip
OWN, OUTPUT = "This command", "Output"
GROUPS = {  # the topic of each section
    "ModelArguments": "Model",
    "ViewOptions": "Images",
    "DataOptions": "Images",
    "AugmentOptions": "Augmentation",
    "TrainOptions": "Budget",
    "OptimOptions": "Optimiser",
    "TransferOptions": "Transfer",
    "ObjectiveOptions": "Objective",
    "HeadOptions": "Model",
    "ReadingOptions": "Images",
}
ELSEWHERE = {  # options under another topic than their section's
    "Machine": ("accumulation", "gradient_checkpointing", "precision", "device", "workers"),
    OUTPUT: (
        "out",
        "resume",
        "moved",
        "show_augmentation",
        "json",
        "keep",
        "score_split",
        "validate_every",
        "checkpoint_every",
    ),
}
ORDER = (OWN, "Model", "Images", "Augmentation", "Budget", "Optimiser", "Transfer", "Objective", "Machine", OUTPUT)


def group_of(option: Option) -> str:
    """The heading under which an option stands."""
    section = option.section.__name__
    own = len(option.path) == 1
    if own or section == "TrainOptions":
        moved = next((group for group, names in ELSEWHERE.items() if option.name in names), None)
        return moved or (OWN if own else GROUPS[section])
    return GROUPS.get(section, section.removesuffix("Options"))


def help_page(kind: type, command: str, words: Sequence[str]) -> str:
    """What `vitral COMMAND words` asks for, where -h or --help is among the words: the screen, everything, or a part of that."""
    topics = [word.removeprefix("--help=") for word in words if word.startswith("--help=")]
    topics += [after for word, after in itertools.pairwise(words) if word in ASKED]
    width = max(60, min(WIDEST, shutil.get_terminal_size().columns))
    if not topics or topics[0].startswith("-"):
        return screen(kind, command, width)
    return everything(kind, command, width, topics[0])


def screen(kind: type, command: str, width: int = WIDEST) -> str:
    """What a command does, its arguments, the options that most people use, and examples."""
    options = options_of(kind)
    about, examples = described(kind)
    by_name = {option.name: option for option in options if not option.positional}
    common = [by_name[name] for name in COMMON.get(command, [name for name in by_name if len(by_name[name].path) == 1])]
    left = len(by_name) - len(common)
    lines = [usage(options, command), "", *wrapped(about[0], width), "", *arguments(options, width)]
    if common:
        lines += [
            "",
            f"{'What most people use' if left else 'Options'}, and [what holds without it]",
            *entries(common, width, brief=True),
        ]
    lines += ["", *(f"Example: {example}" for example in examples[:2])]
    if left or len(about) > 1 or len(examples) > 2:
        more = f"{left} more options" if left else "more of it"
        lines += ["", f"vitral {command} --help all: {more}"]
    return "\n".join(lines)


def everything(kind: type, command: str, width: int = WIDEST, topic: str = "all") -> str:
    """Every option under its heading; or one heading, or one option, by its name."""
    options = options_of(kind)
    flags = [option for option in options if not option.positional]
    headings = dict.fromkeys((*ORDER, *map(group_of, flags)))
    groups = {name: found for name in headings if (found := [option for option in flags if group_of(option) == name])}
    if topic.lower() != "all":
        return _part(groups, command, topic, width)
    about, examples = described(kind)
    lines = [usage(options, command)]
    for paragraph in about:
        lines += ["", *wrapped(paragraph, width)]
    lines += ["", *arguments(options, width)]
    for name, each in groups.items():
        lines += ["", name, *entries(each, width)]
    lines += ["", *(f"Example: {example}" for example in examples)]
    return "\n".join(lines)


def _part(groups: dict[str, list[Option]], command: str, topic: str, width: int) -> str:
    names = {name.lower(): name for name in groups}
    options = {flag.lstrip("-"): option for each in groups.values() for option in each for flag in spellings(option)}
    wanted = topic.lower().replace("_", "-")
    if wanted in names:
        return "\n".join([names[wanted], *entries(groups[names[wanted]], width)])
    if wanted in options:
        return "\n".join(entries([options[wanted]], width))
    near = difflib.get_close_matches(wanted, [*names, *options], n=1)
    meant = f"did you mean {near[0]}?" if near else f"there are all, {', '.join(names)} and the options' names"
    raise VitralError(f"vitral {command} --help {topic}: no such part; {meant}")


def described(kind: type) -> tuple[list[str], list[str]]:
    """The paragraphs of a command's docstring, and its examples."""
    paragraphs = [" ".join(part.split()) for part in (kind.__doc__ or "").split("\n\n")]
    examples = [part.removeprefix("Example: ") for part in paragraphs if part.startswith("Example: ")]
    return [part for part in paragraphs if not part.startswith("Example: ")], examples


def usage(options: Iterable[Option], command: str) -> str:
    """vitral predict MODEL IMAGE ... [options]"""
    words, resumed = [], any(option.name == "resume" for option in options)
    for option in options:
        if option.positional:
            needed = resumed or not (option.value is None or option.value == ())
            words.append(option.metavar if needed else f"[{option.metavar}]")
    rest = ["[options]"] if any(not option.positional for option in options) else []
    return " ".join(["usage: vitral", command, *words, *rest])


def arguments(options: Iterable[Option], width: int) -> list[str]:
    """The positional arguments, each with its sentence."""
    return entries([option for option in options if option.positional], width)


def entries(options: Sequence[Option], width: int, *, brief: bool = False) -> list[str]:
    """A line or more for each option: flag and value, sentence, default. brief: only the first sentence."""
    heads = [head(option) for option in options]
    left = min(LEFT, max(map(len, heads), default=0) + 2)
    lines = []
    for option, first in zip(options, heads, strict=True):
        text = option.sentence.split(". ")[0].removesuffix(".") if brief else option.sentence
        said = f"default: {option.default}" if option.default else ""
        if brief:
            text += f" [{option.default}]" if said else ""
        elif said:
            text += f" {said[0].upper()}{said[1:]}."
        rows = textwrap.wrap(text, width - left - 2, break_long_words=False, break_on_hyphens=False)
        if len(first) + 2 > left:
            lines += [f"  {first}", *(" " * (left + 2) + row for row in rows)]
        else:
            lines += [f"  {first:{left}}{rows[0]}", *(" " * (left + 2) + row for row in rows[1:])]
    return lines


def head(option: Option) -> str:
    """--batch-size N"""
    if option.positional:
        return option.metavar
    flags = list(spellings(option))
    if option.switch and option.value is False:
        flags = flags[:-1]  # --no-... is for over a recipe only
    short = [flag for flag in option.also if not flag.startswith("--")]
    named = ", ".join([*sorted(short), *(flag for flag in flags if flag not in short)])
    return f"{named} {option.metavar}".rstrip()


def wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
