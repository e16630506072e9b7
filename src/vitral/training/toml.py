"""Recipes as TOML: read with every key and type checked, merged over the defaults, and written so that they read back equal."""

import dataclasses
import difflib
import json
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path

from vitral.data.options import DataOptions
from vitral.errors import VitralError
from vitral.training.config import SECTIONS, Recipe

T = typing.TypeVar("T")
# Data options of runs whose recipes say nothing of them, as there were none yet.
BEFORE: dict[str, object] = {"near_copies": "apart"}

# What others call a field of ours.
ALIASES = {
    "learning_rate": "lr",
    "wd": "weight_decay",
    "label_smoothing": "smoothing",
    "batch": "batch_size",
    "num_epochs": "epochs",
    "max_steps": "steps",
    "num_workers": "workers",
    "architecture": "name",
    "model": "name",
    "width": "dim",
    "layers": "depth",
    "heads": "num_heads",
    "img_size": "image_size",
    "grad_clip": "clip",
    "warmup": "warmup_fraction",
}


def read_recipe(path: str | Path, *, stored: bool = False) -> Recipe:
    """The recipe of a TOML file: its values over the defaults; an unknown key is an error with the nearest name.

    stored: whether a run wrote it down, so that what it does not say is as it was then.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        near = sorted(p.name for p in path.parent.glob("*.toml")) if path.parent.is_dir() else []
        raise VitralError(f"{path}: no such recipe" + (f"; there are {', '.join(near)}" if near else "")) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise VitralError(f"{path}: cannot be read as TOML ({error}); mend it there") from error
    return merge(merge(Recipe(), {"data": BEFORE}, "before") if stored else Recipe(), table, str(path))


def merge(base: T, table: Mapping[str, object], where: str) -> T:
    """`base` with the fields that `table` names replaced, nested tables likewise, every value checked against its type."""
    known = {f.name: f for f in dataclasses.fields(base) if f.name != "said"}  # type: ignore[arg-type]
    hints = typing.get_type_hints(type(base))
    changes: dict[str, object] = {}
    if isinstance(base, Recipe):
        base = base.under(  # type: ignore[assignment]
            f"{name}.{key}" for name, section in table.items() if isinstance(section, dict) for key in section
        )
    for key, value in table.items():
        if key not in known:
            raise VitralError(f"{where}: unknown key {key!r}; {_meant(key, list(known), isinstance(base, Recipe))}")
        current = getattr(base, key)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, dict):
                raise VitralError(f"{where}: {key} is a section; write its fields under [{key}]")
            changes[key] = merge(current, value, f"{where} [{key}]")
        else:
            changes[key] = _checked(value, hints[key], f"{where}: {key} = {value!r}")
    return dataclasses.replace(base, **changes)  # type: ignore[type-var]


def _checked(value: object, hint: object, what: str) -> object:
    options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    for option in options:
        if typing.get_origin(option) is tuple:
            parts = typing.get_args(option)
            if parts[-1] is Ellipsis and isinstance(value, list | tuple):
                parts = (parts[0],) * len(value)
            if isinstance(value, list | tuple) and len(value) == len(parts):
                return tuple(_checked(v, p, what) for v, p in zip(value, parts, strict=True))
        elif typing.get_origin(option) is typing.Literal and isinstance(value, str):
            return value  # which ones there are, the section itself knows
        elif option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        elif isinstance(option, type) and type(value) is option:
            return value
    raise VitralError(f"{what} should be {' or '.join(_in_words(o) for o in options if o is not type(None))}")


def _in_words(hint: object) -> str:
    """A type, for a person."""
    if typing.get_origin(hint) is tuple:
        parts = typing.get_args(hint)
        if parts[-1] is Ellipsis:
            return f"a list of {_in_words(parts[0]).removeprefix('a ')}s, such as [0.5, 0.5, 0.5]"
        return {int: "[height, width], such as [32, 32]"}.get(parts[0], "[smallest, largest], such as [0.5, 1.0]")
    if typing.get_origin(hint) is typing.Literal:
        hint = str
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text in quotes"}
    return words[hint]  # type: ignore[index]


def _meant(key: str, known: list[str], top: bool) -> str:
    """What a person may have meant by an unknown key of a section, or of the whole recipe (`top`)."""
    homes = {f.name: section for section in SECTIONS for f in dataclasses.fields(getattr(Recipe(), section))}
    name = ALIASES.get(key, key)
    if name in known:
        return f"the nearest is {name!r}"
    if name in homes:
        return f"{name} belongs in [{homes[name]}]"
    aliases = [] if top else [alias for alias in ALIASES if ALIASES[alias] in known]
    if near := difflib.get_close_matches(key, [*known, *aliases], n=1):
        return f"the nearest is {near[0] if near[0] in known else ALIASES[near[0]]!r}"
    return f"the {'sections' if top else 'keys'} are {', '.join(known)}"


def stored_data_options(stored: dict[str, object]) -> DataOptions:
    """How the data of a finished run were read and divided, from the recipe in its model file."""
    section = stored.get("data", {})
    assert isinstance(section, dict)
    return merge(merge(DataOptions(), BEFORE, "before"), section, "the model file's recipe [data]")


def to_table(recipe: Recipe) -> dict[str, dict[str, object]]:
    """Section -> field -> value, without the fields that are None."""
    sections = {name: dataclasses.asdict(getattr(recipe, name)) for name in SECTIONS}
    return {name: {k: v for k, v in section.items() if v is not None} for name, section in sections.items()}


def to_toml(recipe: Recipe) -> str:
    """The recipe as a file that `read_recipe` reads back to an equal one."""
    lines = []
    for name, section in to_table(recipe).items():
        lines += [f"[{name}]", *(f"{key} = {literal(value)}" for key, value in section.items()), ""]
    return "\n".join(lines)


def literal(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace(
            "\x7f", "\\u007f"
        )  # TOML's basic strings are JSON's, but for DEL
    if isinstance(value, tuple | list):
        return "[" + ", ".join(literal(v) for v in value) + "]"
    return repr(value)
