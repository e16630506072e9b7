"""Words of the command line to a dataclass, and what to type for the next command."""

import itertools
import os
import shlex
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vitral.errors import VitralError


def parse(kind: type, command: str, words: list[str]):  # type: ignore[no-untyped-def]
    """`words` as an instance of the dataclass `kind`, whose docstring is the command's help. One number for --image-size is a square."""
    import tyro

    return tyro.cli(kind, prog=f"vitral {command}", args=squared(words), config=(tyro.conf.OmitArgPrefixes,))


def squared(words: list[str]) -> list[str]:
    """The words, with --image-size 224 as --image-size 224 224."""
    spread: list[str] = []
    for i, word in enumerate(words):
        spread.append(word)
        alone = i + 1 == len(words) or words[i + 1].startswith("--") or not words[i + 1].isdigit()
        if word.isdigit() and i and words[i - 1] == "--image-size" and alone:
            spread.append(word)
    return spread


def flag_given(words: list[str], name: str) -> bool:
    """Whether the words set the field `name`."""
    flag = name.replace("_", "-")
    said = (word.partition("=")[0].replace("_", "-") for word in words)
    return any(word in (f"--{flag}", f"--no-{flag}") for word in said)


def flags_given(words: list[str], settings: object, names: Iterable[str]) -> dict[str, Any]:
    """Of the settings' fields `names` those that the words set, with their values."""
    return {name: getattr(settings, name) for name in names if flag_given(words, name)}


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
