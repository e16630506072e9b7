"""Words of the command line to a dataclass, what was wrong with them, and what to type for the next command.

tyro turns words into values of the options' types. It gets them as one flat dataclass, made from `options_of`, so that the sections of a recipe are
built here, by their own constructors, and what these refuse reaches the person as they put it. Where tyro refuses, the words are looked at again,
option by option, to say which and why.
"""

import contextlib
import dataclasses
import difflib
import functools
import io
import itertools
import os
import shlex
import shutil
import sys
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from vitral.cli.options import Option, options_of
from vitral.data.given import RECIPE, look_at
from vitral.errors import VitralError
from vitral.training.toml import FLAGS, merge, read_recipe

T = TypeVar("T")


def parse(kind: type[T], command: str, words: Sequence[str]) -> T:
    """`words` as an instance of the dataclass `kind`. A recipe that they name lies under them; one number for --image-size is a square.

    Raises VitralError for words that `kind` does not know, or that are no such values.
    """
    told: Any = kind
    options = options_of(told)
    spread = _spread(list(words), options)
    base = _named_recipe(words) if any(option.path == ("recipe",) for option in options) else None
    said = _said(options, spread)
    # of these alone: tyro takes longer the more options it is told of
    parsed = _parsed([option for option in options if option.positional or option.name in said], spread)
    if parsed is None:
        raise VitralError(f"{_refused(options, spread, command)}\nsee vitral {command} -h")
    values: dict[str, Any] = {option.name: option.value for option in options} | parsed
    if values.get("data") is not None:
        look_at(values["data"])
    return _built(kind, options, values, said, base)


def _named_recipe(words: Sequence[str]) -> Any:
    """The recipe that the words name with --recipe, if they do."""
    for word, after in itertools.zip_longest(words, words[1:]):
        if word == "--recipe" and after is not None:
            return read_recipe(after)
        if word.startswith("--recipe="):
            return read_recipe(word.partition("=")[2])
    return None


def _parsed(options: Sequence[Option], words: Sequence[str]) -> dict[str, Any] | None:
    """The value of each option by tyro; None where it refuses the words."""
    import tyro

    fields: list[Any] = []
    for option in options:
        marked: Any = Annotated[option.hint, tyro.conf.arg(aliases=option.also)] if option.also else option.hint
        marked = Annotated[option.hint, tyro.conf.Positional] if option.positional else marked
        fields.append((option.name, marked, dataclasses.field(default=option.value)))
    flat = dataclasses.make_dataclass("Flat", fields, kw_only=True)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        try:
            return dict(vars(tyro.cli(flat, args=list(words), add_help=False)))
        except SystemExit:
            return None


def _said(options: Iterable[Option], words: Sequence[str]) -> frozenset[str]:
    """Names of the options that the words set."""
    flags = {flag: option.name for option in options if not option.positional for flag in spellings(option)}
    return frozenset(flags[flag] for flag, _ in _taken(words, flags)[1] if flag in flags)


def _built(kind: type[T], options: Iterable[Option], values: dict[str, Any], said: frozenset[str], base: object) -> T:
    """The values in their places; of a section only what was said, over the recipe `base` or else over its defaults."""
    table: dict[str, Any] = {}
    for option in options:
        if len(option.path) == 1 or option.name in said:
            inner = functools.reduce(lambda place, name: place.setdefault(name, {}), option.path[:-1], table)
            inner[option.path[-1]] = values[option.name]
    for each in dataclasses.fields(kind):  # type: ignore[arg-type]
        if each.name == "said":
            table["said"] = said
        elif each.default_factory is not dataclasses.MISSING:
            section = base if base is not None and each.name == "settings" else each.default_factory()
            table[each.name] = merge(section, table.get(each.name, {}), FLAGS)
    return kind(**table)


def _spread(words: list[str], options: Iterable[Option]) -> list[str]:
    """The words, with --image-size 224 as --image-size 224 224, and --no-class-token, which may be left open, as --class-token False."""
    open_switches = {option.flag for option in options if option.switch and option.hint is not bool}
    spread: list[str] = []
    for i, word in enumerate(words):
        after = words[i + 1] if i + 1 < len(words) else "--"
        name = word.replace("_", "-")
        if f"--{name.removeprefix('--no-')}" in open_switches and name.startswith("--no-"):
            spread += [f"--{name.removeprefix('--no-')}", "False"]
        elif name in open_switches and after.lower() not in ("true", "false", "none"):
            spread += [word, "True"]
        elif i and words[i - 1].replace("_", "-") in open_switches and name.lower() in ("true", "false", "none"):
            spread.append(word.capitalize())
        else:
            spread.append(word)
            if word.isdigit() and i and words[i - 1].replace("_", "-") == "--image-size" and not after.isdigit():
                spread.append(word)
    return spread


def _refused(options: Sequence[Option], words: Sequence[str], command: str) -> str:
    """What is wrong with words that tyro refuses."""
    flags = {flag: option for option in options if not option.positional for flag in spellings(option)}
    loose, said = _taken(words, flags)
    for flag, values in said:
        if flag not in flags:
            near = difflib.get_close_matches(flag, flags, n=1)
            meant = f"did you mean {near[0]}?" if near else f"vitral {command} --help all lists all that there are"
            return f"{flag}: vitral {command} has no such option; {meant}"
        option = flags[flag]
        if option.switch and not option.many:
            loose += values[1:] if option.hint is not bool else values
            continue
        fits = next((n for n in range(len(values), 0, -1) if _parsed([option], [option.flag, *values[:n]])), 0)
        if not fits or (option.many and fits < len(values)):
            return f"{flag} {' '.join(values)}".rstrip() + f": {_expected(option, values[fits:])}"
        if len(values) > fits and (several := _for_several(option, options)) is not None:
            said_so = " ".join(values)
            return f"{flag} {said_so}: takes one value, for all runs; a run for each is {several.flag} {said_so}"
        loose += values[fits:]
    places = [option for option in options if option.positional]
    needed = [option for option in places if option.value is dataclasses.MISSING]
    if len(loose) < len(needed):
        missing = needed[len(loose)]
        return f"{command}: {missing.metavar.removesuffix(' ...')} is missing: {missing.sentence}"
    if len(loose) > len(places) and not any(option.many for option in places):
        if loose[len(places)].endswith(RECIPE) and any(option.name == "recipe" for option in options):
            return f"{loose[len(places)]}: is a recipe; give it as --recipe {loose[len(places)]}"
        taken = " ".join(option.metavar for option in places) or "no words without a flag"
        return f"{loose[len(places)]}: is one word too many; vitral {command} takes {taken} and options"
    return f"{' '.join(words)}: cannot be understood"


def _for_several(option: Option, options: Iterable[Option]) -> Option | None:
    """--seeds for --seed, --fractions for --train-fraction, where a command has both."""
    plural = option.name.rpartition("_")[2] + "s"
    return next((other for other in options if other.name == plural and other.many and not other.positional), None)


def spellings(option: Option) -> Iterator[str]:
    """Every flag that says it."""
    yield from (option.flag, *option.also)
    if option.switch:
        yield option.flag.replace("--", "--no-", 1)


def _taken(words: Iterable[str], flags: Container[str]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The words before any flag, and each flag with the words up to the next."""
    loose: list[str] = []
    said: list[tuple[str, list[str]]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if word.startswith("--") and len(word) > 2:
            said.append((name.replace("_", "-"), [value] if equals else []))
        elif word in flags or (word[:1] == "-" and word[1:2].isalpha()):
            said.append((word, []))
        else:
            (said[-1][1] if said else loose).append(word)
    return loose, said


def _expected(option: Option, values: Sequence[str]) -> str:
    """What an option should have been given instead of these values."""
    if not values:
        return f"needs a value, {option.accepts}"
    near = difflib.get_close_matches(values[0], option.choices, n=1)
    return f"give {option.accepts}" + (f"; did you mean {near[0]}?" if near else "")


def values_said(options: object, said: frozenset[str]) -> dict[str, Any]:
    """Of the fields of `options` those that were said, with their values."""
    return {name: value for name, value in vars(options).items() if name in said}


def as_flags(names: Iterable[str]) -> str:
    """The names of options as a person types them."""
    return " ".join(f"--{name.replace('_', '-')}" for name in sorted(names))


def without(words: Iterable[str], kind: type, names: Container[str]) -> list[str]:
    """The words of the command `kind`, but for the options of these names and their values; each of them takes a fixed number."""
    flags = {flag: option for option in options_of(kind) if option.name in names for flag in spellings(option)}
    kept, values = [], 0
    for word in words:
        name, equals, _ = word.partition("=")
        option = flags.get(name.replace("_", "-"))
        if option is not None:
            values = 0 if equals or option.switch else len(option.metavar.split())
        elif values:
            values -= 1
        else:
            kept.append(word)
    return kept


def at_least(least: int, **flags: int) -> None:
    """Refuse numbers that are too small."""
    for name, value in flags.items():
        if value < least:
            raise VitralError(f"--{name.replace('_', '-')} {value}: give {least} or more")


def unused(path: Path) -> Path:
    """The path, or the first of path-2, path-3, ... that is not there yet."""
    names = (path.with_name(f"{path.stem}-{n}{path.suffix}") for n in itertools.count(2))
    return next(each for each in itertools.chain([path], names) if not each.exists())


def program() -> str:
    """What a person types to run this command line: vitral where that is found, else the script that is running."""
    if shutil.which("vitral"):
        return "vitral"
    script = Path(sys.argv[0])
    if script.name == "__main__.py":
        return f"{_near(sys.executable)} -m vitral"
    return _near(script) if script.stem == "vitral" and script.exists() else "vitral"


def _near(path: str | Path) -> str:
    """The path as seen from the current folder, if that is shorter."""
    absolute = os.path.abspath(path)
    return shlex.quote(min(os.path.relpath(absolute), absolute, key=len))
